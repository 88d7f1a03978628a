"""Settings of the detector: everything up to the anomaly map (paper sec. 3.1, 3.2, 4.1)."""

from dataclasses import dataclass

from pnilib.config.fields import param

__all__ = ["NEEDS", "SETTINGS", "Coreset", "Features", "Input", "Map", "Neighborhood", "Position", "Scoring"]

SETTINGS = {
    "A": "no gate: plain nearest neighbor in the embedding coreset (the paper's baseline)",
    "B": "neighborhood gate alone",
    "position": "position gate alone",
    "E": "both, combined by `combine` (PNI without refinement)",
}
"""The paper's ablation settings that need no refinement network (Table S7)."""

NEEDS: dict[str, tuple[str, ...]] = {
    "A": (),
    "B": ("neighborhood",),
    "position": ("position",),
    "E": ("position", "neighborhood"),
}
"""Setting -> the distributions that its gates look at: what `fit` learns, what a model must hold to score with it."""


@dataclass(frozen=True)
class Input:
    """Images and masks -> squares (paper sec. 4.1)."""

    image_resize: int = param(512, "px, side after resizing", "features", "sec. 4.1", low=8, high=4096)
    image_crop: int = param(480, "px, side of the centre crop", "features", "sec. 4.1", low=8, high=4096)
    resize: str = param(
        "square",
        "resize to a square, or the shorter edge (B20, released)",
        "features",
        "sec. 4.1",
        choices=("square", "short"),
    )
    bit_depth: int = param(
        0,
        "bits in use of images of more than 8 bits, 12 for a camera's Mono12; 0 = all 16",
        "features",
        "not in the paper",
        choices=(0, 8, 9, 10, 11, 12, 13, 14, 15, 16),
    )
    mask_resize: str = param(
        "nearest",
        "ground truth: nearest, or bilinear and floor (B21, released)",
        "decision",
        "silent: nearest",
        choices=("nearest", "floor"),
    )


@dataclass(frozen=True)
class Features:
    """Squares -> one embedding a cell (paper sec. 2, 4.1)."""

    backbone: str = param(
        "wide_resnet101_2",
        "feature extractor: one of torchvision's (`pni backbones`), any of timm's by its name, as "
        "tf_efficientnet_lite0, or `scattering`, which needs no weights",
        "features",
        "sec. 4.1",
    )
    levels: str = param(
        "auto",
        "which levels, by stride (8,16) or by timm's name of the module (blocks.5,blocks.8); auto = strides 8 and 16, "
        "or of a network with one stride the blocks at a half and three quarters of its depth",
        "features",
        "sec. 2: levels 2 and 3",
    )
    weights: str = param(
        "imagenet",
        "`imagenet` (an installed package, else torchvision's or timm's download), `random`, or a file",
        "features",
        "sec. 4.1",
    )
    aggregation: str = param(
        "pool",
        "`pool`: adaptive average pooling to `dim` channels; `concat`: the levels' channels side by side, as they are "
        "(scattering always)",
        "features",
        "sec. 2",
        choices=("pool", "concat"),
    )
    agg_patch: int = param(
        5,
        "cells, width of the averaged patch (B3); 1 = none",
        "features",
        "silent: released 5",
        low=1,
        high=15,
        odd=True,
    )
    dim: int = param(
        1024,
        "d, embedding dimension; ignored by aggregation=concat and scattering, unless half_whiten",
        "features",
        "silent: released 1024",
        low=2,
        high=8192,
    )
    feature_norm: str = param(
        "none",
        "standardisation fitted on training features",
        "features",
        "not in the paper",
        choices=("none", "channel", "half_whiten"),
    )


@dataclass(frozen=True)
class Coreset:
    """Which embeddings are kept (paper sec. 3.1, 3.2)."""

    border: str = param(
        "keep",
        "`replicate`: the outer `border_cells` neither fit nor score, the map repeats "
        "the inner ones - for every setting (B11-B14)",
        "coreset",
        "silent: keep; released replicate",
        choices=("keep", "replicate"),
    )
    border_cells: int = param(2, "cells, width of that border", "coreset", "released 2", low=1, high=16)
    emb_ratio: float = param(0.01, "|C_emb| / number of training patches", "coreset", "sec. 4.1", low=1e-6, high=1.0)
    emb_max: int = param(
        0,
        "|C_emb|, at most so many vectors whatever the ratio; 0 = no limit",
        "coreset",
        "ours",
        low=0,
        high=10_000_000,
    )
    dist_size: int = param(2048, "|C_dist|, vectors", "coreset", "sec. 4.1", low=2, high=65536)


@dataclass(frozen=True)
class Position:
    """What was seen at each place (paper Algorithm 1)."""

    patch: int = param(
        9,
        "p, cells, width of the neighborhood in eq. (7) and of the votes in Algorithm 1",
        "window",
        "sec. 4.1",
        low=3,
        high=31,
        odd=True,
    )
    veto_nats: float = param(
        10.0,
        "with gate=soft: nats of position evidence against a vector that count as much as the mean distance of a "
        "normal patch",
        "position",
        "ours",
        low=0.1,
        high=1e6,
    )


@dataclass(frozen=True)
class Neighborhood:
    """What the neighbors let one expect (paper sec. 3.2, eq. 7)."""

    nb_pad: str = param(
        "zero",
        "neighbors outside the map (B15)",
        "neighborhood",
        "silent: zero",
        choices=("zero", "replicate"),
    )
    mlp_layers: int = param(10, "N_MLP, fully connected layers", "neighborhood", "sec. 4.1", low=1, high=50)
    mlp_width: int = param(2048, "c_MLP, channels", "neighborhood", "sec. 4.1", low=1, high=16384)
    mlp_dropout: float = param(
        0.0, "dropout probability (B2)", "neighborhood", "not in the paper; released 0.5", low=0.0, high=0.95
    )
    mlp_epochs: int = param(15, "epochs", "neighborhood", "sec. 4.1", low=1, high=1000)
    mlp_batch: int = param(2048, "patches a step", "neighborhood", "sec. 4.1", low=2, high=1_000_000)
    mlp_lr: float = param(1e-3, "Adam learning rate", "neighborhood", "sec. 4.1", low=1e-8, high=1.0)
    mlp_lr_step: int = param(5, "epochs between learning-rate decays", "neighborhood", "sec. 4.1", low=1, high=1000)
    mlp_lr_gamma: float = param(0.1, "learning-rate decay factor", "neighborhood", "sec. 4.1", low=0.0, high=1.0)
    precision: str = param(
        "fp32", "arithmetic of the MLP's training", "neighborhood", "silent", choices=("fp32", "bf16")
    )


@dataclass(frozen=True)
class Scoring:
    """Distances and distributions -> patch scores (paper sec. 3.1, eqs. 2-8)."""

    setting: str = param(
        "E",
        "which gates: " + "; ".join(f"{k} = {v}" for k, v in SETTINGS.items()),
        "scoring",
        "Table S7",
        choices=tuple(SETTINGS),
    )
    combine: str = param(
        "prob",
        "`prob` eq. (6); `score` the mean of two gated scores (B5, released); `product` p_nb p_pos / p(c) (ours)",
        "scoring",
        "eq. (6)",
        choices=("prob", "score", "product"),
    )
    gate: str = param(
        "hard",
        "of setting=position: `hard` eq. (5); `soft` adds to each distance what the position says against the vector, "
        "with constants learnt from normal images (ours)",
        "scoring",
        "eq. (5)",
        choices=("hard", "soft"),
    )
    level_power: float = param(
        0.5,
        "with gate=soft: scores are divided by this power of what normal images score at the same place; 0 = not",
        "scoring",
        "ours",
        low=0.0,
        high=1.0,
    )
    temperature: float = param(2.0, "T of the softmax at inference", "scoring", "sec. 3.2", low=0.01, high=100.0)
    lambda_: float = param(1.0, "lambda of eq. (8), 1/feature distance", "scoring", "eq. (8)", low=1e-6, high=1e6)
    baseline: str = param(
        "A",
        "what setting A computes: the paper's distance, or `patchcore`: the mean squared distance to "
        "`baseline_neighbors` vectors (B24)",
        "scoring",
        "S4",
        choices=("A", "patchcore"),
    )
    baseline_neighbors: int = param(
        1, "nearest neighbors averaged by baseline=patchcore", "scoring", "PatchCore 1", low=1, high=64
    )


@dataclass(frozen=True)
class Map:
    """Patch scores -> anomaly map, image score, decision (paper sec. 3.1, 4.1)."""

    sigma: float = param(
        8.0, "px, standard deviation of the Gaussian; 0 = none (B22)", "maps", "sec. 3.1", low=0.0, high=200.0
    )
    image_score: str = param(
        "max",
        "of the final map (max, top1 = mean of the top 1 %), or of the patch map (raw_max) (B23)",
        "decision",
        "silent: max",
        choices=("max", "raw_max", "top1"),
    )
    ens_norm: str = param(
        "minmax_train",
        "ensemble scaling: from training maps, or from the test set (B25, released: transductive)",
        "decision",
        "silent: honest default",
        choices=("minmax_train", "minmax_test"),
    )
    calibration_images: int = param(
        50,
        "training images scored without their own coreset vectors, for the normal-only threshold and "
        "ens_norm=minmax_train; 0 = none",
        "decision",
        "ours",
        low=0,
        high=100_000,
    )
    calibration_fpr: float = param(
        0.02,
        "tolerated share of false alarms of the normal-only threshold",
        "decision",
        "ours",
        low=0.0,
        high=0.5,
    )
