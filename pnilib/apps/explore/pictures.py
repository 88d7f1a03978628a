"""Pictures of a run as PNG: thumbnails, images, maps on their category's one colour scale, overlays, signed changes.

Bytes, not files: nothing is written.  Each reader of pictures (widgets, pages, exports) takes them from here.
"""

import base64
import dataclasses
import io
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from numpy import ndarray
from PIL import Image
from torch import Tensor

from pnilib.apps.explore.category import Category
from pnilib.config.geometry import Geometry
from pnilib.data.images import read_image
from pnilib.errors import PNIError
from pnilib.plots.images import crop_patch

__all__ = ["THUMBNAIL", "change_colours", "crop", "data_url", "map_colours", "png", "rgb", "scale", "thumbnail"]

THUMBNAIL = 112
"""px, side of a thumbnail."""
MAP_COLOURS = "magma"
CHANGE_COLOURS = "RdBu_r"


def png(pixels: UInt8[ndarray, "h w 3"] | UInt8[ndarray, "h w 4"]) -> bytes:
    """Fast to write: compression level 1."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG", compress_level=1)
    return out.getvalue()


def data_url(blob: bytes, kind: str = "png") -> str:
    """For a page that holds its pictures."""
    return f"data:image/{kind};base64,{base64.b64encode(blob).decode()}"


def rgb(image: Float[Tensor, "3 h w"]) -> UInt8[ndarray, "h w 3"]:
    """Of an image in [0, 1]."""
    return np.ascontiguousarray((image.clamp(0, 1).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))


def scale(category: Category, label: str) -> tuple[float, float]:
    """Colour scale (low, high) of a result's maps, the same for all images of the category: median and 99.9 % quantile
    of all test pixels, as in the figures of the run.  A map that the run has no result for is on the scale of its fit's
    E."""
    near = [one for one in category.results.values() if one.setting == "E" and label.endswith(one.suffix)]
    fallback = max(near, key=lambda one: len(one.suffix), default=category.first)
    result = category.results.get(label, fallback)
    low, high = result.facts["limits"]
    return float(low), float(high) if high > low else float(low) + 1e-6


def map_colours(
    anomaly_map: Float[ndarray, "h w"], limits: tuple[float, float], *, clear: bool = False
) -> UInt8[ndarray, "h w 4"]:
    """A map between `limits`; `clear`: see-through at the lower limit, for an overlay."""
    low, high = limits
    level = np.clip((np.asarray(anomaly_map, np.float32) - low) / max(high - low, 1e-12), 0, 1)
    colours = colormaps[MAP_COLOURS](level, bytes=True)
    if clear:
        colours[..., 3] = (255 * level).astype(np.uint8)
    return colours


def change_colours(change: Float[ndarray, "h w"], most: float) -> UInt8[ndarray, "h w 4"]:
    """A signed change: blue below 0, white at 0, red above; full colour at +-`most`."""
    return colormaps[CHANGE_COLOURS](np.clip(change / max(2 * most, 1e-12) + 0.5, 0, 1), bytes=True)


def crop(category: Category, train_image: int, train_cell: int, grid: tuple[int, int], context: int) -> bytes:
    """PNG of a training patch and `context` cells on each side.  Raises PNIError where the data set is not at hand."""
    paths = category.train.samples["image_path"]
    if not 0 <= train_image < len(paths):
        raise PNIError(f"{category.root}: has {len(paths)} training images, the run knew number {train_image}")
    return png(
        rgb(crop_patch(_read(str(paths.iloc[train_image]), category.geometry) / 255, train_cell, grid, context=context))
    )


def thumbnail(category: Category, i: int) -> bytes:
    """JPEG of test image i, about 4 kB; those made last are kept.  Raises PNIError for an image that cannot be read."""
    geometry = category.geometry
    whole = max(THUMBNAIL, round(geometry.resize * THUMBNAIL / geometry.crop))
    small = dataclasses.replace(geometry, resize=whole, crop=THUMBNAIL)
    return _thumbnail(category.test_path(i), small)


@lru_cache(maxsize=64)
def _read(path: str, geometry: Geometry) -> UInt8[Tensor, "3 h w"]:
    """As bytes: a quarter of the memory."""
    return (read_image(path, geometry) * 255).round().to(torch.uint8)


@lru_cache(maxsize=4000)
def _thumbnail(path: str, geometry: Geometry) -> bytes:
    out = io.BytesIO()
    Image.fromarray(rgb(read_image(path, geometry))).save(out, format="JPEG", quality=80)
    return out.getvalue()
