"""Thumbnails in rows, each with a coloured frame and what is said of it (see `pnilib.apps.explore.figures`)."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray
from PIL import Image

from pnilib.apps.explore.opened import Category
from pnilib.apps.explore.pictures import thumbnail
from pnilib.errors import PNIError
from pnilib.plots.labels import write, write_on

__all__ = ["Tile", "draw_sheet", "many"]

_TILE, _THUMB, _LINE = 1.44, 1.28, 0.13  # inches: width of a tile, its picture, a line of text


class Tile(NamedTuple):
    """A thumbnail with a coloured frame, letters in its corner and lines below."""

    category: Category
    i: int
    letters: str
    color: str
    lines: list[str]


def draw_sheet(
    tiles: Sequence[Tile],
    columns: int,
    caption: str,
    most: int,
    *,
    left: float = 0.0,
    least: float = 0.0,
    top: float = 0.0,
) -> Figure:
    """Tiles in rows, the caption above; `left`, `top`: inches kept free, `least`: of height."""
    if columns < 1 or most < 1:
        raise PNIError(f"columns={columns}, most={most}: give 1 or more")
    if not tiles:
        figure = Figure(figsize=(left + 4.0, max(1.0, least)))
        if not left:  # notebooks show no figure that is without axes
            figure.add_axes((0.0, 0.0, 1.0, 1.0)).set_axis_off()
        write_on(figure, (left + 2.0) / (left + 4.0), 0.5, caption if left else "no samples to show", ha="center",
                 va="center", fontsize=11)  # fmt: skip
        return figure
    n_lines = max(len(tile.lines) for tile in tiles)
    step = _THUMB + _LINE * n_lines + 0.16
    columns = min(columns, len(tiles))
    n_rows, head = -(-len(tiles) // columns), top + 0.38
    width = left + max(columns * _TILE + 0.15, 0.0 if left else 4.8)
    height = max(head + n_rows * step + 0.05, least)
    figure = Figure(figsize=(width, height))
    write_on(figure, (left + 0.15) / width, 1 - (top + 0.1) / height, caption, va="top", fontsize=10)
    for k, tile in enumerate(tiles):
        x, y = left + 0.12 + k % columns * _TILE, height - head - k // columns * step
        ax = figure.add_axes((x / width, (y - _THUMB) / height, _THUMB / width, _THUMB / height))
        _draw_tile(tile, ax)
        write_on(figure, x / width, (y - _THUMB - 0.05) / height, "\n".join(tile.lines), va="top", fontsize=7,
                 linespacing=1.15)  # fmt: skip
    return figure


def _draw_tile(tile: Tile, ax: Axes) -> None:
    picture = _thumbnail(tile.category, tile.i)
    if picture is None:
        write(ax, 0.5, 0.5, "image cannot\nbe read", ha="center", va="center", fontsize=8)
    else:
        ax.imshow(picture, interpolation="nearest")
    for spine in ax.spines.values():
        spine.set(color=tile.color, linewidth=3)
    ax.set(xticks=[], yticks=[])
    write(ax, 0.05, 0.95, tile.letters, va="top", fontsize=9, color="white", weight="bold",
          bbox=dict(boxstyle="square,pad=0.2", facecolor=tile.color, linewidth=0))  # fmt: skip


def _thumbnail(category: Category, i: int) -> UInt8[ndarray, "h w 3"] | None:
    try:
        return np.asarray(Image.open(io.BytesIO(thumbnail(category, i))).convert("RGB"))
    except PNIError:
        return None


def many(n: int, one: str, several: str = "") -> str:
    """`1 image`, `2 images`."""
    return f"{n:,} {one if n == 1 else several or one + 's'}"
