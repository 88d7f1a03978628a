"""A spur gear that lies at any angle: position says little, the neighborhood says what belongs where."""

import cv2
import numpy as np
from jaxtyping import Float

from pnilib.demo import defects
from pnilib.demo.canvas import Canvas, Fault, smooth_noise

__all__ = ["DEFECTS", "PARTS", "draw"]

PARTS = ("background", "gear", "hole")
DEFECTS = {
    "tooth_missing": "structural",
    "hole_missing": "logical",
    "hole_extra": "logical",
    "tooth_bent": "structural",
    "scratch": "structural",
    "pit": "structural",
}

_TEETH, _HOLES = 22, 3
_ROOT, _TIP = 0.345, 0.4
_RING, _BORE, _HOLE = 0.225, 0.07, 0.036


def draw(canvas: Canvas, rng: np.random.Generator, fault: Fault | None) -> None:
    """Paint one gear, right or with a fault of DEFECTS."""
    pose_rng, belt_rng, metal_rng = rng.spawn(3)
    x, y = (float(k) for k in 0.5 + pose_rng.uniform(-0.02, 0.02, 2))
    spin = float(pose_rng.uniform(0, 2 * np.pi))
    tone = float(1 + pose_rng.normal(0, 0.03))
    heights, leans = np.ones(_TEETH), np.zeros(_TEETH)
    holes = [spin + 2 * np.pi * k / _HOLES for k in range(_HOLES)]
    if fault:
        which = int(fault.rng.integers(_TEETH))
        if fault.kind == "tooth_missing":
            heights[which] = 1 - (0.35 + 0.65 * fault.severity)
        elif fault.kind == "tooth_bent":
            leans[which] = (0.25 + 0.55 * fault.severity) * (1 if fault.rng.random() < 0.5 else -1)
        elif fault.kind == "hole_missing":
            del holes[which % _HOLES]
        elif fault.kind == "hole_extra":
            holes.append(holes[which % _HOLES] + np.pi / _HOLES)

    shape = (canvas.side, canvas.side)
    canvas.rgb[:] = (
        np.array((0.2, 0.21, 0.23), np.float32) + (smooth_noise(belt_rng, shape, 130, 130) * 0.014)[..., None]
    )
    body = canvas.polygon(_outline(x, y, spin, heights, leans))
    openings = [canvas.disc(x, y, _BORE)]
    openings += [canvas.disc(x + _RING * np.cos(a), y + _RING * np.sin(a), _HOLE) for a in holes]
    solid = np.zeros(shape, np.float32)
    solid[body.window] = body.alpha
    for opening in openings:
        solid[opening.window] *= 1 - opening.alpha
    _metal(canvas, metal_rng, solid, x, y, tone)
    for opening in openings:
        canvas.labels[opening.window][opening.alpha >= 0.5] = 2
    if fault and fault.kind == "scratch":
        defects.scratch(canvas, fault.rng, fault.severity, (1,))
    elif fault and fault.kind == "pit":
        defects.hole(canvas, fault.rng, fault.severity, (1,))


def _outline(
    x: float, y: float, spin: float, heights: Float[np.ndarray, "t"], leans: Float[np.ndarray, "t"]
) -> Float[np.ndarray, "k 2"]:
    """Trapezoid teeth on the root circle; `leans` moves a tip sideways, in tooth pitches."""
    pitch = 2 * np.pi / _TEETH
    points = []
    for k in range(_TEETH):
        middle = spin + 0.5 * pitch / _TEETH + k * pitch
        tip = _ROOT + (_TIP - _ROOT) * heights[k]
        for offset, radius in ((-0.5, _ROOT), (-0.32, _ROOT), (-0.17, tip), (0.17, tip), (0.32, _ROOT)):
            angle = middle + pitch * (offset + (leans[k] if radius == tip else 0.0))
            points.append((x + radius * np.cos(angle), y + radius * np.sin(angle)))
    return np.array(points)


def _metal(
    canvas: Canvas, rng: np.random.Generator, solid: Float[np.ndarray, "s s"], x: float, y: float, tone: float
) -> None:
    """Turned steel: fine rings, a highlight fixed to the lamp, bevelled edges lit from the upper left."""
    height = cv2.GaussianBlur(solid, (0, 0), 0.006 * canvas.side)
    slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=0.125) * (0.012 * canvas.side)
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=0.125) * (0.012 * canvas.side)
    px, py = canvas.coordinates()
    radius = np.sqrt((px - x) ** 2 + (py - y) ** 2)
    profile = smooth_noise(rng, (1, 1024), 2, 400)[0]  # one line of turning marks
    rings = profile[np.minimum((radius * 1400).astype(np.int32), 1023)] * 0.02
    sheen = 0.09 * ((px - x) * (py - y) / (radius**2 + 0.01)) * 2
    grain = smooth_noise(rng, solid.shape, 220, 220) * 0.012
    hub = np.clip((0.125 - radius) * canvas.side, 0, 1) * 0.06
    level = tone * (0.56 + rings + sheen + grain + hub) + 0.35 * (slope_x + 1.3 * slope_y)
    box = canvas.rectangle(0, 0, 1, 1)._replace(alpha=np.ascontiguousarray(solid, np.float32))
    canvas.shade(box, 0.5, blur=0.012, dx=0.008, dy=0.014)
    canvas.paint(box, level[..., None] * np.array((1.0, 0.99, 0.96), np.float32), 1)
