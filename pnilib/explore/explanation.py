r"""Why one pixel scores as it does: the patch below it, its matches, the gates, and what was to be expected there.

    S(x) = lambda ||Phi(x) - c||_2 to the nearest c whose gate is open            (PNI eqs. 2, 4, 8)

Every nearer c is shut: its probability given the neighborhood and the position does not exceed tau (eq. 5).  Both
distributions are computed here for the one cell, so that an answer takes a fraction of a second also where a map of all
cells takes long.  The pixel's value on the map is a smoothed mean of the S(x) around it (sec. 3.1).

With gate=soft no vector is shut: what the place says against each lengthens its distance (`pnilib.veto`).
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from pnilib.config import PNIConfig
from pnilib.errors import PNIError
from pnilib.inference import is_soft
from pnilib.neighborhood import gather_neighbors, log_probability
from pnilib.pni import PNI
from pnilib.scoring import (
    gate,
    likelihood_score,
    mean_probability,
    patch_distances,
    product_probability,
    score_patches,
    tau,
)

__all__ = ["Bin", "Explanation", "Match", "cell_at", "explain_cell", "sentence"]


@dataclass(frozen=True)
class Match:
    """One coreset vector c.

    idx: in C_emb.  distance: to the patch, feature units.  train_image, train_cell: where c was taken from.
    p_neighborhood, p_position: of the c_dist (or bin) of c, NaN where the model has no such distribution.
    added: with gate=soft, what the place's evidence against c adds to the distance, feature units.
    """

    idx: int
    distance: float
    train_image: int
    train_cell: int
    p_neighborhood: float
    p_position: float
    added: float = 0.0


@dataclass(frozen=True)
class Bin:
    """A bin of a distribution: its probability, and the training patch that stands for it.  votes: 0 if none."""

    probability: float
    train_image: int
    train_cell: int
    votes: int = 0


@dataclass(frozen=True)
class Explanation:
    """Of one grid cell.

    cell: row-major.  score: S(x), nats.  tau: of eq. (5).  matches: gate -> the nearest vector that it allows; one,
    or two where two gated scores are averaged (combine=score).  shut: gate -> the vectors nearer than that, at most
    `most`, nearest first; n_shut: gate -> how many there are.  seen: the commonest bins of the position histogram here.
    expected: those of the neighborhood's distribution.  n_seen: bins that were seen here at all.  none_allowed: gates
    that shut every vector (tau=dist can), whose match is the farthest one, as in `pnilib.scoring.gated_nearest`.
    """

    config: PNIConfig
    cell: int
    score: float
    tau: float
    nearest: Match
    matches: dict[str, Match]
    shut: dict[str, list[Match]]
    n_shut: dict[str, int]
    seen: list[Bin] = field(default_factory=list)
    n_seen: int = 0
    expected: list[Bin] = field(default_factory=list)
    none_allowed: tuple[str, ...] = ()


def cell_at(row: float, column: float, size: int, grid: tuple[int, int], border: int = 0) -> int:
    """The flat cell below a pixel of a size x size image; with a border, whose cells repeat inner ones, that inner one.

    Raises PNIError for a pixel outside.
    """
    if not (0 <= row < size and 0 <= column < size):
        raise PNIError(f"pixel ({row}, {column}) lies outside a {size}x{size} image")
    cells = [min(max(int(at * n // size), border), n - 1 - border) for at, n in zip((row, column), grid, strict=True)]
    return cells[0] * grid[1] + cells[1]


@torch.no_grad()
def explain_cell(
    model: PNI, features: Float32[Tensor, "gh gw d"], cell: int, config: PNIConfig, *, most: int = 5
) -> Explanation:
    """Explain one cell of an image whose features are given, under a setting of the fitted model.

    Raises PNIError for the release's rank gate and its loop (B6, B7), whose choice follows no gate.
    """
    by_rank = config.nb_gate == "rank" and config.setting in ("B", "E")
    if by_rank or (config.gate_chunk > 1 and config.setting != "A"):
        raise PNIError("the release's rank gate (B6, B7) picks by rank, not by a gate: choose another setting")
    own = model.with_config(**config.to_dict())
    coreset, position, mlp = own.coreset, own.position, own.mlp
    if coreset is None:
        raise PNIError("the model is not fitted: call fit(train) or PNI.load(folder)")
    gh, gw, d = features.shape
    if not 0 <= cell < gh * gw:
        raise PNIError(f"cell {cell} lies outside a {gh}x{gw} grid: choose 0 to {gh * gw - 1}")
    device, at = features.device, torch.tensor([cell])
    distances = patch_distances(features.reshape(-1, d)[at.to(device)], coreset.embedding.to(device)).cpu()
    p_pos = None if position is None else position.probability(slice(cell, cell + 1))
    p_nb = None
    if mlp is not None:
        logits = mlp(gather_neighbors(features[None], at.to(device), config))
        p_nb = log_probability(logits, config.temperature).exp().cpu()
    to_dist, n_dist = coreset.emb_to_dist, coreset.n_dist
    pos_of = torch.arange(len(coreset.embedding)) if config.pos_bins == "emb" else to_dist
    p_pos_emb = torch.full_like(distances, math.nan) if p_pos is None else p_pos[:, pos_of]
    p_nb_emb = torch.full_like(distances, math.nan) if p_nb is None else p_nb[:, to_dist]
    limit = tau(config, len(coreset.embedding), n_dist)
    marginal = None if position is None else position.marginal()
    added = torch.zeros_like(distances)
    if is_soft(config):
        assert position is not None and own.veto is not None
        here = slice(cell, cell + 1)
        added = own.veto.per_nat(config) * position.against(here, own.veto.alpha)[:, pos_of]
        divided = (distances + added).amin() / own.veto.divisor(here, config)
        score = float(likelihood_score(divided, config))
    else:
        score = float(score_patches(distances, p_nb, p_pos, marginal, to_dist, n_dist, config).score[0])

    def match(k: int) -> Match:
        return Match(
            k, float(distances[0, k]), int(coreset.image_idx[k]), int(coreset.cell_idx[k]), float(p_nb_emb[0, k]),
            float(p_pos_emb[0, k]), float(added[0, k]),
        )  # fmt: skip

    order = distances[0].argsort(stable=True)
    matches, shut, n_shut = {}, {}, {}
    if is_soft(config):
        gates = {"veto": torch.arange(len(to_dist))[None] == (distances + added).argmin(1)}
    else:
        gates = _gates(p_nb, p_pos, marginal, to_dist, limit, config)
    for name, allowed in gates.items():
        is_open = allowed[0, order]
        rank = int(is_open.int().argmax()) if bool(is_open.any()) else len(order)
        matches[name] = match(int(order[min(rank, len(order) - 1)]))
        closed = [int(k) for k in order[:rank]]
        shut[name], n_shut[name] = [match(k) for k in closed[:most]], len(closed)

    def bins(probability: Float32[Tensor, " b"], votes: np.ndarray | None) -> list[Bin]:
        top = probability.argsort(descending=True, stable=True)[:most]
        return [
            Bin(float(probability[b]), int(coreset.image_idx[b]), int(coreset.cell_idx[b]),
                0 if votes is None else int(votes[b]))
            for b in top.tolist()
        ]  # fmt: skip

    votes = None if position is None else position.counts.reshape(-1, position.n_bins)[cell]
    return Explanation(
        config, cell, score, limit, match(int(order[0])), matches, shut, n_shut,
        seen=[] if p_pos is None else [b for b in bins(p_pos[0], votes) if b.votes > 0],
        n_seen=0 if votes is None else int((votes > 0).sum()),
        expected=[] if p_nb is None else bins(p_nb[0], None),
        none_allowed=tuple(name for name in matches if n_shut[name] == len(order)),
    )  # fmt: skip


def _gates(
    p_nb: Float32[Tensor, "1 n_dist"] | None,
    p_pos: Float32[Tensor, "1 bins"] | None,
    marginal: Float32[Tensor, " bins"] | None,
    to_dist: Int64[Tensor, " m"],
    limit: float,
    config: PNIConfig,
) -> dict[str, Bool[Tensor, "1 m"]]:
    """Name -> which coreset vectors are allowed, as in `score_patches`."""
    over_emb = config.pos_bins == "emb"

    def of_vectors(is_open: Bool[Tensor, "1 bins"], bins_are_emb: bool) -> Bool[Tensor, "1 m"]:
        return is_open if bins_are_emb else is_open[:, to_dist]

    if config.setting == "A":
        return {"none": torch.ones(1, len(to_dist), dtype=torch.bool)}
    by_neighborhood = {} if p_nb is None else {"neighborhood": of_vectors(gate(p_nb, limit), False)}
    if config.setting == "B":
        return by_neighborhood
    assert p_pos is not None
    by_position = {"position": of_vectors(gate(p_pos, limit), over_emb)}
    if config.setting == "position":
        return by_position
    assert p_nb is not None and marginal is not None
    if config.combine == "score":
        return by_neighborhood | by_position
    same = p_nb[:, to_dist] if over_emb else p_nb
    if config.combine == "prob":
        return {"eq. (6)": of_vectors(gate(mean_probability(same, p_pos), limit), over_emb)}
    return {"product": of_vectors(gate(product_probability(same, p_pos, marginal), limit), over_emb)}


def sentence(found: Explanation, value: float, threshold: float, level: float = math.nan) -> str:
    """What made this pixel score as it did, in words.  value: of the map, NaN where the run kept none.  threshold: of
    the image, left out where it is not one of the map (image_score other than max).  level: how far a normal patch is
    (`pnilib.explore.maps.normal_level`), NaN where nobody knows."""
    at = f"The map is {value:.3g} here" if math.isfinite(value) else "The run kept no map of this result"
    if math.isfinite(value) and math.isfinite(threshold) and found.config.image_score == "max":
        at += f", {'at or above' if value >= threshold else 'below'} the image threshold {threshold:.3g}"
    free = [name for name, match in found.matches.items() if found.n_shut[name] == 0 and match.added == 0]
    parts = []
    if free:
        gates = "" if free == ["none"] else f" and allowed by the {' and the '.join(_gate_name(name) for name in free)}"
        parts.append(
            f"the nearest patch of the coreset (training image {found.nearest.train_image}) is "
            f"{found.nearest.distance:.3g} away{gates}"
        )
    for name, match in found.matches.items():
        if name in found.none_allowed:
            parts.append(
                f"the {_gate_name(name)} shuts all {found.n_shut[name]:,} training patches ({_reason(name, found)}), "
                f"so the farthest (training image {match.train_image}) counts, {match.distance:.3g} away instead of "
                f"{found.nearest.distance:.3g}"
            )
        elif name == "veto" and name not in free:
            passed = f"{found.n_shut[name]:,} nearer training patch{'es' if found.n_shut[name] != 1 else ''}"
            parts.append(
                f"the place speaks against the nearest patch, {found.nearest.distance:.3g} away (adding "
                f"{found.nearest.added:.3g}); {passed} passed over, training image {match.train_image} counts: "
                f"{match.distance:.3g} away, and {match.added:.3g} for its place"
            )
        elif name not in free:
            many = "es" if found.n_shut[name] > 1 else ""
            parts.append(
                f"the {_gate_name(name)} shuts {found.n_shut[name]:,} nearer training patch{many} "
                f"({_reason(name, found)}), and the nearest allowed one (training image {match.train_image}) is "
                f"{match.distance:.3g} away instead of {found.nearest.distance:.3g}"
            )
    verdict = _verdict(found, level)
    return f"{at}; this patch scores {found.score:.3g}: {'; '.join(parts)}. {verdict}"


def _gate_name(name: str) -> str:
    return {
        "eq. (6)": "gate of eq. (6)",
        "product": "product of both sources",
        "veto": "soft veto of the position",
    }.get(name, f"{name} gate")


def _reason(name: str, found: Explanation) -> str:
    """Why the nearest of all is shut, in probabilities."""
    match, limit = found.shut[name][0], f"{found.tau:.2g}"
    neighborhood = f"p = {match.p_neighborhood:.2g} from the neighborhood"
    position = (
        "never seen at this position" if match.p_position == 0 else f"p = {match.p_position:.2g} at this position"
    )
    if name == "neighborhood":
        return f"the nearest has {neighborhood}, not above τ = {limit}"
    if name == "position":
        return f"the nearest was {position}" if match.p_position == 0 else (
            f"the nearest has {position}, not above τ = {limit}"
        )  # fmt: skip
    return f"the nearest: {neighborhood}, {position}; together not above τ = {limit}"


def _verdict(found: Explanation, level: float) -> str:
    """Looks, or place: what of the distance beyond a normal patch's is there without gates, and what the gates add.

    Of the distance that counts, `level` is what any normal patch has; the nearest patch's own excess over it is due to
    looks, the rest to the gates.
    """
    free = not any(found.n_shut.values()) and not any(match.added for match in found.matches.values())
    make = "the veto makes" if "veto" in found.matches else "the gates make"
    counted = sum(match.distance + match.added for match in found.matches.values()) / len(found.matches)
    if math.isnan(level):
        added = counted - found.nearest.distance
        made = "no gate stands between it and its nearest neighbor" if free else f"{make} {added:.3g} of it"
        return f"So it counts as {counted:.3g} away, and {made}; how far a normal patch is, the run does not say."
    beyond = counted - level
    if beyond <= 0.05 * level:
        return f"So nothing stands out here: a normal patch is {level:.3g} away."
    if free:
        none = "no gate stands between it and its nearest neighbor"
        return f"So only its looks count: {none}; a normal patch is {level:.3g} away."
    gates = counted - max(found.nearest.distance, level)
    which = "its place more than its looks" if gates > 0.5 * beyond else "its looks more than its place"
    if gates <= 0.05 * beyond:
        which = f"how it looks, and {'the veto changes' if 'veto' in found.matches else 'the gates change'} little"
    return (
        f"So it is {which}: of the {beyond:.3g} that it is farther than a normal patch ({level:.3g}), {make} "
        f"{gates:.3g}."
    )
