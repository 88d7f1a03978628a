"""Counts that seconds, memory and disk follow from."""

from dataclasses import dataclass
from functools import cache

import torch

from pnilib.config import PNIConfig
from pnilib.coreset import coreset_size
from pnilib.detector import steps
from pnilib.errors import PNIError
from pnilib.features.backbones import level_shapes
from pnilib.store.text import many

__all__ = ["Sizes", "refinement_weights", "sizes", "training_side"]


@dataclass(frozen=True)
class Sizes:
    """Counts that everything follows from: grid side, the levels' channels, d, cells an image, N candidates,
    |C_emb|, |C_dist|, weights."""

    side: int
    channels: int
    d: int
    cells: int
    n_patches: int
    n_emb: int
    n_dist: int
    n_bins: int
    mlp_inputs: int
    mlp_parameters: int


def sizes(config: PNIConfig, n_train: int) -> Sizes:
    """The sizes of a fit on so many images."""
    levels = level_shapes(config)
    side, channels = levels[0][1], sum(channels for channels, _, _ in levels)
    pooled = config.aggregation == "pool" and config.backbone != "scattering"
    raw = config.dim if pooled else channels
    d = min(config.dim, raw) if config.feature_norm == "half_whiten" else raw
    inner = side - 2 * config.border_cells if config.border == "replicate" else side
    candidates = n_train * inner**2
    if inner < 1 or candidates < 2:
        raise PNIError(
            f"{many(n_train, 'training image')} of {side} x {side} cells: no patch is left, check the settings"
        )
    n_emb = min(coreset_size(candidates, config.emb_ratio, config.emb_max), candidates)
    n_dist = min(config.dist_size, n_emb)
    inputs = (config.patch**2 - 1) * d
    return Sizes(
        side=side,
        channels=channels,
        d=d,
        cells=side**2,
        n_patches=candidates,
        n_emb=n_emb,
        n_dist=n_dist,
        n_bins=n_emb if "emb_bins" in config.released else n_dist,
        mlp_inputs=inputs,
        mlp_parameters=_mlp_parameters(inputs, n_dist, config),
    )


def _mlp_parameters(inputs: int, n_dist: int, config: PNIConfig) -> int:
    total, width = 0, inputs
    for _ in range(config.mlp_layers - 1):
        total += (width + 1) * config.mlp_width + 2 * config.mlp_width  # weights, biases; batch normalization
        width = config.mlp_width
    return total + (width + 1) * n_dist


def training_side(config: PNIConfig) -> int:
    """Side of what trains the refinement network, px."""
    return min(config.refine_crop or config.image_crop, config.image_crop)


@cache
def refinement_weights(config: PNIConfig) -> int:
    """How many weights the refinement network has."""
    with torch.device("meta"):
        return sum(p.numel() for p in steps.network_class(config)(config).parameters())
