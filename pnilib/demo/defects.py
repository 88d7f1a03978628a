"""Faults that lie on any surface: scratch, crack, hole, stain, foreign thread.

Each takes a finished canvas and paints on pixels of the given parts only; severity in
(0, 1] is its contrast and, for holes and stains, its size too.
"""

from collections.abc import Collection

import cv2
import numpy as np
from jaxtyping import Float

from pnilib.demo.canvas import Canvas, Stencil, smooth_noise

__all__ = ["blob", "crack", "hole", "random_point", "scratch", "stain", "thread", "wander"]


def random_point(
    canvas: Canvas, rng: np.random.Generator, parts: Collection[int], margin: float = 0.06
) -> tuple[float, float]:
    """A point (x, y) on one of the parts, drawn evenly from their pixels inside the margin."""
    m = round(margin * canvas.side)
    inside = np.isin(canvas.labels[m : canvas.side - m, m : canvas.side - m], list(parts))
    rows, columns = np.nonzero(inside[::4, ::4])
    if rows.size == 0:
        return 0.5, 0.5
    k = int(rng.integers(rows.size))
    return (4 * columns[k] + m + 2) / canvas.side, (4 * rows[k] + m + 2) / canvas.side


def wander(
    rng: np.random.Generator, x: float, y: float, length: float, *, heading: float | None, rough: float
) -> Float[np.ndarray, "k 2"]:
    """A path of a given length centred near (x, y); `rough` radians of turning a step, 24 steps."""
    turn = rng.uniform(0, 2 * np.pi) if heading is None else heading
    angles = turn + np.cumsum(rng.normal(0, rough, 24))
    steps = np.stack([np.cos(angles), np.sin(angles)], 1) * length / 24
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])
    return path - path[len(path) // 2] + np.array([x, y])


def blob(rng: np.random.Generator, x: float, y: float, radius: float, rough: float) -> Float[np.ndarray, "k 2"]:
    """A closed wavy outline: radius (1 + rough * smooth noise) around (x, y)."""
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    wave = np.zeros_like(turn)
    for k in range(2, 7):
        wave += rng.normal() / k * np.cos(k * turn + rng.uniform(0, 2 * np.pi))
    stretch = rng.uniform(0.7, 1.0)
    spin = rng.uniform(0, np.pi)
    r = radius * np.clip(1 + rough * wave, 0.3, 2)
    a, b = r * np.cos(turn), r * stretch * np.sin(turn)
    return np.stack([x + a * np.cos(spin) - b * np.sin(spin), y + a * np.sin(spin) + b * np.cos(spin)], 1)


def scratch(
    canvas: Canvas, rng: np.random.Generator, severity: float, parts: Collection[int],
    *, heading: float | None = None, bright: bool | None = None,
) -> None:  # fmt: skip
    """A thin line, lighter or darker than its surface, with a faint opposite edge."""
    x, y = random_point(canvas, rng, parts)
    path = wander(rng, x, y, rng.uniform(0.08, 0.3), heading=heading, rough=0.05)
    width = rng.uniform(0.0035, 0.0075)
    core = canvas.stroke(path, width)
    edge = canvas.stroke(path + width * 0.8, width)
    up = bool(rng.random() < 0.6) if bright is None else bright
    light, dark = ((0.92, 0.92, 0.9), (0.05, 0.05, 0.05)) if up else ((0.05, 0.05, 0.05), (0.9, 0.9, 0.9))
    strength = 0.15 + 0.6 * severity
    canvas.paint(edge._replace(alpha=edge.alpha * strength * 0.35), dark, only=parts)
    canvas.paint(core._replace(alpha=core.alpha * strength), light, only=parts)


def crack(canvas: Canvas, rng: np.random.Generator, severity: float, parts: Collection[int]) -> None:
    """A dark jagged line."""
    x, y = random_point(canvas, rng, parts)
    path = wander(rng, x, y, rng.uniform(0.12, 0.35), heading=None, rough=0.5)
    line = canvas.stroke(path, 0.002 + 0.004 * severity)
    canvas.paint(line._replace(alpha=line.alpha * (0.25 + 0.6 * severity)), (0.06, 0.05, 0.05), only=parts)


def hole(canvas: Canvas, rng: np.random.Generator, severity: float, parts: Collection[int]) -> None:
    """A small pit: dark inside, lit on the far rim."""
    x, y = random_point(canvas, rng, parts)
    radius = 0.008 + 0.022 * severity * rng.uniform(0.6, 1)
    outline = blob(rng, x, y, radius, 0.35)
    rim = canvas.polygon(outline + radius * 0.18)
    canvas.paint(rim._replace(alpha=rim.alpha * (0.15 + 0.35 * severity)), (0.95, 0.93, 0.9), only=parts)
    pit = canvas.polygon(outline)
    canvas.paint(pit._replace(alpha=pit.alpha * (0.35 + 0.55 * severity)), (0.07, 0.06, 0.06), only=parts)


def stain(canvas: Canvas, rng: np.random.Generator, severity: float, parts: Collection[int]) -> None:
    """A soft blot that tints its surface, uneven inside."""
    x, y = random_point(canvas, rng, parts)
    tint = [(0.35, 0.26, 0.16), (0.2, 0.22, 0.26), (0.75, 0.72, 0.62)][int(rng.integers(3))]
    radius = rng.uniform(0.03, 0.07)
    shape = canvas.polygon(blob(rng, x, y, radius, 0.5))
    if shape.alpha.size == 0:
        return
    soft = cv2.GaussianBlur(shape.alpha, (0, 0), 0.006 * canvas.side)
    uneven = 0.8 + 0.2 * np.tanh(smooth_noise(rng, soft.shape, 5, 5))
    canvas.paint(Stencil(soft * uneven * np.float32(0.3 + 0.45 * severity), shape.top, shape.left), tint, only=parts)


def thread(canvas: Canvas, rng: np.random.Generator, severity: float) -> None:
    """A loose fibre on top of everything, with its shadow."""
    x, y = rng.uniform(0.25, 0.75, 2)
    path = wander(rng, x, y, rng.uniform(0.2, 0.5), heading=None, rough=0.22)
    colours = [(0.75, 0.73, 0.7), (0.22, 0.2, 0.2), (0.55, 0.2, 0.2), (0.25, 0.32, 0.5)]
    width = 0.004 + 0.004 * rng.random()
    line = canvas.stroke(path, width)
    canvas.shade(line, 0.1 + 0.25 * severity, blur=0.003, dx=0.005, dy=0.006)
    canvas.paint(line._replace(alpha=line.alpha * (0.45 + 0.5 * severity)), colours[int(rng.integers(4))])
