"""Pixels of a run for its views: thumbnails of test images, crops of training images, and the colour scale of maps."""

import dataclasses
import io
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor

from pnilib.apps.explore.category import Category
from pnilib.config.geometry import Geometry
from pnilib.data.images import read_image
from pnilib.errors import PNIError
from pnilib.plots.images import crop_patch
from pnilib.store.text import many

__all__ = ["THUMBNAIL", "crop", "rgb", "scale", "thumbnail"]

THUMBNAIL = 112
"""px, side of a thumbnail."""


def rgb(image: Float[Tensor, "3 h w"]) -> UInt8[ndarray, "h w 3"]:
    """Of an image in [0, 1]."""
    return np.ascontiguousarray((image.clamp(0, 1).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))


def scale(category: Category, label: str) -> tuple[float, float]:
    """Colour scale (low, high) of a result's maps, the same for all images of the category: median and 99.9 % quantile
    of all test pixels, as in the figures of the run.  A map that the run has no result for is on the scale of its fit's
    E."""
    near = [result for result in category.results.values() if result.setting == "E" and label.endswith(result.suffix)]
    fallback = max(near, key=lambda result: len(result.suffix), default=category.first)
    result = category.results.get(label, fallback)
    low, high = result.facts["limits"]
    return float(low), float(high) if high > low else float(low) + 1e-6


def crop(
    category: Category, train_image: int, train_cell: int, grid: tuple[int, int], context: int
) -> UInt8[ndarray, "h w 3"]:
    """A training patch and `context` cells on each side.  Raises PNIError where the data set is not at hand."""
    paths = category.train.samples["image_path"]
    if not 0 <= train_image < len(paths):
        raise PNIError(f"{category.root}: has {many(len(paths), 'training image')}, the run knew number {train_image}")
    image = _read(str(paths.iloc[train_image]), category.geometry) / 255
    return rgb(crop_patch(image, train_cell, grid, context=context))


def thumbnail(category: Category, i: int) -> UInt8[ndarray, "h w 3"]:
    """Test image i; those made last are kept, as JPEG of about 4 kB.  Raises PNIError for one that cannot be read."""
    geometry = category.geometry
    whole = max(THUMBNAIL, round(geometry.resize * THUMBNAIL / geometry.crop))
    small = dataclasses.replace(geometry, resize=whole, crop=THUMBNAIL)
    return np.asarray(Image.open(io.BytesIO(_thumbnail(category.test_path(i), small))))


@lru_cache(maxsize=64)
def _read(path: str, geometry: Geometry) -> UInt8[Tensor, "3 h w"]:
    """As bytes: a quarter of the memory."""
    return (read_image(path, geometry) * 255).round().to(torch.uint8)


@lru_cache(maxsize=4000)
def _thumbnail(path: str, geometry: Geometry) -> bytes:
    out = io.BytesIO()
    Image.fromarray(rgb(read_image(path, geometry))).save(out, format="JPEG", quality=80)
    return out.getvalue()
