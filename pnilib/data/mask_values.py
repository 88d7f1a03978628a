"""Which pixels of a mask file are a defect.

The file does not say it; the data set's option `masks` does, one of MASKS:

`auto`      the rule below
`inverted`  its opposite: black defects on white
`nonzero`   everything but 0
`bright`    above half of the format's range
`alpha`     the rule below, on the alpha channel

1. Where transparency varies, the alpha channel is the mask: a brush of any colour, or a cut-out, on a transparent
   layer.  Unless most of the picture is visible and has few colours (at most 8), black among them: these are the mask,
   and transparent is black.
2. A colour counts by its brightest channel; where that is the same everywhere (red on white), by its distance from
   white.  Palette masks count by colour, too; by index where two of their indices look alike.
3. The darkest value is the background.  A mask of one value marks everything, unless it is 0.
4. Values below 32 are labels (VisA: 0, 1, 2 ...): everything but the background is a defect.
5. Else labels are told from soft rims and compression noise: the threshold lies halfway between 0 and the darkest
   label.  Labels are the values above a sixteenth of the largest if they are few (at most 8) and an eighth of the
   largest apart; in a noisy file, the levels, as far apart, of spots that are flat over 3 x 3 pixels.  Without either:
   half of the largest value (MVTec: 0 or 255; MTD: rims of compression noise).
"""

import os
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from pnilib.data.image_files import DEEP_GREY, as_rgb, decode, image_size
from pnilib.errors import PNIError
from pnilib.store.text import shown

__all__ = ["MASKS", "marked", "mask_array", "mask_threshold", "mask_values", "united_mask"]

MASKS = ("auto", "inverted", "nonzero", "bright", "alpha")
"""What the values of a mask may mean: see above."""

_FEW = 8
"""Labels of a mask, at most: more different values are rims or noise."""


def united_mask(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    image_path: str | os.PathLike[str] | None = None,
    masks: str = "auto",
) -> Bool[ndarray, "h w"]:
    """True where any of the masks marks a defect, at the files' own size.  Raises PNIError as `read_mask` does."""
    united: ndarray | None = None
    expected, other = None, "the image's other mask"
    if image_path is not None:
        expected, other = image_size(image_path), f"its image {shown(image_path)}"
    for path in [paths] if isinstance(paths, str | os.PathLike) else paths:
        defect = mask_array(path, masks)
        height, width = defect.shape
        expected = expected or (width, height)
        if (width, height) != expected:
            raise PNIError(
                f"{shown(path)}: mask is {width} x {height} px but {other} is "
                f"{expected[0]} x {expected[1]} px: redraw the mask at the image's size"
            )
        united = defect if united is None else united | defect
    if united is None:
        raise PNIError("no mask given: name at least one file")
    return united


def mask_array(path: str | os.PathLike[str], masks: str = "auto") -> Bool[ndarray, "h w"]:
    """True on defect pixels, at the file's own size (rule: module docstring).

    Raises PNIError when the file is missing, damaged or no image, or has no alpha channel that `masks=alpha` asks for.
    """
    if masks not in MASKS:
        raise PNIError(f"masks={masks}: unknown: choose one of {', '.join(MASKS)}")
    return marked(*mask_values(path, masks), masks)


def marked(values: ndarray, white: float, masks: str = "auto") -> Bool[ndarray, "h w"]:
    """Which of `mask_values` are a defect."""
    if masks == "nonzero":
        return np.asarray(values != 0)
    if masks == "bright":
        return np.asarray(values > white / 2)
    defect = values > mask_threshold(values)
    return np.asarray(~defect if masks == "inverted" else defect)


def mask_values(path: str | os.PathLike[str], masks: str = "auto") -> tuple[ndarray, float]:
    """One value a pixel (h, w), and the format's largest.  Raises PNIError as `mask_array` does."""
    image, alpha = decode(path), masks == "alpha"
    if isinstance(image, ndarray):
        return _one_channel(image), 1.0 if image.dtype.kind == "f" else 65535.0
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        layers = np.array(image.convert("RGBA"))
        colour, opacity = layers[..., :3], layers[..., 3]
        if alpha or (opacity.min() < opacity.max() and not _is_picture(colour[opacity > 0], opacity.size)):
            return opacity, 255.0
        return _one_channel(np.where(opacity[..., None] > 0, colour, 0)), 255.0
    if alpha:
        raise PNIError(f"{shown(path)}: has no alpha channel: leave masks=alpha out")
    if image.mode in DEEP_GREY or image.mode == "F":
        values = np.array(image)
        return values, 65535.0 if image.mode in DEEP_GREY else 1.0
    if image.mode in ("1", "L"):
        return np.array(image.convert("L")), 255.0
    colour = np.array(as_rgb(image, shown(path)))
    if image.mode == "P":
        index = np.array(image)
        if len(np.unique(index)) > len(_colours(colour)):
            return index, 255.0
    return _one_channel(colour), 255.0


def mask_threshold(values: ndarray) -> float:
    """The value that a defect's pixels exceed: steps 3 to 5 of the rule."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return 0.0
    if high < 32 and values.dtype.kind != "f":
        return low
    bright = values > max(high / 16, low)
    levels = np.unique(values[bright]).astype(float)
    if len(levels) <= _FEW and (np.diff(levels) >= high / 8).all():
        return max(levels[0] / 2, low)
    levels = np.unique(values[bright & flat_spots(values)]).astype(float)
    steps = np.flatnonzero(np.diff(levels) >= high / 8) + 1
    groups = np.split(levels, steps)
    apart = len(groups) > 1 and groups[0][0] >= high / 8 and all(np.ptp(group) <= high / 8 for group in groups)
    return max(groups[0][0] / 2 if apart else high / 2, low)


def flat_spots(values: ndarray) -> Bool[ndarray, "h w"]:
    """Where the 3 x 3 pixels around differ by at most a sixteenth of the largest value."""
    values = values.astype(np.float32)
    around = np.ones((3, 3), np.uint8)
    return np.asarray(cv2.dilate(values, around) - cv2.erode(values, around) <= values.max() / 16)


def _colours(pixels: ndarray) -> ndarray:
    """The different colours, as one number each, sorted: black is 0."""
    return np.unique(pixels.reshape(-1, 3).astype(np.int32) @ [65536, 256, 1])


def _is_picture(visible: ndarray, n_pixels: int) -> bool:
    """Whether the visible pixels show a mask themselves, rather than being it."""
    colours = _colours(visible)
    return len(visible) > n_pixels / 2 and 2 <= len(colours) <= _FEW and bool(colours[0] == 0)


def _one_channel(colour: ndarray) -> ndarray:
    """(h, w, 3) -> (h, w): the brightest channel, or where that is the same everywhere, the distance from white."""
    brightest = colour.max(axis=2)
    if brightest.min() < brightest.max() or (colour == colour[0, 0]).all():
        return brightest
    return brightest - colour.min(axis=2)
