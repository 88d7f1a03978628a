r"""Anomaly score of each patch: PNI eqs. (1)-(8), one function an equation, and the soft veto.

    S(x) = -log p(Phi(x) | Omega)                                               (2), without Omega: (1)
    p(Phi(x) | Omega) = sum_c p(Phi(x) | c, Omega) p(c | Omega)                 (3)
                     ~= max_c p(Phi(x) | c, Omega) T_tau(p(c | Omega))          (4)
    T_tau(p) = 1 if p > tau else 0,    tau = 1 / (2 |C_emb|)                    (5)
    p(c | Omega) ~= (p(c | N_p(x)) + p(c | x)) / 2                              (6)
    p(Phi(x) | c, Omega) ~= exp(-lambda ||Phi(x) - c||_2),    lambda = 1        (8)

Hence S(x) = lambda times the distance to the nearest c whose gate is open.  Both distributions live on
C_dist; m maps each c_emb to its c_dist.  Eq. (6) is an OR: a gate opens when either source allows c
(p_nb > 2 tau or p_pos > 2 tau suffices).  `combine=score` averages two gated scores, `combine=product` (ours) lets
either source veto.

`gate=soft` (ours, setting=position) has no gate: what the position says against a vector, in nats, lengthens its
distance (`soft_nearest`), and a patch is judged by what normal images score at its place (`SoftVeto.level`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from pnilib.config import PNIConfig

__all__ = [
    "PatchScores",
    "Search",
    "SoftVeto",
    "farthest",
    "gate",
    "gated_nearest",
    "likelihood_score",
    "mean_probability",
    "patch_distances",
    "product_probability",
    "row_minimum",
    "score_patches",
    "soft_nearest",
    "tau",
]

Search = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""(distances, open gates, the bin that each vector belongs to) -> (distance, index) of the vector that counts."""


def tau(n_emb: int) -> float:
    """1 / (2 |C_emb|), sec. 3.1."""
    return 0.5 / n_emb


def gate(probability: Float32[Tensor, "b k"], threshold: float) -> Bool[Tensor, "b k"]:
    """T_tau of eq. (5): strictly above the threshold."""
    return probability > threshold


def mean_probability(
    p_neighborhood: Float32[Tensor, "b k"], p_position: Float32[Tensor, "b k"]
) -> Float32[Tensor, "b k"]:
    """Eq. (6)."""
    return (p_neighborhood + p_position) / 2


def product_probability(
    p_neighborhood: Float32[Tensor, "b k"],
    p_position: Float32[Tensor, "b k"],
    marginal: Float32[Tensor, " k"],
) -> Float32[Tensor, "b k"]:
    """p(c | N, x) proportional to p(c | N) p(c | x) / p(c): independent evidence given c.  Ours, not the paper's."""
    joint = p_neighborhood.double() * p_position.double() / marginal.double()
    return (joint / joint.sum(1, keepdim=True).clamp_min(1e-300)).float()


def patch_distances(features: Float32[Tensor, "b d"], vectors: Float32[Tensor, "m d"]) -> Float32[Tensor, "b m"]:
    """||Phi(x) - c||_2 for all pairs, feature units.  Float32 in the expanded form: the *square* is off by about
    5e-7 of the squared spread of the vectors, so only distances far below that spread lose digits."""
    mean = vectors.mean(0)
    x, c = features - mean, vectors - mean
    sq = torch.addmm((c**2).sum(1), x, c.T, alpha=-2).add_((x**2).sum(1, keepdim=True))
    return sq.clamp_min_(0).sqrt_()


def row_minimum(values: Float32[Tensor, "b m"]) -> tuple[Float32[Tensor, " b"], Int64[Tensor, " b"]]:
    """Each row's smallest value and where it first stands: `values.min(1)`, on a CPU ten times as fast by NumPy."""
    if values.device.type != "cpu":
        return values.min(1)
    idx = torch.from_numpy(values.detach().numpy().argmin(1))
    return values.gather(1, idx[:, None])[:, 0], idx


def farthest(distances: Float32[Tensor, "b m"]) -> tuple[Float32[Tensor, " b"], Int64[Tensor, " b"]]:
    """Each row's largest finite distance, and where it stands."""
    return distances.masked_fill(distances.isinf(), -math.inf).max(1)


def gated_nearest(
    distances: Float32[Tensor, "b m"],
    is_open: Bool[Tensor, "b bins"],
    bin_of: Int64[Tensor, " m"] | None = None,
) -> tuple[Float32[Tensor, " b"], Int64[Tensor, " b"]]:
    """Eq. (4) with (8): distance to, and index of, the nearest vector whose gate is open.

    `is_open` is over the m vectors, or over bins that `bin_of` assigns them to (C_dist and the mapping to it).
    tau < 1/|C_emb| keeps at least one gate open (sec. 3.1).  Should rounding shut all, the farthest vector counts.
    Only patches whose nearest vector is shut out are searched any further.
    """
    distance, idx = row_minimum(distances)
    shut = ~is_open.gather(1, (idx if bin_of is None else bin_of[idx])[:, None])[:, 0]
    if bool(shut.any()):
        left, allowed = distances[shut], is_open[shut]
        allowed = allowed if bin_of is None else allowed[:, bin_of]
        best, best_idx = row_minimum(left.masked_fill(~allowed, math.inf))
        largest, largest_idx = farthest(left)
        distance[shut] = torch.where(best.isinf(), largest, best)
        idx[shut] = torch.where(best.isinf(), largest_idx, best_idx)
    return distance, idx


def likelihood_score(distance: Float32[Tensor, "*cells"], lambda_: float) -> Float32[Tensor, "*cells"]:
    """-log p(Phi | c) of eq. (8), nats: lambda d."""
    return lambda_ * distance


@dataclass(frozen=True)
class SoftVeto:
    """Constants of gate=soft, all from normal images (`pnilib.detector.veto`).

    alpha: votes that the marginal is worth in p(c | x).  distance: mean distance of a normal patch to the nearest
    vector of other images, feature units; 0 where there are no other images: then nothing is vetoed.  level: mean score
    of normal patches at each cell (gh, gw); ones where there are no other images.
    """

    alpha: float
    distance: float
    level: Float32[Tensor, "gh gw"]

    def per_nat(self, config: PNIConfig) -> float:
        """Feature units that one nat against a vector is worth: distance / veto_nats."""
        return self.distance / config.veto_nats

    def divisor(self, cells: slice, config: PNIConfig) -> Float32[Tensor, " b"]:
        """What the scores of some cells (row-major) are divided by: (level / its mean) ^ level_power."""
        return (self.level.flatten()[cells] / self.level.mean()) ** config.level_power


def soft_nearest(
    distances: Float32[Tensor, "b m"],
    against: Float32[Tensor, "b bins"],
    per_nat: float,
    bin_of: Int64[Tensor, " m"] | None = None,
) -> tuple[Float32[Tensor, " b"], Int64[Tensor, " b"]]:
    """min over c of ||Phi(x) - c|| + per_nat * against(c), and its index; `bin_of` as in `gated_nearest`.

    `against` is nowhere negative, so that only patches whose nearest vector is doubted are searched any further.
    """
    distance, idx = row_minimum(distances)
    doubted = against.gather(1, (idx if bin_of is None else bin_of[idx])[:, None])[:, 0] > 0
    if bool(doubted.any()):
        cost = against[doubted] if bin_of is None else against[doubted][:, bin_of]
        distance[doubted], idx[doubted] = row_minimum(torch.add(distances[doubted], cost, alpha=per_nat))
    return distance, idx


@dataclass(frozen=True)
class PatchScores:
    """score: S(x), nats (b,).  match_idx: the C_emb vector it is measured to (b,); with combine=score the
    neighborhood gate's.  nearest_idx: the nearest C_emb vector regardless of gates (b,)."""

    score: Float32[Tensor, " b"]
    match_idx: Int64[Tensor, " b"]
    nearest_idx: Int64[Tensor, " b"]


def score_patches(
    distances: Float32[Tensor, "b m"],
    p_neighborhood: Float32[Tensor, "b n_dist"] | None,
    p_position: Float32[Tensor, "b bins"] | None,
    marginal: Float32[Tensor, " bins"] | None,
    emb_to_dist: Int64[Tensor, " m"],
    position_bins: Int64[Tensor, " m"] | None,
    config: PNIConfig,
    threshold: float,
    *,
    by_neighborhood: Search = gated_nearest,
    by_position: Search = gated_nearest,
) -> PatchScores:
    """S(x) of b patches, eq. (2), nats, under the configuration's setting and combination.

    `distances` as `patch_distances`; a vector that must not be used (leave-one-image-out) has distance inf.
    The distributions that the setting does not need may be None.  `emb_to_dist`: each vector's bin in p_neighborhood;
    `position_bins`: in p_position, None for one bin a vector.
    """
    nearest, nearest_idx = row_minimum(distances)

    def expected() -> tuple[Tensor, Tensor]:
        assert p_neighborhood is not None
        return by_neighborhood(distances, gate(p_neighborhood, threshold), emb_to_dist)

    def in_place(probability: Tensor | None) -> tuple[Tensor, Tensor]:
        assert probability is not None
        return by_position(distances, gate(probability, threshold), position_bins)

    if config.setting == "A":
        distance, idx = nearest, nearest_idx
        if config.baseline == "patchcore":
            usable = int(distances[0].isfinite().sum())  # a vector left out is so for every patch
            k = min(config.baseline_neighbors, usable)
            distance = (distances.topk(k, dim=1, largest=False).values ** 2).mean(1)
    elif config.setting == "B":
        distance, idx = expected()
    elif config.setting == "position":
        distance, idx = in_place(p_position)
    elif config.combine == "score":
        (distance, idx), (other, _) = expected(), in_place(p_position)
        distance = (distance + other) / 2
    else:
        assert p_neighborhood is not None and p_position is not None
        p_nb = p_neighborhood[:, emb_to_dist] if position_bins is None else p_neighborhood
        if config.combine == "prob":
            distance, idx = in_place(mean_probability(p_nb, p_position))
        else:
            assert marginal is not None
            distance, idx = in_place(product_probability(p_nb, p_position, marginal))
    return PatchScores(likelihood_score(distance, config.lambda_), idx, nearest_idx)
