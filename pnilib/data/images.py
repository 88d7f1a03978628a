"""Decoded images and masks -> tensors.

RGB, resized to 512 x 512, centre crop of 480 x 480 (PNI sec. 4.1).  The paper does not say
how to interpolate, what to do with oblong images, or how to resize a mask; `Geometry` names
the choices (B20, B21 of the audit).

Decisions, made once here and tested in tests/test_images.py:

- Alpha is dropped, not composited: a photograph has no transparent parts, and the colour
  stored below is what the camera saw.
- Grey becomes three equal channels; palette, CMYK and 1-bit images become RGB as Pillow does it.
- 16-bit images are divided by 65535, or, given the camera's `bit_depth` n, by 2^n - 1: they keep their depth.
- Images are resized with Pillow's antialiased bilinear filter, as torchvision does on Pillow
  images: 8-bit images are rounded to 8 bits once more.
- Masks: pnilib/data/mask_values.py says which of their pixels are a defect; here they are resized as their image is.
"""

import math
import os
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int32, Integer
from numpy import ndarray
from PIL import Image
from torch import Tensor

from pnilib.config.geometry import Geometry
from pnilib.data.image_files import DEEP_GREY, MAX_PIXELS, as_rgb, decode
from pnilib.data.mask_values import mask_array, united_mask
from pnilib.errors import PNIError
from pnilib.store.text import shown

__all__ = ["kept_box", "mask_array", "read_image", "read_mask", "resize_labels", "resize_mask", "to_tensor"]


def read_image(path: str | os.PathLike[str], geometry: Geometry) -> Float[Tensor, "3 crop crop"]:
    """RGB in [0, 1], resized and centre-cropped.

    Raises PNIError when the file is missing, damaged or no image, or its values exceed its depth.
    """
    return to_tensor(decode(path), geometry, shown(path))


def to_tensor(pixels: Image.Image | ndarray, geometry: Geometry, name: str) -> Float[Tensor, "3 crop crop"]:
    """RGB in [0, 1], resized and centre-cropped, of a decoded image: Pillow's, or an array (h, w) or (h, w, 1 | 3 | 4).

    `name` is for the messages.  Raises PNIError for values beyond the depth, and a strip that would grow too large.
    """
    planes = _planes(pixels, geometry, name)
    size = _resized(planes[0].size, geometry, name)
    cropped = [np.array(_crop(p.resize(size, Image.Resampling.BILINEAR), geometry.crop)) for p in planes]
    if cropped[0].ndim == 3:
        return torch.from_numpy(cropped[0]).permute(2, 0, 1).contiguous().float() / 255
    return torch.from_numpy(np.stack(cropped)).clamp(0, 1).expand(3, -1, -1).contiguous()


def read_mask(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    geometry: Geometry,
    image_path: str | os.PathLike[str] | None = None,
    masks: str = "auto",
) -> Bool[Tensor, "crop crop"]:
    """True on defect pixels, in the same geometry as the image; several masks are united.

    Raises PNIError when a file is missing, damaged or no image, and, given `image_path`,
    when mask and image differ in size.
    """
    return torch.from_numpy(resize_mask(united_mask(paths, image_path, masks), geometry))


def resize_mask(mask: Bool[ndarray, "h w"], geometry: Geometry) -> Bool[ndarray, "crop crop"]:
    """A mask at the file's size, resized and cropped as its image is."""
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    floor = geometry.mask_resize == "floor"
    filter_ = Image.Resampling.BILINEAR if floor else Image.Resampling.NEAREST
    resized = _crop(image.resize(_resized(image.size, geometry, "the mask"), filter_), geometry.crop)
    return np.asarray(np.array(resized) == 255)


def resize_labels(labels: Integer[ndarray, "h w"], geometry: Geometry) -> Int32[ndarray, "crop crop"]:
    """A label map at the file's size, resized (nearest) and cropped as its image is."""
    image = Image.fromarray(labels.astype(np.int32))
    resized = image.resize(_resized(image.size, geometry, "the label map"), Image.Resampling.NEAREST)
    return np.array(_crop(resized, geometry.crop))


def kept_box(size: tuple[int, int], geometry: Geometry) -> tuple[int, int, int, int]:
    """left, top, right, bottom of what the crop keeps of an image of `size` (width, height), px of the file."""
    resized = _resized(size, geometry, "the image")
    low = [round((side - geometry.crop) / 2) for side in resized]
    left, top = (math.floor(at * old / new) for at, old, new in zip(low, size, resized, strict=True))
    right, bottom = (
        math.ceil((at + geometry.crop) * old / new) for at, old, new in zip(low, size, resized, strict=True)
    )
    return left, top, right, bottom


def _planes(pixels: Image.Image | ndarray, geometry: Geometry, name: str) -> list[Image.Image]:
    """One RGB image, or one or three float planes in [0, 1] where 8 bits would lose depth."""
    if isinstance(pixels, Image.Image):
        if pixels.mode not in DEEP_GREY and pixels.mode != "F":
            return [as_rgb(pixels, name)]
        pixels = np.array(pixels)
    channels = pixels if pixels.ndim == 3 else pixels[..., None]
    if channels.dtype == np.uint8:
        return [as_rgb(Image.fromarray(channels[..., 0] if channels.shape[2] == 1 else channels), name)]
    white = 1 if channels.dtype.kind == "f" else geometry.white
    channels = channels[..., :3].astype(np.float32)
    if not (np.isfinite(channels).all() and channels.min() >= 0 and channels.max() <= white):
        found = f"values from {channels.min():g} to {channels.max():g} lie outside 0 ... {white}"
        if white == 1:
            raise PNIError(f"{name}: {found}: divide them by their largest possible value, or save 8 or 16 bits")
        raise PNIError(f"{name}: {found}, bit_depth={geometry.bit_depth}: set a larger one, or 0 for all 16 bits")
    return [Image.fromarray(np.ascontiguousarray(channels[..., i]) / white) for i in range(channels.shape[2])]


def _resized(size: tuple[int, int], geometry: Geometry, name: str) -> tuple[int, int]:
    """(width, height) after resizing; the longer edge is rounded down, as in torchvision."""
    if geometry.resize_mode == "square":
        return geometry.resize, geometry.resize
    width, height = size
    if width <= height:
        resized = geometry.resize, geometry.resize * height // width
    else:
        resized = geometry.resize * width // height, geometry.resize
    if resized[0] * resized[1] > MAX_PIXELS:
        raise PNIError(
            f"{name}: resize=short would make its {width} x {height} px {resized[0]} x {resized[1]}: "
            "use resize=square, or cut the strip into pieces"
        )
    return resized


def _crop(image: Image.Image, side: int) -> Image.Image:
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    return image.crop((left, top, left + side, top + side))
