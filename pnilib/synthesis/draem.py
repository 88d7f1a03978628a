"""DRAEM's defects: a foreign texture, more or less transparent, in the shape of thresholded Perlin noise.

PNI names the method only ("DRAEM [32]", sec. 3.3).  With I the clean image, T the texture, M the mask:

    I_new = (1 - M) I + M ((1 - beta) T + beta I),   beta ~ U(0, 0.8),   M = [noise > 0.5]

as the authors of DRAEM do it in their released data loader: noise in [-1, 1] (factor sqrt 2) with 2^0 ... 2^5 cells
along each axis, drawn independently, turned by U(-90, 90) degrees; three of ten augmentations, in random order, on T.

Deviations.  A cell has 4 px at least, so small images have fewer of them.  The turned noise is mirrored at its border
where DRAEM's is 0: defects reach the image's corners.  Noise is drawn until the mask covers 1/2,000 of the image
within the area (six times at most, then the threshold falls).  T is a random crop, not the squeezed whole.  The
ten augmentations are those of DRAEM in kind, not in every constant.  DRAEM leaves half of its samples clean: here
that is for the pool to decide.
"""

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8
from numpy import ndarray

from pnilib.synthesis.painting import Materials, Painted
from pnilib.synthesis.textures import perlin_noise, random_texture

__all__ = ["AUGMENTATIONS", "draem", "noise_mask"]

MAX_SCALE = 5
"""Cells along an axis: 2^0 ... 2^5."""
MIN_CELL = 4
"""px."""
THRESHOLD = 0.5
MAX_BETA = 0.8
N_AUGMENTATIONS = 3
ATTEMPTS = 6
LEAST = 1 / 2000
"""Share of the image that the mask covers within the area."""

_LEVELS = np.arange(256, dtype=np.float32)


def _curve(levels: ndarray) -> ndarray:
    """A look-up table for cv2.LUT of (256,) or (256, 3) new levels."""
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(table.reshape(1, 256, -1), (1, 256, 3)))


def _gamma(texture: ndarray, rng: np.random.Generator) -> ndarray:
    """Each channel to a power of its own, 0.5-2."""
    return cv2.LUT(texture, _curve(255 * (_LEVELS[:, None] / 255) ** rng.uniform(0.5, 2.0, 3)))


def _brightness(texture: ndarray, rng: np.random.Generator) -> ndarray:
    """0.8-1.2 times, plus -30 to 30 grey levels."""
    return cv2.LUT(texture, _curve(_LEVELS * rng.uniform(0.8, 1.2) + rng.uniform(-30, 30)))


def _sharpness(texture: ndarray, rng: np.random.Generator) -> ndarray:
    """From a 3 x 3 mean (0) over the texture (1) to twice its difference (2)."""
    amount = rng.uniform(0, 2)
    return cv2.addWeighted(texture, amount, cv2.blur(texture, (3, 3)), 1 - amount, 0)


def _hue_saturation(texture: ndarray, rng: np.random.Generator) -> ndarray:
    """Hue by up to 70 degrees, saturation by up to 50 levels, either way."""
    hue, saturation = rng.uniform(-35, 35), rng.uniform(-50, 50)  # OpenCV's 8-bit hue has 180 levels
    turned = _curve(np.stack([(_LEVELS + round(hue)) % 180, _LEVELS + saturation, _LEVELS], axis=1))
    return cv2.cvtColor(cv2.LUT(cv2.cvtColor(texture, cv2.COLOR_RGB2HSV), turned), cv2.COLOR_HSV2RGB)


def _solarize(texture: ndarray, rng: np.random.Generator) -> ndarray:
    """Levels above 32-128 are inverted."""
    return cv2.LUT(texture, _curve(np.where(rng.uniform(32, 128) < _LEVELS, 255 - _LEVELS, _LEVELS)))


def _posterize(texture: ndarray, rng: np.random.Generator) -> ndarray:
    """The lowest 1-7 bits are dropped."""
    step = 1 << int(rng.integers(1, 8))
    return cv2.LUT(texture, _curve(_LEVELS // step * step))


def _invert(texture: ndarray, rng: np.random.Generator) -> ndarray:
    return cv2.LUT(texture, _curve(255 - _LEVELS))


def _autocontrast(texture: ndarray, rng: np.random.Generator) -> ndarray:
    """Each channel is stretched to the whole range."""
    low, high = (np.array([f(c) for c in cv2.split(texture)], np.float32) for f in (np.min, np.max))
    return cv2.LUT(texture, _curve((_LEVELS[:, None] - low) * 255 / np.maximum(high - low, 1)))


def _equalize(texture: ndarray, rng: np.random.Generator) -> ndarray:
    """Each channel gets a flat histogram."""
    return cv2.merge([cv2.equalizeHist(channel) for channel in cv2.split(texture)])


def _rotate(texture: ndarray, rng: np.random.Generator) -> ndarray:
    """By up to 45 degrees, mirrored at the border."""
    return _turn(texture, rng.uniform(-45, 45))


AUGMENTATIONS: dict[str, Callable[[ndarray, np.random.Generator], ndarray]] = {
    "gamma": _gamma,
    "brightness": _brightness,
    "sharpness": _sharpness,
    "hue_saturation": _hue_saturation,
    "solarize": _solarize,
    "posterize": _posterize,
    "invert": _invert,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "rotate": _rotate,
}
"""uint8 RGB -> uint8 RGB of the same shape."""


def _turn(image: ndarray, angle: float) -> ndarray:
    """Turned by `angle` degrees about the centre, mirrored at the border."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def noise_mask(
    area: Bool[ndarray, "h w"], rng: np.random.Generator
) -> tuple[Bool[ndarray, "h w"], tuple[int, int], float]:
    """(mask, cells, angle in degrees): turned Perlin noise above the threshold, some of it inside the area."""
    shape = area.shape
    most = [min(MAX_SCALE, int(np.log2(max(1, side // MIN_CELL)))) for side in shape]
    wanted = min(max(1.0, LEAST * area.size), float(np.count_nonzero(area)))
    for attempt in range(1, ATTEMPTS + 1):
        cells = 2 ** int(rng.integers(most[0] + 1)), 2 ** int(rng.integers(most[1] + 1))
        angle = float(rng.uniform(-90, 90))
        noise = _turn(perlin_noise((shape[0], shape[1]), cells, rng), angle)
        mask = noise > THRESHOLD
        if np.count_nonzero(mask & area) >= wanted:
            break
        if attempt == ATTEMPTS:
            mask = noise >= min(THRESHOLD, float(np.quantile(noise[area], 0.9)))
    return mask, cells, angle


def augmented(
    texture: Float32[ndarray, "h w 3"], rng: np.random.Generator
) -> tuple[UInt8[ndarray, "h w 3"], list[str]]:
    """(texture in 8 bits, names): three different augmentations, one after the other."""
    levels = cv2.convertScaleAbs(texture, alpha=255)
    names = [str(name) for name in rng.choice(list(AUGMENTATIONS), N_AUGMENTATIONS, replace=False)]
    for name in names:
        levels = AUGMENTATIONS[name](levels, rng)
    return levels, names


def draem(
    image: Float32[ndarray, "h w 3"], area: Bool[ndarray, "h w"], rng: np.random.Generator, materials: Materials
) -> Painted:
    """A texture blended into the image where Perlin noise is high."""
    mask, cells, angle = noise_mask(area, rng)
    texture, source = random_texture((area.shape[0], area.shape[1]), materials.textures, rng)
    levels, names = augmented(texture, rng)
    beta = float(rng.uniform(0, MAX_BETA))
    blend = cv2.addWeighted(image, beta, levels, (1 - beta) / 255, 0, dtype=cv2.CV_32F)
    new = cv2.copyTo(blend, mask.view(np.uint8), image.copy())
    drawn = {"cells": list(cells), "angle": angle, "beta": beta, "texture": source, "augmentations": names}
    return Painted(new, mask, drawn)
