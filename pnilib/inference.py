"""Why each patch of one image scores as it does: distances, distributions and gates together (PNI sec. 3.1, 3.2).

`score_image` walks over the patches in blocks, so that memory stays bounded: about six arrays of `SCORE_BYTES` are
alive at once.  `explain_image` says for each patch which coreset vector counted, and which gates were open.
"""

import math

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32
from torch import Tensor

from pnilib.config import NEEDS, PNIConfig
from pnilib.coreset import Coreset
from pnilib.maps import repeat_inner
from pnilib.neighborhood import NeighborhoodMLP, log_probability
from pnilib.neighbors import nearest
from pnilib.position import PositionHistogram, count_positions
from pnilib.scoring import (
    PatchScores,
    SoftVeto,
    likelihood_score,
    patch_distances,
    row_minimum,
    score_patches,
    soft_nearest,
    tau,
)

__all__ = ["SCORE_BYTES", "explain_image", "is_soft", "score_image"]

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

    k is 1, or `reweight_neighbors` with image_score=reweight (less where fewer vectors may be used).
    `without_image`: training images, all equal to this one, whose coreset vectors must not be used, unless all are
    theirs; with gate=soft their votes do not count either.  `position`, `mlp` and `veto` may be None where no variant's
    gates look at them.
    """
    without = [without_image] if isinstance(without_image, int) else without_image
    device, vectors = features.device, coreset.embedding.to(features.device)
    emb_to_dist = coreset.emb_to_dist.to(device)
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
                bin_of = None if config.pos_bins == "emb" else emb_to_dist
                score, nearest_idx = row_minimum(distances)
                match, bins = nearest_idx.clone(), (nearest_idx if bin_of is None else bin_of[nearest_idx]).cpu()
                doubted = others.against(cells, veto.alpha, bins) > 0  # the others keep their nearest vector
                if bool(doubted.any()):
                    rows = torch.arange(len(flat))[cells][doubted]
                    doubted = doubted.to(device)
                    against = others.against(rows, veto.alpha).to(device)
                    score[doubted], match[doubted] = soft_nearest(
                        distances[doubted], against, veto.per_nat(config), bin_of
                    )
                score = likelihood_score(score / veto.divisor(cells, config).to(device), config)
                scores = PatchScores(score, match, nearest_idx)
            else:
                scores = score_patches(distances, p_nb, p_position, marginal, emb_to_dist, coreset.n_dist, config)
            if config.image_score == "reweight":
                usable = len(vectors) - (0 if barred is None else int(barred.sum()))
                near = distances.topk(min(config.reweight_neighbors, usable), dim=1, largest=False).values
            else:
                near = distances.gather(1, scores.nearest_idx[:, None])
            parts[name].append((scores, near))
    return {name: (_joined([s for s, _ in found]), torch.cat([d for _, d in found])) for name, found in parts.items()}


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
    bins = coreset.embedding if config.pos_bins == "emb" else coreset.distribution
    idx = nearest(features.flatten(0, 1), bins.to(features.device))[1][:, 0].view(1, *features.shape[:2]).cpu().numpy()
    border = config.border_cells if config.border == "replicate" else 0
    return position.without(len(without) * count_positions(idx, len(bins), config.patch, border).astype(np.int64))


def _joined(parts: list[PatchScores]) -> PatchScores:
    return PatchScores(*(torch.cat([getattr(p, f) for p in parts]) for f in ("score", "match_idx", "nearest_idx")))


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
    threshold = tau(config, len(coreset.embedding), coreset.n_dist)
    bins = near if config.pos_bins == "emb" else coreset.emb_to_dist[near]
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
            against, bin_of = position.against(slice(None), veto.alpha), coreset.emb_to_dist
            for name, idx in (("nearest", near), ("match", match)):
                table[f"{name}_against"] = against[cells, idx if config.pos_bins == "emb" else bin_of[idx]]
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
