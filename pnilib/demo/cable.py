"""Three wires leaving a sheath: each is normal anywhere, but only in its own place.

The wires differ in colour alone; bends, ends, shading and spacing are drawn from one
distribution for all three.  After a swap every local patch is one that training shows
elsewhere (paper sec. 1, Figure 1: "incorrect, even though all the local features are normal").
"""

import numpy as np

from pnilib.demo import defects
from pnilib.demo.canvas import Canvas, Fault, smooth_noise

__all__ = ["DEFECTS", "PARTS", "draw"]

PARTS = ("background", "sheath", "brown wire", "blue wire", "green wire", "copper")
DEFECTS = {
    "swapped": "logical",
    "missing": "logical",
    "short": "logical",
    "bent": "structural",
    "cut": "structural",
    "scratch": "structural",
    "thread": "structural",
}

_COLOURS = np.array([(0.46, 0.27, 0.19), (0.18, 0.31, 0.56), (0.22, 0.47, 0.3)], np.float32)
_COPPER = np.array((0.8, 0.53, 0.34), np.float32)
_PITCH, _RADIUS, _EXIT, _STRIP, _END = 0.255, 0.055, 0.2, 0.78, 0.9


def draw(canvas: Canvas, rng: np.random.Generator, fault: Fault | None) -> None:
    """Paint one cable end, right or with a fault of DEFECTS."""
    pose_rng, mat_rng, sheath_rng, *wire_rngs = rng.spawn(6)
    shift_x, shift_y = (float(k) for k in pose_rng.uniform(-0.015, 0.015, 2))
    tilt = float(np.deg2rad(pose_rng.uniform(-1.5, 1.5)))
    order, absent, short, bend, cut = [0, 1, 2], -1, {}, {}, {}
    if fault:
        which = int(fault.rng.integers(3))
        if fault.kind == "swapped":
            a, b = [(0, 1), (1, 2), (0, 2)][which]
            order[a], order[b] = order[b], order[a]
        elif fault.kind == "missing":
            absent = which
        elif fault.kind == "short":
            short[which] = 0.05 + 0.25 * fault.severity
        elif fault.kind == "bent":
            side = 1 if fault.rng.random() < 0.5 else -1
            bend[which] = (side * (0.035 + 0.065 * fault.severity), fault.rng.uniform(0.4, 0.65))
        elif fault.kind == "cut":
            cut[which] = (fault.rng.uniform(0.35, 0.7), 0.006 + 0.03 * fault.severity)

    _mat(canvas, mat_rng)
    for slot, wire_rng in enumerate(wire_rngs):
        if slot != absent:
            y = 0.5 + (slot - 1) * _PITCH + shift_y
            _wire(canvas, wire_rng, order[slot], y, shift_x, tilt, short.get(slot, 0.0), bend.get(slot),
                  cut.get(slot))  # fmt: skip
    _sheath(canvas, sheath_rng, _EXIT + shift_x, tilt)
    if fault and fault.kind == "scratch":
        defects.scratch(canvas, fault.rng, fault.severity, (1, 2, 3, 4))
    elif fault and fault.kind == "thread":
        defects.thread(canvas, fault.rng, fault.severity)


def _mat(canvas: Canvas, rng: np.random.Generator) -> None:
    shape = (canvas.side, canvas.side)
    fine = smooth_noise(rng, shape, 160, 160) * 0.015 + smooth_noise(rng, shape, 6, 6) * 0.01
    canvas.rgb[:] = np.array((0.63, 0.64, 0.65), np.float32) + fine[..., None]


def _wire(
    canvas: Canvas,
    rng: np.random.Generator,
    colour: int,
    y: float,
    shift_x: float,
    tilt: float,
    short: float,
    bend: tuple[float, float] | None,
    cut: tuple[float, float] | None,
) -> None:
    """One round wire along x with a stripped end, lit from above."""
    y += rng.normal(0, 0.005)
    radius = _RADIUS * rng.uniform(0.96, 1.04)
    waves = [(rng.normal(0, 0.005), rng.uniform(1, 3), rng.uniform(0, 2 * np.pi)) for _ in range(2)]
    tone = 1 + rng.normal(0, 0.03)
    strip, end = (edge + shift_x + rng.normal(0, 0.008) - short for edge in (_STRIP, _END))
    reach = radius + 0.04 + (abs(bend[0]) if bend else 0.0)
    box = canvas.rectangle(_EXIT + shift_x - 0.08, y - reach, end + 0.02, y + reach)
    px, py = canvas.coordinates(box)
    centre = y + (px - 0.5) * tilt + sum(a * np.sin(2 * np.pi * f * px + p) for a, f, p in waves)
    if bend:
        centre = centre + bend[0] * np.exp(-(((px - bend[1]) / 0.09) ** 2))
    bare = np.clip((px - strip) * canvas.side + 0.5, 0, 1)
    if cut:
        gap = np.clip((cut[1] / 2 - np.abs(px - cut[0])) * canvas.side + 0.5, 0, 1)
        bare = np.maximum(bare, gap)
    width = radius * (1 - 0.3 * bare)
    across = (py - centre) / width
    alpha = np.clip((1 - np.abs(across)) * width * canvas.side + 0.5, 0, 1)
    alpha *= np.clip((end - px) * canvas.side + 0.5, 0, 1)
    round_ = np.sqrt(np.clip(1 - across**2, 0, 1))
    insulation = (0.45 + 0.6 * round_)[..., None] * _COLOURS[colour] * tone
    insulation = insulation + (0.28 * np.exp(-(((across + 0.42) / 0.16) ** 2)))[..., None]
    strands = 0.82 + 0.18 * np.cos(6 * np.pi * across + 2 * np.pi * 14 * px)
    copper = ((0.35 + 0.7 * round_) * strands)[..., None] * _COPPER
    skin = insulation + bare[..., None] * (copper - insulation)
    stencil = box._replace(alpha=alpha.astype(np.float32))
    canvas.shade(stencil, 0.42, blur=0.012, dx=0.008, dy=0.022)
    canvas.paint(stencil, skin, 2 + colour)
    copper_alpha = (alpha * bare).astype(np.float32)
    canvas.labels[box.window][copper_alpha >= 0.5] = 5


def _sheath(canvas: Canvas, rng: np.random.Generator, edge: float, tilt: float) -> None:
    """The flat grey jacket on the left; its cut edge is straight, so no wire position shows in it."""
    edge += rng.normal(0, 0.004)
    x0, half = -0.1, 0.56
    corners = np.array([(x0, 0.5 - half), (edge + half * tilt, 0.5 - half), (edge - half * tilt, 0.5 + half),
                        (x0, 0.5 + half)])  # fmt: skip
    body = canvas.polygon(corners)
    canvas.shade(body, 0.45, blur=0.01, dx=0.012, dy=0.004)
    _, py = canvas.coordinates(body)
    px, _ = canvas.coordinates(body)
    ribs = 0.02 * np.sin(2 * np.pi * 16 * (py + 0.3 * tilt * px))
    grain = smooth_noise(rng, body.alpha.shape, 120, 40) * 0.012
    lip = 0.1 * np.exp(-(((px - edge + (py - 0.5) * tilt + 0.006) / 0.004) ** 2))
    tone = 0.29 + ribs + grain + lip
    canvas.paint(body, tone[..., None] * np.array((1.0, 1.0, 1.03), np.float32), 1)
