"""Image files -> decoded pixels, and one clear line for every file that cannot be decoded.

Decisions, made once here and tested in tests/test_images.py:

- EXIF orientation is applied, as every viewer and annotation tool does.
- One file is one image: TIFF files of several pages and animations are refused (thumbnails inside a TIFF, and the
  second picture of a phone's JPEG, are passed over).
- Pillow decodes.  It would keep 8 bits a channel of 16-bit colour and cannot read floating-point colour: these,
  as PNG or TIFF, come from OpenCV at their full depth.  Rarer kinds of TIFF are refused by name.
"""

import os
from dataclasses import dataclass

import cv2
import numpy as np
from numpy import ndarray
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from pnilib.errors import PNIError
from pnilib.store.text import shown

__all__ = ["DEEP_GREY", "MAX_PIXELS", "Header", "as_rgb", "decode", "image_size", "read_header"]

DEEP_GREY = {"I", "I;16", "I;16B", "I;16L", "I;16N"}
"""Pillow's modes of integer grey beyond 8 bits."""

MAX_PIXELS = 89_000_000
"""A larger image is refused: a mistake or a decompression bomb.  Pillow's own warning starts just above."""

_TOO_MANY = f"more than {MAX_PIXELS:,}: make it smaller, or cut it into several"

_GREY = DEEP_GREY | {"1", "L", "LA", "La", "F"}
_REMEDY = "replace it with an intact copy, or remove it"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_DEEP_TIFF = {(16, 1), (32, 3), (64, 3)}
"""(bits, sample format: 1 unsigned, 3 floating point) of the TIFF colour that OpenCV is asked for."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself.  width, height: px, after EXIF orientation.  colour: not grey.  bits: a channel."""

    width: int
    height: int
    colour: bool
    bits: int


def decode(path: str | os.PathLike[str]) -> Image.Image | ndarray:
    """The pixels as stored: an image, or an array (h, w, 3), RGB, uint16 or float, where Pillow would lose depth.

    Raises PNIError when the file is missing, empty, truncated, huge, no image or more than one.
    """
    try:
        if os.path.isdir(path):
            raise PNIError(f"{shown(path)}: is a folder: give the image files in it")
        if os.path.getsize(path) == 0:
            raise PNIError(f"{shown(path)}: is empty (0 bytes): {_REMEDY}")
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise PNIError(f"{shown(path)}: has {image.width} x {image.height} pixels, {_TOO_MANY}")
            _require_one(image, path)
            if _is_deep_colour(image):
                return _deep_colour(path, image.getexif().get(ExifTags.Base.Orientation, 1))
            image.load()
            return ImageOps.exif_transpose(image)
    except UnidentifiedImageError:
        if _is_tiff(path):
            return _deep_colour(path, 1)
        raise PNIError(f"{shown(path)}: is not an image, whatever its name says: {_REMEDY}") from None
    except FileNotFoundError:
        raise PNIError(f"{shown(path)}: does not exist: check the path") from None
    except (PNIError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # the latter where warnings are errors
        raise PNIError(f"{shown(path)}: has too many pixels, {_TOO_MANY}") from None
    except Exception as fault:  # whatever a decoder stumbles over, the file is to blame
        reason = " ".join(str(fault).split()) or type(fault).__name__
        raise PNIError(f"{shown(path)}: is damaged and cannot be read ({reason}): {_REMEDY}") from None


def read_header(path: str | os.PathLike[str]) -> Header:
    """Size and kind of an image, without decoding it where possible.  Raises PNIError when the file is no image."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            bits = 32 if image.mode == "F" else 16 if image.mode in DEEP_GREY or _is_deep_colour(image) else 8
            if _may_be_turned(image, path) and image.getexif().get(ExifTags.Base.Orientation, 1) >= 5:
                width, height = height, width
            return Header(width, height, image.mode not in _GREY, bits)
    except Exception:  # any fault: the careful reader below names it
        pass
    pixels = decode(path)
    if isinstance(pixels, Image.Image):
        return Header(*pixels.size, pixels.mode not in _GREY, 8)
    return Header(pixels.shape[1], pixels.shape[0], True, 8 * pixels.dtype.itemsize)


def as_rgb(image: Image.Image, name: str) -> Image.Image:
    """8 bits, alpha dropped.  Raises PNIError for a rare mode of colour, naming `name`."""
    if image.mode == "P":  # by way of RGBA: Pillow warns when it must drop a palette's transparency
        image = image.convert("RGBA")
    try:
        return image.convert("RGB")
    except ValueError:
        raise PNIError(f"{name}: is an image of mode {image.mode}, which is not read: save it as RGB") from None


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(width, height) in px after EXIF orientation.  Raises PNIError when the file is no image."""
    header = read_header(path)
    return header.width, header.height


def _may_be_turned(image: Image.Image, path: str | os.PathLike[str]) -> bool:
    """Pillow decodes a whole PNG to look for EXIF data behind the pixels: not where there is none."""
    if image.format != "PNG":
        return True
    with open(path, "rb") as file:
        blob = file.read()
    return any(name in blob for name in (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp"))


def _require_one(image: Image.Image, path: str | os.PathLike[str]) -> None:
    count = getattr(image, "n_frames", 1)
    if count == 1 or image.format == "MPO":  # MPO: a phone's JPEG with a depth map or a second view behind the image
        return
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        count = _count_pages(path)
        if count > 1:
            raise PNIError(f"{shown(path)}: holds {count} pages: save each page as a file of its own")
    else:
        raise PNIError(f"{shown(path)}: is an animation of {count} pictures: save each as a file of its own")


def _count_pages(path: str | os.PathLike[str]) -> int:
    return sum(not tags.get(254, 0) & 1 for tags in _tiff_pages(path))  # bit 0: a smaller copy of another page


def _tiff_pages(path: str | os.PathLike[str]) -> list[TiffImagePlugin.ImageFileDirectory_v2]:
    """The tags of each page."""
    pages, seen = [], set[int]()
    with open(path, "rb") as file:
        header = file.read(8)
        if b"+" in header[2:4]:  # BigTIFF
            header += file.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        place = tags.next
        while place and place not in seen:
            seen.add(place)
            file.seek(place)
            tags = TiffImagePlugin.ImageFileDirectory_v2(header)
            tags.load(file)
            pages.append(tags)
            place = tags.next
    return pages


def _is_tiff(path: str | os.PathLike[str]) -> bool:
    with open(path, "rb") as file:
        return file.read(4) in _TIFF


def _is_deep_colour(image: Image.Image) -> bool:
    if image.mode not in ("RGB", "RGBA", "RGBX", "LA"):
        return False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(image.tag_v2.get(258, (8,))) > 8
    return image.format == "PNG" and any(str(tile[3]).endswith(";16B") for tile in getattr(image, "tile", ()))


def _deep_colour(path: str | os.PathLike[str], orientation: int) -> ndarray:
    """(h, w, 3), RGB, uint16 or float.  Raises PNIError for a kind of TIFF that cannot be read."""
    if _is_tiff(path):
        pages = _tiff_pages(path)
        if _count_pages(path) > 1:
            raise PNIError(f"{shown(path)}: holds {_count_pages(path)} pages: save each page as a file of its own")
        tags = pages[0]
        bits, kind = max(tags.get(258, (1,))), max(tags.get(339, (1,)))
        if tags.get(256, 0) * tags.get(257, 0) > MAX_PIXELS:
            raise PNIError(f"{shown(path)}: has {tags[256]} x {tags[257]} pixels, {_TOO_MANY}")
        interleaved_rgb = tags.get(262) == 2 and tags.get(277, 1) >= 3 and tags.get(284, 1) == 1
        if not interleaved_rgb or (bits, kind) not in _DEEP_TIFF:
            word = {1: "unsigned", 2: "signed", 3: "floating-point"}.get(kind, "unusual")
            what = f"{tags.get(277, 1)} channels of {bits} bits, {word}"
            what += ", one plane after the other" if tags.get(284, 1) == 2 else ""
            raise PNIError(f"{shown(path)}: is a TIFF file of {what}, which is not read: save it as 8- or 16-bit PNG")
        orientation = tags.get(274, 1)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    if pixels is None:
        raise ValueError("no pixels in it")
    return _turned(np.ascontiguousarray(pixels[..., ::-1]), orientation)


def _turned(pixels: ndarray, orientation: int) -> ndarray:
    """EXIF orientation: the mirrored ones (2, 4, 5, 7) first swap left and right."""
    if orientation in (2, 4, 5, 7):
        pixels = pixels[:, ::-1]
    quarters = {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0)  # counter-clockwise
    return np.ascontiguousarray(np.rot90(pixels, quarters))
