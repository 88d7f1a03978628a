"""Patch scores of one image: distances, distributions and gates together (PNI sec. 3.1, 3.2).

`score_image` walks over the patches in blocks, so that memory stays bounded: about six arrays of `SCORE_BYTES` are
alive at once.
"""

import math

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from pnilib.config import NEEDS, PNIConfig
from pnilib.coreset import Coreset
from pnilib.detector import steps
from pnilib.neighborhood import NeighborhoodMLP, log_probability
from pnilib.neighbors import nearest
from pnilib.position import PositionHistogram, count_positions
from pnilib.scoring import PatchScores, SoftVeto, likelihood_score, patch_distances, row_minimum, soft_nearest

__all__ = ["SCORE_BYTES", "is_soft", "score_image"]

SCORE_BYTES = 16 * 2**20
"""bytes of one distance matrix during scoring."""


def score_image(
    features: Float32[Tensor, "gh gw d"],
    coreset: Coreset,
    position: PositionHistogram | None,
    mlp: NeighborhoodMLP | None,
    variants: dict[str, PNIConfig],
    without_image: int | list[int] | None = None,
    veto: SoftVeto | None = None,
) -> dict[str, tuple[PatchScores, Float32[Tensor, "cells k"]]]:
    """By variant: the patch scores of one image, row-major, and each patch's k smallest coreset distances, ascending.

    k is `steps.neighbors_kept` (less where fewer vectors may be used).
    `without_image`: training images, all equal to this one, whose coreset vectors must not be used, unless all are
    theirs; with gate=soft their votes do not count either.  `position`, `mlp` and `veto` may be None where no variant's
    gates look at them.
    """
    without = [without_image] if isinstance(without_image, int) else without_image
    device, vectors = features.device, coreset.embedding.to(features.device)
    barred = None if without is None else torch.isin(coreset.image_idx, torch.tensor(without)).to(device)
    if barred is not None and bool(barred.all()):
        barred = None  # a single training image: nothing else to compare with
    logits = None
    needed = {part for config in variants.values() for part in NEEDS[config.setting]}
    if mlp is not None and "neighborhood" in needed:
        logits = mlp.logits_map(features[None])[0].flatten(0, 1)
    marginal = None
    products = [config for config in variants.values() if config.setting == "E" and config.combine == "product"]
    if position is not None and products:
        marginal = position.marginal().to(device)
    flat = features.flatten(0, 1)
    soft = [config for config in variants.values() if is_soft(config)]
    others = _without_votes(position, features, coreset, soft[0], without) if soft and position is not None else None
    step = max(1, SCORE_BYTES // (4 * len(vectors)))
    parts: dict[str, list[tuple[PatchScores, Tensor]]] = {name: [] for name in variants}
    for low in range(0, len(flat), step):
        cells = slice(low, low + step)
        distances = patch_distances(flat[cells], vectors)
        if barred is not None:
            distances[:, barred] = math.inf
        p_position = None
        if position is not None and len(soft) < len(variants) and "position" in needed:
            p_position = position.probability(cells).to(device)
        for name, config in variants.items():
            p_nb = None if logits is None else log_probability(logits[cells], config.temperature).exp()
            if is_soft(config):
                assert others is not None and veto is not None
                bin_of = steps.position_bins(coreset, config)
                scores = _soft_scores(
                    distances, cells, others, None if bin_of is None else bin_of.to(device), veto, config
                )
            else:
                scores = steps.score(distances, p_nb, p_position, marginal, coreset, config)
            kept = steps.neighbors_kept(config)
            if kept > 1:
                usable = len(vectors) - (0 if barred is None else int(barred.sum()))
                near = distances.topk(min(kept, usable), dim=1, largest=False).values
            else:
                near = distances.gather(1, scores.nearest_idx[:, None])
            parts[name].append((scores, near))
    return {name: (_joined([s for s, _ in found]), torch.cat([d for _, d in found])) for name, found in parts.items()}


def _soft_scores(
    distances: Float32[Tensor, "b m"],
    cells: slice,
    position: PositionHistogram,
    bin_of: Int64[Tensor, " m"] | None,
    veto: SoftVeto,
    config: PNIConfig,
) -> PatchScores:
    """S(x) of some cells under the soft veto; what the place says is looked up where it doubts the nearest vector."""
    score, nearest_idx = row_minimum(distances)
    match, bins = nearest_idx.clone(), (nearest_idx if bin_of is None else bin_of[nearest_idx]).cpu()
    doubted = position.against(cells, veto.alpha, bins) > 0  # the others keep their nearest vector
    if bool(doubted.any()):
        rows = torch.arange(cells.start, cells.start + len(distances))[doubted]
        doubted = doubted.to(distances.device)
        against = position.against(rows, veto.alpha).to(distances.device)
        score[doubted], match[doubted] = soft_nearest(distances[doubted], against, veto.per_nat(config), bin_of)
    score = likelihood_score(score / veto.divisor(cells, config).to(distances.device), config.lambda_)
    return PatchScores(steps.plus_density(score, config), match, nearest_idx)


def is_soft(config: PNIConfig) -> bool:
    """Whether patches are scored by the soft veto."""
    return config.setting == "position" and config.gate == "soft"


def _without_votes(
    position: PositionHistogram,
    features: Float32[Tensor, "gh gw d"],
    coreset: Coreset,
    config: PNIConfig,
    without: list[int] | None,
) -> PositionHistogram:
    """The histogram without what `without`, images equal to this one, have voted."""
    if without is None:
        return position
    bins = steps.bins_of(coreset, config)
    idx = nearest(features.flatten(0, 1), bins.to(features.device))[1][:, 0].view(1, *features.shape[:2]).cpu().numpy()
    border = config.border_cells if config.border == "replicate" else 0
    return position.without(len(without) * count_positions(idx, len(bins), config.patch, border).astype(np.int64))


def _joined(parts: list[PatchScores]) -> PatchScores:
    return PatchScores(*(torch.cat([getattr(p, f) for p in parts]) for f in ("score", "match_idx", "nearest_idx")))
