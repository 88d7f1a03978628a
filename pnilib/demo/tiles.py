"""Tiles of two tints laid a a b b along every row, each row moved on by one, from any phase.

All pairs of neighboring tints occur in both directions, so a tile of the wrong tint differs
from the rule only together with several of its neighbors.
"""

import cv2
import numpy as np
from jaxtyping import Float

from pnilib.demo import defects
from pnilib.demo.canvas import Canvas, Fault, smooth_noise

__all__ = ["DEFECTS", "PARTS", "draw"]

PARTS = ("grout", "light tile", "dark tile")
DEFECTS = {
    "wrong_tile": "logical",
    "crack": "structural",
    "chip": "structural",
    "stain": "structural",
    "scratch": "structural",
}

_TINTS = np.array([(0.72, 0.7, 0.65), (0.42, 0.5, 0.53)], np.float32)
_GROUT = np.array((0.5, 0.48, 0.45), np.float32)
_COUNT, _GAP = 6.0, 0.07  # tiles across the image, half of a joint in tiles


def draw(canvas: Canvas, rng: np.random.Generator, fault: Fault | None) -> None:
    """Paint one piece of tiled wall, right or with a fault of DEFECTS."""
    shape = (canvas.side, canvas.side)
    x, y = canvas.coordinates()
    angle = np.float32(np.deg2rad(rng.uniform(-2, 2)))
    off_x, off_y = (np.float32(k) for k in 2 + rng.uniform(0, 4, 2))
    scale = np.float32(_COUNT * (1 + rng.normal(0, 0.01)))
    wobble = smooth_noise(rng, shape, 40, 40) * 0.004
    u = (x + angle * y) * scale + off_x + wobble
    v = (y - angle * x) * scale + off_y + wobble
    i, j = u.astype(np.int32), v.astype(np.int32)
    n = int(_COUNT) + 10
    tint = (((np.arange(n)[:, None] + np.arange(n)[None, :]) % 4) >= 2).astype(np.intp)
    tone = 1 + rng.normal(0, 0.012, (n, n)).astype(np.float32)
    if fault and fault.kind == "wrong_tile":
        near = fault.rng.uniform(0.25, 0.75, 2)
        at = int(near[0] * scale + off_x), int(near[1] * scale + off_y)
        tint[at] = 1 - tint[at]

    du, dv = u - i - 0.5, v - j - 0.5
    inside = np.clip((0.5 - _GAP - _rounded(du, dv)) * (canvas.side / scale) + 0.5, 0, 1).astype(np.float32)
    glaze = smooth_noise(rng, shape, 25, 25) * 0.012 + smooth_noise(rng, shape, 160, 160) * 0.012
    specks = (smooth_noise(rng, shape, 180, 180) > 2.3) * np.float32(0.09)
    palette = (_TINTS[tint] * tone[..., None]).reshape(-1, 3)
    face = palette.take(i * n + j, axis=0) * (1 + glaze - specks)[..., None]
    joint = _GROUT * (1 + smooth_noise(rng, shape, 170, 170) * 0.06)[..., None]
    height = cv2.GaussianBlur(inside, (0, 0), 0.004 * canvas.side)
    slope = np.gradient(height)
    edge = 0.8 * (slope[0] + slope[1]) * (canvas.side / 512)
    canvas.rgb[:] = joint + inside[..., None] * (face - joint) + edge[..., None]
    canvas.labels[:] = np.where(inside >= 0.5, 1 + tint.astype(np.uint8).take(i * n + j), 0)
    if fault is None:
        return
    if fault.kind == "crack":
        defects.crack(canvas, fault.rng, 0.2 + 0.8 * fault.severity, (0, 1, 2))
    elif fault.kind == "chip":
        defects.hole(canvas, fault.rng, 0.2 + 0.8 * fault.severity, (1, 2))
    elif fault.kind == "stain":
        defects.stain(canvas, fault.rng, 0.3 + 0.9 * fault.severity, (0, 1, 2))
    elif fault.kind == "scratch":
        defects.scratch(canvas, fault.rng, fault.severity, (1, 2))


def _rounded(du: Float[np.ndarray, "s s"], dv: Float[np.ndarray, "s s"]) -> Float[np.ndarray, "s s"]:
    """Distance-like size of a rounded square around the tile's centre, in tiles."""
    corner = np.float32(0.06)
    qx, qy = np.abs(du) - (0.5 - _GAP - corner), np.abs(dv) - (0.5 - _GAP - corner)
    outside = np.sqrt(np.maximum(qx, 0) ** 2 + np.maximum(qy, 0) ** 2)
    return outside + np.minimum(np.maximum(qx, qy), 0) + 0.5 - _GAP - corner
