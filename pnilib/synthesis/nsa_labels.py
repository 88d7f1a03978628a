"""Labels of a patch task: how anomalous each pixel of a pasted image is (NSA; supplement, Table 5 and A.1).

With D the mean over channels of |image before - after| where patches lie, in grey levels, and M = [D > 1], cleaned by a
5 x 5 median:

    binary      M                                     factor      f M
    continuous  M median(D)                           logistic    M / (1 + exp(-k (median(D) - y_0)))

median: over a disk of radius 5.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8
from numpy import ndarray
from skimage.filters import rank
from skimage.morphology import disk

from pnilib.errors import PNIError
from pnilib.synthesis.nsa_tasks import ClassRules

__all__ = ["changed_mask", "label_map"]

RADIUS = 5
"""px, of the median's disk."""


def _summed(before: UInt8[ndarray, "h w 3"], after: UInt8[ndarray, "h w 3"], region: Bool[ndarray, "h w"]) -> ndarray:
    """3 D: the channels' differences added up, whole numbers up to 765; zero outside the region."""
    total = cv2.transform(cv2.absdiff(before, after).astype(np.uint16), np.ones((1, 3), np.float32))
    return np.where(region, total, np.uint16(0))


def changed_mask(
    before: UInt8[ndarray, "h w 3"], after: UInt8[ndarray, "h w 3"], region: Bool[ndarray, "h w"]
) -> Bool[ndarray, "h w"]:
    """M: where the mean of the channels moved by more than one grey level within the region; 5 x 5 median."""
    return cv2.medianBlur((_summed(before, after, region) > 3).view(np.uint8), 5).view(bool)


def label_map(
    kind: str,
    before: UInt8[ndarray, "h w 3"],
    after: UInt8[ndarray, "h w 3"],
    region: Bool[ndarray, "h w"],
    factor: float,
    rules: ClassRules,
) -> Float32[ndarray, "h w"]:
    """The label of `kind`: grey levels for `continuous`, else in [0, 1]; zero where nothing changed.

    region: where patches lie.  factor: f of the blending.  Raises PNIError for an unknown kind.
    """
    mask = changed_mask(before, after, region)
    label = mask.astype(np.float32)
    if kind == "binary":
        return label
    if kind == "factor":
        return np.float32(factor) * label
    if kind not in ("continuous", "logistic"):
        raise PNIError(f"label={kind}: unknown: choose binary, factor, continuous or logistic")
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    if width == 0:
        return label
    padded = np.pad(_summed(before, after, region), RADIUS, mode="edge")
    box = padded[top : top + height + 2 * RADIUS, left : left + width + 2 * RADIUS]
    median = rank.median(box, disk(RADIUS))[RADIUS:-RADIUS, RADIUS:-RADIUS].astype(np.float32) / 3
    if kind == "logistic":
        median = 1 / (1 + np.exp(-np.float32(rules.steepness) * (median - np.float32(rules.midpoint))))
    label[top : top + height, left : left + width] *= median
    return label
