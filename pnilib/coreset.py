"""Embedding coreset and distribution coreset (PNI sec. 3.1, 3.2).

The vectors of C_emb "are sub-sampled from all normal features in all training images using a greedy
coreset subsampling method [23]" (PNI sec. 3.1); C_dist is its beginning: the first |C_dist| picks of
the same run (sec. 3.2: "both coresets are calculated simultaneously because C_dist is a subset of C_emb").
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray
from torch import Tensor

from pnilib.config import PNIConfig
from pnilib.errors import PNIError
from pnilib.k_center import greedy_k_center
from pnilib.neighbors import nearest

__all__ = ["Coreset", "coreset_size", "select_coreset"]


def coreset_size(n_patches: int, ratio: float, largest: int = 0) -> int:
    """|C_emb| = floor(ratio * n_patches), at least 2, at most `largest` (0: no limit)."""
    size = max(2, int(ratio * n_patches + 1e-9))
    return min(size, max(2, largest)) if largest else size


@dataclass(frozen=True)
class Coreset:
    """Both coresets and where each vector came from.

    embedding: C_emb, float32 (m, d), in the order of picking; the first `n_dist` rows are C_dist.
    emb_to_dist: nearest C_dist entry of each C_emb entry, (m,); the identity on the first `n_dist`.
    image_idx, cell_idx: training image and flat grid cell (row-major) of each vector, (m,).
    radii: coverage radius after each pick, feature units (m,); NaN for the last.
    """

    embedding: Float32[Tensor, "m d"]
    n_dist: int
    emb_to_dist: Int64[Tensor, " m"]
    image_idx: Int64[Tensor, " m"]
    cell_idx: Int64[Tensor, " m"]
    radii: Float64[Tensor, " m"]

    @property
    def distribution(self) -> Float32[Tensor, "n_dist d"]:
        """C_dist."""
        return self.embedding[: self.n_dist]

    def first(self, size: int) -> "Coreset":
        """What the same greedy run would have chosen at a smaller |C_emb| = `size`, with the same C_dist.

        Raises PNIError when C_dist would have been smaller too, or the run was shorter.
        """
        if not self.n_dist <= size <= len(self.embedding):
            raise PNIError(
                f"|C_emb| = {size}: the fitted coreset gives {self.n_dist} ... {len(self.embedding)} of its vectors: "
                "fit again"
            )
        radii = self.radii[:size].clone()
        radii[-1] = float("nan")
        return Coreset(
            self.embedding[:size],
            self.n_dist,
            self.emb_to_dist[:size],
            self.image_idx[:size],
            self.cell_idx[:size],
            radii,
        )


def select_coreset(
    features: Float32[ndarray, "n gh gw d"],
    config: PNIConfig,
    *,
    project: Callable[[ndarray], ndarray] | None = None,
    keep_start: bool = True,
    device: str = "cpu",
    progress: bool = False,
) -> Coreset:
    """Choose C_emb and C_dist from the training features (PNI sec. 3.1, 3.2).

    `project`: what greedy k-center sees instead of the features (n, d).  `keep_start`: whether the random start point
    is a member.  With border=replicate only interior cells are candidates.  Where |C_emb| would be below `dist_size`,
    C_dist is all of C_emb.
    """
    n, gh, gw, d = features.shape
    flat = features.reshape(-1, d)
    rows = None
    if config.border == "replicate":
        b = config.border_cells
        if 2 * b >= min(gh, gw):
            raise PNIError(f"border_cells={b} leaves nothing of a {gh}x{gw} grid: lower it or enlarge image_crop")
        rows = np.arange(n * gh * gw).reshape(n, gh, gw)[:, b:-b, b:-b].reshape(-1)
    n_candidates = len(flat) if rows is None else len(rows)
    size = min(coreset_size(n_candidates, config.emb_ratio, config.emb_max), n_candidates)
    generator = np.random.default_rng([config.seed, 1])
    start = int(generator.integers(n_candidates))
    start = start if rows is None else int(rows[start])
    dropped = not keep_start and size < n_candidates
    found = greedy_k_center(
        flat if project is None else project(flat),
        size + dropped,
        start,
        rows=rows,
        device=device,
        progress=progress,
        return_radii=True,
    )
    picks, radii = (part[int(dropped) :] for part in found)
    embedding = torch.from_numpy(flat[picks])
    n_dist = min(config.dist_size, size)
    emb_to_dist = nearest(embedding, embedding[:n_dist])[1][:, 0]
    emb_to_dist[:n_dist] = torch.arange(n_dist)  # also where two picks coincide
    return Coreset(
        embedding=embedding,
        n_dist=n_dist,
        emb_to_dist=emb_to_dist,
        image_idx=torch.from_numpy(picks // (gh * gw)),
        cell_idx=torch.from_numpy(picks % (gh * gw)),
        radii=torch.from_numpy(radii),
    )
