"""Perlin noise, and texture images: read from a folder, or drawn when there is none.

Perlin noise (K. Perlin, "Making noise", 1999: [S4] of the supplement): every lattice point carries a random unit
gradient; a pixel sums the four ramps of its cell's corners, faded by s(t) = 6 t^5 - 15 t^4 + 10 t^3:

    noise(y, x) = sqrt(2) sum_ij s_i(y) s_j(x) [ g^y_ij (y - i) + g^x_ij (x - j) ]   in [-1, 1], 0 on lattice points.

With P[y, i] = s_i(y) and Q[y, i] = s_i(y) (y - i) for both axes that is Q G^y P' + P G^x Q': one small matrix product.

DRAEM takes its textures from DTD; `load_textures` reads that folder or any other.  The procedural textures are ours,
for whoever has none.
"""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from pnilib.data.files import list_images, no_image
from pnilib.data.image_files import decode
from pnilib.errors import PNIError

__all__ = ["FAMILIES", "lattice_noise", "load_textures", "perlin_noise", "procedural_texture", "random_texture"]


def lattice_noise(angles: Float32[ndarray, "n_y n_x"], height: int, width: int) -> Float32[ndarray, "height width"]:
    """Perlin noise of the unit gradients (sin, cos)(`angles`), radians, on (n_y - 1) x (n_x - 1) cells.

    Cells need not be whole pixels; pixel (0, 0) lies on a lattice point.
    """
    fade_y, ramp_y = _weights(height, angles.shape[0] - 1)
    fade_x, ramp_x = _weights(width, angles.shape[1] - 1)
    left = np.hstack([ramp_y @ np.sin(angles), fade_y @ np.cos(angles)])
    return np.asarray(np.float32(math.sqrt(2)) * left @ np.hstack([fade_x, ramp_x]).T)


def _weights(side: int, cells: int) -> tuple[ndarray, ndarray]:
    """P and Q of one axis, (side, cells + 1)."""
    position = np.arange(side, dtype=np.float32) * np.float32(cells / side)
    cell = np.minimum(position.astype(np.intp), cells - 1)
    offset = position - cell
    s = offset * offset * offset * (offset * (offset * 6 - 15) + 10)
    fade, ramp = np.zeros((2, side, cells + 1), np.float32)
    pixel = np.arange(side)
    fade[pixel, cell], fade[pixel, cell + 1] = 1 - s, s
    ramp[pixel, cell], ramp[pixel, cell + 1] = (1 - s) * offset, s * (offset - 1)
    return fade, ramp


def perlin_noise(
    shape: tuple[int, int], cells: tuple[int, int], rng: np.random.Generator
) -> Float32[ndarray, "height width"]:
    """Noise in [-1, 1] of `cells` (rows, columns) lattice cells over an image of `shape` px."""
    angles = rng.random((cells[0] + 1, cells[1] + 1), dtype=np.float32) * np.float32(2 * math.pi)
    return lattice_noise(angles, *shape)


def _octaves(shape: tuple[int, int], rng: np.random.Generator, first: int = 2) -> ndarray:
    """Four octaves of Perlin noise, each at half the amplitude of the one before; about [-1, 1]."""
    limit = max(1, min(shape) // 4)
    octaves = [perlin_noise(shape, (min(first << k, limit),) * 2, rng) / np.float32(1 << k) for k in range(4)]
    return np.asarray(sum(octaves))


def _axes(shape: tuple[int, int], rng: np.random.Generator, lowest: float, highest: float) -> tuple[ndarray, ndarray]:
    """Phases along two perpendicular directions, radians; `lowest` ... `highest` periods (log-uniform) an image."""
    most = max(lowest, min(highest, min(shape) / 4))  # 4 px a period: no aliasing
    rate = np.float32(2 * math.pi * lowest * (most / lowest) ** rng.random() / max(shape))
    angle = rng.uniform(0, math.pi)
    y = np.arange(shape[0], dtype=np.float32)[:, None] * rate
    x = np.arange(shape[1], dtype=np.float32)[None, :] * rate
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    start = rng.uniform(0, 2 * math.pi, 2).astype(np.float32)
    return cos * x + sin * y + start[0], cos * y - sin * x + start[1]


def _noise(shape: tuple[int, int], rng: np.random.Generator) -> ndarray:
    return 0.5 + 0.7 * _octaves(shape, rng, int(rng.choice([2, 4, 8, 16])))


def _stripes(shape: tuple[int, int], rng: np.random.Generator) -> ndarray:
    u, _ = _axes(shape, rng, 3, 60)
    return 0.5 + np.float32(rng.uniform(0.5, 3)) * np.sin(u)


def _checks(shape: tuple[int, int], rng: np.random.Generator) -> ndarray:
    u, v = _axes(shape, rng, 2, 30)
    return 0.5 + np.float32(rng.uniform(1, 8)) * np.sin(u) * np.sin(v)


def _dots(shape: tuple[int, int], rng: np.random.Generator) -> ndarray:
    u, v = _axes(shape, rng, 3, 40)
    return np.float32(rng.uniform(1, 6)) * (np.sin(u) + np.sin(v) - np.float32(rng.uniform(0.2, 1.5)))


def _cloth(shape: tuple[int, int], rng: np.random.Generator) -> ndarray:
    """Threads over and under: at every crossing one direction is on top, in turn."""
    u, v = _axes(shape, rng, 8, 60)
    su, sv = np.sin(u), np.sin(v)
    return np.where(su * sv > 0, np.abs(su), 0.8 * np.abs(sv))


def _marble(shape: tuple[int, int], rng: np.random.Generator) -> ndarray:
    u, _ = _axes(shape, rng, 1, 6)
    return 1 - np.abs(np.sin(u + np.float32(rng.uniform(2, 6)) * _octaves(shape, rng)))


FAMILIES: dict[str, Callable[[tuple[int, int], np.random.Generator], ndarray]] = {
    "noise": _noise,
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "cloth": _cloth,
    "marble": _marble,
}
"""Each draws one grey image, about [0, 1]; `procedural_texture` colours it."""


def procedural_texture(
    shape: tuple[int, int], rng: np.random.Generator, family: str | None = None
) -> Float32[ndarray, "height width 3"]:
    """A texture of random scale, direction and three random colours, with grain; RGB in [0, 1].

    `family`: one of FAMILIES; default any.
    """
    field = FAMILIES[family or str(rng.choice(list(FAMILIES)))](shape, rng)
    grain = rng.integers(0, 256, shape, dtype=np.uint8)
    level = cv2.addWeighted(cv2.convertScaleAbs(np.clip(field, 0, 1), alpha=255), 1, grain, rng.uniform(0, 0.15), 0)
    colours = rng.random((3, 3))
    grey = colours.mean(axis=1, keepdims=True)
    colours = grey + rng.uniform(0.1, 1) * (colours - grey)  # most materials are less colourful than random RGB
    palette = np.stack([np.interp(np.arange(256), (0, 128, 255), colours[:, c]) for c in range(3)], axis=1)
    return cv2.LUT(cv2.merge([level] * 3), palette.astype(np.float32)[None])


def random_texture(
    shape: tuple[int, int], textures: Sequence[ndarray], rng: np.random.Generator
) -> tuple[Float32[ndarray, "height width 3"], str]:
    """(texture of `shape`, its name): a random crop of a random one of `textures`, resized; or procedural if none.

    The crop has the shape's proportions and 40-100 % of the largest size that fits (ours: DRAEM squeezes the whole
    image to the shape).
    """
    if not textures:
        family = str(rng.choice(list(FAMILIES)))
        return procedural_texture(shape, rng, family), family
    index = int(rng.integers(len(textures)))
    texture = textures[index]
    most = min(texture.shape[0] / shape[0], texture.shape[1] / shape[1])
    scale = most * rng.uniform(0.4, 1.0)
    height, width = (max(1, int(side * scale)) for side in shape)
    top, left = rng.integers(texture.shape[0] - height + 1), rng.integers(texture.shape[1] - width + 1)
    crop = np.ascontiguousarray(texture[top : top + height, left : left + width])
    shrink = height > shape[0]
    return cv2.resize(crop, shape[::-1], interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR), str(index)


def load_textures(
    folder: str | os.PathLike[str], side: int = 384, limit: int = 256
) -> list[Float32[ndarray, "_h _w 3"]]:
    """Images below `folder`, RGB in [0, 1]; the longer side is reduced to `side` px where it exceeds that.

    `limit`: of more images, so many are read, evenly spread over the sorted paths (all classes of DTD; 256 of 384 px
    take some 0.3 GB).  Deep grey is scaled to its own range.  Raises PNIError when the folder is missing or holds no
    image, and when an image cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise PNIError(
            f"defect_textures={root}: there is no such folder: check the path, or leave it out for built-in ones"
        )
    found = list_images(root, deep=True)
    paths = found.images
    if not paths:
        raise no_image(found, "fill the folder with textures, or leave it out for built-in ones")
    chosen = np.linspace(0, len(paths) - 1, min(limit, len(paths))).round().astype(int)
    return [_read(paths[i], side) for i in chosen]


def _read(path: Path, side: int) -> Float32[ndarray, "_h _w 3"]:
    image = decode(path)
    if isinstance(image, ndarray) or image.mode[0] in "IF":  # 16 bits or floats
        values = np.asarray(image, np.float32)
        low, high = float(values.min()), float(values.max())
        if not math.isfinite(high - low):
            raise PNIError(f"{path}: has pixels that are no numbers: replace it, or remove it")
        pixels = np.broadcast_to(np.atleast_3d((values - low) / max(high - low, 1e-6)), (*values.shape[:2], 3))
    else:  # RGBA on the way: Pillow warns when it must drop a palette's transparency
        pixels = np.asarray(image.convert("RGBA").convert("RGB"), np.float32) / 255
    height, width = pixels.shape[:2]
    ratio = side / max(height, width)
    if ratio < 1:
        size = max(1, round(width * ratio)), max(1, round(height * ratio))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return np.clip(pixels, 0, 1)
