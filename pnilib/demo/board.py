"""A small circuit board, laid down a little turned and off-centre.

Every part stands in more than one place or orientation in the right layout (chips and cans turned
differently, rows of equal footprints with one of two parts or none), so a swapped, turned,
missing or misplaced part looks normal on its own.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pnilib.demo import defects
from pnilib.demo.canvas import Canvas, Fault, Frame, smooth_noise

__all__ = ["DEFECTS", "PARTS", "draw"]

PARTS = ("background", "board", "pad", "chip", "resistor", "capacitor", "can")
DEFECTS = {
    "misplaced": "logical",
    "shifted": "structural",
    "turned": "logical",
    "missing": "logical",
    "swapped": "logical",
    "stain": "structural",
    "scratch": "structural",
}

# kind, x, y (board coordinates, image sides from the board's centre), degrees
_LAYOUT = (
    ("chip", -0.27, -0.08, 0),
    ("chip", -0.09, 0.08, 180),
    ("chip", 0.09, -0.08, 180),
    ("chip", 0.27, 0.08, 0),
    ("can", -0.09, -0.08, 0),
    ("can", -0.27, 0.08, 90),
    ("can", 0.27, -0.08, 180),
    ("can", 0.09, 0.08, 270),
    *(
        (kind, -0.325 + 0.13 * column, row, 0)
        for row, kinds in (
            (-0.24, ("resistor", "resistor", "capacitor", "capacitor", "bare", "resistor")),
            (0.24, ("capacitor", "bare", "bare", "capacitor", "resistor", "bare")),
        )
        for column, kind in enumerate(kinds)
    ),
)
_TWO_POLE = {"resistor": (0.1, 0.1, 0.11), "capacitor": (0.64, 0.5, 0.34)}
_GREEN = np.array((0.12, 0.34, 0.22), np.float32)
_SILVER = np.array((0.74, 0.74, 0.72), np.float32)


@dataclass
class _Mounted:
    """A footprint as it was filled; kind "bare" leaves its pads open."""

    kind: str
    shift: tuple[float, float] = (0.0, 0.0)
    turn: float = 0.0


def draw(canvas: Canvas, rng: np.random.Generator, fault: Fault | None) -> None:
    """Paint one board, right or with a fault of DEFECTS."""
    pose_rng, table_rng, board_rng, *part_rngs = rng.spawn(3 + len(_LAYOUT))
    x, y = (float(k) for k in 0.5 + pose_rng.uniform(-0.025, 0.025, 2))
    board = Frame(x, y, float(pose_rng.uniform(-6, 6)))
    mounted = [_Mounted(kind) for kind, *_ in _LAYOUT]
    if fault:
        _misassemble(mounted, fault)

    table = smooth_noise(table_rng, (canvas.side, canvas.side), 200, 200)
    canvas.rgb[:] = 0.7 + 0.012 * table[..., None]
    _bare_board(canvas, board_rng, board)
    for (kind, px, py, degrees), part, part_rng in zip(_LAYOUT, mounted, part_rngs, strict=True):
        dx, dy, wobble, tone = (float(k) for k in part_rng.normal(0, (0.003, 0.003, 1.5, 0.05)))
        lot_number = part_rng.uniform(0, 1, (2, 5))
        _pads(canvas, kind, board.at(px, py, degrees))
        if part.kind != "bare":
            dx, dy = dx + part.shift[0], dy + part.shift[1]
            frame = board.at(px + dx, py + dy, degrees + part.turn + wobble)
            _part(canvas, part.kind, frame, 1 + tone, lot_number)
    if fault and fault.kind == "stain":
        defects.stain(canvas, fault.rng, fault.severity, (1, 2, 3, 4, 5, 6))
    elif fault and fault.kind == "scratch":
        defects.scratch(canvas, fault.rng, fault.severity, (1, 2, 3, 4, 5, 6))


def _misassemble(mounted: list[_Mounted], fault: Fault) -> None:
    """Fill the footprints wrongly, if the fault is of that sort."""

    def pick(*kinds: str) -> _Mounted:
        return mounted[int(fault.rng.choice([i for i, part in enumerate(mounted) if part.kind in kinds]))]

    if fault.kind == "swapped":
        a, b = pick("resistor"), pick("capacitor")
        a.kind, b.kind = b.kind, a.kind
    elif fault.kind == "missing":
        pick("resistor", "capacitor").kind = "bare"
    elif fault.kind == "misplaced":
        a, b = pick("resistor", "capacitor"), pick("bare")
        a.kind, b.kind = b.kind, a.kind
    elif fault.kind == "turned":
        part = pick("chip", "can")
        part.turn = 180.0 if part.kind == "chip" else float(fault.rng.choice([90, 180, 270]))
    elif fault.kind == "shifted":
        angle, length = fault.rng.uniform(0, 2 * np.pi), 0.012 + 0.03 * fault.severity
        part = pick("chip", "can", "resistor", "capacitor")
        part.shift = (float(length * np.cos(angle)), float(length * np.sin(angle)))


def _box(half_x: float, half_y: float, x: float = 0.0, y: float = 0.0) -> list[tuple[float, float]]:
    """Corners of a box around (x, y)."""
    return [(x + sx * half_x, y + sy * half_y) for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]


def _bare_board(canvas: Canvas, rng: np.random.Generator, board: Frame) -> None:
    body = canvas.polygon(board.points(_box(0.42, 0.33)))
    shape = body.alpha.shape
    canvas.shade(body, 0.4, blur=0.012, dx=0.01, dy=0.016)
    mottle = smooth_noise(rng, shape, 90, 90) * 0.012 + smooth_noise(rng, shape, 5, 5) * 0.01
    canvas.paint(body, _GREEN * float(1 + rng.normal(0, 0.03)) + mottle[..., None], 1)
    for k in range(9):  # buried traces, seen through the lacquer
        line = canvas.stroke(board.points([(-0.4, -0.28 + 0.07 * k), (0.4, -0.28 + 0.07 * k)]), 0.009)
        canvas.paint(line._replace(alpha=line.alpha * 0.5), _GREEN * 1.35)
    for corner in _box(0.39, 0.3):
        centre = board.at(*corner)
        canvas.paint(canvas.disc(centre.x, centre.y, 0.022), (0.72, 0.6, 0.35), 2)
        canvas.paint(canvas.disc(centre.x, centre.y, 0.012), (0.55, 0.55, 0.55), 0)


def _pads(canvas: Canvas, kind: str, frame: Frame) -> None:
    """What is on the board before the part: a printed outline, or two pads."""
    if kind in ("chip", "can"):
        outline = _box(0.075, 0.06) if kind == "chip" else _box(0.05, 0.05)
        canvas.paint(canvas.stroke(frame.points([*outline, outline[0]]), 0.004), (0.75, 0.77, 0.74))
        return
    for side in (-1, 1):
        canvas.paint(canvas.polygon(frame.points(_box(0.016, 0.021, side * 0.034))), _SILVER * 0.95, 2)


def _part(canvas: Canvas, kind: str, frame: Frame, tone: float, lot_number: Float[np.ndarray, "2 5"]) -> None:
    if kind == "chip":
        _chip(canvas, frame, tone, lot_number)
    elif kind == "can":
        turn = np.linspace(0.75 * np.pi, 1.25 * np.pi, 16)
        body = canvas.disc(frame.x, frame.y, 0.042)
        canvas.shade(body, 0.5, blur=0.006, dx=0.009, dy=0.012)
        canvas.paint(body, np.array((0.45, 0.46, 0.48)) * tone, 6)
        top = canvas.disc(frame.x - 0.001, frame.y - 0.002, 0.037)
        canvas.paint(top, np.array((0.76, 0.77, 0.78)) * tone, 6)
        mark = np.stack([0.036 * np.cos(turn), 0.036 * np.sin(turn)], 1)
        canvas.paint(canvas.polygon(frame.points(mark)), (0.16, 0.16, 0.2), 6)
    else:
        label = PARTS.index(kind)
        ends = canvas.polygon(frame.points(_box(0.04, 0.018)))
        canvas.shade(ends, 0.45, blur=0.004, dx=0.004, dy=0.006)
        canvas.paint(ends, _SILVER * tone * 1.05, label)
        canvas.paint(canvas.polygon(frame.points(_box(0.026, 0.018))), np.array(_TWO_POLE[kind]) * tone, label)


def _chip(canvas: Canvas, frame: Frame, tone: float, lot_number: Float[np.ndarray, "2 5"]) -> None:
    """Eight legs, a black body, the dot at leg 1, and a lot number that differs from chip to chip."""
    for k in range(4):
        for side in (-1, 1):
            leg = canvas.polygon(frame.points(_box(0.007, 0.012, -0.045 + 0.03 * k, side * 0.045)))
            canvas.paint(leg, _SILVER * tone, 2)
    body = canvas.polygon(frame.points(_box(0.062, 0.038)))
    canvas.shade(body, 0.5, blur=0.005, dx=0.005, dy=0.007)
    canvas.paint(body, np.array((0.13, 0.13, 0.14)) * tone, 3)
    canvas.paint(canvas.polygon(frame.points(_box(0.054, 0.03))), np.array((0.18, 0.18, 0.19)) * tone, 3)
    dot = frame.at(-0.039, 0.016)
    canvas.paint(canvas.disc(dot.x, dot.y, 0.009), (0.5, 0.5, 0.48), 3)
    for k, line in enumerate(lot_number):
        level = -0.012 + 0.016 * k
        for start, length in zip((-0.026, -0.01, 0.006, 0.022), line[:4], strict=True):
            dash = canvas.stroke(frame.points([(start, level), (start + 0.004 + 0.01 * length, level)]), 0.005)
            canvas.paint(dash._replace(alpha=dash.alpha * (0.15 + 0.25 * line[4])), (0.7, 0.7, 0.68))
