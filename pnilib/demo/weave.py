"""Cloth whose warp shows coloured bands in the order a b a c b c, from any starting phase.

All six ordered pairs of neighboring colours occur, so a wrongly coloured band has only normal
neighbors on either side; it takes three bands to see the error, and no position helps.
"""

import numpy as np
from jaxtyping import Float

from pnilib.demo import defects
from pnilib.demo.canvas import Canvas, Fault, smooth_noise

__all__ = ["DEFECTS", "PARTS", "draw"]

PARTS = ("red band", "ochre band", "blue band")
DEFECTS = {
    "band_order": "logical",
    "yarn_missing": "structural",
    "skipped": "structural",
    "cut": "structural",
    "hole": "structural",
    "stain": "structural",
    "thread": "structural",
}

_ORDER = (0, 1, 0, 2, 1, 2)
_WARP = np.array([(0.5, 0.22, 0.2), (0.66, 0.53, 0.3), (0.24, 0.31, 0.46)], np.float32)
_WEFT = np.array((0.52, 0.49, 0.45), np.float32)
_YARNS, _BAND = 36, 5  # yarns across the image, yarns in a band


def draw(canvas: Canvas, rng: np.random.Generator, fault: Fault | None) -> None:
    """Paint one piece of cloth, right or with a fault of DEFECTS."""
    cloth_rng, yarn_rng = rng.spawn(2)
    u, v = _thread_counts(canvas, cloth_rng)
    n = _YARNS + 12
    phase = int(cloth_rng.integers(len(_ORDER) * _BAND))
    bands = (np.arange(n) + phase) // _BAND
    colours = np.array(_ORDER)[bands % len(_ORDER)]
    warp_tone = 1 + yarn_rng.normal(0, 0.035, n).astype(np.float32)
    weft_tone = 1 + yarn_rng.normal(0, 0.035, n).astype(np.float32)
    shape = canvas.labels.shape
    fuzz = smooth_noise(yarn_rng, shape, 190, 190) * 0.022 + smooth_noise(yarn_rng, shape, 7, 7) * 0.012
    present, lifted = np.ones((n, n), bool), np.zeros((n, n), bool)
    if fault and fault.kind == "band_order":
        _recolour(colours, bands, fault.rng)
    elif fault and fault.kind in ("yarn_missing", "skipped"):
        yarn, pick = (int(k) for k in fault.rng.integers(10, n - 12, 2))
        if fault.kind == "yarn_missing":
            present[yarn, pick : pick + 2 + round(16 * fault.severity)] = False
        else:
            lifted[yarn : yarn + 1 + int(fault.rng.integers(2)), pick : pick + 3 + round(5 * fault.severity)] = True

    i, j = u.astype(np.int32), v.astype(np.int32)
    du, dv = 2 * (u - i) - 1, 2 * (v - j) - 1
    warp_up = (i + j) % 2 == 0
    gap = np.ones((1, 1), np.float32)
    if fault and fault.kind == "skipped":
        warp_up |= lifted[i, j]
    elif fault and fault.kind == "yarn_missing":
        there = present[i, j]
        warp_up &= there
        gap = 1 - np.float32(0.45) * (~there & (np.abs(dv) > 0.55))
    across, along = np.where(warp_up, du, dv), np.where(warp_up, dv, du)
    relief = np.sqrt(np.maximum(1.05 - across**2, 0)) * (1 - 0.28 * along**2)
    twist = 0.05 * np.sin(9 * across + 5 * along)
    tone = np.where(warp_up, warp_tone.take(i), weft_tone.take(j))
    light = (0.42 + 0.72 * relief + twist + fuzz) * tone * gap
    weft = _WEFT * 0.75 + 0.25 * _WARP[colours]
    palette = np.concatenate([weft, _WARP[colours]])
    canvas.rgb[:] = palette.take(i + n * warp_up, axis=0) * light[..., None]
    canvas.labels[:] = colours.astype(np.uint8).take(i)
    _surface(canvas, fault)


def _thread_counts(
    canvas: Canvas, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "s s"], Float[np.ndarray, "s s"]]:
    """Warp and weft yarn coordinates of every pixel: slightly turned, shifted and drawn."""
    x, y = canvas.coordinates()
    angle = np.float32(np.deg2rad(rng.uniform(-1.5, 1.5)))
    scale = np.float32(_YARNS * (1 + rng.normal(0, 0.01)))
    off_u, off_v = (np.float32(k) for k in 4 + rng.uniform(0, 2, 2))
    shape = canvas.labels.shape
    u = (x + angle * y) * scale + off_u + smooth_noise(rng, shape, 5, 5) * 0.18
    v = (y - angle * x) * scale + off_v + smooth_noise(rng, shape, 5, 5) * 0.18
    return np.clip(u, 0, _YARNS + 11), np.clip(v, 0, _YARNS + 11)


def _recolour(colours: np.ndarray, bands: np.ndarray, rng: np.random.Generator) -> None:
    """Recolour one inner band whose neighbors agree: a b a becomes a c a."""
    choices = [b for b in range(bands[12], bands[8 + _YARNS - 8]) if colours[bands == b - 1].size
               and colours[bands == b - 1][0] == colours[bands == b + 1][0]]  # fmt: skip
    band = int(rng.choice(choices))
    own, side = colours[bands == band][0], colours[bands == band + 1][0]
    colours[bands == band] = 3 - own - side


def _surface(canvas: Canvas, fault: Fault | None) -> None:
    if fault is None:
        return
    if fault.kind == "cut":
        defects.crack(canvas, fault.rng, fault.severity, (0, 1, 2))
    elif fault.kind == "hole":
        defects.hole(canvas, fault.rng, fault.severity, (0, 1, 2))
    elif fault.kind == "stain":
        defects.stain(canvas, fault.rng, fault.severity, (0, 1, 2))
    elif fault.kind == "thread":
        defects.thread(canvas, fault.rng, fault.severity)
