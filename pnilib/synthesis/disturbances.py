"""SegAD's three disturbances: a blurred part of a segment, a small rectangle, a thin one.

"Generating defects for the one-class benchmark is not optimized ... it was sufficient to generate disturbances in the
image, which caused anomaly detectors to show higher anomaly scores" (SegAD supplement, A.2; its Figure 1 names the
three).  The supplement says that the code is in the authors' repository; it is in no file nor commit there.  So
**all sizes, colours and odds here are ours**:

- blurred: Gaussian, sigma 2 to 6 px at 256 px, inside a random blob that covers 20 to 60 % of the area;
- small rectangle: sides 2 to 6 % of the image's shorter one, each drawn for itself, upright;
- thin rectangle: 1 to 2 % wide and 8 to 25 % long, at any angle;
- rectangles are filled with one colour, half of the time that of a random pixel of the image, else any (uniform).

`area` is the segment; rectangles have their centre in it, and `exact` cuts off what lies beyond.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray

from pnilib.synthesis.painting import Materials, Painted

__all__ = ["blurred", "small_rectangle", "thin_rectangle"]

SIGMA = (2.0, 6.0)
"""px at SIDE; scales with the shorter side."""
SIDE = 256
COVERED = (0.2, 0.6)
"""Share of the area that is blurred."""

SMALL = (0.02, 0.06)
THIN, LONG = (0.01, 0.02), (0.08, 0.25)
"""Shares of the image's shorter side."""


def blurred(
    image: Float32[ndarray, "h w 3"], area: Bool[ndarray, "h w"], rng: np.random.Generator, materials: Materials
) -> Painted:
    """The image, blurred inside a random blob of the area: where smooth noise is highest there."""
    height, width = area.shape
    sigma = float(rng.uniform(*SIGMA)) * min(height, width) / SIDE
    share = float(rng.uniform(*COVERED))
    noise = cv2.resize(rng.standard_normal((4, 4), np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    region = area & (noise >= np.quantile(noise[area], 1 - share))
    new = image.copy()
    new[region] = cv2.GaussianBlur(image, (0, 0), max(sigma, 0.5))[region]
    return Painted(new, region, {"sigma_px": round(sigma, 2), "share": round(share, 3)})


def small_rectangle(
    image: Float32[ndarray, "h w 3"], area: Bool[ndarray, "h w"], rng: np.random.Generator, materials: Materials
) -> Painted:
    """A filled upright rectangle."""
    sides = rng.uniform(*SMALL, 2) * min(area.shape)
    return _filled(image, area, rng, (float(sides[0]), float(sides[1])), 0.0)


def thin_rectangle(
    image: Float32[ndarray, "h w 3"], area: Bool[ndarray, "h w"], rng: np.random.Generator, materials: Materials
) -> Painted:
    """A filled bar at any angle."""
    size = float(rng.uniform(*LONG)) * min(area.shape), float(rng.uniform(*THIN)) * min(area.shape)
    return _filled(image, area, rng, size, float(rng.uniform(0, 180)))


def _filled(
    image: ndarray, area: ndarray, rng: np.random.Generator, size: tuple[float, float], degrees: float
) -> Painted:
    """One colour in a rectangle of `size` (length, width) px, at least one pixel, about a random pixel of the area."""
    allowed = np.flatnonzero(area)
    y, x = divmod(int(allowed[rng.integers(len(allowed))]), area.shape[1])
    corners = cv2.boxPoints(((float(x), float(y)), size, degrees))
    drawn = np.zeros(area.shape, np.uint8)
    cv2.fillPoly(drawn, [np.round(corners).astype(np.int32)], 1)
    drawn[y, x] = 1
    seen = bool(rng.random() < 0.5)
    pixel = image.reshape(-1, 3)[rng.integers(area.size)]
    colour = pixel if seen else rng.uniform(0, 1, 3).astype(np.float32)
    new = image.copy()
    new[drawn > 0] = colour
    facts = {"size_px": [round(side, 1) for side in size], "turn_deg": round(degrees, 1), "centre": [y, x]}
    return Painted(new, drawn > 0, facts | {"colour": [round(float(c), 3) for c in colour]})
