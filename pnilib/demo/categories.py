"""The demo categories and how one image of them comes to be.

An image is a scene plus a photograph of it.  A defective image photographs the same scene
twice, right and wrong, with the same light and noise: its mask is where they differ.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from pnilib.demo import board, cable, gear, grain, tiles, weave
from pnilib.demo.canvas import SUPERSAMPLE, Canvas, Fault, photograph
from pnilib.errors import PNIError

__all__ = ["CATEGORIES", "TOLERANCE", "Category", "Picture", "render"]

TOLERANCE = 4
"""Mask rule: a defect is where a colour channel differs from the faultless picture by more, of 255."""

_LEAST_AREA = 0.0004  # of the image; a fault that shows less is drawn anew
_SEVERITY = (0.15, 1.0)


class Category(NamedTuple):
    """One kind of product: `defects` maps a name to `logical` (each part normal, its place or
    order not) or `structural`; `parts` are the labels of the segmentation maps, from 0."""

    description: str
    kind: str
    defects: dict[str, str]
    parts: tuple[str, ...]
    draw: Callable[[Canvas, np.random.Generator, Fault | None], None]


CATEGORIES: dict[str, Category] = {
    "cable": Category(
        "three wires leaving a sheath, in a fixed colour order",
        "object",
        cable.DEFECTS,
        cable.PARTS,
        cable.draw,
    ),
    "board": Category("a small circuit board, never quite straight", "object", board.DEFECTS, board.PARTS, board.draw),
    "gear": Category("a spur gear at any angle", "object", gear.DEFECTS, gear.PARTS, gear.draw),
    "weave": Category(
        "cloth with coloured bands in a repeating order", "texture", weave.DEFECTS, weave.PARTS, weave.draw
    ),
    "grain": Category("planed wood", "texture", grain.DEFECTS, grain.PARTS, grain.draw),
    "tiles": Category(
        "glazed tiles of two tints laid in diagonal pairs", "texture", tiles.DEFECTS, tiles.PARTS, tiles.draw
    ),
}
"""Name -> Category; the order is part of the random seeds."""


class Picture(NamedTuple):
    """One rendered image, the same scene without its fault, the exact mask and the part labels."""

    image: UInt8[np.ndarray, "h w 3"]
    clean: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"]
    parts: UInt8[np.ndarray, "h w"]
    severity: float


def render(category: str, split: str, defect: str, index: int, *, size: int = 256, seed: int = 0) -> Picture:
    """Image `index` of `split` ("train" or "test") and `defect` ("good" or one of the category's).

    Depends on its arguments alone, never on the other images.
    Raises PNIError for an unknown category, split or defect.
    """
    if category not in CATEGORIES:
        raise PNIError(f"category {category!r} is unknown: choose from {', '.join(CATEGORIES)}")
    names = ["good"] if split == "train" else ["good", *CATEGORIES[category].defects]
    if split not in ("train", "test") or defect not in names:
        raise PNIError(f"{category}: there is no {split}/{defect}: choose train/good or test/ " + ", ".join(names))
    split_idx = 0 if split == "train" else 1 + names.index(defect)
    stream = np.random.SeedSequence([seed, list(CATEGORIES).index(category), split_idx, index])
    scene, camera, *faults = stream.spawn(34)
    clean, parts = _picture(category, size, scene, camera, None)
    if defect == "good":
        return Picture(clean, clean, np.zeros(parts.shape, bool), parts, 0.0)
    for fault_seed in faults:
        rng = np.random.default_rng(fault_seed)
        fault = Fault(defect, float(rng.uniform(*_SEVERITY)), rng)
        image, parts = _picture(category, size, scene, camera, fault)
        mask = np.abs(image.astype(np.int16) - clean).max(2) > TOLERANCE
        if mask.mean() >= _LEAST_AREA:
            return Picture(image, clean, mask, parts, fault.severity)
    raise RuntimeError(f"{category}/{defect}: no visible fault in {len(faults)} draws")


def _picture(
    category: str,
    size: int,
    scene: np.random.SeedSequence,
    camera: np.random.SeedSequence,
    fault: Fault | None,
) -> tuple[np.ndarray, np.ndarray]:
    canvas = Canvas(size)
    # A fresh SeedSequence each time: spawning counts its children.
    again = np.random.SeedSequence(scene.entropy, spawn_key=scene.spawn_key)
    CATEGORIES[category].draw(canvas, np.random.default_rng(again), fault)
    image = photograph(canvas, np.random.default_rng(camera))
    return image, np.ascontiguousarray(canvas.labels[SUPERSAMPLE // 2 :: SUPERSAMPLE, SUPERSAMPLE // 2 :: SUPERSAMPLE])
