"""One test image under all settings: panels that zoom and pan together, and a click that asks about a pixel."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray
from plotly.subplots import make_subplots
from skimage.measure import find_contours

from pnilib.apps.explore.maps import change_of_refinement
from pnilib.apps.explore.opened import Category
from pnilib.apps.explore.pictures import change_colours, data_url, map_colours, png, scale
from pnilib.apps.explore.widgets.plot import Plot, plain
from pnilib.plots.images import OUTLINE

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
        panels.append(Panel(f"PNI minus E (±{most:.2g} of scale)", change_colours(change, most)))
    return panels


class ImagePlot(Plot):
    """`on_pixel(row, column)` is called for each click, px of the image."""

    def __init__(self, on_pixel: Callable[[int, int], None]) -> None:
        super().__init__()
        self._overlays: list[int] = []
        self._crosses: list[int] = []
        self._opacity = 0.6
        self._cross: tuple[list[int], list[int]] = ([], [])
        self.observe(lambda change: on_pixel(round(change["new"]["y"]), round(change["new"]["x"])), "clicked")

    def show(self, panels: Sequence[Panel], mask: ndarray | None, opacity: float) -> None:
        """Another image; the zoom starts anew."""
        columns = min(COLUMNS, len(panels))
        rows = -(-len(panels) // columns)
        figure = make_subplots(
            rows, columns, subplot_titles=[plain(panel.title) for panel in panels], horizontal_spacing=0.01,
            vertical_spacing=min(0.08, 0.09 / rows),
        )  # fmt: skip
        x, y = _outline(mask)
        self._overlays, self._crosses = [], []
        for k, panel in enumerate(panels):
            at = dict(row=k // columns + 1, col=k % columns + 1)
            figure.add_image(source=data_url(png(panel.base)), hoverinfo="x+y", **at)
            if panel.over is not None:
                self._overlays.append(len(figure.data))
                figure.add_image(source=data_url(png(panel.over)), hoverinfo="skip", **at)
            figure.add_scatter(x=x, y=y, mode="lines", line=dict(color=OUTLINE, width=1.5), hoverinfo="skip", **at)
            self._crosses.append(len(figure.data))
            cross = dict(symbol="cross-thin", size=16, line=dict(color="#00ff00", width=2))
            figure.add_scatter(x=[], y=[], mode="markers", marker=cross, hoverinfo="skip", **at)
            axis = "" if k == 0 else str(k + 1)
            figure.layout[f"yaxis{axis}"].update(scaleanchor=f"x{axis}", scaleratio=1)
        height, width = panels[0].base.shape[:2]
        hidden = dict(showticklabels=False, showgrid=False, zeroline=False, constrain="domain")
        figure.update_xaxes(matches="x", range=[-0.5, width - 0.5], **hidden)
        figure.update_yaxes(matches="y", range=[height - 0.5, -0.5], **hidden)
        figure.update_annotations(font_size=13)
        figure.update_layout(
            height=rows * (SIDE + 30), margin=dict(l=5, r=45, t=25, b=5), showlegend=False,
            dragmode="pan", template="plotly_white", hovermode="closest", modebar_orientation="v",
        )  # fmt: skip
        self._opacity, self._cross = opacity, ([], [])
        self.draw(figure, self._style())

    def mark(self, row: int, column: int) -> None:
        """A cross at a pixel of every panel."""
        self._cross = ([column], [row])
        self.restyle(self._style())

    def set_opacity(self, opacity: float) -> None:
        self._opacity = opacity
        self.restyle(self._style())

    def _style(self) -> list[tuple[dict[str, Any], list[int]]]:
        found: list[tuple[dict[str, Any], list[int]]] = []
        if self._overlays:
            found.append(({"opacity": self._opacity}, self._overlays))
        x, y = self._cross
        return [*found, ({"x": [x] * len(self._crosses), "y": [y] * len(self._crosses)}, self._crosses)]


def _outline(mask: ndarray | None) -> tuple[list[float], list[float]]:
    """Contours of a mask as one broken line."""
    x: list[float] = []
    y: list[float] = []
    if mask is not None:
        for contour in find_contours(np.pad(mask.astype(float), 1), 0.5):
            x += [*(contour[:, 1] - 1), math.nan]
            y += [*(contour[:, 0] - 1), math.nan]
    return x, y
