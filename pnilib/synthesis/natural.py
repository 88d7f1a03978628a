"""Natural synthetic anomalies: patches of another normal image, blended in without a visible seam.

Schlüter et al., Natural Synthetic Anomalies (NSA), sec. 3 and supplement A.1; PNI does not have this generator.
A rectangle S of a donor image is scaled and put somewhere else, and inside it

    laplacian(f) = div(v),    f = image on the rim of S                            (Poisson equation, Dirichlet rim)

where v is the donor's gradient, or per pixel pair the stronger of donor's and image's (`mixed`).  On a rectangle the
discrete sine transform solves this exactly.

Settings as in NSA: half-sizes 0.03 + Gamma(2, 0.05), clipped to 0.03 ... 0.4 of the side; scale N(1, 0.5) clipped to
0.7 ... 1.3, for textures 0.5 ... 2; a first patch, and a second and third with probability 1/2 each; mixed gradients
for textures, the donor's for objects, whose outlines make artifacts in mixed ones (supplement A.1).  A defect is where
the channels' mean moved by more than a grey level, 5 x 5 median.

Deviations:
- Solved here in floats, to the rim, not by OpenCV's seamlessClone: that one rounds to 8 bits and erodes its mask by
  three pixels; measured with OpenCV 5.0, the donor shows from five pixels inside the rim on, and of an 8 px patch
  nothing does.
- "Texture": the area is the whole image.  NSA fixes by category what is an object.
- At most 50 tries for a place, and then the best of them is taken; NSA tries 200 and returns the image unchanged.
- Masks of several patches are united; NSA's code overwrites the earlier one's rectangle.
- NSA's code clips full sizes by bounds meant for half-sizes; here the full bounds hold.
- Patches under 50 px are skipped, as in NSA; on images under 71 px, under 1 % of the pixels.  Half-sizes are 4 px at
  least: the median would wipe out anything smaller.
"""

from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32
from numpy import ndarray
from scipy.fft import dstn, idstn

from pnilib.synthesis.foreground import foreground_mask
from pnilib.synthesis.painting import LEVEL, Materials, Painted

__all__ = ["natural", "poisson"]

N_MAX = 3
HALF = (0.03, 0.4)
SCALES = {"object": (0.7, 1.3), "texture": (0.5, 2.0)}
T_OBJECT = 0.5
"""Least share of a patch, at source and destination, that shows the part (NSA: 0.25 to 0.7, by category)."""

T_OVERLAP = 0.25
"""Least share of the source's part that falls on the part (NSA Table 4)."""

LEAST = 4
"""px; smallest half-size."""

N_TRIES = 50
FEWEST = 50
"""px; smaller patches are skipped."""


def poisson(image: Float[ndarray, "h w 3"], donor: Float[ndarray, "h w 3"], mixed: bool) -> Float[ndarray, "h w 3"]:
    """`image` with the inside replaced by the solution for the donor's gradients; its rim, one pixel, stays.

    Both sides at least 3 px.  Values may leave [0, 1].  float64, as the smallest eigenvalue is about 10 / side^2.
    """
    image, donor = image.astype(np.float64), donor.astype(np.float64)
    vy, vx = np.diff(donor, axis=0), np.diff(donor, axis=1)
    if mixed:
        own_y, own_x = np.diff(image, axis=0), np.diff(image, axis=1)
        vy = np.where(np.abs(own_y) > np.abs(vy), own_y, vy)
        vx = np.where(np.abs(own_x) > np.abs(vx), own_x, vx)
    divergence = np.diff(vy[:, 1:-1], axis=0) + np.diff(vx[1:-1], axis=1)
    rim = image.copy()
    rim[1:-1, 1:-1] = 0  # what the rim adds to the Laplacian of the pixels next to it is known
    known = divergence - (rim[:-2, 1:-1] + rim[2:, 1:-1] + rim[1:-1, :-2] + rim[1:-1, 2:])
    eigen_y, eigen_x = (2 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1)) - 2 for n in known.shape[:2])
    waves = dstn(known, type=1, axes=(0, 1)) / (eigen_y[:, None] + eigen_x)[..., None]
    blended = image.copy()
    blended[1:-1, 1:-1] = idstn(waves, type=1, axes=(0, 1))
    return blended


def natural(
    image: Float32[ndarray, "h w 3"], area: Bool[ndarray, "h w"], rng: np.random.Generator, materials: Materials
) -> Painted:
    """One to three blended patches of one of `materials.donors` (resized to the image), else of the image itself."""
    height, width = area.shape
    kind = "texture" if area.all() else "object"
    donor, number = image, None
    if len(materials.donors):
        number = int(rng.integers(len(materials.donors)))
        donor = materials.donors[number]
        if donor.shape != image.shape:
            donor = cv2.resize(donor, (width, height), interpolation=cv2.INTER_AREA)
    part = area if kind == "texture" or donor is image else foreground_mask(donor)
    painted, region, placed = image, np.zeros_like(area), []
    for count in range(N_MAX):
        if count and rng.random() < 0.5:
            break
        cut, cut_part = _cut(donor, part, rng, SCALES[kind])
        if (cut_part.shape[0] - 2) * (cut_part.shape[1] - 2) < min(FEWEST, 0.01 * height * width):
            continue
        top, left = _destination(area, cut_part, rng)
        box = (slice(top, top + cut.shape[0]), slice(left, left + cut.shape[1]))
        painted = painted.copy()
        painted[box] = np.clip(poisson(painted[box], cut, mixed=kind == "texture"), 0, 1)
        moved = np.abs(painted[box] - image[box]).mean(axis=2) > LEVEL
        region[box] |= cv2.medianBlur(moved.astype(np.uint8), 5).astype(bool)
        placed.append({"top": top, "left": left, "height": cut.shape[0], "width": cut.shape[1]})
    drawn: dict[str, Any] = {"donor": number, "gradients": "mixed" if kind == "texture" else "donor", "patches": placed}
    return Painted(painted, region, drawn)


def _cut(
    donor: ndarray, part: ndarray, rng: np.random.Generator, scales: tuple[float, float]
) -> tuple[ndarray, ndarray]:
    """A scaled rectangle of the donor, cut by its border, and where it shows the part."""
    sides = np.array(part.shape)
    half = np.clip(0.03 + rng.gamma(2, 0.05, 2), *HALF) * sides
    half = np.maximum(np.floor(half), LEAST).astype(int)
    margin = np.maximum(np.floor(HALF[0] * sides), LEAST).astype(int)
    centres = rng.integers(margin, sides - margin, (N_TRIES, 2))
    low, high = np.maximum(centres - half, 0), np.minimum(centres + half, sides)
    (y0, x0), (y1, x1) = _best(_shares(part, low, high), low, high)
    scale = np.clip(rng.normal(1, 0.5), *scales)
    largest = np.minimum(2 * HALF[1] * sides, sides)
    size_y, size_x = (
        max(2 * LEAST, int(min(s * scale, limit))) for s, limit in zip((y1 - y0, x1 - x0), largest, strict=True)
    )
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    cut = cv2.resize(donor[y0:y1, x0:x1], (size_x, size_y), interpolation=how)
    seen = cv2.resize(part[y0:y1, x0:x1].astype(np.uint8), (size_x, size_y), interpolation=cv2.INTER_NEAREST)
    return cut, seen.astype(bool)


def _destination(area: ndarray, cut_part: ndarray, rng: np.random.Generator) -> tuple[int, int]:
    """Top and left of a place inside the image, on the part and with part on part as often as NSA asks.

    One of the tries has a pixel of `area` in its middle (or as near as the border allows), so that some place fits.
    """
    size, sides = np.array(cut_part.shape), np.array(area.shape)
    corners = rng.integers(0, sides - size + 1, (N_TRIES, 2))
    pixel = np.array(divmod(int(rng.choice(np.flatnonzero(area))), area.shape[1]))
    corners[-1] = np.clip(pixel - size // 2, 0, sides - size)
    shares = _shares(area, corners, corners + size)
    seen = max(int(cut_part.sum()), 1)
    for top, left in corners[shares > T_OBJECT]:
        both = area[top : top + size[0], left : left + size[1]] & cut_part
        if both.sum() > T_OVERLAP * seen:
            return int(top), int(left)
    top, left = corners[int(shares.argmax())]
    return int(top), int(left)


def _shares(part: ndarray, low: ndarray, high: ndarray) -> ndarray:
    """Share of each rectangle (low ... high, exclusive) that lies on the part."""
    sums = cv2.integral(part.astype(np.uint8))
    (y0, x0), (y1, x1) = low.T, high.T
    inside = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    return inside / ((y1 - y0) * (x1 - x0))


def _best(shares: ndarray, low: ndarray, high: ndarray) -> tuple[ndarray, ndarray]:
    """The first rectangle with enough of the part, else the one with most."""
    enough = np.flatnonzero(shares > T_OBJECT)
    chosen = int(enough[0]) if len(enough) else int(shares.argmax())
    return low[chosen], high[chosen]
