"""One test image under all settings: panels that zoom and pan together, and a click that asks about a pixel."""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray
from plotly.subplots import make_subplots
from skimage.measure import find_contours

from pnilib.explore.maps import change_of_refinement
from pnilib.explore.opened import Category
from pnilib.explore.pictures import change_colours, data_url, map_colours, png, scale
from pnilib.explore.widgets.plot import Plot
from pnilib.figures.images import OUTLINE

__all__ = ["ImagePlot", "Panel", "panels_of"]

COLUMNS = 4
SIDE = 260
"""px of a panel on the screen."""


class Panel(NamedTuple):
    """base: pixels (h, w, 3 or 4), shown as they are; over: see-through map on it."""

    title: str
    base: ndarray
    over: ndarray | None = None


def panels_of(category: Category, label: str, maps: dict[str, ndarray], image: ndarray | None) -> list[Panel]:
    """The image, the overlay of `label`, each map, and the refinement's change.

    maps: label -> (h, w).  image: uint8 (h, w, 3), None where the data set is not at hand.
    """
    panels = []
    if image is not None:
        panels.append(Panel("input, true outline", image))
        if label in maps:
            panels.append(
                Panel(f"{label} over the input", image, map_colours(maps[label], scale(category, label), clear=True))
            )
    panels += [Panel(name, map_colours(found, scale(category, name))) for name, found in maps.items()]
    if (change := change_of_refinement(category, maps)) is not None:
        most = float(np.abs(change).max())
        panels.append(Panel(f"PNI minus E, both on their scales (±{most:.2g})", change_colours(change, most)))
    return panels


class ImagePlot(Plot):
    """`on_pixel(row, column)` is called for each click, px of the image."""

    def __init__(self, n_panels: int, on_pixel: Callable[[int, int], None]) -> None:
        self._n = n_panels
        rows = -(-n_panels // COLUMNS)
        columns = min(COLUMNS, n_panels)
        super().__init__(
            make_subplots(rows, columns, subplot_titles=[" "] * n_panels, horizontal_spacing=0.01,
                          vertical_spacing=min(0.08, 0.09 / rows))
        )  # fmt: skip
        empty = data_url(png(np.zeros((2, 2, 3), np.uint8)))
        with self.changes():
            for k in range(n_panels):
                at = dict(row=k // columns + 1, col=k % columns + 1)
                self.add_image(source=empty, hoverinfo="x+y", **at)
                self.add_image(source=empty, opacity=0.6, visible=False, hoverinfo="skip", **at)
                self.add_scatter(mode="lines", line=dict(color=OUTLINE, width=2), hoverinfo="skip", **at)
                self.add_scatter(
                    mode="markers", hoverinfo="skip",
                    marker=dict(symbol="cross-thin", size=16, line=dict(color="#00ff00", width=2)), **at,
                )  # fmt: skip
                self.data[4 * k].on_click(lambda _t, points, _s: self._clicked(points, on_pixel))
            self.update_xaxes(matches="x", showticklabels=False, showgrid=False, zeroline=False, constrain="domain")
            self.update_yaxes(matches="y", showticklabels=False, showgrid=False, zeroline=False, constrain="domain")
            for k in range(n_panels):
                axis = "" if k == 0 else str(k + 1)
                self.layout[f"yaxis{axis}"].update(scaleanchor=f"x{axis}", scaleratio=1)
            self.update_layout(
                height=rows * (SIDE + 30), width=columns * SIDE, margin=dict(l=5, r=5, t=25, b=5), showlegend=False,
                dragmode="pan", template="plotly_white", hovermode="closest",
            )  # fmt: skip
        self._config = dict(scrollZoom=True, displaylogo=False)

    def _clicked(self, points: Any, on_pixel: Callable[[int, int], None]) -> None:
        if points.xs:
            on_pixel(round(points.ys[0]), round(points.xs[0]))

    def show(self, panels: Sequence[Panel], mask: ndarray | None, opacity: float) -> None:
        """Another image; the zoom starts anew."""
        size = panels[0].base.shape
        outline = _outline(mask)
        with self.changes():
            for k in range(self._n):
                base, over, line, cross = self.data[4 * k : 4 * k + 4]
                shown = k < len(panels)
                base.visible = shown
                cross.x, cross.y = [], []
                line.x, line.y = outline if shown else ([], [])
                self.layout.annotations[k].text = escape(panels[k].title) if shown else ""
                over.visible = shown and panels[k].over is not None
                if shown:
                    base.source = data_url(png(panels[k].base))
                    if panels[k].over is not None:
                        over.source, over.opacity = data_url(png(panels[k].over)), opacity
            self.update_xaxes(range=[-0.5, size[1] - 0.5])
            self.update_yaxes(range=[size[0] - 0.5, -0.5])

    def mark(self, row: int, column: int) -> None:
        """A cross at a pixel of every panel."""
        with self.changes():
            for k in range(self._n):
                self.data[4 * k + 3].x, self.data[4 * k + 3].y = [column], [row]

    def set_opacity(self, opacity: float) -> None:
        with self.changes():
            for k in range(self._n):
                self.data[4 * k + 1].opacity = opacity


def _outline(mask: ndarray | None) -> tuple[list[float], list[float]]:
    """Contours of a mask as one broken line."""
    x: list[float] = []
    y: list[float] = []
    if mask is not None:
        for contour in find_contours(np.pad(mask.astype(float), 1), 0.5):
            x += [*(contour[:, 1] - 1), math.nan]
            y += [*(contour[:, 0] - 1), math.nan]
    return x, y
