"""Whatever holds images in memory or on disk -> the tensors that a model takes, one at a time.

What may be given is told by its shape alone, whether NumPy array or tensor:

- photographs of any size: paths, Pillow images, arrays (h, w), (h, w, 1 | 3 | 4) - RGB, where OpenCV gives BGR -, are
  resized and cropped as files are, so that they score as their files do;
- what `Split.image` returns, (3, s, s) or (1, s, s) with the model's side s, and stacks (n, ...) of it, go in as they
  are.

8-bit values are 0 ... 255, unsigned 16-bit ones go by `bit_depth`, floating-point ones must lie in [0, 1].  All else
is refused by name: nothing is rescaled by guess.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from PIL import Image, ImageOps
from torch import Tensor

from pnilib.config.geometry import Geometry
from pnilib.data import Dataset, Split
from pnilib.data.images import read_image, to_tensor
from pnilib.errors import PNIError

__all__ = ["Images", "as_images"]

_SLACK = 1e-3
"""A resized image may overshoot [0, 1] by so much: it is clipped."""


@dataclass(frozen=True)
class Images:
    """names: a path, or `image 0`, `image 1` ...  load: the i-th as RGB in [0, 1]."""

    names: list[str]
    load: Callable[[int], Float[Tensor, "3 crop crop"]]

    def __len__(self) -> int:
        return len(self.names)


def as_images(images: Any, geometry: Geometry) -> Images:
    """`images` as the model takes them: a Split, one image or several, of the kinds above, lists of any of them.

    Files are read when they are loaded.  Raises PNIError for another kind, a wrong shape, NaN, or values outside of
    their range.
    """
    if isinstance(images, Split):
        return Images([str(path) for path in images.samples["image_path"]], lambda i: images.image(i, geometry))
    found = _single(images, geometry)
    names = [name or f"image {i}" for i, (name, _) in enumerate(found)]
    return Images(names, lambda i: found[i][1](names[i]))


_Loader = Callable[[str], Tensor]


def _single(images: Any, geometry: Geometry) -> list[tuple[str, _Loader]]:
    """One entry an image: its name, "" for one in memory, and what loads it, given the name for messages."""
    if isinstance(images, str | os.PathLike):
        path = os.fspath(images)
        return [(str(path), lambda _: read_image(path, geometry))]
    if isinstance(images, Image.Image):
        return [("", lambda name: to_tensor(ImageOps.exif_transpose(images), geometry, name))]
    if isinstance(images, Dataset):
        raise PNIError(f"predict wants images, not the whole data set {images.category}: give its .test")
    if isinstance(images, Tensor):
        return _of_array(images.detach(), geometry)
    if hasattr(images, "__array__"):
        return _of_array(np.asarray(images), geometry)
    if isinstance(images, Iterable) and not isinstance(images, bytes | dict):
        return [one for item in images for one in _single(item, geometry)]
    raise PNIError(
        f"{type(images).__name__} is no image: give a Split, paths, Pillow images, arrays (h, w, 3) of 8 bits, or "
        "tensors (n, 3, h, w) in [0, 1]"
    )


def _of_array(pixels: Tensor | ndarray, geometry: Geometry) -> list[tuple[str, _Loader]]:
    if isinstance(pixels, ndarray) and pixels.dtype.kind in "OUS":  # names, as a table's column of paths
        return _single(pixels.ravel().tolist(), geometry)
    shape, side = tuple(pixels.shape), geometry.crop
    ready = len(shape) in (3, 4) and shape[-3] in (1, 3) and shape[-2:] == (side, side)
    photograph = len(shape) == 2 or (len(shape) in (3, 4) and shape[-1] in (1, 3, 4))
    if not (ready or photograph) or 0 in shape[-3:]:
        raise PNIError(
            f"image of shape {shape[-3:]}: the model wants (3, {side}, {side}), or (h, w, 3) of any size, which is "
            "resized as files are"
        )
    whole = list(pixels) if len(shape) == 4 else [pixels]
    return [("", lambda name, one=one: _load(one, geometry, ready, name)) for one in whole]


def _load(pixels: Tensor | ndarray, geometry: Geometry, ready: bool, name: str) -> Tensor:
    values = _in_range(pixels, name)
    if not ready:
        return to_tensor(values, geometry, name)
    white = 1 if values.dtype.kind == "f" else 255 if values.dtype == np.uint8 else geometry.white
    if values.max() > white:
        raise PNIError(f"{name}: its value {values.max()} exceeds {white}, bit_depth={geometry.bit_depth}")
    return torch.from_numpy(values.astype(np.float32) / white).expand(3, -1, -1).contiguous()


def _in_range(pixels: Tensor | ndarray, name: str) -> ndarray:
    """uint8, uint16, or float32 in [0, 1].  Raises PNIError for another type, NaN and other values."""
    if isinstance(pixels, Tensor):
        pixels = (pixels.float() if pixels.is_floating_point() else pixels).cpu().numpy()
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels
    if pixels.dtype.kind != "f":
        raise PNIError(f"{name}: has values of type {pixels.dtype}: give 8-bit integers, or floats in [0, 1]")
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite([low, high]).all():
        raise PNIError(f"{name}: holds NaN or infinity: check where it comes from")
    if low < -_SLACK or high > 1 + _SLACK:
        advice = "divide it by 255" if low >= 0 else "give RGB as it is, the model normalises by itself"
        raise PNIError(f"{name}: has values from {low:g} to {high:g}, outside [0, 1]: {advice}")
    return pixels.astype(np.float32).clip(0, 1)
