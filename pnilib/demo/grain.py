"""Planed wood: an irregular texture, the control without any right place or order."""

import numpy as np

from pnilib.demo import defects
from pnilib.demo.canvas import Canvas, Fault, Frame, smooth_noise

__all__ = ["DEFECTS", "PARTS", "draw"]

PARTS = ("wood",)
DEFECTS = {
    "scratch": "structural",
    "cut": "structural",
    "hole": "structural",
    "stain": "structural",
    "thread": "structural",
}

_LIGHT = np.array((0.74, 0.57, 0.39), np.float32)
_DARK = np.array((0.47, 0.31, 0.19), np.float32)


def draw(canvas: Canvas, rng: np.random.Generator, fault: Fault | None) -> None:
    """Paint one piece of wood, right or with a fault of DEFECTS."""
    shape = (canvas.side, canvas.side)
    x, y = canvas.coordinates()
    lean = float(rng.normal(0, 0.03))
    rings = y + lean * x + 0.035 * smooth_noise(rng, shape, 3, 3) + 0.004 * smooth_noise(rng, shape, 12, 5)
    density = smooth_noise(rng, (1, 512), 2, 60)[0]
    phase = 26 * rings + 1.5 * density[np.clip((rings * 400 + 56), 0, 511).astype(np.int32)]
    late = 0.5 + 0.5 * np.sin(2 * np.pi * phase)
    streaks = smooth_noise(rng, shape, 220, 9) * 0.6 + smooth_noise(rng, shape, 90, 5) * 0.5
    level = 0.3 + 0.28 * late**3 + 0.1 * streaks + 0.06 * smooth_noise(rng, shape, 3, 2)
    canvas.rgb[:] = _LIGHT + np.clip(level, 0, 1)[..., None] * (_DARK - _LIGHT)
    _pores(canvas, rng, lean)
    if fault is None:
        return
    severity = 0.45 * fault.severity  # wood hides a lot, but not everything
    if fault.kind == "scratch":
        defects.scratch(canvas, fault.rng, severity - 0.1, (0,))
    elif fault.kind == "cut":
        defects.crack(canvas, fault.rng, severity, (0,))
    elif fault.kind == "hole":
        defects.hole(canvas, fault.rng, severity, (0,))
    elif fault.kind == "stain":
        defects.stain(canvas, fault.rng, severity - 0.3, (0,))
    elif fault.kind == "thread":
        defects.thread(canvas, fault.rng, severity)


def _pores(canvas: Canvas, rng: np.random.Generator, lean: float) -> None:
    """Short dark vessels along the grain, a few of them strong: what hides small defects."""
    centres = rng.uniform(0, 1, (110, 2))
    lengths = rng.uniform(0.01, 0.045, 110)
    depths = rng.beta(1.0, 3, 110) * 0.9
    for (x, y), length, depth in zip(centres, lengths, depths, strict=True):
        line = Frame(x, y, -float(np.rad2deg(lean))).points([(-length / 2, 0), (length / 2, 0)])
        pore = canvas.stroke(line, 0.003)
        canvas.paint(pore._replace(alpha=pore.alpha * np.float32(depth)), (0.22, 0.14, 0.09))
