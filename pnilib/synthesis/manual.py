"""Manual drawing: hand-drawn patches, combined at several sizes and places, filled with something else.

"First, we make the defect patches in a hand-drawing manner ... Second, we generate artificial anomaly maps by
combining patches at various sizes and spatial locations ... Finally, we obtain I from clean image I_clean and defect
image I_defect" (PNI supplement, S2, Figure S3):

    I = (1 - A) * I_clean + A * I_defect                                                                           (S1)

Ours, where the paper is silent: one to five patches, 5 to 50 % of the image's shorter side long (uniform in the
logarithm, 6 px at least), any rotation, mirrored half of the time, each 40 to 100 % of its opacity, combined by the
maximum.  I_defect is, one third of the time each, a plain colour with a little noise; the clean image, brighter,
darker or in another hue; a texture (the user's, else procedural).
"""

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray

from pnilib.synthesis.painting import LEVEL, Materials, Painted
from pnilib.synthesis.patches import library
from pnilib.synthesis.textures import random_texture

__all__ = ["anomaly_map", "blend", "defect_image", "manual", "turn_patch"]

N_PATCHES = (1, 5)
SIZES = (0.05, 0.5)
"""Longer side of a patch, share of the image's shorter side."""

SHORTEST = 6
"""px; a smaller patch is a speck whose kind nobody sees."""

STRENGTHS = (0.4, 1.0)
SOURCES = ("plain", "shifted", "texture")


def blend(
    clean: Float32[ndarray, "h w 3"], opacity: Float32[ndarray, "h w"], defect: Float32[ndarray, "h w 3"]
) -> Float32[ndarray, "h w 3"]:
    """I of eq. (S1): `clean` where `opacity` is 0, `defect` where it is 1."""
    a = opacity[..., None]
    return (1 - a) * clean + a * defect


def turn_patch(
    patch: Float32[ndarray, "_h _w"], size: float, turn_deg: float, mirrored: bool
) -> Float32[ndarray, "h w"]:
    """The patch with its longer side `size` px long, then rotated; its highest opacity stays what it was."""
    scale = size / max(patch.shape)
    height, width = (max(1, round(side * scale)) for side in patch.shape)
    source = patch[:, ::-1] if mirrored else patch
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(np.ascontiguousarray(source), (width, height), interpolation=how)
    cos, sin = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    wide = math.ceil(round(width * abs(cos) + height * abs(sin), 6))
    high = math.ceil(round(width * abs(sin) + height * abs(cos), 6))
    to_centre = ((wide - 1) - cos * (width - 1) - sin * (height - 1)) / 2
    to_middle = ((high - 1) + sin * (width - 1) - cos * (height - 1)) / 2
    turned = cv2.warpAffine(small, np.array([[cos, sin, to_centre], [-sin, cos, to_middle]]), (wide, high))
    return turned * np.float32(patch.max() / turned.max())  # a thin line must not fade when it shrinks


def anomaly_map(
    patches: Sequence[ndarray], area: Bool[ndarray, "h w"], rng: np.random.Generator
) -> tuple[Float32[ndarray, "h w"], list[dict[str, Any]]]:
    """A of eq. (S1), and one record a patch (patch number, size in px, turn, mirrored, strength, top and left in px).

    Of each patch, some drawn pixel lies on some pixel of `area`; beyond it, and beyond the image, nothing is drawn.
    """
    height, width = area.shape
    allowed = np.flatnonzero(area)
    opacity = np.zeros((height, width), np.float32)
    placed = []
    for _ in range(int(rng.integers(N_PATCHES[0], N_PATCHES[1] + 1))):
        chosen = int(rng.integers(len(patches)))
        size = max(SHORTEST, math.exp(rng.uniform(*np.log(SIZES))) * min(height, width))
        turn, mirrored, strength = rng.uniform(0, 360), bool(rng.random() < 0.5), rng.uniform(*STRENGTHS)
        patch = turn_patch(patches[chosen], size, turn, mirrored) * np.float32(strength)
        drawn = np.flatnonzero(patch > 0.5 * patch.max())
        row, column = divmod(int(rng.choice(drawn)), patch.shape[1])
        to_row, to_column = divmod(int(rng.choice(allowed)), width)
        top, left = to_row - row, to_column - column
        rows = slice(max(top, 0), min(top + patch.shape[0], height))
        columns = slice(max(left, 0), min(left + patch.shape[1], width))
        part = patch[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        np.maximum(opacity[rows, columns], part, out=opacity[rows, columns])
        placed.append(
            {
                "patch": chosen, "size_px": round(size, 1), "turn_deg": round(turn, 1), "mirrored": mirrored,
                "strength": round(strength, 3), "top": top, "left": left,
            }
        )  # fmt: skip
    opacity[(opacity < LEVEL) | ~area] = 0
    return opacity, placed


def defect_image(
    clean: Float32[ndarray, "h w 3"], source: str, rng: np.random.Generator, textures: Sequence[ndarray] = ()
) -> Float32[ndarray, "h w 3"]:
    """I_defect of eq. (S1), in [0, 1]: `source` is one of SOURCES (module docstring)."""
    if source == "plain":
        noise = rng.standard_normal(clean.shape, np.float32) * np.float32(0.02)
        return np.clip(rng.uniform(0, 1, 3).astype(np.float32) + noise, 0, 1)
    if source == "shifted":
        amount = rng.uniform(0.15, 0.5) * rng.choice([-1, 1])
        weights = np.ones(3) if rng.random() < 0.5 else rng.uniform(-1, 1, 3)
        return np.clip(clean + (amount * weights).astype(np.float32), 0, 1)
    return random_texture(clean.shape[:2], textures, rng)[0]


def manual(
    image: Float32[ndarray, "h w 3"], area: Bool[ndarray, "h w"], rng: np.random.Generator, materials: Materials
) -> Painted:
    """Eq. (S1) with a fresh A and I_defect.  `materials.patches`, where given, replace the built-in library."""
    opacity, placed = anomaly_map(materials.patches or library(), area, rng)
    source = str(rng.choice(SOURCES))
    rows, columns = (np.flatnonzero((opacity > 0).any(axis)) for axis in (1, 0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))  # I_defect matters nowhere else
    painted = image.copy()
    painted[box] = blend(image[box], opacity[box], defect_image(image[box], source, rng, materials.textures))
    return Painted(painted, opacity > 0, {"source": source, "patches": placed})
