"""One frozen, validated description of a run.

Every parameter lives here once, with its unit, range, paper source and the pipeline
stage that it first influences.  Defaults are the paper's; where the paper is silent the
default is marked "silent" and explained.  `B1` ... `B25` are the differences between
paper and released code listed in docs/PAPER_VS_RELEASED.md: each is a switch here.
"""

import dataclasses
import difflib
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pnilib.errors import PNIError
from pnilib.images import Geometry

__all__ = ["PROFILES", "SETTINGS", "STAGES", "PNIConfig"]

STAGES = ("features", "coreset", "position", "neighborhood", "scoring", "maps")
"""Pipeline order.  A field of one stage changes that stage and those built on it."""

_PARENTS: dict[str, tuple[str, ...]] = {
    "features": (),
    "coreset": ("features",),
    "position": ("coreset",),
    "neighborhood": ("coreset",),
    "scoring": ("position", "neighborhood"),
    "maps": ("scoring",),
}

SETTINGS = {
    "A": "no gate: plain nearest neighbor in the embedding coreset (the paper's baseline)",
    "B": "neighborhood gate alone",
    "position": "position gate alone",
    "E": "both, combined by `combine` (PNI without refinement)",
}
"""The paper's ablation settings that need no refinement network (Table S7)."""


def _param(
    default: Any,
    doc: str,
    stage: str,
    source: str,
    *,
    choices: tuple[Any, ...] | None = None,
    low: float | None = None,
    high: float | None = None,
    odd: bool = False,
) -> Any:
    meta = dict(doc=doc, stage=stage, source=source, choices=choices, low=low, high=high, odd=odd)
    return dataclasses.field(default=default, metadata=meta)


@dataclass(frozen=True)
class PNIConfig:
    """A run of PNI.  `PNIConfig()` is the paper; `PNIConfig.profile(name)` a named variant.

    Raises PNIError for an unknown name, a wrong type or a value out of range.
    """

    # -- input and features (paper sec. 2, 4.1) --------------------------------------------
    image_resize: int = _param(512, "px, side after resizing", "features", "sec. 4.1", low=8, high=4096)
    image_crop: int = _param(480, "px, side of the centre crop", "features", "sec. 4.1", low=8, high=4096)
    resize: str = _param(
        "square",
        "resize to a square, or the shorter edge (B20, released)",
        "features",
        "sec. 4.1",
        choices=("square", "short"),
    )
    backbone: str = _param(
        "wide_resnet101_2",
        "feature extractor; `scattering` needs no weights",
        "features",
        "sec. 4.1",
        choices=(
            "wide_resnet101_2",
            "wide_resnet50_2",
            "resnext101_32x8d",
            "densenet201",
            "resnet18",
            "resnet50",
            "scattering",
        ),
    )
    weights: str = _param(
        "imagenet",
        "`imagenet` (torchvision's download), `random`, or a file",
        "features",
        "sec. 4.1",
    )
    agg_patch: int = _param(
        5,
        "cells, width of the averaged patch (B3); 1 = none",
        "features",
        "silent: released 5",
        low=1,
        high=15,
        odd=True,
    )
    dim: int = _param(
        1024,
        "d, embedding dimension; ignored by `scattering` unless half_whiten",
        "features",
        "silent: released 1024",
        low=2,
        high=8192,
    )
    feature_norm: str = _param(
        "none",
        "standardisation fitted on training features",
        "features",
        "not in the paper",
        choices=("none", "channel", "half_whiten"),
    )
    border: str = _param(
        "keep",
        "`replicate`: the outer `border_cells` neither fit nor score, the map repeats "
        "the inner ones - for every setting (B11-B14)",
        "coreset",
        "silent: keep; released replicate",
        choices=("keep", "replicate"),
    )
    border_cells: int = _param(2, "cells, width of that border", "coreset", "released 2", low=1, high=16)

    # -- coresets (paper sec. 3.1, 3.2) ----------------------------------------------------
    emb_ratio: float = _param(0.01, "|C_emb| / number of training patches", "coreset", "sec. 4.1", low=1e-6, high=1.0)
    dist_size: int = _param(2048, "|C_dist|, vectors", "coreset", "sec. 4.1", low=2, high=65536)
    coreset_proj: str = _param(
        "none",
        "projection before greedy k-center (B17)",
        "coreset",
        "silent: released sparse",
        choices=("none", "sparse", "dense128"),
    )
    coreset_start: str = _param(
        "kept",
        "is the random start point in the coreset? (B17)",
        "coreset",
        "silent: released dropped",
        choices=("kept", "dropped"),
    )

    # -- position distribution (paper Algorithm 1) -------------------------------------------
    patch: int = _param(
        9,
        "p, cells, neighborhood width of eq. (7) and Algorithm 1",
        "coreset",
        "sec. 4.1",
        low=3,
        high=31,
        odd=True,
    )
    pos_bins: str = _param(
        "dist",
        "histogram over C_dist (Algorithm 1) or C_emb (B4, released)",
        "position",
        "Algorithm 1",
        choices=("dist", "emb"),
    )

    # -- neighborhood distribution (paper sec. 3.2, eq. 7) -----------------------------------
    nb_centre: str = _param(
        "excluded",
        "`leaked`: the centre stays, its right neighbor goes (B1, released)",
        "neighborhood",
        "eq. (7)",
        choices=("excluded", "leaked"),
    )
    nb_pad: str = _param(
        "zero",
        "neighbors outside the map (B15)",
        "neighborhood",
        "silent: zero",
        choices=("zero", "replicate"),
    )
    mlp_layers: int = _param(10, "N_MLP, fully connected layers", "neighborhood", "sec. 4.1", low=1, high=50)
    mlp_width: int = _param(2048, "c_MLP, channels", "neighborhood", "sec. 4.1", low=1, high=16384)
    mlp_dropout: float = _param(
        0.0, "dropout probability (B2)", "neighborhood", "not in the paper; released 0.5", low=0.0, high=0.95
    )
    mlp_epochs: int = _param(15, "epochs", "neighborhood", "sec. 4.1", low=1, high=1000)
    mlp_batch: int = _param(2048, "patches a step", "neighborhood", "sec. 4.1", low=2, high=1_000_000)
    mlp_lr: float = _param(1e-3, "Adam learning rate", "neighborhood", "sec. 4.1", low=1e-8, high=1.0)
    mlp_lr_step: int = _param(5, "epochs between learning-rate decays", "neighborhood", "sec. 4.1", low=1, high=1000)
    mlp_lr_gamma: float = _param(0.1, "learning-rate decay factor", "neighborhood", "sec. 4.1", low=0.0, high=1.0)
    mlp_select: str = _param(
        "last",
        "keep the last epoch, or the best on `mlp_val_fraction` of the patches (B16)",
        "neighborhood",
        "not in the paper; released best",
        choices=("last", "best"),
    )
    mlp_val_fraction: float = _param(
        0.1, "held-out share when mlp_select=best", "neighborhood", "released 0.1", low=0.001, high=0.5
    )
    precision: str = _param(
        "fp32", "arithmetic of the MLP's training", "neighborhood", "silent", choices=("fp32", "bf16")
    )

    # -- scoring (paper eqs. 2-8) --------------------------------------------------------------
    setting: str = _param(
        "E",
        "which gates: " + "; ".join(f"{k} = {v}" for k, v in SETTINGS.items()),
        "scoring",
        "Table S7",
        choices=tuple(SETTINGS),
    )
    combine: str = _param(
        "prob",
        "`prob` eq. (6); `score` the mean of two gated scores (B5, released); `product` p_nb p_pos / p(c) (ours)",
        "scoring",
        "eq. (6)",
        choices=("prob", "score", "product"),
    )
    temperature: float = _param(2.0, "T of the softmax at inference", "scoring", "sec. 3.2", low=0.01, high=100.0)
    tau: str = _param(
        "emb",
        "gate threshold 1/(2|C_emb|), or 1/(2|C_dist|) (B9)",
        "scoring",
        "sec. 3.1",
        choices=("emb", "dist"),
    )
    nb_gate: str = _param(
        "exact", "`rank`: the released rank transfer (B6)", "scoring", "eq. (4)", choices=("exact", "rank")
    )
    gate_chunk: int = _param(
        1,
        "8: only the first 1/8 of the ranks is searched, else the farthest vector counts (B7, B8, released)",
        "scoring",
        "eq. (4)",
        choices=(1, 8),
    )
    lambda_: float = _param(1.0, "lambda of eq. (8), 1/feature distance", "scoring", "eq. (8)", low=1e-6, high=1e6)
    likelihood: str = _param(
        "exp",
        "`exp`: eq. (8); `density`: lambda exp(-lambda d), adds -log(lambda) to every score "
        "(B10, released with lambda 0.99)",
        "scoring",
        "eq. (8)",
        choices=("exp", "density"),
    )
    baseline: str = _param(
        "A",
        "what setting A computes: the paper's distance, or `patchcore`: the mean squared distance to "
        "`baseline_neighbors` vectors (B24)",
        "scoring",
        "S4",
        choices=("A", "patchcore"),
    )
    baseline_neighbors: int = _param(
        1, "nearest neighbors averaged by baseline=patchcore", "scoring", "PatchCore 1", low=1, high=64
    )

    # -- maps and image scores (paper sec. 3.1) ------------------------------------------------
    sigma: float = _param(
        8.0, "px, standard deviation of the Gaussian; 0 = none (B22)", "maps", "sec. 3.1", low=0.0, high=200.0
    )
    image_score: str = _param(
        "max",
        "of the final map (max, top1 = mean of the top 1 %), of the patch map (raw_max), or "
        "PatchCore's reweighted one (B23)",
        "maps",
        "silent: max",
        choices=("max", "raw_max", "top1", "reweight"),
    )
    reweight_neighbors: int = _param(
        3, "coreset neighbors of image_score=reweight", "maps", "released 3", low=2, high=64
    )
    ens_norm: str = _param(
        "minmax_train",
        "ensemble scaling: from training maps, or from the test set (B25, released: transductive)",
        "maps",
        "silent: honest default",
        choices=("minmax_train", "minmax_test"),
    )
    mask_resize: str = _param(
        "nearest",
        "ground truth: nearest, or bilinear and floor (B21, released)",
        "maps",
        "silent: nearest",
        choices=("nearest", "floor"),
    )
    calibration_images: int = _param(
        50,
        "training images scored without their own coreset vectors, for the normal-only threshold and "
        "ens_norm=minmax_train; 0 = none",
        "maps",
        "ours",
        low=0,
        high=100_000,
    )
    calibration_fpr: float = _param(
        0.02,
        "tolerated share of false alarms of the normal-only threshold",
        "maps",
        "ours",
        low=0.0,
        high=0.5,
    )
    seed: int = _param(0, "of every random choice", "features", "B29", low=0, high=2**31 - 1)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _validated(field, getattr(self, field.name)))
        if self.image_crop > self.image_resize:
            raise PNIError(
                f"image_crop={self.image_crop} is larger than image_resize={self.image_resize}: choose a crop that fits"
            )
        if self.nb_gate == "rank" and self.setting == "E" and self.combine != "score":
            raise PNIError(f"nb_gate=rank is a gate of its own: not with combine={self.combine}, use combine=score")

    @classmethod
    def names(cls) -> list[str]:
        """Every field's name, in pipeline order."""
        return [f.name for f in dataclasses.fields(cls)]

    @classmethod
    def describe(cls) -> list[dict[str, Any]]:
        """One row a field: name, default, meaning, allowed values, stage, source."""
        return [
            dict(
                name=f.name,
                default=f.default,
                meaning=f.metadata["doc"],
                allowed=_allowed(f),
                stage=f.metadata["stage"],
                source=f.metadata["source"],
            )
            for f in dataclasses.fields(cls)
        ]

    @classmethod
    def profile(cls, name: str) -> "PNIConfig":
        """A named profile: one of PROFILES."""
        if name not in PROFILES:
            raise PNIError(f"profile {name!r} is unknown: choose one of {', '.join(PROFILES)}")
        return cls(**PROFILES[name])

    def replace(self, **overrides: Any) -> "PNIConfig":
        """A copy with some fields changed; an unknown name is refused with the nearest one."""
        for name in overrides:
            _known(name)
        return dataclasses.replace(self, **overrides)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "PNIConfig":
        """Inverse of `to_dict`; unknown names are refused."""
        for name in values:
            _known(name)
        return cls(**values)

    @classmethod
    def parse_overrides(cls, pairs: list[str]) -> dict[str, Any]:
        """`["sigma=4", "nb_centre=leaked"]` -> `{"sigma": 4.0, "nb_centre": "leaked"}`."""
        kinds = {f.name: f.type for f in dataclasses.fields(cls)}
        parsed: dict[str, Any] = {}
        for pair in pairs:
            name, equals, text = pair.partition("=")
            if not equals:
                raise PNIError(f"{pair!r} is not NAME=VALUE: write for instance sigma=4")
            _known(name)
            kind: Any = kinds[name]
            try:
                parsed[name] = kind(text)
            except ValueError:
                raise PNIError(f"{name}={text}: not {'an integer' if kind is int else 'a number'}") from None
        return parsed

    @property
    def geometry(self) -> Geometry:
        """How images and masks are resized and cropped."""
        return Geometry(self.image_resize, self.image_crop, self.resize, self.mask_resize)

    def stage_key(self, stage: str) -> str:
        """Hash of all fields that the artefacts of `stage` depend on (hex, 16 characters)."""
        wanted = {stage}
        frontier = [stage]
        while frontier:
            for parent in _PARENTS[frontier.pop()]:
                if parent not in wanted:
                    wanted.add(parent)
                    frontier.append(parent)
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.metadata["stage"] in wanted}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _known(name: str) -> None:
    names = PNIConfig.names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "`pni config` lists them all"
        raise PNIError(f"there is no setting {name!r}: {hint}")


def _allowed(field: Any) -> str:
    meta = field.metadata
    if meta["choices"]:
        return " | ".join(str(c) for c in meta["choices"])
    if meta["low"] is None:
        return "text"
    return f"{meta['low']:g} ... {meta['high']:g}" + (", odd" if meta["odd"] else "")


def _validated(field: Any, value: Any) -> Any:
    meta, name = field.metadata, field.name
    if field.type is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, field.type) or isinstance(value, bool):  # type: ignore[arg-type]
        raise PNIError(f"{name}={value!r} is not of type {field.type.__name__}")  # type: ignore[union-attr]
    bad = (
        (meta["choices"] is not None and value not in meta["choices"])
        or (meta["low"] is not None and not (meta["low"] <= value <= meta["high"]))  # also refuses NaN
        or (meta["odd"] and value % 2 == 0)
        or value == ""
    )
    if bad:
        raise PNIError(f"{name}={value!r} is not allowed: {_allowed(field)} ({meta['doc']})")
    return value


_EMBEDDED: dict[str, Any] = dict(
    backbone="scattering",
    feature_norm="half_whiten",
    dim=128,
    agg_patch=3,
    image_resize=256,
    image_crop=256,
    patch=5,
    dist_size=1024,
    mlp_layers=4,
    mlp_width=256,
    mlp_epochs=4,
    mlp_lr_step=2,
    combine="score",  # eq. (6) changes nothing with this backbone (README)
)
_DEMO = _EMBEDDED | dict(
    combine="prob",  # the paper's rule; `pni demo` and the notebooks show the others beside it
    agg_patch=1,  # 3 would let plain nearest neighbors see half of the logical faults; the demo is there to teach
    image_resize=192,
    image_crop=192,
    dim=64,
    emb_ratio=0.05,
    dist_size=256,
    mlp_layers=3,
    mlp_width=256,
    mlp_batch=512,
    sigma=6.0,
)

PROFILES: dict[str, dict[str, Any]] = {
    "paper": {},
    "released": dict(
        resize="short",
        border="replicate",
        coreset_proj="sparse",
        coreset_start="dropped",
        pos_bins="emb",
        nb_centre="leaked",
        mlp_dropout=0.5,
        mlp_select="best",
        combine="score",
        nb_gate="rank",
        gate_chunk=8,
        lambda_=0.99,
        likelihood="density",
        ens_norm="minmax_test",
        mask_resize="floor",
        seed=23,
    ),
    "embedded": _EMBEDDED,
    "demo": _DEMO,
    "smoke": _DEMO
    | dict(
        image_resize=96,
        image_crop=96,
        dim=32,
        emb_ratio=0.02,
        dist_size=32,
        patch=3,
        mlp_layers=2,
        mlp_width=64,
        mlp_epochs=2,
        sigma=3.0,
    ),
}
"""`paper`; `released` = the authors' code as it really behaves; `embedded` = real images, no weights;
`demo` = the demo data on two cores; `smoke` = tests."""
