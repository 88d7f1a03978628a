"""Thumbnails in rows, each with a coloured frame and what is said of it (see `pnilib.apps.explore.figures`)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from pnilib.apps.explore.category import Category
from pnilib.apps.explore.pictures import THUMBNAIL, thumbnail
from pnilib.apps.explore.view import DPI, Card, ImageRef, View
from pnilib.errors import PNIError
from pnilib.plots.labels import write, write_on

__all__ = ["Tile", "draw_sheet"]

_FRAME, _STEP, _LINE = 4, 140, 13
"""px: a tile's frame; from tile to tile; a line of text."""


class Tile(NamedTuple):
    """A thumbnail with a coloured frame, letters in its corner and lines below.  name: of the image, whole."""

    category: Category
    i: int
    letters: str
    color: str
    lines: list[str]
    name: str


def draw_sheet(
    tiles: Sequence[Tile], columns: int, words: str, *, left: float = 0.0, least: float = 0.0, nothing: str = ""
) -> View:
    """Tiles in rows on one Axes; `left`: inches kept free beside it, `least`: of height; `nothing`: said without tiles.

    An image that cannot be read is said in its place, and the first one's fault in the view.  Raises PNIError for less
    than one column.
    """
    if columns < 1:
        raise PNIError(f"columns={columns}: give 1 or more")
    columns = min(columns, max(1, len(tiles)))
    side = THUMBNAIL + 2 * _FRAME
    step = side + _LINE * max((len(tile.lines) for tile in tiles), default=0) + 10
    height, width = max(40, -(-len(tiles) // columns) * step), max(columns * _STEP, 400)
    canvas, faults = np.full((height, width, 3), 255, np.uint8), []
    whole = left + (width + 10) / DPI, max(height / DPI, least)
    figure = Figure(figsize=whole)
    box = left / whole[0], 1 - height / DPI / whole[1], width / DPI / whole[0], height / DPI / whole[1]
    ax = figure.add_axes(box)
    ax.set_axis_off()
    cards = []
    for k, tile in enumerate(tiles):
        x, y = k % columns * _STEP + 6, k // columns * step
        canvas[y : y + side, x : x + side] = np.round(255 * np.array(to_rgb(tile.color)))
        try:
            picture = thumbnail(tile.category, tile.i)
        except PNIError as fault:
            faults.append(str(fault))
            picture = np.full((THUMBNAIL, THUMBNAIL, 3), 235, np.uint8)
            write(ax, (x + side / 2) / width, 1 - (y + side / 2) / height, "image cannot\nbe read", ha="center",
                  va="center", fontsize=8)  # fmt: skip
        canvas[y + _FRAME : y + side - _FRAME, x + _FRAME : x + side - _FRAME] = picture
        write(ax, (x + 6) / width, 1 - (y + 6) / height, tile.letters, va="top", fontsize=8, color="white",
              weight="bold", bbox=dict(boxstyle="square,pad=0.2", facecolor=tile.color, linewidth=0))  # fmt: skip
        write(ax, x / width, 1 - (y + side + 3) / height, "\n".join(tile.lines), va="top", fontsize=7,
              linespacing=1.15)  # fmt: skip
        place = (left * DPI + x) / DPI / whole[0], y / DPI / whole[1], side / DPI / whole[0], step / DPI / whole[1]
        cards.append(Card(ImageRef(tile.category.key, tile.i), "\n".join([tile.name, *tile.lines]), place))
    ax.imshow(canvas, interpolation="nearest", aspect="auto")
    if not tiles:
        write_on(figure, box[0] + 0.1 / whole[0], 1 - 0.2 / whole[1], nothing, va="center", fontsize=11)
    return View(words, figure, next(iter(faults), ""), cards)
