r"""What a fit and its scoring will take, stage by stage.

Memory follows from the sizes (h w cells a grid, d channels, N patches, E = |C_emb|, D = |C_dist|, P weights):

    features        4 N d                              in memory, or on disk with a work folder
    coreset         12 N + 8 E d, pool and blocks
    position        about 14 h w bins
    neighborhood    20 P + 24 P while an epoch is saved; 8 batch (p^2 - 1) d and the activations
    scoring         six arrays of SCORE_BYTES, 4 P, logits, the histogram
    maps            8 bytes a pixel of all test images

Seconds are counts of work divided by rates that the package's own functions reach on this machine (`speeds`).  The
greedy selection alone depends on the features: it is taken to look at a quarter of all pairs.  Whatever else the
machine does meanwhile changes them.
"""

import math
from collections.abc import Sequence

import torch

from pnilib.config import NEEDS, PNIConfig
from pnilib.coreset import BLOCK_BYTES, POOL
from pnilib.estimate.dimensions import Sizes, sizes
from pnilib.estimate.speeds import DetectorSpeeds
from pnilib.estimate.stages import Estimate, Stage
from pnilib.inference import SCORE_BYTES

__all__ = ["FITTING", "Sizes", "estimate", "model_bytes", "scoring_bytes", "sizes", "stages_of", "weights_bytes"]

_BATCH = 8
"""images whose features are computed at once."""
_PAIRS = 0.25
"""share of all (patch, pick) pairs that greedy k-center looks at: less for structured features, more for noise."""

FITTING = ("features", "coreset", "position", "neighborhood", "calibration")
"""Stages of a fit; the others are of scoring."""


def estimate(
    config: PNIConfig, n_train: int, n_test: int, device: str = "cpu", measure: bool = True, on_disk: bool = True
) -> Estimate:
    """What fitting on `n_train` and scoring `n_test` images will take.

    `measure` times small pieces of the work for a few seconds, else seconds are NaN.  `on_disk`: with a work
    folder, as `fit_or_load` uses one.  Raises PNIError as the configuration's parts do.
    """
    speeds = DetectorSpeeds(config, sizes(config, n_train), device) if measure else None
    stages = stages_of(config, n_train, n_test, speeds, device=device, on_disk=on_disk)
    z = sizes(config, n_train)
    return Estimate(config, device, stages, 0 if on_disk else 4 * n_train * z.cells * z.d)


def stages_of(
    config: PNIConfig,
    n_train: int,
    n_test: int,
    speeds: DetectorSpeeds | None,
    *,
    device: str = "cpu",
    on_disk: bool = True,
    variants: Sequence[PNIConfig] | None = None,
    calibrations: int = 1,
) -> list[Stage]:
    """One row a stage; seconds are NaN without `speeds`.

    `variants`: settings that are scored together, sharing features and network; default the configuration's own.
    `calibrations`: how many of them are calibrated.
    """
    z, nb = sizes(config, n_train), config.setting in ("B", "E")
    variants = [config] if variants is None else variants
    memory, disk = _memory(config, z, n_train, n_test, nb), _disk(config, z, n_train, nb)
    memory["maps"] += 4 * config.image_crop**2 * n_test * (len(variants) - 1)
    kept = 0 if on_disk or torch.device(device).type != "cpu" else 4 * n_train * z.cells * z.d
    seconds = dict.fromkeys(memory, math.nan)
    if speeds is not None:
        seconds = _seconds(config, z, n_train, n_test, speeds, nb, variants, calibrations)
    return [
        Stage(name, seconds[name], need + (kept if name in FITTING else 0), disk.get(name, 0) * on_disk)
        for name, need in memory.items()
    ]


def weights_bytes(config: PNIConfig) -> int:
    """Bytes of the backbone's weights."""
    return 0 if config.backbone == "scattering" else 4 * 50_000_000


def model_bytes(config: PNIConfig, z: Sizes, n_train: int) -> int:
    """Bytes of a fitted model, in memory or in its file: C_emb, histogram, MLP."""
    mlp = z.mlp_parameters if config.setting in ("B", "E") else 0
    return 4 * z.n_emb * z.d + _histogram_bytes(config, z, n_train) + 4 * mlp


def _histogram_bytes(config: PNIConfig, z: Sizes, n_train: int) -> int:
    votes = 2 if n_train * config.patch**2 < 2**16 else 4
    return votes * z.cells * z.n_bins if "position" in NEEDS[config.setting] else 0


def scoring_bytes(config: PNIConfig, z: Sizes, n_train: int) -> int:
    """Bytes in passing while one image is scored, beside the model: copies of C_emb and histogram, six blocks,
    logits."""
    logits = 4 * z.cells * (3 * z.n_dist + 3 * config.mlp_width) if config.setting in ("B", "E") else 0
    image = 4 * (8 * z.cells * z.channels + 16 * config.image_crop**2)
    blocks = 6 * min(SCORE_BYTES, 4 * z.cells * z.n_emb)
    return image + blocks + 4 * z.n_emb * z.d + _histogram_bytes(config, z, n_train) + logits


def _memory(config: PNIConfig, z: Sizes, n_train: int, n_test: int, nb: bool) -> dict[str, int]:
    """Peak bytes of each stage beyond the features."""
    weights = weights_bytes(config)
    image = 4 * (8 * z.cells * z.channels + 16 * config.image_crop**2)
    coreset = 4 * z.n_emb * z.d
    labels = 24 * n_train * z.cells + 120 * z.cells * z.d + 4 * z.n_bins * z.d
    histogram = _histogram_bytes(config, z, n_train)
    activations = 16 * config.mlp_batch * config.mlp_width * config.mlp_layers
    batch = min(config.mlp_batch, n_train * z.cells)
    mlp = 4 * z.mlp_parameters if nb else 0
    scoring = weights + model_bytes(config, z, n_train) + scoring_bytes(config, z, n_train)
    pixels = 8 * config.image_crop**2
    projected = {"none": 0, "sparse": 1024, "dense128": 512}[config.coreset_proj]
    calibrated = min(config.calibration_images, n_train)
    return {
        "features": weights + _BATCH * image,
        "coreset": weights + (12 + projected) * z.n_patches + 2 * coreset + 12 * POOL * z.d + 4 * BLOCK_BYTES,
        "position": (weights + coreset + labels + 10 * z.cells * z.n_bins + 2 * histogram) if histogram else 0,
        "neighborhood": (weights + coreset + labels + 11 * mlp + 8 * batch * z.mlp_inputs + activations) if nb else 0,
        "calibration": (scoring + calibrated * pixels) if calibrated else 0,
        "scoring": scoring + n_test * pixels // 2,
        "maps": weights + coreset + histogram + mlp + n_test * pixels,
    }


def _disk(config: PNIConfig, z: Sizes, n_train: int, nb: bool) -> dict[str, int]:
    """Bytes in the work folder and in the model; an epoch is written beside the previous one."""
    return {
        "features": 4 * n_train * z.cells * z.d,
        "coreset": 2 * 4 * z.n_emb * z.d,
        "position": _histogram_bytes(config, z, n_train),
        "neighborhood": (2 * 16 + 4) * z.mlp_parameters if nb else 0,
    }


def _seconds(
    config: PNIConfig, z: Sizes, n_train: int, n_test: int, speeds: DetectorSpeeds, nb: bool,
    variants: Sequence[PNIConfig], calibrations: int,
) -> dict[str, float]:  # fmt: skip
    """Counts of work divided by speeds."""
    scored = scored_seconds(config, z, speeds, [config])
    cells = n_train * z.cells
    found = {
        "features": n_train * speeds.image * (1 if config.feature_norm == "none" else 2),
        "coreset": 8 * z.n_patches * z.d / speeds.read
        + z.n_emb * speeds.pick
        + _PAIRS * 2 * z.n_patches * z.n_emb * z.d / speeds.flops,
        "position": cells * z.n_bins * speeds.label if "position" in NEEDS[config.setting] else 0.0,
        "neighborhood": 0.0,
        "calibration": calibrations * min(config.calibration_images, n_train) * (scored + speeds.smooth),
        "scoring": n_test * scored_seconds(config, z, speeds, variants),
        "maps": n_test * speeds.smooth * len(variants),
    }
    if nb and (config.setting == "B" or config.pos_bins == "emb"):  # the targets; else the histogram's bins
        found["neighborhood"] = cells * z.n_dist * speeds.label
    if nb:
        step = 16 * z.mlp_parameters / speeds.add + 1e-3
        epoch = z.n_patches * (speeds.gather + 6 * z.mlp_parameters / speeds.flops)
        epoch += math.ceil(z.n_patches / config.mlp_batch) * step + 32 * z.mlp_parameters / 0.5e9
        found["neighborhood"] += config.mlp_epochs * epoch
    return found


def scored_seconds(config: PNIConfig, z: Sizes, speeds: DetectorSpeeds, variants: Sequence[PNIConfig]) -> float:
    """From image to patch scores, under some settings at once: features and network once, distances and gates each."""
    network = 2 * z.mlp_parameters * z.cells / speeds.flops if config.setting in ("B", "E") else 0.0
    shares = [min(1.0, variant.emb_ratio / config.emb_ratio) for variant in variants]
    return speeds.image + network + sum(shares) * z.cells * z.n_emb * speeds.gate
