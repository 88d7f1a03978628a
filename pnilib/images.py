"""Image and mask files -> tensors.

RGB, resized to 512 x 512, centre crop of 480 x 480 (PNI sec. 4.1).  The paper does not say
how to interpolate, what to do with oblong images, or how to resize a mask; `Geometry` names
the choices (B20, B21 of the audit).

Decisions, made once here and tested in tests/test_images.py:

- EXIF orientation is applied, as every viewer and annotation tool does.
- Alpha is dropped, not composited: a photograph has no transparent parts, and the colour
  stored below is what the camera saw.
- Grey becomes three equal channels; palette, CMYK and 1-bit images become RGB as Pillow does it.
- 16-bit grey is divided by 65535, so it keeps its depth.  16-bit colour keeps 8 bits (Pillow).
- Images are resized with Pillow's antialiased bilinear filter, as torchvision does on Pillow
  images: 8-bit images are rounded to 8 bits once more.
- A mask pixel is a defect when it exceeds half of the format's range (MVTec: 0 or 255; MTD: rims
  of compression noise).  A mask without any such pixel holds labels (VisA: 0, 1, 2 ...): there,
  and in palette masks, everything but 0 is a defect.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from pnilib.errors import PNIError

__all__ = ["Geometry", "image_size", "mask_array", "open_image", "read_image", "read_mask"]

_DEEP_GREY = {"I", "I;16", "I;16B", "I;16L", "I;16N"}
_MAX_PIXELS = 89_000_000
"""A larger image is refused: a mistake or a decompression bomb.  Pillow's own warning starts just above."""


@dataclass(frozen=True)
class Geometry:
    """How an image and its mask become a square tensor (PNI sec. 4.1).

    resize: side of the square, or length of the shorter edge (`resize_mode="short"`), px.
    crop: side of the centre crop, px.  mask_resize: `nearest`, or `floor`, the released rule:
    bilinear, and only pixels whose interpolated value is exactly 1 count (B21).
    """

    resize: int = 512
    crop: int = 480
    resize_mode: str = "square"
    mask_resize: str = "nearest"

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.resize:
            raise PNIError(f"crop={self.crop}: must lie between 1 and resize={self.resize}: choose a smaller one")
        if self.resize_mode not in ("square", "short"):
            raise PNIError(f"resize_mode={self.resize_mode!r}: unknown: choose square or short")
        if self.mask_resize not in ("nearest", "floor"):
            raise PNIError(f"mask_resize={self.mask_resize!r}: unknown: choose nearest or floor")


@contextmanager
def open_image(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """The decoded image, with EXIF orientation applied.

    Raises PNIError when the file is missing, empty, truncated, huge or no image.
    """
    remedy = "replace it with an intact copy, or remove it"
    try:
        if os.path.getsize(path) == 0:
            raise PNIError(f"{path}: is empty (0 bytes): {remedy}")
        with Image.open(path) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise PNIError(f"{path}: has {image.width} x {image.height} pixels: make it smaller")
            image.load()
            turned = ImageOps.exif_transpose(image)
    except UnidentifiedImageError:
        raise PNIError(f"{path}: is not an image, whatever its name says: {remedy}") from None
    except FileNotFoundError:
        raise PNIError(f"{path}: does not exist: check the path") from None
    except PNIError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as fault:
        reason = " ".join(str(fault).split()) or type(fault).__name__
        raise PNIError(f"{path}: is damaged and cannot be read ({reason}): {remedy}") from None
    yield turned


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(width, height) in px after EXIF orientation, without decoding where possible.

    Raises PNIError when the file is no image.
    """
    try:
        with Image.open(path) as image:
            if image.getexif().get(0x0112, 1) < 5:
                return image.size
    except Exception:  # any fault: the careful reader below names it
        pass
    with open_image(path) as image:
        return image.size


def read_image(path: str | os.PathLike[str], geometry: Geometry) -> Float[Tensor, "3 crop crop"]:
    """RGB in [0, 1], resized and centre-cropped.

    Raises PNIError when the file is missing, damaged or no image.
    """
    with open_image(path) as image:
        planes = _planes(image, path)
    size = _resized(planes[0].size, geometry)
    cropped = [_crop(p.resize(size, Image.Resampling.BILINEAR), geometry.crop) for p in planes]
    if len(cropped) == 1 and cropped[0].mode == "RGB":
        pixels = torch.from_numpy(np.array(cropped[0])).permute(2, 0, 1).float() / 255
    else:
        pixels = torch.from_numpy(np.array(cropped[0], dtype=np.float32)).clamp(0, 1).expand(3, -1, -1)
    return pixels.contiguous()


def read_mask(
    path: str | os.PathLike[str], geometry: Geometry, image_path: str | os.PathLike[str] | None = None
) -> Bool[Tensor, "crop crop"]:
    """True on defect pixels, in the same geometry as the image.

    Raises PNIError when the file is missing, damaged or no image, and, given `image_path`,
    when mask and image differ in size.
    """
    defect = mask_array(path)
    if image_path is not None:
        height, width = defect.shape
        expected = image_size(image_path)
        if (width, height) != expected:
            raise PNIError(
                f"{path}: mask is {width} x {height} px but its image {image_path} is "
                f"{expected[0]} x {expected[1]} px: redraw the mask at the image's size"
            )
    mask = Image.fromarray(defect.astype(np.uint8) * 255)
    floor = geometry.mask_resize == "floor"
    filter_ = Image.Resampling.BILINEAR if floor else Image.Resampling.NEAREST
    resized = _crop(mask.resize(_resized(mask.size, geometry), filter_), geometry.crop)
    return torch.from_numpy(np.array(resized) == 255)


def mask_array(path: str | os.PathLike[str]) -> Bool[np.ndarray, "h w"]:
    """True on defect pixels, at the file's own size (rule: module docstring).

    Raises PNIError when the file is missing, damaged or no image.
    """
    with open_image(path) as image:
        if image.mode in _DEEP_GREY or image.mode == "F":
            values, full = np.array(image), 65535.0
        elif image.mode in ("1", "L", "P"):
            values, full = np.array(image.convert("L") if image.mode == "1" else image), 255.0
        else:  # colour, alpha dropped: the brightest channel counts
            values, full = np.array(_rgb(image)).max(axis=2), 255.0
        if image.mode == "P":
            return np.asarray(values != 0)
    bright = np.asarray(values > full / 2)
    return bright if bright.any() else np.asarray(values != 0)


def _planes(image: Image.Image, path: str | os.PathLike[str]) -> list[Image.Image]:
    """One RGB image, or one float plane in [0, 1] where 8 bits would lose depth."""
    if image.mode in _DEEP_GREY or image.mode == "F":
        grey = np.array(image, dtype=np.float32) / (1.0 if image.mode == "F" else 65535.0)
        if not (np.isfinite(grey).all() and grey.min() >= 0 and grey.max() <= 1):
            wanted = "0 ... 1" if image.mode == "F" else "0 ... 65535"
            raise PNIError(f"{path}: grey values lie outside {wanted}: rescale them, or save 8 or 16 bits")
        return [Image.fromarray(grey)]
    return [_rgb(image)]


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "P":  # by way of RGBA: Pillow warns when it must drop a palette's transparency
        image = image.convert("RGBA")
    return image.convert("RGB")


def _resized(size: tuple[int, int], geometry: Geometry) -> tuple[int, int]:
    """(width, height) after resizing; the longer edge is rounded down, as in torchvision."""
    if geometry.resize_mode == "square":
        return geometry.resize, geometry.resize
    width, height = size
    if width <= height:
        return geometry.resize, geometry.resize * height // width
    return geometry.resize * width // height, geometry.resize


def _crop(image: Image.Image, side: int) -> Image.Image:
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    return image.crop((left, top, left + side, top + side))
