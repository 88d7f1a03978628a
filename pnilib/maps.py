r"""Anomaly maps and image scores from patch scores.

The score map "is resized using bi-linear interpolation and smoothed with a Gaussian kernel of sigma = 8 as
described in [21]" (PNI sec. 3.1).  Both are linear in rows and in columns, so one small matrix G does both:

    map = G P G^T,    G = (Gaussian along an axis) (bilinear resize along an axis),  crop x grid

The paper does not define the image score; `image_score` offers three.  Two are of the map (`MAP_SCORES`), and follow
it through refinement and ensembles; one is of the patches.
"""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float32, Shaped
from numpy import ndarray
from scipy.ndimage import gaussian_filter1d
from torch import Tensor
from torch.nn import functional as F

from pnilib.config import PNIConfig
from pnilib.errors import PNIError

__all__ = ["MAP_SCORES", "anomaly_maps", "ensemble", "image_scores", "repeat_inner", "require_map_score"]

MAP_SCORES = ("max", "top1")
"""Image scores that are computed from the final map alone."""


@lru_cache(maxsize=16)
def _smoothing_matrix(size: int, grid: int, sigma: float) -> Float32[ndarray, "size grid"]:
    """Rows of the resized and blurred unit vectors: half-pixel bilinear; Gaussian cut at 4 sigma, mirrored."""
    unit = torch.eye(grid, dtype=torch.float64)[:, None]
    resized = F.interpolate(unit, size=size, mode="linear", align_corners=False)[:, 0].T.numpy()
    if sigma > 0:
        resized = gaussian_filter1d(resized, sigma, axis=0, mode="reflect", truncate=4.0)
    return resized.astype(np.float32)


def repeat_inner(cells: Shaped[Tensor, "b gh gw *k"], border: int) -> Shaped[Tensor, "b gh gw *k"]:
    """Overwrite the outer `border` cells with the nearest inner cell (border=replicate, B12); twice is as once."""
    gh, gw = cells.shape[1:3]
    rows = torch.arange(gh, device=cells.device).clamp(border, gh - 1 - border)
    columns = torch.arange(gw, device=cells.device).clamp(border, gw - 1 - border)
    return cells[:, rows][:, :, columns]


def require_map_score(config: PNIConfig, what: str) -> None:
    """Raises PNIError when the image score is one of the patches, not of `what`, such as "a refined map"."""
    if config.image_score not in MAP_SCORES or "reweighted" in config.released:
        if "reweighted" in config.released:
            raise PNIError(f"released=reweighted is of the patches, not of {what}: leave reweighted out of released")
        ways = " or ".join(MAP_SCORES)
        raise PNIError(f"image_score={config.image_score} is of the patches, not of {what}: set image_score to {ways}")


def anomaly_maps(patch_scores: Float32[Tensor, "b gh gw"], size: int, sigma: float) -> Float32[Tensor, "b size size"]:
    """Patch scores at image resolution, smoothed; `sigma` in pixels, 0 = not smoothed."""
    gh, gw = patch_scores.shape[1:]
    rows = torch.from_numpy(_smoothing_matrix(size, gh, sigma)).to(patch_scores.device)
    columns = torch.from_numpy(_smoothing_matrix(size, gw, sigma)).to(patch_scores.device)
    return rows @ patch_scores @ columns.T


def image_scores(
    maps: Float32[Tensor, "b h w"], patch_scores: Float32[Tensor, "b gh gw"], config: PNIConfig
) -> Float32[Tensor, " b"]:
    """One score an image:

    max: of the final map.  raw_max: of the patch scores.  top1: mean of the highest 1 % of the map's pixels.
    """
    if config.image_score == "raw_max":
        return patch_scores.flatten(1).amax(1)
    flat = maps.flatten(1)
    if config.image_score == "max":
        return flat.amax(1)
    return flat.topk(max(1, flat.shape[1] // 100), dim=1).values.mean(1)


def ensemble(maps: list[Float32[ndarray, "n h w"]], limits: list[tuple[float, float]]) -> Float32[ndarray, "n h w"]:
    """Mean over backbones of the maps, each scaled so that its (low, high) becomes (0, 1).

    The published rule takes low and high from all test maps of the category, which uses the test set
    (ens_norm=minmax_test, B25); the default takes them from training images scored leave-one-image-out.
    Raises PNIError when shapes differ or a backbone's limits coincide.
    """
    if len({m.shape for m in maps}) != 1 or len(maps) != len(limits):
        raise PNIError(f"ensemble: maps of shapes {[m.shape for m in maps]} for {len(limits)} limits do not match")
    total = np.zeros_like(maps[0])
    for one, (low, high) in zip(maps, limits, strict=True):
        if not high > low:
            raise PNIError(f"ensemble: a backbone's maps span nothing ({low} ... {high}): leave it out")
        total += (one - np.float32(low)) / np.float32(high - low)
    return total / np.float32(len(maps))
