r"""Anomaly score of each patch: PNI eqs. (1)-(8), one function an equation.

    S(x) = -log p(Phi(x) | Omega)                                               (2), without Omega: (1)
    p(Phi(x) | Omega) = sum_c p(Phi(x) | c, Omega) p(c | Omega)                 (3)
                     ~= max_c p(Phi(x) | c, Omega) T_tau(p(c | Omega))          (4)
    T_tau(p) = 1 if p > tau else 0,    tau = 1 / (2 |C_emb|)                    (5)
    p(c | Omega) ~= (p(c | N_p(x)) + p(c | x)) / 2                              (6)
    p(Phi(x) | c, Omega) ~= exp(-lambda ||Phi(x) - c||_2),    lambda = 1        (8)

Hence S(x) = lambda times the distance to the nearest c whose gate is open.  Both distributions live on
C_dist; m maps each c_emb to its c_dist.  Eq. (6) is an OR: a gate opens when either source allows c
(p_nb > 2 tau or p_pos > 2 tau suffices).  `combine=score` (the release) averages two gated scores,
`combine=product` (ours) lets either source veto.

`gate=soft` (ours, setting=position) has no gate: what the position says against a vector, in nats, lengthens its
distance (`soft_nearest`), and a patch is judged by what normal images score at its place (`SoftVeto.level`).

The release's gate differs from eq. (4) in a way that has a closed form: see `rank_gate`.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from pnilib.config import PNIConfig

__all__ = [
    "PatchScores",
    "SoftVeto",
    "gate",
    "gated_nearest",
    "likelihood_score",
    "mean_probability",
    "patch_distances",
    "product_probability",
    "rank_gate",
    "row_minimum",
    "score_patches",
    "soft_nearest",
    "tau",
]


def tau(config: PNIConfig, n_emb: int, n_dist: int) -> float:
    """1 / (2 |C_emb|), sec. 3.1; `tau=dist`: 1 / (2 |C_dist|), commented out in the release (B9)."""
    return 0.5 / (n_emb if config.tau == "emb" else n_dist)


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


def _farthest(distances: Float32[Tensor, "b m"]) -> tuple[Float32[Tensor, " b"], Int64[Tensor, " b"]]:
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
        farthest, farthest_idx = _farthest(left)
        distance[shut] = torch.where(best.isinf(), farthest, best)
        idx[shut] = torch.where(best.isinf(), farthest_idx, best_idx)
    return distance, idx


def first_part_only(
    distances: Float32[Tensor, "b m"], distance: Float32[Tensor, " b"], idx: Int64[Tensor, " b"], parts: int
) -> tuple[Float32[Tensor, " b"], Int64[Tensor, " b"]]:
    """The release's parallel loop keeps only what its first process of `parts` = 8 writes (B7): a match
    whose rank is not among the first m / parts is lost, and the farthest vector counts instead (B8)."""
    rank = (distances < distance[:, None]).sum(1)
    lost = rank >= distances.shape[1] / parts
    farthest, farthest_idx = _farthest(distances)
    return torch.where(lost, farthest, distance), torch.where(lost, farthest_idx, idx)


def rank_gate(
    distances: Float32[Tensor, "b m"], is_open: Bool[Tensor, "b n_dist"], parts: int = 1
) -> tuple[Float32[Tensor, " b"], Int64[Tensor, " b"]]:
    """The released neighborhood gate (B6): the rank of the nearest allowed c_dist among C_dist is used as a
    rank among C_emb.  `is_open` is over C_dist, the first columns of `distances`."""
    to_dist = distances[:, : is_open.shape[1]]
    allowed = to_dist.masked_fill(~is_open, math.inf).amin(1, keepdim=True)
    rank = (to_dist < allowed).sum(1)
    lost = (rank >= to_dist.shape[1] / parts) | allowed[:, 0].isinf()
    rank = torch.where(lost, distances.isfinite().sum(1) - 1, rank)
    ordered, order = distances.sort(dim=1, stable=True)
    return ordered.gather(1, rank[:, None])[:, 0], order.gather(1, rank[:, None])[:, 0]


@dataclass(frozen=True)
class SoftVeto:
    """Constants of gate=soft, all from normal images (`pnilib.veto`).

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


def likelihood_score(distance: Float32[Tensor, "*cells"], config: PNIConfig) -> Float32[Tensor, "*cells"]:
    """-log p(Phi | c) of eq. (8), nats: lambda d; with likelihood=density, lambda d - log(lambda) (B10)."""
    offset = -math.log(config.lambda_) if config.likelihood == "density" else 0.0
    return config.lambda_ * distance + offset


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
    n_dist: int,
    config: PNIConfig,
) -> PatchScores:
    """S(x) of b patches under the configuration's setting, combination and switches.

    `distances` as `patch_distances`; a vector that must not be used (leave-one-image-out) has distance inf.
    The distributions that the setting does not need may be None.
    """
    threshold = tau(config, distances.shape[1], n_dist)
    nearest, nearest_idx = row_minimum(distances)
    if config.setting == "A":
        if config.baseline == "patchcore":
            usable = int(distances[0].isfinite().sum())  # a vector left out is so for every patch
            k = min(config.baseline_neighbors, usable)
            score = (distances.topk(k, dim=1, largest=False).values ** 2).mean(1)
        else:
            score = likelihood_score(nearest, config)
        return PatchScores(score, nearest_idx, nearest_idx)

    parts = config.gate_chunk
    position_bins = None if config.pos_bins == "emb" else emb_to_dist

    def gated(is_open: Tensor, bin_of: Tensor | None) -> tuple[Tensor, Tensor]:
        distance, idx = gated_nearest(distances, is_open, bin_of)
        return first_part_only(distances, distance, idx, parts) if parts > 1 else (distance, idx)

    def by_neighborhood() -> tuple[Tensor, Tensor]:
        assert p_neighborhood is not None
        is_open = gate(p_neighborhood, threshold)
        return rank_gate(distances, is_open, parts) if config.nb_gate == "rank" else gated(is_open, emb_to_dist)

    def by_position() -> tuple[Tensor, Tensor]:
        assert p_position is not None
        return gated(gate(p_position, threshold), position_bins)

    if config.setting == "B":
        distance, idx = by_neighborhood()
    elif config.setting == "position":
        distance, idx = by_position()
    elif config.combine == "score":
        (distance, idx), (other, _) = by_neighborhood(), by_position()
        distance = (distance + other) / 2
    else:
        assert p_neighborhood is not None and p_position is not None
        p_nb = p_neighborhood[:, emb_to_dist] if position_bins is None else p_neighborhood
        if config.combine == "prob":
            probability = mean_probability(p_nb, p_position)
        else:
            assert marginal is not None
            probability = product_probability(p_nb, p_position, marginal)
        distance, idx = gated(gate(probability, threshold), position_bins)
    return PatchScores(likelihood_score(distance, config), idx, nearest_idx)
