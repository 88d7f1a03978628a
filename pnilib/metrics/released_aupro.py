r"""AUPRO as the released code computes it, kept beside the exact one for comparison.

The paper names AUPRO (sec. 4.1: "equal weight to anomalous regions of different sizes") and gives neither
limit nor formula.  This package's default is the exact one (`steps.area_below`): PRO(t) is the mean
over all regions of the share of their pixels with score >= t, FPR(t) the share of all normal pixels
of all images, good ones included, with score >= t; the area from FPR 0 to the limit, over all distinct
thresholds, linear at the limit, divided by the limit.

The released variant differs in five ways:
1. 2,000 thresholds t_k = max - k (max - min) / 2000 instead of all: coarse where scores crowd;
2. score > t instead of >=;
3. a region's overlap counts the pixels of its filled holes, divided by its unfilled size: can exceed 1;
4. the curve ends at its last point with FPR <= limit: no interpolation;
5. FPR is rescaled from its own minimum and maximum to [0, 1]: the area is divided by the last FPR
   reached, not by the limit.

Deviation from the released code: thresholds are computed in float64 from float32 maps.
"""

import numpy as np
from jaxtyping import Float, Float32, Float64

__all__ = ["RELEASED_THRESHOLDS", "released_area", "released_thresholds"]

RELEASED_THRESHOLDS = 2000


def released_thresholds(low: float, high: float) -> Float64[np.ndarray, " k"]:
    """The 2,000 thresholds, from `high` downwards; `low` itself is not among them."""
    return high - np.arange(RELEASED_THRESHOLDS) * ((high - low) / RELEASED_THRESHOLDS)


def released_area(
    normal_top: Float32[np.ndarray, " n"],
    n_normal: int,
    filled: Float32[np.ndarray, " p"],
    weights: Float[np.ndarray, " p"],
    thresholds: Float64[np.ndarray, " k"],
    limit: float,
) -> float | None:
    """Released AUPRO, or None when no two thresholds with FPR <= limit differ in FPR.

    `normal_top`: more than limit * N of the `n_normal` normal scores, the largest, ascending; `filled`:
    scores inside the filled regions, with `weights` 1 / (R |r|).
    """
    lowered = _rounded_down(thresholds)
    fpr = (len(normal_top) - np.searchsorted(normal_top, lowered, side="right")) / n_normal
    keep = fpr <= limit
    if len(normal_top) < n_normal:
        keep &= lowered >= normal_top[0]  # below it, more than limit N normal pixels exceed t
    order = np.argsort(filled)
    up_to = np.concatenate(([0.0], np.cumsum(weights[order].astype(np.float64))))
    overlap = up_to[-1] - up_to[np.searchsorted(filled[order], lowered, side="right")]
    fpr, overlap = fpr[keep], overlap[keep]
    if len(fpr) == 0 or fpr[0] == fpr[-1]:
        return None
    return float(np.trapezoid(overlap, (fpr - fpr[0]) / (fpr[-1] - fpr[0])))


def _rounded_down(thresholds: Float64[np.ndarray, " k"]) -> Float32[np.ndarray, " k"]:
    """The largest float32 <= t: for float32 scores, score > t is the same as score > this."""
    nearest = thresholds.astype(np.float32)
    too_high = nearest.astype(np.float64) > thresholds
    return np.where(too_high, np.nextafter(nearest, np.float32(-np.inf)), nearest)
