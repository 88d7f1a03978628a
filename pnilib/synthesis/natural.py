"""Natural synthetic anomalies: patches of normal images, put elsewhere and blended in without a visible seam.

Schlüter et al., NSA, sec. 3; its supplement, A.1 and Tables 4 to 6, and the released code where these are silent.  One
sampler serves NSA, CutPaste, FPI and PII (`pnilib.synthesis.nsa_tasks`).  For each of up to n_max patches, the first
always, each further one with probability 1/2, on the image that the earlier ones left:

    size        half-sides (.03 + Gamma(2, .05)) of the image's, clipped to half of the class's bounds
    source      a uniform centre, cut by the image's border, until more than t_object of the patch shows the object
    resize      by N(1, .5), clipped to the class's scale and bounds, one scale for both sides
    destination a uniform place inside the image, until more than t_overlap of the patch's object, which must fill more
                than t_object of it, falls on the image's object
    blend       within patch and (its object or the image's): copy, interpolate, or OpenCV's seamless cloning, which
                solves Poisson's equation for the patch's gradients (or the stronger of both) with the image as its rim

Either search ends after 200 tries, and then that patch is left out.  `natural` offers NSA to PNI's refinement network,
which the paper does not.

Deviations: a centre is tried 200 times for one size (the release is not clear about the size); masks of several patches
are united (`released=overwritten` does otherwise); bounds hold for whole sizes (`released=half_clip`).
"""

import dataclasses
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8
from numpy import ndarray

from pnilib.synthesis.foreground import foreground_mask
from pnilib.synthesis.nsa_labels import changed_mask
from pnilib.synthesis.nsa_tasks import TASKS, ClassRules, PatchTask
from pnilib.synthesis.painting import Materials, Painted
from pnilib.synthesis.patch_places import Box, destination, patch_shape, resized, source_box

__all__ = ["Pasted", "blend", "natural", "object_mask", "paste"]

OBJECT, TEXTURE = ClassRules(t_object=0.5, t_overlap=0.25), ClassRules(n_max=4, scale=(0.5, 2.0), texture=True)
PAD, LEAST = 8, 16
"""px, of `natural`."""

FEWEST = 50
"""px; smaller patches are skipped by the Poisson blending."""


class Pasted(NamedTuple):
    """image: with the patches.  region: where they lie.  factor: f of the blending.  patches: what was drawn, ready for
    JSON.  lost: patches for which no place was found, or that were too small."""

    image: UInt8[ndarray, "h w 3"]
    region: Bool[ndarray, "h w"]
    factor: float
    patches: list[dict[str, Any]]
    lost: int


def object_mask(image: UInt8[ndarray, "h w 3"], rules: ClassRules) -> Bool[ndarray, "h w"] | None:
    """Where the object is: |mean of the channels - b| > t_brightness, 7 x 7 median.  None: the class has no background.

    "All pixels with absolute brightness distance less than t_brightness to the background brightness are assigned to
    the background" (A.1); one at just that distance is background too, as in the released code.
    """
    if rules.background is None:
        return None
    brightness, threshold = rules.background
    total = cv2.transform(image.astype(np.uint16), np.ones((1, 3), np.float32)).astype(np.int32)
    part = np.abs(total - 3 * brightness) > 3 * threshold
    return cv2.medianBlur(part.view(np.uint8), 7).view(bool)


def blend(
    image: UInt8[ndarray, "h w 3"],
    patch: UInt8[ndarray, "h w 3"],
    mask: Bool[ndarray, "h w"],
    factor: float,
    mode: str,
) -> UInt8[ndarray, "h w 3"]:
    """`patch` blended into the equally large piece `image` of an image, within `mask`.

    mode: `copy`; `interpolate`, (1 - f) image + f patch, rounded down; `poisson` and `mixed`, OpenCV's NORMAL_CLONE and
    MIXED_CLONE with the patch's gradients times ceil(255 f) / 255.  Cloning leaves a frame of one pixel, erodes the
    mask by three more, and keeps the image where fewer than 50 pixels are left to clone.
    """
    if mode == "copy":
        return np.where(mask[..., None], patch, image)
    if mode == "interpolate":
        mixed = (1 - factor) * image.astype(np.float64) + factor * patch.astype(np.float64)
        return np.where(mask[..., None], np.floor(mixed + 1e-6).astype(np.uint8), image)
    cloned = np.zeros(mask.shape, np.uint8)
    cloned[1:-1, 1:-1] = np.where(mask[1:-1, 1:-1], np.uint8(np.ceil(255 * factor)), 0)
    left, top, width, height = cv2.boundingRect(cloned)
    if cv2.countNonZero(cloned) < FEWEST or min(width, height) < 3:
        return image
    centre = (left + width // 2, top + height // 2)  # OpenCV puts the middle of the mask's bounding box there
    how = cv2.MIXED_CLONE if mode == "mixed" else cv2.NORMAL_CLONE
    return np.asarray(cv2.seamlessClone(patch, image, cloned, centre, how))  # writes into `cloned`


def paste(
    image: UInt8[ndarray, "h w 3"],
    source: UInt8[ndarray, "h w 3"],
    task: PatchTask,
    rules: ClassRules,
    rng: np.random.Generator,
    objects: tuple[Bool[ndarray, "h w"] | None, Bool[ndarray, "h w"] | None] | None = None,
) -> Pasted:
    """Patches of `source` on `image`; both of one size.

    task.source=same takes them from the image itself.  objects: where image and source show the object, None for
    everywhere; default by `object_mask`.
    """
    if task.source == "same":
        source = image
    here = there = None
    if task.constrained and task.sizes != "cutpaste":
        here, there = objects or (object_mask(image, rules), object_mask(source, rules))
    factor = 1.0 if task.factor == (1.0, 1.0) else float(rng.uniform(*task.factor))
    mode = "mixed" if task.blend == "poisson" and rules.mixed_gradients else task.blend
    shape = (image.shape[0], image.shape[1])
    pasted, region, patches, lost = image, np.zeros(shape, bool), [], 0
    for count in range(rules.n_max if task.several else 1):
        if count and rng.random() < 0.5:
            break
        taken = source_box(shape, there, task, rules, rng)
        if taken is None:
            lost += 1
            continue
        size = resized(taken, shape, task, rules, rng)
        seen = (
            None if there is None else _resize(there[taken.window].view(np.uint8), size, cv2.INTER_NEAREST).view(bool)
        )
        put = destination(size, seen, here, shape, rules, rng) if task.shift else taken
        if put is None:
            lost += 1
            continue
        patch, outline = _resize(source[taken.window], size, cv2.INTER_LINEAR), patch_shape(size, task.shape, rng)
        inside = outline if seen is None or here is None else outline & (seen | here[put.window])
        # cloning may reach into what is background in both images: its rim then is background, which has no gradients
        where = outline if mode in ("poisson", "mixed") else inside
        pasted = pasted.copy()
        pasted[put.window] = blend(pasted[put.window], patch, where, factor, mode)
        region[put.window] = inside if "overwritten" in task.released else inside | region[put.window]
        patches.append({"from": list(taken), "to": list(put)})
    return Pasted(pasted, region, factor, patches, lost)


def _resize(patch: ndarray, size: tuple[int, int], how: int) -> ndarray:
    return patch if patch.shape[:2] == size else np.asarray(cv2.resize(patch, size[::-1], interpolation=how))


def natural(
    image: Float32[ndarray, "h w 3"], area: Bool[ndarray, "h w"], rng: np.random.Generator, materials: Materials
) -> Painted:
    """NSA's patches of one of `materials.donors` (resized to the image), else of the image, for PNI's refinement.

    An area that is the whole image is taken for a texture, another for an object (NSA fixes by class what is what),
    with the rules of an ordinary class.  Ours, so that any image and area get a defect: images are continued by PAD
    pixels, as cloning spares its rim; patches have LEAST pixels a side; where the searches find no place, one patch is
    put on a random pixel of the area.
    """
    height, width = area.shape
    donor, number = image, None
    if len(materials.donors):
        number = int(rng.integers(len(materials.donors)))
        donor = materials.donors[number]
        if donor.shape != image.shape:
            donor = cv2.resize(donor, (width, height), interpolation=cv2.INTER_AREA)
    texture = bool(area.all())
    least = [LEAST / (side + 2 * PAD) for side in area.shape]
    bounds = [(max(0.06, share), max(0.8, share)) for share in least]
    rules = dataclasses.replace(TEXTURE if texture else OBJECT, height=bounds[0], width=bounds[1])
    before, source = (_continued((one * 255).round().astype(np.uint8)) for one in (image, donor))
    objects: tuple[ndarray | None, ndarray | None] = (None, None)
    if not texture:
        objects = _continued(area), _continued(area if donor is image else foreground_mask(donor))
    pasted = paste(before, source, TASKS["nsa-logistic"], rules, rng, objects)
    if not pasted.patches:
        pasted = _on_pixel(before, source, objects[0], rules, rng)
    inner = np.s_[PAD:-PAD, PAD:-PAD]
    region = changed_mask(before, pasted.image, pasted.region)[inner]
    moved = (pasted.image != before).any(axis=2)[inner]
    painted = np.where(moved[..., None], pasted.image[inner].astype(np.float32) / 255, image)
    drawn: dict[str, Any] = {"donor": number, "gradients": "mixed" if texture else "donor"}
    return Painted(painted, region, drawn | {"patches": pasted.patches})


def _continued(image: ndarray) -> ndarray:
    """`image` mirrored at its border for PAD pixels more."""
    pixels = image.view(np.uint8) if image.dtype == bool else image
    return np.asarray(cv2.copyMakeBorder(pixels, PAD, PAD, PAD, PAD, cv2.BORDER_REFLECT_101)).view(image.dtype)


def _on_pixel(
    before: ndarray, source: ndarray, objects: ndarray | None, rules: ClassRules, rng: np.random.Generator
) -> Pasted:
    """One patch of anything, its middle on a pixel of the area, or as near as the image's border allows."""
    task, shape = TASKS["nsa-logistic"], (before.shape[0], before.shape[1])
    taken = source_box(shape, None, task, rules, rng)
    assert taken is not None
    allowed = np.flatnonzero(np.ones(shape, bool) if objects is None else objects)
    middle = divmod(int(rng.choice(allowed)), shape[1])
    corner = [
        min(max(at - length // 2, 0), side - length)
        for at, length, side in zip(middle, (taken.height, taken.width), shape, strict=True)
    ]
    put = Box(corner[0], corner[1], taken.height, taken.width)
    image, region = before.copy(), np.zeros(shape, bool)
    mode = "mixed" if rules.mixed_gradients else "poisson"
    image[put.window] = blend(before[put.window], source[taken.window], region[put.window] | True, 1.0, mode)
    region[put.window] = True
    return Pasted(image, region, 1.0, [{"from": list(taken), "to": list(put)}], 0)
