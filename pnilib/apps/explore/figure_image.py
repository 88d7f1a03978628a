"""One image under several results (see `pnilib.apps.explore.figures`).

Maps keep the one colour scale of their category and result; white contours run where a map reaches its image threshold,
cyan ones round the true defect.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray
from torch import Tensor

from pnilib.apps.explore.category import Category
from pnilib.apps.explore.maps import SIDE_BY_SIDE, change_of_refinement, explained_by, maps_of
from pnilib.apps.explore.pictures import scale
from pnilib.apps.explore.run import Exploration
from pnilib.apps.explore.samples import sample
from pnilib.apps.explore.view import View
from pnilib.apps.explore.words import image_words
from pnilib.config.geometry import Geometry
from pnilib.errors import PNIError
from pnilib.plots.images import color_bar, draw_outline, show_image, show_map
from pnilib.plots.labels import shortened, title, write
from pnilib.plots.qualitative import PREDICTED
from pnilib.store.text import many

__all__ = ["MARK", "Input", "category_with", "draw_image", "draw_input", "draw_map", "mark_pixel", "read_input"]

MARK = "#ffd400"
"""Yellow, edged with black: neither truth's nor prediction's colour."""
_CHANGE_COLOURS = "RdBu_r"
_WIDTH, _HEIGHT, _SIDE = 3.3, 3.0, 2.6
"""inches, from panel to panel and of a panel with its colour bar."""


def draw_image(
    opened: Exploration,
    category: str,
    i: int,
    labels: Sequence[str],
    thresholds: Mapping[str, float] | None = None,
    *,
    maps: Mapping[str, Float32[ndarray, "h w"]] | None = None,
    columns: int = 4,
    opacity: float = 0.6,
    pixel: tuple[int, int] | None = None,
    window: tuple[float, float, float] = (0.0, 0.0, 1.0),
) -> View:
    """Test image i with its true defect, the map of each result in `labels` over it, and what the refinement changed.

    thresholds: by label, else the default one; a contour runs where the map reaches it.  maps: those of `maps_of`,
    which are read or computed where they are not given: a setting of which the run has no result, but whose map the
    fitted model can compute, is drawn on E's scale; a result without a map is named as such.  pixel: (row, column) to
    mark.  window: left, top and side of what is shown, in parts of the image.  Raises PNIError for an image, a category
    or a result that is not there.
    """
    part = category_with(opened, category, i)
    for label in labels:
        if label not in SIDE_BY_SIDE:
            explained_by(part, label)  # raises for a result that is not there
    rows = {label: sample(part, i, label, (thresholds or {}).get(label)) for label in labels if label in part.results}
    maps = maps_of(part, i, tuple(labels)) if maps is None else maps
    refined = any(part.results[label].setting == "PNI" for label in rows)
    change = change_of_refinement(part, dict(maps)) if refined else None
    n = 1 + len(labels) + (change is not None)
    columns = min(max(1, columns), n)
    n_rows = -(-n // columns)
    width, height = _WIDTH * columns, _HEIGHT * n_rows
    figure = Figure(figsize=(width, height))
    axes = []
    for k in range(n):
        left, bottom = _WIDTH * (k % columns) + 0.1, height - _HEIGHT * (k // columns + 1) + 0.1
        box = left / width, bottom / height, (_SIDE + 0.2) / width, _SIDE / height
        axes.append(figure.add_axes(box, anchor="W"))
    inputs: dict[Geometry, Input] = {}

    def read(label: str | None) -> Input:
        """Once for all panels of a geometry; runs that are compared may differ in it."""
        geometry = _geometry(part, label)
        return inputs.setdefault(geometry, inputs.get(geometry) or read_input(part, i, geometry))

    draw_input(read(labels[0] if labels else None), axes[0])
    for ax, label in zip(axes[1:], labels, strict=False):
        row, name = rows.get(label), shortened(label, 24)
        threshold = math.nan if row is None else row["threshold"]
        draw_map(maps.get(label), scale(part, label), threshold, read(label), ax, opacity)
        if row is None:
            name += ": computed now, E's scale" if label in maps else ": the run has no such result"
        else:
            name += f": called {'defective' if row['score'] >= row['threshold'] else 'normal'}"
        title(ax, name, 9)
    if change is not None:
        ax, most = axes[n - 1], max(float(np.abs(change).max()), 1e-6)
        show_map(change, ax, limits=(-most, most), cmap=_CHANGE_COLOURS, mask=read(next(iter(rows))).mask)
        _draw_scale(ax, (-most, most), "parts of the colour scale", _CHANGE_COLOURS)
        title(ax, "PNI minus E: raised red, lowered blue", 9)
    for ax in axes:
        if pixel is not None:
            mark_pixel(ax, *pixel)
        _show_window(ax, *window)
        ax.apply_aspect()  # a click is placed by it
    return View(image_words(part, i, rows), figure, next(iter(inputs.values())).fault, pixels=axes)


def category_with(opened: Exploration, category: str, i: int) -> Category:
    """The category by its key or name.  Raises PNIError when it is not there or has no test image i."""
    part = opened.category(category)
    if not 0 <= i < len(part.names):
        raise PNIError(f"{part.key}: has {many(len(part.names), 'test image')}, there is no number {i}")
    return part


def _geometry(category: Category, label: str | None) -> Geometry:
    """Of the images that a result was made of."""
    with suppress(PNIError):
        return category.geometry if label is None else explained_by(category, label)[1].geometry
    return category.geometry


class Input(NamedTuple):
    """A test image; image and true mask are None where they are not known, `fault` says why the image is not."""

    geometry: Geometry
    image: Float[Tensor, "3 h w"] | None
    mask: Bool[Tensor, "h w"] | None
    fault: str = ""


def read_input(category: Category, i: int, geometry: Geometry) -> Input:
    """Test image i with its true mask."""
    image, mask, fault = None, None, ""
    with suppress(PNIError):  # no data set, or a damaged mask
        mask = category.mask(i, geometry)
    try:
        image = category.image(i, geometry)
    except PNIError as error:
        fault = str(error)
    return Input(geometry, image, mask, fault)


def draw_input(test: Input, ax: Axes) -> None:
    """The image with its true defect; where it cannot be read, that is said in its place."""
    if test.image is None:
        _say_in_place("the image cannot be read", ax, test.geometry)
    else:
        show_image(test.image, ax, mask=test.mask)
    known = test.mask is not None or test.image is None
    title(ax, "image, true defect" if known else "image; its true defect is not known", 9)


def draw_map(
    anomaly_map: Float32[ndarray, "h w"] | None,
    limits: tuple[float, float],
    threshold: float,
    test: Input,
    ax: Axes,
    opacity: float = 0.6,
) -> None:
    """Over the grey image where there is one, with the contour at the threshold; or that there is none."""
    if anomaly_map is None:
        _say_in_place("no map: the run\nkept none of this result", ax, test.geometry)
        return
    show_map(anomaly_map, ax, limits=limits, image=test.image, opacity=opacity)
    if math.isfinite(threshold):
        draw_outline(torch.from_numpy(anomaly_map >= threshold), ax, PREDICTED)
    if test.mask is not None:
        draw_outline(test.mask, ax)
    _draw_scale(ax, limits, "anomaly score", "magma")


def mark_pixel(ax: Axes, row: int, column: int) -> None:
    """A ring round a pixel."""
    for color, line in (("black", 3.4), (MARK, 1.6)):
        ax.plot(column, row, "o", color=color, markersize=17, markerfacecolor="none", markeredgewidth=line)
        ax.plot(column, row, ".", color=color, markersize=line + 1)


def _draw_scale(ax: Axes, limits: tuple[float, float], label: str, cmap: str) -> None:
    bar = color_bar(ax, limits, "", cmap)
    bar.ax.tick_params(labelsize=7)
    bar.set_label(label, fontsize=8, labelpad=1)


def _say_in_place(text: str, ax: Axes, geometry: Geometry) -> None:
    side = geometry.crop
    ax.set(xticks=[], yticks=[], xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5), aspect="equal")
    write(ax, 0.5, 0.3, text, ha="center", va="center", fontsize=9)


def _show_window(ax: Axes, left: float, top: float, side: float) -> None:
    size = ax.get_ylim()[0] + 0.5
    ax.set_xlim(left * size - 0.5, (left + side) * size - 0.5)
    ax.set_ylim((top + side) * size - 0.5, top * size - 0.5)
