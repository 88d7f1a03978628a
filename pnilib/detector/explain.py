r"""Why one pixel scores as it does: the patch below it, its matches, the gates, and what was to be expected there.

    S(x) = lambda ||Phi(x) - c||_2 to the nearest c whose gate is open            (PNI eqs. 2, 4, 8)

Every nearer c is shut: its probability given the neighborhood and the position does not exceed tau (eq. 5).
`explain_cell` computes both distributions for one cell, so that an answer takes a fraction of a second also where a map
of all cells takes long; `explain_image` has a row for each cell.

With gate=soft no vector is shut: what the place says against each lengthens its distance (`pnilib.detector.veto`).
"""

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from pnilib.config import PNIConfig
from pnilib.coreset import Coreset
from pnilib.detector import steps
from pnilib.detector.inference import is_soft, score_image
from pnilib.errors import PNIError
from pnilib.maps import repeat_inner
from pnilib.neighborhood import NeighborhoodMLP, gather_neighbors, log_probability
from pnilib.position import PositionHistogram
from pnilib.scoring import (
    SoftVeto,
    gate,
    likelihood_score,
    mean_probability,
    patch_distances,
    product_probability,
)

__all__ = ["Bin", "Explanation", "Match", "cell_at", "explain_cell", "explain_image"]


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
    that shut every vector (released=dist_threshold can), whose match is the farthest one, as in
    `pnilib.scoring.gated_nearest`.
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
    features: Float32[Tensor, "gh gw d"],
    cell: int,
    coreset: Coreset,
    position: PositionHistogram | None,
    mlp: NeighborhoodMLP | None,
    config: PNIConfig,
    veto: SoftVeto | None = None,
    *,
    most: int = 5,
) -> Explanation:
    """Explain one cell of an image; see `PNI.explain_cell`."""
    by_rank = "rank_transfer" in config.released and config.setting in ("B", "E")
    if by_rank or ("first_eighth" in config.released and config.setting != "A"):
        raise PNIError("the release's rank gate (B6, B7) picks by rank, not by a gate: choose another setting")
    gh, gw, d = features.shape
    if not 0 <= cell < gh * gw:
        raise PNIError(f"cell {cell} lies outside a {gh}x{gw} grid: choose 0 to {gh * gw - 1}")
    device, at, here = features.device, torch.tensor([cell]), slice(cell, cell + 1)
    distances = patch_distances(features.reshape(-1, d)[at.to(device)], coreset.embedding.to(device)).cpu()
    p_pos = None if position is None else position.probability(here)
    p_nb = None
    if mlp is not None:
        logits = mlp(gather_neighbors(features[None], at.to(device), mlp.offsets, config.nb_pad))
        p_nb = log_probability(logits, config.temperature).exp().cpu()
    to_dist, pos_of = coreset.emb_to_dist, steps.position_bins(coreset, config)
    pos_of = torch.arange(len(coreset.embedding)) if pos_of is None else pos_of
    p_pos_emb = torch.full_like(distances, math.nan) if p_pos is None else p_pos[:, pos_of]
    p_nb_emb = torch.full_like(distances, math.nan) if p_nb is None else p_nb[:, to_dist]
    limit = steps.threshold(len(coreset.embedding), coreset.n_dist, config)
    marginal = None if position is None else position.marginal()
    added = torch.zeros_like(distances)
    if is_soft(config):
        assert position is not None and veto is not None
        added = veto.per_nat(config) * position.against(here, veto.alpha)[:, pos_of]
        divided = (distances + added).amin() / veto.divisor(here, config)
        score = float(steps.plus_density(likelihood_score(divided, config.lambda_), config))
    else:
        score = float(steps.score(distances, p_nb, p_pos, marginal, coreset, config).score[0])

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
        gates = _gates(p_nb, p_pos, marginal, to_dist, pos_of, limit, config)
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
    pos_of: Int64[Tensor, " m"],
    limit: float,
    config: PNIConfig,
) -> dict[str, Bool[Tensor, "1 m"]]:
    """Name -> which coreset vectors are allowed, as in `score_patches`."""
    if config.setting == "A":
        return {"none": torch.ones(1, len(to_dist), dtype=torch.bool)}
    by_neighborhood = {} if p_nb is None else {"neighborhood": gate(p_nb, limit)[:, to_dist]}
    if config.setting == "B":
        return by_neighborhood
    assert p_pos is not None
    by_position = {"position": gate(p_pos, limit)[:, pos_of]}
    if config.setting == "position":
        return by_position
    assert p_nb is not None and marginal is not None
    if config.combine == "score":
        return by_neighborhood | by_position
    if config.combine == "prob":
        return {"eq. (6)": gate(mean_probability(p_nb[:, to_dist], p_pos[:, pos_of]), limit)}
    same = p_nb if p_nb.shape == p_pos.shape else p_nb[:, to_dist]
    return {"product": gate(product_probability(same, p_pos, marginal), limit)[:, pos_of]}


def explain_image(
    features: Float32[Tensor, "gh gw d"],
    coreset: Coreset,
    position: PositionHistogram | None,
    mlp: NeighborhoodMLP | None,
    config: PNIConfig,
    veto: SoftVeto | None = None,
) -> pd.DataFrame:
    """One row a patch, row-major; columns as in `PNI.explain`."""
    scores = score_image(features, coreset, position, mlp, {"": config}, veto=veto)[""][0]
    near, match = scores.nearest_idx.cpu(), scores.match_idx.cpu()
    flat = features.flatten(0, 1).cpu()
    gh, gw = features.shape[:2]
    threshold, bin_of = (
        steps.threshold(len(coreset.embedding), coreset.n_dist, config),
        steps.position_bins(coreset, config),
    )
    bin_of = torch.arange(len(coreset.embedding)) if bin_of is None else bin_of
    bins = bin_of[near]
    cells = torch.arange(gh * gw)
    table = {
        "row": cells // gw, "column": cells % gw, "score": scores.score.cpu(),
        "nearest_idx": near, "nearest_distance": (flat - coreset.embedding[near]).norm(dim=1),
        "match_idx": match, "match_distance": (flat - coreset.embedding[match]).norm(dim=1),
        "nearest_train_image": coreset.image_idx[near], "nearest_train_cell": coreset.cell_idx[near],
        "match_train_image": coreset.image_idx[match], "match_train_cell": coreset.cell_idx[match],
    }  # fmt: skip
    if position is not None:
        p_position = position.probability(slice(None))[cells, bins]
        table |= {"p_position": p_position, "open_position": p_position > threshold}
        if is_soft(config) and veto is not None:
            against = position.against(slice(None), veto.alpha)
            for name, idx in (("nearest", near), ("match", match)):
                table[f"{name}_against"] = against[cells, bin_of[idx]]
            table["level"] = veto.divisor(slice(None), config)
    if mlp is not None:
        logits = mlp.logits_map(features[None])[0].flatten(0, 1).cpu()
        p_nb = log_probability(logits, config.temperature).exp()[cells, coreset.emb_to_dist[near]]
        table |= {"p_neighborhood": p_nb, "open_neighborhood": p_nb > threshold}
    rows = pd.DataFrame({name: column.numpy() for name, column in table.items()})
    if config.border == "replicate":
        shown = repeat_inner(cells.view(1, gh, gw), config.border_cells).flatten().numpy()
        rows = rows.iloc[shown].reset_index(drop=True).assign(row=rows["row"], column=rows["column"])
    return rows
