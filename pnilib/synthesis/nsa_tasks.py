"""What a self-supervised patch task is made of, and the published ones as its values (NSA supplement, Tables 4 to 7).

A task says how a patch is taken, put and labelled (`PatchTask`: Tables 5 and 6); the rules of a class say how large
patches are, what is background, and how a difference becomes a label (`ClassRules`: Table 4).

    CutPaste, FPI, PII, NSA (binary | continuous | logistic) = one sampler, `pnilib.synthesis.natural`, with six values
    variants A to D of NSA (logistic)                        = that value with one field changed

CutPaste, FPI and PII are "re-implementations" with "our patch-selection procedure" (caption of Table 6), here as there.

What the authors' released code does otherwise, by name (`PatchTask.released`):

- half_clip: a resized patch is clipped by the bounds of *half* its size: screws' patches end at .12 of the side where
  Table 4 says .24.
- overwritten: of overlapping patches the later one's rectangle overwrites the earlier one's mask.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from pnilib.errors import PNIError
from pnilib.synthesis.foreground import foreground_mask

__all__ = ["CLASSES", "RELEASED", "TASKS", "VARIANTS", "ClassRules", "PatchTask", "class_rules", "measured_rules"]

RELEASED = ("half_clip", "overwritten")

_CHOICES = {
    "source": ("other", "same"),
    "blend": ("copy", "interpolate", "poisson", "mixed"),
    "sizes": ("gamma", "cutpaste", "fpi"),
    "shape": ("rectangle", "ellipses"),
    "label": ("binary", "factor", "continuous", "logistic"),
}


@dataclass(frozen=True)
class PatchTask:
    """How a patch is taken, put and labelled.

    source: `other` image or the `same` ("Different source and destination images?").  shift: put elsewhere ("Different
    source and destination patch locations?").  resize: before blending.  blend: `copy`; `interpolate`, (1 - f) image +
    f patch; `poisson`, seamless cloning with the gradients that the class's rules name; `mixed`, with the stronger of
    both images' gradients.  factor: least and most f, one draw an image.  sizes: `gamma`, `cutpaste` or `fpi`
    (Table 6).  shape: `rectangle`, or the union of five random `ellipses` (variant D).  constrained: a patch must show
    the object, and lie on it.  several: up to the class's n_max patches, or one.  label: `binary`; `factor`, f where
    the image changed; `continuous`, the difference in grey levels; `logistic`, that difference between 0 and 1.
    released: names of RELEASED.
    """

    source: str = "other"
    shift: bool = True
    resize: bool = True
    blend: str = "poisson"
    factor: tuple[float, float] = (1.0, 1.0)
    sizes: str = "gamma"
    shape: str = "rectangle"
    constrained: bool = True
    several: bool = True
    label: str = "logistic"
    released: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise PNIError(f"{name}={getattr(self, name)}: unknown: choose one of {', '.join(choices)}")
        for name in self.released:
            if name not in RELEASED:
                raise PNIError(f"released={name}: unknown: choose from {', '.join(RELEASED)}")

    @property
    def loss(self) -> str:
        """Table 5's last row: `mse` for continuous labels, `bce` for the others, which lie in [0, 1]."""
        return "mse" if self.label == "continuous" else "bce"


_SOMEWHAT = (0.05, 0.95)

TASKS = {
    "cutpaste": PatchTask(source="same", resize=False, blend="copy", label="binary"),
    "fpi": PatchTask(shift=False, resize=False, blend="interpolate", factor=_SOMEWHAT, label="factor"),
    "pii": PatchTask(shift=False, resize=False, blend="mixed", factor=_SOMEWHAT, label="factor"),
    "nsa-binary": PatchTask(label="binary"),
    "nsa-continuous": PatchTask(label="continuous"),
    "nsa-logistic": PatchTask(label="logistic"),
}
"""Table 5, column by column."""

VARIANTS = {
    "A": dataclasses.replace(TASKS["nsa-logistic"], constrained=False),
    "B": dataclasses.replace(TASKS["nsa-logistic"], several=False),
    "C": dataclasses.replace(TASKS["nsa-logistic"], sizes="cutpaste", several=False, constrained=False, resize=False),
    "D": dataclasses.replace(TASKS["nsa-logistic"], shape="ellipses"),
}
"""Table 7: "A Do not use foreground constraints", "B Only use a single patch", "C Generate patch shapes as for CutPaste
(...) (Use single patch, uniform distributions, no foreground constraints, no re-sizing.)", "D Mask the patches with a
union of 5 random ellipses"."""


@dataclass(frozen=True)
class ClassRules:
    """Table 4, one row.

    n_max: most patches an image.  height, width: least and most, relative to the image.  background: brightness b and
    t_brightness, grey levels: pixels nearer to b than that are background; None: there is none.  t_object, t_overlap:
    least share of a patch that shows the object; least share of its object that falls on the object.  scale: least and
    most of a resize.  midpoint, steepness: y_0, grey levels, and k of the logistic label.  texture: no object: the
    Poisson blending mixes gradients, images are flipped and not cropped.  gamma: half-sizes are drawn as gamma[0] +
    Gamma(2, gamma[1]) of the side.  turn: degrees by which training images are turned, either way.
    """

    n_max: int = 3
    height: tuple[float, float] = (0.06, 0.80)
    width: tuple[float, float] = (0.06, 0.80)
    background: tuple[float, float] | None = None
    t_object: float = 0.0
    t_overlap: float = 0.0
    scale: tuple[float, float] = (0.7, 1.3)
    midpoint: float = 15.0
    steepness: float = 1 / 6
    texture: bool = False
    gamma: tuple[float, float] = (0.03, 0.05)
    turn: float = 0.0
    mixed: bool = False

    @property
    def mixed_gradients(self) -> bool:
        """ "mixed gradients for all rCXR data and for MVTec AD texture classes" (A.1)."""
        return self.texture or self.mixed


def _object(y0: float, k: float, **more: object) -> ClassRules:
    return ClassRules(midpoint=y0, steepness=k, **more)  # type: ignore[arg-type]


def _texture(y0: float, k: float) -> ClassRules:
    return ClassRules(n_max=4, scale=(0.5, 2.0), midpoint=y0, steepness=k, texture=True)


_BRIGHT, _DARK = {"background": (200, 60), "t_overlap": 0.25}, {"background": (20, 20), "t_overlap": 0.25}
_CHEST = {"background": (0, 20), "t_object": 0.7, "t_overlap": 0.7, "gamma": (0.05, 0.03), "mixed": True}

CLASSES: dict[str, ClassRules] = {
    "mvtec/bottle": _object(24, 1 / 12, t_object=0.70, turn=5.0, **_BRIGHT),
    "mvtec/cable": _object(24, 1 / 12, height=(0.10, 0.80), width=(0.10, 0.80)),
    "mvtec/capsule": _object(4, 1 / 2, height=(0.06, 0.30), t_object=0.70, **_BRIGHT),
    "mvtec/hazelnut": _object(24, 1 / 12, height=(0.06, 0.70), width=(0.06, 0.70), t_object=0.70, turn=5.0, **_DARK),
    "mvtec/metal_nut": _object(7, 1 / 3, t_object=0.50, turn=5.0, **_DARK),
    "mvtec/pill": _object(7, 1 / 3, height=(0.06, 0.40), t_object=0.70, **_DARK),
    "mvtec/screw": _object(
        3, 1.0, n_max=4, height=(0.06, 0.24), width=(0.06, 0.24), t_object=0.50, turn=5.0, **_BRIGHT
    ),
    "mvtec/toothbrush": _object(15, 1 / 6, width=(0.06, 0.40), t_object=0.25, **_DARK),
    "mvtec/transistor": _object(15, 1 / 6),
    "mvtec/zipper": _object(15, 1 / 6, n_max=4, width=(0.06, 0.40), t_object=0.70, **_BRIGHT),
    "mvtec/carpet": _texture(7, 1 / 3),
    "mvtec/grid": _texture(7, 1 / 3),
    "mvtec/leather": _texture(7, 1 / 3),
    "mvtec/tile": _texture(7, 1 / 3),
    "mvtec/wood": _texture(15, 1 / 6),
    "rcxr/male": _object(4, 1 / 2, **_CHEST),
    "rcxr/female": _object(4, 1 / 2, **_CHEST),
    # Ours.  Drawn surfaces vary little, so small differences are to be seen: y_0 and k of the smooth classes.
    "demo/cable": _object(7, 1 / 3),  # its background is now darker, now brighter than the cable
    "demo/board": _object(7, 1 / 3, t_object=0.50, background=(166, 20), t_overlap=0.25),
    "demo/gear": _object(7, 1 / 3, t_object=0.50, background=(52, 15), t_overlap=0.25),
    "demo/grain": _texture(7, 1 / 3),
    "demo/tiles": _texture(7, 1 / 3),
    "demo/weave": _texture(7, 1 / 3),
    "mtd/mtd": _texture(4, 1 / 2),  # a matte, low-contrast surface: blowholes differ from it by few grey levels
}
"""Data set and category -> rules.  The first 17 rows: Table 4; `texture` and `turn` from the released code, which the
supplement does not contradict."""


def class_rules(dataset: str, category: str) -> ClassRules | None:
    """The row of a known class; None for others."""
    return CLASSES.get(f"{dataset}/{category}", CLASSES.get(f"{dataset}/{dataset}"))


def measured_rules(images: Sequence[Float32[ndarray, "h w 3"]]) -> ClassRules:
    """Rules for a class that nobody has described, from some of its normal images, RGB in [0, 1] (ours).

    A background that most of them have (`foreground_mask`) makes them objects: b is the median brightness of their
    borders, and the other values are those in the middle of Table 4.  Else they are textures.
    """
    parts = sum(not foreground_mask(image).all() for image in images)
    if 2 * parts <= len(images):
        return _texture(7, 1 / 3)
    border = np.concatenate([np.concatenate([i[0], i[-1], i[:, 0], i[:, -1]]).mean(axis=1) for i in images])
    return _object(15, 1 / 6, background=(round(255 * float(np.median(border))), 30), t_object=0.5, t_overlap=0.25)
