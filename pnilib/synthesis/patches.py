"""Hand-drawn defect patches: the built-in library, and patches that users draw themselves.

"First, we make the defect patches in a hand-drawing manner as shown in Figure S3(a)" (PNI supplement, S2).  The
authors' drawings are not released; these are drawn by code the way a hand draws: lines that wobble, swell and taper,
cracks that branch, blots with an uneven rim.  A patch is opacity in [0, 1], cropped to what is drawn.

On disk a patch is a grey picture, 0 nothing, 255 all defect; of a picture with transparency, the opacity counts.
"""

import math
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray
from PIL import Image

from pnilib.data.files import list_images, no_image
from pnilib.data.image_files import decode
from pnilib.errors import PNIError
from pnilib.store.files import atomic_write, os_errors

__all__ = ["KINDS", "SIDE", "crop_patch", "draw_patch", "library", "load_patches", "save_patch", "trace"]

SIDE = 128
"""px; side of the sheet on which a library patch is drawn."""

PATCHES_PER_KIND = 10
LIBRARY_SEED = 3
FINE = 4
"""Drawn pixels per patch pixel, along each axis."""

LARGEST = 512
"""px; a user's picture is reduced to this."""

# ---- drawing ---------------------------------------------------------------------------------------------------------


def trace(
    sheet: Float32[ndarray, "h w"],
    points: Float[ndarray, "n 2"],
    widths: Float[ndarray, " n"],
    pressure: Float[ndarray, " n"] | None = None,
) -> None:
    """Draw a line through `points` (x, y; px) into `sheet`: round pen, `widths` px, opacity `pressure` (default 1)."""
    pressure = np.ones(len(points)) if pressure is None else pressure
    for k in range(len(points)):
        following = points[min(k + 1, len(points) - 1)]
        steps = max(1, math.ceil(float(np.hypot(*(following - points[k]))) / max(0.25 * widths[k], 0.5)))
        for x, y in points[k] + np.arange(steps)[:, None] / steps * (following - points[k]):
            centre = (round(float(x) * 16), round(float(y) * 16))
            radius = max(1, round(float(widths[k]) * 8))
            cv2.circle(sheet, centre, radius, float(pressure[k]), -1, cv2.LINE_8, 4)


def crop_patch(opacity: Float32[ndarray, "h w"]) -> Float32[ndarray, "_h _w"]:
    """The rectangle around everything drawn, opacity of a grey level or more.

    Raises PNIError when nothing is drawn.
    """
    rows, columns = (np.nonzero((opacity >= 1 / 256).any(axis))[0] for axis in (1, 0))
    if not len(rows):
        raise PNIError("the patch is empty: draw something before it is used")
    return np.ascontiguousarray(opacity[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def _smooth(rng: np.random.Generator, n: int, spread: float) -> ndarray:
    """n values around zero that change slowly: noise blurred over `spread` values, sd 1."""
    reach = math.ceil(3 * spread)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / spread) ** 2)
    return np.convolve(rng.standard_normal(n + 2 * reach), kernel / np.linalg.norm(kernel), mode="valid")


def _walk(rng: np.random.Generator, n: int, bend: float, spread: float) -> ndarray:
    """n points of a line that starts anywhere, turns by about `bend` radians in all, and fits the unit square."""
    angle = rng.uniform(0, 2 * math.pi) + bend * np.cumsum(_smooth(rng, n, spread)) / math.sqrt(n * spread)
    return np.cumsum(np.stack([np.cos(angle), np.sin(angle)], 1), axis=0)


def _fit(points: ndarray, share: float, rng: np.random.Generator) -> ndarray:
    """Points shifted and scaled so that the longer side of their box is `share` of the sheet, px of the fine sheet."""
    low, high = points.min(0), points.max(0)
    scaled = (points - (low + high) / 2) / max(float((high - low).max()), 1e-9) * share
    return (scaled + 0.5) * SIDE * FINE


def _taper(n: int, sharpness: float) -> ndarray:
    """1 in the middle of a line, towards 0 at its ends."""
    return np.clip(np.sin(np.linspace(0.03, math.pi - 0.03, n)), 0, 1) ** sharpness


def _stroke(sheet: ndarray, rng: np.random.Generator) -> None:
    """One sweep of a broad pen."""
    n = 80
    points = _fit(_walk(rng, n, rng.uniform(0.4, 2.2), 12), 0.8, rng)
    width = rng.uniform(0.05, 0.12) * SIDE * FINE * _taper(n, 0.5) * (1 + 0.15 * _smooth(rng, n, 8))
    trace(sheet, points, np.maximum(width, 2), np.clip(0.9 + 0.1 * _smooth(rng, n, 10), 0.5, 1))


def _scratch(sheet: ndarray, rng: np.random.Generator) -> None:
    """One to four thin lines side by side, nearly straight."""
    n = 60
    points = _fit(_walk(rng, n, rng.uniform(0.1, 0.6), 20), 0.86, rng)
    across = (points[-1] - points[0])[::-1] * (1, -1) / max(float(np.hypot(*(points[-1] - points[0]))), 1.0)
    for k in range(int(rng.integers(1, 5))):
        first, last = sorted(rng.integers(0, n // 3, 2) * (1, -1) + (0, n))
        own = points[first:last] + across * (k * rng.uniform(8, 30)) + 0.8 * rng.standard_normal((last - first, 2))
        width = rng.uniform(0.008, 0.02) * SIDE * FINE * _taper(len(own), 0.7)
        trace(sheet, own, np.maximum(width, 2), np.full(len(own), rng.uniform(0.6, 1)))


def _crack(sheet: ndarray, rng: np.random.Generator) -> None:
    """A jagged line that thins towards its tip and sends out branches."""
    size = SIDE * FINE

    def grow(start: ndarray, heading: float, length: float, width: float, depth: int) -> None:
        n = max(3, round(length / 0.035))
        angles = heading + rng.normal(0, 0.55, n)
        steps = np.stack([np.cos(angles), np.sin(angles)], 1) * (length / n * rng.uniform(0.4, 1.6, (n, 1)))
        points = np.concatenate([start[None], start + np.cumsum(steps, axis=0)])
        trace(sheet, points * size, np.maximum(np.linspace(width, width * 0.3, n + 1) * size, 2))
        if depth:
            for at in rng.choice(n, min(n, int(rng.integers(1, 4))), replace=False):
                aside = heading + rng.choice([-1, 1]) * rng.uniform(0.4, 1.2)
                grow(points[at], aside, length * rng.uniform(0.25, 0.5), width * 0.6, depth - 1)

    heading = rng.uniform(0, 2 * math.pi)
    start = np.array([0.5, 0.5]) - 0.4 * np.array([math.cos(heading), math.sin(heading)])
    grow(start, heading, 0.75, rng.uniform(0.014, 0.03), 2)


def _outline(rng: np.random.Generator, rough: float) -> ndarray:
    """A closed line around the origin whose radius wavers around 1."""
    turn = np.linspace(0, 2 * math.pi, 96, endpoint=False)
    radius = np.ones(96)
    for k in range(2, 9):
        radius += rough / k * rng.normal() * np.cos(k * turn + rng.uniform(0, 2 * math.pi))
    radius = np.clip(radius, 0.25, 2)
    return np.stack([radius * np.cos(turn), radius * rng.uniform(0.45, 1) * np.sin(turn)], 1)


def _blob(sheet: ndarray, rng: np.random.Generator) -> None:
    """A blot with an uneven rim; half of them soft."""
    points = _fit(_outline(rng, rng.uniform(0.3, 0.9)), rng.uniform(0.5, 0.85), rng)
    cv2.fillPoly(sheet, [np.round(points * 16).astype(np.int32)], 1.0, cv2.LINE_8, 4)
    if rng.random() < 0.5:
        cv2.GaussianBlur(sheet, (0, 0), rng.uniform(0.01, 0.04) * SIDE * FINE, dst=sheet)


def _scribble(sheet: ndarray, rng: np.random.Generator) -> None:
    """A pen moved to and fro while it travels."""
    n = 260
    along = np.linspace(-1, 1, n) * rng.uniform(0.5, 1)
    swing = np.cumsum(np.clip(1 + 0.4 * _smooth(rng, n, 15), 0.2, 2)) * rng.uniform(0.08, 0.16)
    points = np.stack([along + 0.25 * np.cos(swing), np.sin(swing) * (0.8 + 0.2 * _smooth(rng, n, 20))], 1)
    width = rng.uniform(0.012, 0.03) * SIDE * FINE * np.clip(1 + 0.2 * _smooth(rng, n, 10), 0.4, 2)
    trace(sheet, _fit(points, 0.85, rng), np.maximum(width, 2), np.full(n, rng.uniform(0.7, 1)))


def _dots(sheet: ndarray, rng: np.random.Generator) -> None:
    """Spatter: specks of many sizes around one place."""
    for _ in range(int(rng.integers(4, 16))):
        place = (0.5 + np.clip(0.16 * rng.standard_normal(2), -0.4, 0.4)) * SIDE * FINE
        radius = np.exp(rng.uniform(math.log(0.012), math.log(0.07))) * SIDE * FINE
        outline = place + radius * _outline(rng, 0.4)
        cv2.fillPoly(sheet, [np.round(outline * 16).astype(np.int32)], float(rng.uniform(0.6, 1)), cv2.LINE_8, 4)


KINDS: dict[str, Callable[[ndarray, np.random.Generator], None]] = {
    "stroke": _stroke,
    "scratch": _scratch,
    "crack": _crack,
    "blob": _blob,
    "scribble": _scribble,
    "dots": _dots,
}


def draw_patch(kind: str, rng: np.random.Generator) -> Float32[ndarray, "h w"]:
    """One patch of the library's kind: opacity in [0, 1], longer side at most SIDE px."""
    sheet = np.zeros((SIDE * FINE, SIDE * FINE), np.float32)
    KINDS[kind](sheet, rng)
    return crop_patch(np.clip(cv2.resize(sheet, (SIDE, SIDE), interpolation=cv2.INTER_AREA), 0, 1))


@cache
def library() -> tuple[ndarray, ...]:
    """The built-in patches: PATCHES_PER_KIND of each of KINDS, kinds in turn; always the same read-only arrays."""
    patches = []
    for number in range(PATCHES_PER_KIND):
        for place, kind in enumerate(KINDS):
            patch = draw_patch(kind, np.random.default_rng((LIBRARY_SEED, place, number)))
            patch.flags.writeable = False  # shared between threads
            patches.append(patch)
    return tuple(patches)


# ---- users' patches --------------------------------------------------------------------------------------------------


def save_patch(folder: Path | str, opacity: Float32[ndarray, "h w"]) -> Path:
    """Write a patch, cropped to what is drawn, as the next free FOLDER/patch_001.png; its path.

    Opacity is rounded to 8 bits.  Raises PNIError for an empty patch and a folder that cannot be written.
    """
    folder = Path(folder)
    grey = np.round(crop_patch(np.clip(opacity, 0, 1)) * 255).astype(np.uint8)
    with os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            path = folder / f"patch_{number:03d}.png"
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL))  # two processes never take one name
                break
            except FileExistsError:
                number += 1
    with atomic_write(path, "wb") as handle:
        Image.fromarray(grey).save(handle, format="PNG")
    return path


def load_patches(folder: Path | str) -> list[Float32[ndarray, "_h _w"]]:
    """The patches of a folder's pictures, in the order of their names: opacity in [0, 1], cropped, at most LARGEST px.

    Raises PNIError when the folder holds no picture, or one that is damaged or empty.
    """
    folder = Path(folder)
    with os_errors(folder):
        found = list_images(folder)
    if not found.images:
        raise no_image(found, "save patches there first, as PNG, white on black")
    return [_read(path) for path in found.images]


def _read(path: Path) -> ndarray:
    image = decode(path)
    if isinstance(image, ndarray):  # deep colour
        opacity = image.mean(axis=2, dtype=np.float32) / (1 if image.dtype.kind == "f" else 65535)
    elif "A" in image.mode or "transparency" in image.info:
        opacity = np.asarray(image.convert("RGBA").getchannel("A"), np.float32) / 255
    elif image.mode.startswith("I"):
        opacity = np.asarray(image, np.float32) / 65535
    else:
        opacity = np.asarray(image.convert("L"), np.float32) / 255
    shrink = LARGEST / max(opacity.shape)
    if shrink < 1:
        height, width = (max(1, round(side * shrink)) for side in opacity.shape)
        opacity = np.asarray(cv2.resize(opacity, (width, height), interpolation=cv2.INTER_AREA))
    try:
        return crop_patch(opacity)
    except PNIError:
        raise PNIError(f"{path}: nothing is drawn on it: draw in white on black, or remove it") from None
