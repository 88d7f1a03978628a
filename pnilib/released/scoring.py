r"""How the release searches and scores (B4, B6 to B10, B23, B24)."""

import math

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from pnilib.scoring import farthest, gated_nearest

__all__ = ["REWEIGHTED_NEIGHBORS", "density", "dist_threshold", "first_eighth", "rank_transfer", "reweighted"]

PARTS = 8
REWEIGHTED_NEIGHBORS = 3


def dist_threshold(n_dist: int) -> float:
    """tau = 1 / (2 |C_dist|): a line that the release has commented out (B9)."""
    return 0.5 / n_dist


def density(lambda_: float) -> float:
    """What lambda exp(-lambda d) adds to every score beside eq. (8): -log(lambda) (B10)."""
    return -math.log(lambda_)


def first_eighth(
    distances: Float32[Tensor, "b m"], is_open: Bool[Tensor, "b bins"], bin_of: Int64[Tensor, " m"] | None = None
) -> tuple[Float32[Tensor, " b"], Int64[Tensor, " b"]]:
    """The parallel loop keeps only what its first process of 8 writes (B7): a match whose rank is not among the first
    m / 8 is lost, and the farthest vector counts instead (B8)."""
    distance, idx = gated_nearest(distances, is_open, bin_of)
    rank = (distances < distance[:, None]).sum(1)
    lost = rank >= distances.shape[1] / PARTS
    largest, largest_idx = farthest(distances)
    return torch.where(lost, largest, distance), torch.where(lost, largest_idx, idx)


def rank_transfer(
    distances: Float32[Tensor, "b m"], is_open: Bool[Tensor, "b n_dist"], parts: int = 1
) -> tuple[Float32[Tensor, " b"], Int64[Tensor, " b"]]:
    """The neighborhood gate (B6): the rank of the nearest allowed c_dist among C_dist is used as a rank among C_emb.

    `is_open` is over C_dist, the first columns of `distances`; `parts`: 8 together with `first_eighth`.
    """
    to_dist = distances[:, : is_open.shape[1]]
    allowed = to_dist.masked_fill(~is_open, math.inf).amin(1, keepdim=True)
    rank = (to_dist < allowed).sum(1)
    lost = (rank >= to_dist.shape[1] / parts) | allowed[:, 0].isinf()
    rank = torch.where(lost, distances.isfinite().sum(1) - 1, rank)
    ordered, order = distances.sort(dim=1, stable=True)
    return ordered.gather(1, rank[:, None])[:, 0], order.gather(1, rank[:, None])[:, 0]


def reweighted(nearest_distances: Float32[Tensor, "b gh gw k"]) -> Float32[Tensor, " b"]:
    """Image score of the release's baseline (B23): s (1 - exp(s) / sum_k exp(d_k)), 0 to s; d_k are the k smallest
    coreset distances of the worst cell, the one whose s = d_1 is largest.  Feature units, whatever lambda."""
    flat = nearest_distances.flatten(1, 2)
    d = flat[torch.arange(len(flat)), flat[..., 0].argmax(1)]
    return d[:, 0] * (1 - d.softmax(1)[:, 0])
