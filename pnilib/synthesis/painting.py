"""What a defect generator gets and gives, and the rule that makes its mask exact.

A *generator* paints one defect on a clean image.  It may claim any region; `exact` then decides, pixel by pixel,
what counts: "A represents the ground-truth anomaly map of I, with 1 assigned to defect regions and 0 assigned to
others" (PNI sec. 3.3), and a pixel that looks as before is no defect.

Ours: the paper does not say how its masks treat painted pixels that did not change.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray

__all__ = ["MIN_SIDE", "Generator", "Materials", "Painted", "exact"]

MIN_SIDE = 16
"""px; on a smaller image no generator can paint its smallest defect."""

LEVEL = 1 / 255
"""One grey level of an 8-bit image."""


class Painted(NamedTuple):
    """A generator's answer: image in [0, 1]; region it painted on; what it drew, ready for JSON."""

    image: Float32[ndarray, "h w 3"]
    region: Bool[ndarray, "h w"]
    drawn: dict[str, Any]


@dataclass(frozen=True)
class Materials:
    """What generators may draw from, beside the image itself.

    donors: other normal images, RGB in [0, 1] (`natural`; when empty, the image itself is the donor).
    textures: texture images, RGB in [0, 1], any size (`draem`, `manual`); when empty, procedural ones are made.
    patches: hand-drawn defect patches, opacity in [0, 1], any size (`manual`); when empty, the built-in library.
    """

    donors: Sequence[Float32[ndarray, "_h _w 3"]] = ()
    textures: Sequence[Float32[ndarray, "_h _w 3"]] = ()
    patches: Sequence[Float32[ndarray, "_h _w"]] = ()


Generator = Callable[[ndarray, ndarray, np.random.Generator, Materials], Painted]
"""(image (h, w, 3) float32 in [0, 1], area (h, w) bool where defects may lie, random source, materials) -> Painted.

`area` is never empty; a generator places its defect so that some of it lies inside.
"""


def exact(
    clean: Float32[ndarray, "h w 3"], painted: Painted, area: Bool[ndarray, "h w"]
) -> tuple[Float32[ndarray, "h w 3"], Bool[ndarray, "h w"]]:
    """(image, mask): mask is True on exactly the pixels where the image differs from `clean`.

    - Outside region and area everything is put back.
    - Inside, a pixel that moved by less than one 8-bit level in every channel is unchanged, and put back, unless it
      is a pinhole (a 3 x 3 closing of the changed pixels covers it): noise that happens to repeat.  A pinhole is
      moved by one level instead.
    """
    inside = painted.region & area
    new = clean.copy()
    x, y, width, height = cv2.boundingRect(inside.view(np.uint8))
    if width == 0:
        return new, inside
    # one pixel more on each side: what the closing sees beyond is unchanged, or the image's border
    box = np.s_[max(0, y - 1) : y + height + 1, max(0, x - 1) : x + width + 1]
    before, after = clean[box], np.clip(painted.image[box], 0.0, 1.0)
    red, green, blue = cv2.split(cv2.absdiff(after, before))
    changed = inside[box] & (cv2.max(cv2.max(red, green), blue) > 0.999 * LEVEL)
    closed = cv2.morphologyEx(
        changed.view(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE
    )
    seen = changed | (inside[box] & (closed > 0))
    pinholes = seen & ~changed
    after[pinholes] = before[pinholes] + np.where(before[pinholes] < 0.5, LEVEL, -LEVEL).astype(np.float32)
    new[box] = cv2.copyTo(after, seen.view(np.uint8), before.copy())
    mask = np.zeros_like(inside)
    mask[box] = seen
    return new, mask
