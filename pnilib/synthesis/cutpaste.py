"""CutPaste and its scar: a piece of the image, slightly recoloured, in the wrong place.

PNI names the method only ("Cut-Paste [17], CutPaste (scar) [17]", sec. 3.3).  Its numbers: NSA supplement, Table 6,
for the patch (area ratio from (.02, .15), aspect from (.3, 1) or (1, 3.3), "entire patch must appear in the full
image"); the widely used re-implementations of CutPaste for the scar (width 2-16 px, length 10-25 px at 256 px,
rotation +-45 degrees) and the colour jitter of .1.

Deviations.  The source is at least half a patch away from the destination where the image leaves room: a patch
pasted on itself is no defect.  The destination's centre lies in the area; where the whole area is too near to the
image's border for that, the patch is shifted inwards, and the scar is cut off.  In an oblong image a patch that would
be longer than the image's side takes the whole side and keeps its area, not its aspect.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray

from pnilib.synthesis.painting import Materials, Painted

__all__ = ["Jitter", "cutpaste", "scar"]

AREA_RATIO = 0.02, 0.15
ASPECTS = (0.3, 1.0), (1.0, 3.3)
"""Width / height; both intervals with equal odds."""

SCAR_SIDE = 256
"""px; the image side at which the next two hold; they scale with the shorter side."""
SCAR_WIDTH = 2.0, 16.0
SCAR_LENGTH = 10.0, 25.0
SCAR_ANGLE = 45.0

JITTER = 0.1

_GREY = np.full((3, 3), 1 / 3)
_TURN = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
"""Cross product with the unit vector along grey."""


class Jitter(NamedTuple):
    """Colour jitter in its four usual parts, as one affine map of RGB.

    brightness, contrast, saturation: factors (1: as before), about black, the patch's mean and each pixel's grey.
    hue: a rotation of colour about the grey axis, in turns (0: as before).  Ours: torchvision's ColorJitter rotates
    HSV's hue instead and weighs grey by luminance; grey stays grey in both.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0

    @classmethod
    def draw(cls, rng: np.random.Generator, amount: float = JITTER) -> "Jitter":
        """Factors from U(1 - amount, 1 + amount), hue from U(-amount, amount)."""
        steps = rng.uniform(-amount, amount, 4)
        return cls(*(float(x) for x in (1 + steps[0], 1 + steps[1], 1 + steps[2], steps[3])))

    def __call__(self, patch: Float32[ndarray, "h w 3"]) -> Float32[ndarray, "h w 3"]:
        """The patch recoloured, within [0, 1]."""
        angle = 2 * math.pi * self.hue
        rotation = _GREY + math.cos(angle) * (np.eye(3) - _GREY) + math.sin(angle) * _TURN
        saturation = self.saturation * np.eye(3) + (1 - self.saturation) * _GREY
        linear = self.brightness * self.contrast * rotation @ saturation
        shift = (1 - self.contrast) * self.brightness * float(np.mean(cv2.mean(patch)[:3]))
        matrix = np.hstack([linear, np.full((3, 1), shift)])
        return np.clip(cv2.transform(patch, matrix), 0, 1)


def _somewhere(area: Bool[ndarray, "h w"], size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """Corner (top, left) of a rectangle of `size`, its centre on a random pixel of the area, itself inside the image.

    Where every pixel of the area is too near to the image's border for that, the rectangle leaves the image.
    """
    (height, width), (h, w) = area.shape, size
    top, left = h // 2, w // 2
    inner = area[top : height - h + top + 1, left : width - w + left + 1]
    found = np.flatnonzero(inner)
    if len(found):
        y, x = divmod(int(found[rng.integers(len(found))]), inner.shape[1])
        return y, x
    found = np.flatnonzero(area)
    y, x = divmod(int(found[rng.integers(len(found))]), width)
    return y - top, x - left


def _elsewhere(
    shape: tuple[int, int], size: tuple[int, int], place: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int]:
    """Corner of another rectangle of `size` in the image; 20 draws to be half a rectangle away from `place`."""
    corner = place
    for _ in range(20):
        corner = int(rng.integers(shape[0] - size[0] + 1)), int(rng.integers(shape[1] - size[1] + 1))
        if 2 * abs(corner[0] - place[0]) >= size[0] or 2 * abs(corner[1] - place[1]) >= size[1]:
            break
    return corner


def cutpaste(
    image: Float32[ndarray, "h w 3"], area: Bool[ndarray, "h w"], rng: np.random.Generator, materials: Materials
) -> Painted:
    """An upright rectangle of the image, jittered, pasted elsewhere."""
    height, width = area.shape
    ratio, aspect = float(rng.uniform(*AREA_RATIO)), float(rng.uniform(*ASPECTS[rng.integers(2)]))
    n_pixels = ratio * height * width
    h, w = math.sqrt(n_pixels / aspect), math.sqrt(n_pixels * aspect)
    if h > height:
        h, w = height, n_pixels / height
    elif w > width:
        h, w = n_pixels / width, width
    size = max(1, round(h)), max(1, round(w))
    y, x = _somewhere(area, size, rng)
    y, x = min(max(y, 0), height - size[0]), min(max(x, 0), width - size[1])  # it still covers that pixel
    from_y, from_x = _elsewhere(area.shape, size, (y, x), rng)
    jitter = Jitter.draw(rng)
    new, region = image.copy(), np.zeros(area.shape, bool)
    window = np.s_[y : y + size[0], x : x + size[1]]
    new[window] = jitter(image[from_y : from_y + size[0], from_x : from_x + size[1]])
    region[window] = True
    drawn = {"ratio": ratio, "aspect": aspect, "size": list(size), "to": [y, x], "from": [from_y, from_x]}
    return Painted(new, region, drawn | {"jitter": jitter._asdict()})


def scar(
    image: Float32[ndarray, "h w 3"], area: Bool[ndarray, "h w"], rng: np.random.Generator, materials: Materials
) -> Painted:
    """A small upright strip of the image, jittered, turned and pasted elsewhere with its turned mask."""
    scale = min(area.shape) / SCAR_SIDE
    width = max(1.0, float(rng.uniform(*SCAR_WIDTH)) * scale)
    length = max(3.0, float(rng.uniform(*SCAR_LENGTH)) * scale)
    angle = float(rng.uniform(-SCAR_ANGLE, SCAR_ANGLE))
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    # the smallest odd box about the turned strip, and a box of that size to copy from
    size = tuple(2 * math.ceil((a * width + b * length) / 2) + 1 for a, b in ((abs(sin), cos), (cos, abs(sin))))
    y, x = _somewhere(area, size, rng)
    from_y, from_x = _elsewhere(area.shape, size, (y, x), rng)
    jitter = Jitter.draw(rng)

    dy = np.arange(size[0], dtype=np.float32)[:, None] - size[0] // 2
    dx = np.arange(size[1], dtype=np.float32)[None, :] - size[1] // 2
    along, across = cos * dy - sin * dx, sin * dy + cos * dx
    inside = (np.abs(along) <= length / 2) & (np.abs(across) <= width / 2)
    source_y = (along + (from_y + size[0] // 2)).astype(np.float32)
    source_x = (across + (from_x + size[1] // 2)).astype(np.float32)
    strip = cv2.remap(image, source_x, source_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)

    new, region = image.copy(), np.zeros(area.shape, bool)
    window = np.s_[max(y, 0) : y + size[0], max(x, 0) : x + size[1]]  # cut where it leaves the image
    seen = np.s_[max(-y, 0) : area.shape[0] - y, max(-x, 0) : area.shape[1] - x]
    region[window] = inside[seen]
    new[window][inside[seen]] = jitter(strip)[seen][inside[seen]]
    drawn = {"width": width, "length": length, "angle": angle, "to": [y, x], "from": [from_y, from_x]}
    return Painted(new, region, drawn | {"size": list(size), "jitter": jitter._asdict()})
