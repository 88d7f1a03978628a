"""Where a patch is taken and put, how large it is, and its outline (NSA supplement, A.1 and Table 6).

| | CutPaste | FPI and PII | NSA |
|---|---|---|---|
| size | area ratio from (.02, .15) | sides from U(.1, .4) | sides from truncated Gamma(2, .1) |
| aspect | from (.3, 1) or (1, 3.3) | square, cut by the border | any |
| place | "entire patch must appear in the full image" | "patch center must lie within 80%" | on the object |

"Truncated Gamma(2, .1)" is, in the released code, .06 + Gamma(2, .1), clipped to Table 4's bounds: sides that would be
smaller or larger get the bound.  That is what is drawn here.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from pnilib.synthesis.nsa_tasks import ClassRules, PatchTask

__all__ = ["N_TRIES", "Box", "destination", "patch_shape", "resized", "source_box"]

N_TRIES = 200
AREA_RATIO = 0.02, 0.15
ASPECTS = (0.3, 1.0), (1.0, 3.3)
FPI_SIDE = 0.1, 0.4
FPI_CENTRE = 0.8
N_ELLIPSES = 5


class Box(NamedTuple):
    """A rectangle of an image, px."""

    top: int
    left: int
    height: int
    width: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def source_box(
    shape: tuple[int, int],
    objects: Bool[ndarray, "h w"] | None,
    task: PatchTask,
    rules: ClassRules,
    rng: np.random.Generator,
) -> Box | None:
    """A rectangle of an image of `shape`, over t_object of which shows the object; None after N_TRIES centres.

    objects: None, the object is everywhere.
    """
    sides = np.array(shape)
    if task.sizes == "cutpaste":
        size = _cutpaste_size(shape, rng)
        top, left = (int(rng.integers(side - length + 1)) for side, length in zip(shape, size, strict=True))
        return Box(top, left, *size)
    if task.sizes == "fpi":
        half = np.maximum(1, (rng.uniform(*FPI_SIDE) * sides / 2).astype(int))
        margin = ((1 - FPI_CENTRE) / 2 * sides).astype(int)
    else:
        bounds = np.array([rules.height, rules.width]) / 2
        offset, scale = rules.gamma
        half = np.minimum(np.maximum(offset + rng.gamma(2, scale, 2), bounds[:, 0]), bounds[:, 1])
        half = np.maximum(1, (half * sides).astype(int))
        margin = np.maximum(1, (bounds[:, 0] * sides).astype(int))
    centres = rng.integers(margin, np.maximum(sides - margin, margin + 1), (N_TRIES if objects is not None else 1, 2))
    low, high = np.maximum(centres - half, 0), np.minimum(centres + half, sides)
    if objects is None:
        chosen = 0
    else:
        enough = np.flatnonzero(_counts(objects, low, high) > rules.t_object * (high - low).prod(axis=1))
        if not len(enough):
            return None
        chosen = int(enough[0])
    (top, left), (height, width) = low[chosen].tolist(), (high - low)[chosen].tolist()
    return Box(top, left, height, width)


def _cutpaste_size(shape: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """Height and width by area ratio and aspect (width / height); a side that would leave the image takes it whole."""
    area = float(rng.uniform(*AREA_RATIO)) * shape[0] * shape[1]
    aspect = float(rng.uniform(*ASPECTS[rng.integers(2)]))
    size = math.sqrt(area / aspect), math.sqrt(area * aspect)
    height, width = (min(side, max(1, round(length))) for side, length in zip(shape, size, strict=True))
    return height, width


def resized(
    box: Box, shape: tuple[int, int], task: PatchTask, rules: ClassRules, rng: np.random.Generator
) -> tuple[int, int]:
    """Height and width of the patch after resizing by one factor, N(1, .5) clipped to the class's scale and bounds."""
    if not task.resize:
        return box.height, box.width
    scale = float(np.clip(rng.normal(1, 0.5), *rules.scale))
    share = 0.5 if "half_clip" in task.released else 1.0
    (low_y, high_y), (low_x, high_x) = ((share * a, share * b) for a, b in (rules.height, rules.width))
    height = float(np.clip(scale * box.height, low_y * shape[0], high_y * shape[0]))
    width = float(np.clip(height / box.height * box.width, low_x * shape[1], high_x * shape[1]))
    height = width / box.width * box.height  # the aspect stays, where the bounds of both sides allow it or not
    return min(shape[0], max(1, int(height))), min(shape[1], max(1, int(width)))


def destination(
    size: tuple[int, int],
    seen: Bool[ndarray, "ph pw"] | None,
    objects: Bool[ndarray, "h w"] | None,
    shape: tuple[int, int],
    rules: ClassRules,
    rng: np.random.Generator,
) -> Box | None:
    """A place for a patch of `size` inside an image of `shape`; None after N_TRIES places.

    seen: where the patch shows its object; more than t_object of it must.  objects: where the image shows its own; more
    than t_overlap of the patch's object must fall on it.  None: everywhere.
    """
    free = np.array(shape) - np.array(size) + 1
    corners = rng.integers(0, free, (N_TRIES if objects is not None else 1, 2))
    if objects is None or seen is None:
        top, left = corners[0].tolist()
        return Box(top, left, *size)
    shown = int(np.count_nonzero(seen))
    if shown <= rules.t_object * seen.size:
        return None
    promising = _counts(objects, corners, corners + size) > rules.t_overlap * shown  # it cannot overlap by more
    for top, left in corners[promising].tolist():
        box = Box(top, left, *size)
        if np.count_nonzero(objects[box.window] & seen) > rules.t_overlap * shown:
            return box
    return None


def _counts(mask: Bool[ndarray, "h w"], low: Int[ndarray, "n 2"], high: Int[ndarray, "n 2"]) -> Int[ndarray, " n"]:
    """Pixels of the mask in each rectangle low ... high (exclusive)."""
    sums = cv2.integral(mask.view(np.uint8))
    (y0, x0), (y1, x1) = low.T, high.T
    return np.asarray(sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0])


def patch_shape(size: tuple[int, int], shape: str, rng: np.random.Generator) -> Bool[ndarray, "ph pw"]:
    """The patch's outline: all of it, or the union of five random ellipses within it (variant D).

    The supplement gives no distribution of the ellipses (ours): centres uniform in the patch, half-axes U(.1, .5) of
    its sides, any angle.
    """
    mask = np.ones(size, np.uint8)
    if shape == "ellipses":
        mask[:] = 0
        for _ in range(N_ELLIPSES):
            centre = rng.uniform(0, 1, 2) * size
            axes = rng.uniform(0.1, 0.5, 2) * size
            angle = float(rng.uniform(0, 180))
            cv2.ellipse(mask, (centre[::-1].tolist(), (2 * axes[::-1]).tolist(), angle), 1, cv2.FILLED)
    return mask.view(bool)
