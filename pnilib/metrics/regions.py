"""The connected defect regions of one mask.

Regions are 8-connected and belong to one image; a region partly cropped away is its visible part.
The released AUPRO compares with regions whose *holes are filled*, so the holes are found here too.
A hole is background that 8-connected steps cannot lead out of the region's bounding box: what
skimage's `filled_image`, which the released code uses, fills.
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Int

__all__ = ["DefectPixels", "defect_pixels"]


class DefectPixels(NamedTuple):
    """Flat pixel indices, each with the number of pixels of its region (holes not counted).

    A pixel in the holes of two nested regions occurs twice among the holes.
    """

    idx: Int[np.ndarray, " p"]
    region_size: Int[np.ndarray, " p"]
    hole_idx: Int[np.ndarray, " q"]
    hole_region_size: Int[np.ndarray, " q"]
    n_regions: int


def defect_pixels(mask: Bool[np.ndarray, "h w"]) -> DefectPixels:
    """All pixels of all regions of a mask, and of their holes."""
    n_labels, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    size = stats[:, cv2.CC_STAT_AREA]
    idx = np.flatnonzero(mask)
    holes = [np.empty(0, np.int64)]
    hole_sizes = [np.empty(0, np.int64)]
    if _has_enclosed(~mask):  # rare: spare the loop over regions
        for region in range(1, n_labels):
            found = _holes(labels, region, stats[region])
            holes.append(found)
            hole_sizes.append(np.full(len(found), size[region], np.int64))
    return DefectPixels(
        idx,
        size[labels.ravel()[idx]].astype(np.int64),
        np.concatenate(holes),
        np.concatenate(hole_sizes),
        n_labels - 1,
    )


def _background(outside: Bool[np.ndarray, "h w"]) -> tuple[int, Int[np.ndarray, "h+2 w+2"]]:
    """Components of the background, framed so that all that touches the border is one component."""
    framed = np.pad(outside, 1, constant_values=True).astype(np.uint8)
    n_labels, labels = cv2.connectedComponents(framed, connectivity=8)
    return n_labels, labels


def _has_enclosed(outside: Bool[np.ndarray, "h w"]) -> bool:
    return _background(outside)[0] > 2


def _holes(labels: Int[np.ndarray, "h w"], region: int, stats: Int[np.ndarray, "5"]) -> Int[np.ndarray, " q"]:
    x, y, width, height = (int(v) for v in stats[:4])
    n_labels, parts = _background(labels[y : y + height, x : x + width] != region)
    if n_labels == 2:
        return np.empty(0, np.int64)
    inner = parts[1:-1, 1:-1]
    rows, columns = np.nonzero((inner != 0) & (inner != parts[0, 0]))
    return (rows + y) * labels.shape[1] + columns + x
