"""Which function each step of a run uses: the paper's, or the release's where the configuration names it.

The one place where `released` is looked at for fitting and scoring; what the names mean: `pnilib.released`.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from jaxtyping import Float32, Int64
from torch import Tensor

from pnilib.config import PNIConfig
from pnilib.coreset import Coreset
from pnilib.maps import image_scores as scores_of_maps
from pnilib.maps import repeat_inner
from pnilib.refinement.augmentation import COLOUR_CHANGES
from pnilib.refinement.fusion import Refinement
from pnilib.refinement.network import RefineNet
from pnilib.released.coreset import sparse_projection
from pnilib.released.neighborhood import HELD_OUT, leaked_offsets
from pnilib.released.refinement import BRIGHTNESSES, ReleasedNet, misaligned
from pnilib.released.scoring import (
    REWEIGHTED_NEIGHBORS,
    density,
    dist_threshold,
    first_eighth,
    rank_transfer,
    reweighted,
)
from pnilib.scoring import PatchScores, score_patches, tau

__all__ = [
    "bins_of",
    "fuse",
    "image_scores",
    "neighbors_kept",
    "network_class",
    "offsets",
    "plus_density",
    "position_bins",
    "score",
    "selection",
    "threshold",
    "training_of_mlp",
    "training_of_network",
]


def selection(config: PNIConfig) -> dict[str, Any]:
    """Of `select_coreset`."""
    projected = "sparse_projection" in config.released
    return {
        "project": partial(sparse_projection, seed=config.seed) if projected else None,
        "keep_start": "start_dropped" not in config.released,
    }


def bins_of(coreset: Coreset, config: PNIConfig) -> Float32[Tensor, "bins d"]:
    """The vectors over which positions are counted: C_dist (Algorithm 1)."""
    return coreset.embedding if "emb_bins" in config.released else coreset.distribution


def position_bins(coreset: Coreset, config: PNIConfig) -> Int64[Tensor, " m"] | None:
    """The position's bin of each C_emb vector; None where each has its own."""
    return None if "emb_bins" in config.released else coreset.emb_to_dist


def offsets(config: PNIConfig) -> list[tuple[int, int]] | None:
    """Of `NeighborhoodMLP`."""
    return leaked_offsets(config.patch) if "centre_leak" in config.released else None


def training_of_mlp(config: PNIConfig) -> dict[str, Any]:
    """Of `train_neighborhood`."""
    return {"offsets": offsets(config), "held_out": HELD_OUT if "best_epoch" in config.released else 0.0}


def score(
    distances: Float32[Tensor, "b m"],
    p_neighborhood: Float32[Tensor, "b n_dist"] | None,
    p_position: Float32[Tensor, "b bins"] | None,
    marginal: Float32[Tensor, " bins"] | None,
    coreset: Coreset,
    config: PNIConfig,
) -> PatchScores:
    """`score_patches` with the threshold and the gates of the configuration."""
    n_emb, released = distances.shape[1], config.released
    searches: dict[str, Any] = {}
    if "first_eighth" in released:
        searches = {"by_neighborhood": first_eighth, "by_position": first_eighth}
    if "rank_transfer" in released:
        parts = 8 if "first_eighth" in released else 1
        searches["by_neighborhood"] = lambda distances, is_open, _: rank_transfer(distances, is_open, parts)
    device, bins = distances.device, position_bins(coreset, config)
    scores = score_patches(
        distances,
        p_neighborhood,
        p_position,
        marginal,
        coreset.emb_to_dist.to(device),
        None if bins is None else bins.to(device),
        config,
        threshold(n_emb, coreset.n_dist, config),
        **searches,
    )
    return replace(scores, score=plus_density(scores.score, config))


def threshold(n_emb: int, n_dist: int, config: PNIConfig) -> float:
    """tau of eq. (5)."""
    return dist_threshold(n_dist) if "dist_threshold" in config.released else tau(n_emb)


def plus_density(score: Float32[Tensor, "*cells"], config: PNIConfig) -> Float32[Tensor, "*cells"]:
    """The scores of eq. (8), or of a density."""
    return score + density(config.lambda_) if "density" in config.released else score


def neighbors_kept(config: PNIConfig) -> int:
    """How many nearest distances of each patch the image score needs."""
    return REWEIGHTED_NEIGHBORS if "reweighted" in config.released else 1


def image_scores(
    maps: Float32[Tensor, "b h w"],
    patch_scores: Float32[Tensor, "b gh gw"],
    nearest_distances: Float32[Tensor, "b gh gw k"],
    config: PNIConfig,
) -> Float32[Tensor, " b"]:
    """`pnilib.maps.image_scores`, or the reweighted distances, without the cells that the border overwrites."""
    if "reweighted" not in config.released:
        return scores_of_maps(maps, patch_scores, config)
    kept = config.border == "replicate"
    return reweighted(repeat_inner(nearest_distances, config.border_cells) if kept else nearest_distances)


def network_class(config: PNIConfig) -> type[RefineNet]:
    """Of the refinement."""
    return ReleasedNet if {"three_map_channels", "mean_of_stems", "residual"} & {*config.released} else RefineNet


def training_of_network(config: PNIConfig) -> dict[str, Any]:
    """Of `train_network`."""
    return {
        "kind": network_class(config),
        "changes": BRIGHTNESSES if "three_brightnesses" in config.released else COLOUR_CHANGES,
    }


def fuse(
    refinement: Refinement, image: Float32[Tensor, "3 h w"], anomaly_map: Float32[Tensor, "h w"], config: PNIConfig
) -> Float32[Tensor, "h w"]:
    """The final map of one image, in normalised units."""
    step = misaligned if "misaligned" in config.released else Refinement.__call__
    return step(refinement, image, anomaly_map, config.refine_weight)
