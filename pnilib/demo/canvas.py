"""A small camera: scenes are painted at twice the image size, lit, blurred, made noisy.

Coordinates and lengths are in image sides (x right, y down, 0 ... 1), so one scene has the
same content at every size.  Colours are display RGB in [0, 1].  Each painted region may
carry a part label.  Ours: the paper's images are photographs (MVTec AD).
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

__all__ = ["SUPERSAMPLE", "Canvas", "Fault", "Frame", "Stencil", "photograph", "smooth_noise"]

SUPERSAMPLE = 2
"""Painted pixels per image pixel, along each axis."""

_SHIFT = 4  # cv2 sub-pixel bits of polygon corners


class Fault(NamedTuple):
    """What is wrong in one image: kind, severity in (0, 1] (contrast or size), its random stream."""

    kind: str
    severity: float
    rng: np.random.Generator


class Stencil(NamedTuple):
    """Coverage in [0, 1] of a rectangle of the canvas, whose corner is at pixel (top, left)."""

    alpha: Float32[np.ndarray, "h w"]
    top: int
    left: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the canvas that the stencil covers."""
        h, w = self.alpha.shape
        return slice(self.top, self.top + h), slice(self.left, self.left + w)


class Canvas:
    """Colours (side, side, 3) and part labels (side, side) of a scene being painted."""

    def __init__(self, size: int) -> None:
        self.side = size * SUPERSAMPLE
        self.rgb = np.zeros((self.side, self.side, 3), np.float32)
        self.labels = np.zeros((self.side, self.side), np.uint8)

    def coordinates(self, stencil: Stencil | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Pixel centres x (1, w), y (h, 1) in image sides, of the canvas or of a stencil's rectangle."""
        rows, columns = stencil.window if stencil else (slice(0, self.side), slice(0, self.side))
        x = (np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5) / self.side
        y = (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5) / self.side
        return x[None, :], y[:, None]

    def rectangle(self, x0: float, y0: float, x1: float, y1: float) -> Stencil:
        """Full coverage of the pixels that an upright rectangle touches (clipped to the canvas)."""
        low = np.clip(np.floor(np.array([x0, y0]) * self.side), 0, self.side).astype(int)
        high = np.clip(np.ceil(np.array([x1, y1]) * self.side), low, self.side).astype(int)
        alpha = np.ones((high[1] - low[1], high[0] - low[0]), np.float32)
        return Stencil(alpha, int(low[1]), int(low[0]))

    def polygon(self, points: Float[np.ndarray, "k 2"]) -> Stencil:
        """Anti-aliased interior of a closed polygon."""
        return self._drawn(points, 0.0)

    def stroke(self, points: Float[np.ndarray, "k 2"], width: float) -> Stencil:
        """Anti-aliased open line of a given width."""
        return self._drawn(points, width)

    def disc(self, x: float, y: float, radius: float) -> Stencil:
        """Anti-aliased disc."""
        turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        return self.polygon(np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], 1))

    def _drawn(self, points: Float[np.ndarray, "k 2"], width: float) -> Stencil:
        margin = width / 2 + 2 / self.side
        x0, y0 = points.min(0) - margin
        x1, y1 = points.max(0) + margin
        stencil = self.rectangle(float(x0), float(y0), float(x1), float(y1))
        if stencil.alpha.size == 0:
            return stencil
        corners = points * self.side - 0.5 - np.array([stencil.left, stencil.top])
        fixed = np.round(corners * 2**_SHIFT).astype(np.int32)[:, None]
        drawn = np.zeros(stencil.alpha.shape, np.uint8)
        if width:
            thickness = max(1, round(width * self.side))
            cv2.polylines(drawn, [fixed], False, 255, thickness, cv2.LINE_AA, _SHIFT)
        else:
            cv2.fillPoly(drawn, [fixed], 255, cv2.LINE_AA, _SHIFT)
        return stencil._replace(alpha=drawn.astype(np.float32) / 255)

    def paint(
        self, stencil: Stencil, colour: Any, label: int | None = None, only: Collection[int] | None = None
    ) -> None:
        """Blend one colour (3,) or an array (h, w, 3) over the canvas.

        `label` becomes the part of pixels covered by half or more; `only` restricts the paint
        to pixels of these parts.
        """
        if stencil.alpha.size == 0:
            return
        window = stencil.window
        alpha = stencil.alpha
        if only is not None:
            alpha = alpha * np.isin(self.labels[window], list(only))
        below = self.rgb[window]
        below += alpha[..., None] * (np.asarray(colour, np.float32) - below)
        if label is not None:
            self.labels[window][alpha >= 0.5] = label

    def shade(self, stencil: Stencil, strength: float, *, blur: float = 0.0, dx: float = 0.0, dy: float = 0.0) -> None:
        """Darken by `strength` (0 ... 1) under a stencil moved by (dx, dy) and blurred: a cast shadow."""
        pad = int(np.ceil(2.5 * blur * self.side)) if blur else 0
        alpha = np.pad(stencil.alpha, pad)
        if blur:
            alpha = cv2.GaussianBlur(alpha, (0, 0), blur * self.side)
        top = stencil.top - pad + round(dy * self.side)
        left = stencil.left - pad + round(dx * self.side)
        r0, c0 = max(0, -top), max(0, -left)
        r1, c1 = min(alpha.shape[0], self.side - top), min(alpha.shape[1], self.side - left)
        if r1 > r0 and c1 > c0:
            gain = 1 - strength * alpha[r0:r1, c0:c1, None]
            self.rgb[top + r0 : top + r1, left + c0 : left + c1] *= gain


class Frame(NamedTuple):
    """Coordinates of a thing that lies at (x, y), turned by `degrees` (clockwise on screen)."""

    x: float
    y: float
    degrees: float

    def points(self, points: Any) -> Float[np.ndarray, "k 2"]:
        """Points (k, 2) of this frame in canvas coordinates."""
        c, s = np.cos(np.deg2rad(self.degrees)), np.sin(np.deg2rad(self.degrees))
        return np.asarray(points, float) @ np.array([[c, s], [-s, c]]) + np.array([self.x, self.y])

    def at(self, x: float, y: float, degrees: float = 0.0) -> "Frame":
        """The frame of a thing that lies at (x, y) of this one, turned by `degrees` against it."""
        origin = self.points([(x, y)])[0]
        return Frame(float(origin[0]), float(origin[1]), self.degrees + degrees)


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], cells_y: float, cells_x: float
) -> Float32[np.ndarray, "h w"]:
    """Gaussian noise of about unit variance, smooth over h/cells_y rows and w/cells_x columns."""
    grid = rng.standard_normal((max(2, round(cells_y)), max(2, round(cells_x))), dtype=np.float32)
    return cv2.resize(grid, shape[::-1], interpolation=cv2.INTER_CUBIC)


def photograph(canvas: Canvas, rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """The picture of a canvas: uneven light, exposure, white balance, lens blur, sensor noise.

    The same random state gives the same light and the same noise for any canvas content.
    """
    size = canvas.side // SUPERSAMPLE
    image = cv2.resize(canvas.rgb, (size, size), interpolation=cv2.INTER_AREA)
    image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.35, 0.6)) * size / 256 + 0.1)
    x = np.linspace(-1, 1, size, dtype=np.float32)
    slope_x, slope_y = rng.uniform(-0.05, 0.05, 2)
    light = 1 + float(slope_x) * x[None, :] + float(slope_y) * x[:, None]
    light = light - rng.uniform(0.01, 0.05) * (x[None, :] ** 2 + x[:, None] ** 2)
    balance = 1 + rng.uniform(-0.05, 0.05) + rng.uniform(-0.015, 0.015, 3)
    image *= light[..., None] * balance.astype(np.float32)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    noisy = image + noise * float(rng.uniform(0.008, 0.014))
    return np.round(np.clip(noisy, 0, 1) * 255).astype(np.uint8)
