"""A view: words over a figure.  The page shows it, a PNG and a notebook hold it; nothing is drawn twice.

A click is a point of the picture: (0, 0) its top left corner, (1, 1) its bottom right one.
"""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy import ndarray
from PIL import Image

from pnilib.errors import PNIError
from pnilib.plots.labels import drawable, write_on

__all__ = ["DPI", "Card", "ImageRef", "View", "stacked"]

DPI = 100
_LETTERS, _LINE, _NEAR = 13.5, 0.18, 15
"""Letters an inch of words; inches a line; px within which a click hits a point."""


class ImageRef(NamedTuple):
    """What a click may open.  category: its key."""

    category: str
    i: int


class Card(NamedTuple):
    """A thumbnail in a picture.  name: what is said of it.  box: left, top, width, height, in parts of the picture."""

    image: ImageRef
    name: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class View:
    """words: what is seen, as lines of plain text.  fault: what could not be shown, and why.

    A click means: on a card, its image; near a point of a panel of `points`, the point's image; on a panel of `pixels`,
    a pixel.
    """

    words: str
    figure: Figure
    fault: str = ""
    cards: Sequence[Card] = ()
    points: Sequence[tuple[Axes, Float[ndarray, "n 2"], Sequence[ImageRef]]] = ()
    pixels: Sequence[Axes] = ()

    @cached_property
    def picture(self) -> bytes:
        """PNG of the figure without the words, the same bytes for the same figure."""
        out = io.BytesIO()
        self._rendered.save(out, format="PNG", compress_level=1)
        return out.getvalue()

    @cached_property
    def _rendered(self) -> Image.Image:
        return _render(self.figure)

    def free(self) -> None:
        """Forget the figure, whose parts refer to one another and would stay in the memory for a while."""
        self.figure.clear()

    def _repr_png_(self) -> bytes:
        """For notebooks."""
        return stacked([self])

    def image_at(self, x: float, y: float) -> ImageRef | None:
        """What a click opens."""
        for card in self.cards:
            left, top, width, height = card.box
            if left <= x <= left + width and top <= y <= top + height:
                return card.image
        for ax, points, images in self.points:
            if ax.get_position().contains(x, 1 - y) and len(images):
                click = self.figure.transFigure.transform((x, 1 - y))
                away = np.hypot(*(ax.transData.transform(points) - click).T)
                if away.min() <= _NEAR:
                    return images[int(away.argmin())]
        return None

    def pixel_at(self, x: float, y: float) -> tuple[int, int] | None:
        """Row and column that a click hits."""
        for ax in self.pixels:
            if ax.get_position().contains(x, 1 - y):
                column, row = ax.transData.inverted().transform(self.figure.transFigure.transform((x, 1 - y)))
                return round(float(row)), round(float(column))
        return None


def stacked(views: Sequence[View]) -> bytes:
    """One PNG of views below one another on white, each under its words.  Raises PNIError for none."""
    if not views:
        raise PNIError("there is no view to save")
    pictures = []
    for view in views:
        words = "\n".join(filter(None, (view.words, view.fault)))
        pictures += [_render(_draw_words(words, max(6.0, view.figure.get_figwidth()))), view._rendered]
    sheet = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    out = io.BytesIO()
    sheet.save(out, format="PNG", compress_level=1)
    return out.getvalue()


def _render(figure: Figure) -> Image.Image:
    """Not by savefig, which lays a figure out twice."""
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")  # type: ignore[no-untyped-call]
    FigureCanvasBase(figure)  # the drawn one keeps its pixels
    return picture


def _draw_words(words: str, width: float) -> Figure:
    lines = [part for line in drawable(words).splitlines() for part in textwrap.wrap(line, int(_LETTERS * width))]
    height = _LINE * (len(lines) + 1)
    figure = Figure(figsize=(width, height))
    write_on(figure, 0.1 / width, 1 - 0.08 / height, "\n".join(lines), va="top", fontsize=9.5, linespacing=1.3)
    return figure
