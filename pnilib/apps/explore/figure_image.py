"""One image under several results as a figure (see `pnilib.apps.explore.figures`).

Maps keep the one colour scale of their category and result; white contours run where a map reaches its image threshold,
cyan ones round the true defect.
"""

import math
import textwrap
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import torch
from jaxtyping import Float32
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from pnilib.apps.explore.maps import SIDE_BY_SIDE, change_of_refinement, explained_by, maps_of
from pnilib.apps.explore.opened import Category, Exploration
from pnilib.apps.explore.pictures import CHANGE_COLOURS, scale
from pnilib.apps.explore.samples import default_threshold
from pnilib.config.geometry import Geometry
from pnilib.errors import PNIError
from pnilib.plots.images import color_bar, draw_outline, show_image, show_map
from pnilib.plots.labels import drawable, file_label, shortened, suptitle, title, write
from pnilib.plots.qualitative import PREDICTED

__all__ = ["category_with", "draw_image", "draw_input", "draw_map", "truth"]


def draw_image(
    opened: Exploration,
    category: str,
    i: int,
    labels: Sequence[str],
    thresholds: dict[str, float] | None = None,
    *,
    columns: int = 4,
) -> Figure:
    """Test image i with its true defect, the map of each result in `labels`, and what the refinement changed.

    thresholds: by label, else the default one; a contour runs where the map reaches it.  A setting of which the run
    has no result, but whose map the fitted model can compute, is drawn on E's scale (`maps_of`); a result without a map
    is named as such.  Raises PNIError for an image, a category or a result that is not there.
    """
    part = category_with(opened, category, i)
    for label in labels:
        if label not in SIDE_BY_SIDE:
            explained_by(part, label)  # raises for a result that is not there
    maps = maps_of(part, i, tuple(labels))
    refined = any(label in part.results and part.results[label].setting == "PNI" for label in labels)
    change = change_of_refinement(part, maps) if refined else None
    n = 1 + len(labels) + (change is not None)
    columns = min(max(1, columns), n)
    rows = -(-n // columns)
    figure = Figure(figsize=(3.5 * columns, 3.15 * rows + 0.5), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in axes[n:]:
        ax.set_axis_off()
    draw_input(part, i, axes[0], _geometry(part, labels[0]) if labels else None)
    for ax, label in zip(axes[1:], labels, strict=False):
        name = shortened(label, 24)
        if (result := part.results.get(label)) is None:
            draw_map(part, i, label, maps.get(label), math.nan, ax)
            title(
                ax, f"{name}: computed now, E's scale" if label in maps else f"{name}: the run has no such result", 8.5
            )
            continue
        threshold = (thresholds or {}).get(label, default_threshold(result))
        score = float(result.table["score"].iloc[i])
        called, sign = ("defective", "≥") if score >= threshold else ("normal", "<")
        draw_map(part, i, label, maps.get(label), threshold, ax)
        title(ax, f"{name}: called {called}\nscore {score:.4g} {sign} {threshold:.4g}", 8.5)
    if change is not None:
        ax, most = axes[n - 1], max(float(np.abs(change).max()), 1e-6)
        ax.imshow(change, cmap=CHANGE_COLOURS, vmin=-most, vmax=most, interpolation="nearest")
        _outlined(part, i, ax, _geometry(part, next(label for label in labels if label in part.results)))
        color_bar(ax, (-most, most), "parts of the colour scale", CHANGE_COLOURS).ax.tick_params(labelsize=8)
        title(ax, "PNI minus E: what the\nrefinement raised (red), lowered (blue)", 8.5)
    suptitle(figure, f"{part.name}: {file_label(part.names[i], 60)}, {truth(part, i)}")
    return figure


def category_with(opened: Exploration, category: str, i: int) -> Category:
    """The category by its key or name.  Raises PNIError when it is not there or has no test image i."""
    part = opened.category(category)
    if not 0 <= i < len(part.names):
        raise PNIError(f"{part.key}: has {len(part.names)} test images, there is no number {i}")
    return part


def truth(category: Category, i: int) -> str:
    """What the data set says of an image, in words."""
    label = {0: "normal", 1: "defective"}.get(int(category.labels[i]), "label unknown")
    kind = str(category.first.table["defect_type"].iloc[i])
    return f"{label} ({shortened(kind, 30)})" if label == "defective" and kind else label


def _geometry(category: Category, label: str) -> Geometry:
    """Of the images that a result was made of; runs that are compared may differ in it."""
    with suppress(PNIError):
        return explained_by(category, label)[1].geometry
    return category.geometry


def draw_input(category: Category, i: int, ax: Axes, geometry: Geometry | None = None) -> None:
    """The image with its true defect; where it cannot be read, that is said in its place."""
    geometry = geometry or category.geometry
    title(ax, "image, true defect", 8.5)
    ax.set(xticks=[], yticks=[])
    try:
        image = category.image(i, geometry)
    except PNIError as fault:
        side = geometry.crop
        ax.set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5), aspect="equal")
        write(ax, 0.5, 0.5, textwrap.fill(drawable(fault), 38), ha="center", va="center", fontsize=7)
        return
    show_image(image, ax)
    if _outlined(category, i, ax, geometry) is None:
        title(ax, "image; its true defect is not known", 8.5)


def _outlined(category: Category, i: int, ax: Axes, geometry: Geometry) -> bool | None:
    """The true defect's outline; None where it is not known."""
    try:
        mask = category.mask(i, geometry)
    except PNIError:  # no data set, or a damaged mask
        return None
    ax.set(xticks=[], yticks=[])
    if mask is None:
        return None
    draw_outline(mask, ax)
    return True


def draw_map(
    category: Category,
    i: int,
    label: str,
    found: Float32[ndarray, "h w"] | None,
    threshold: float,
    ax: Axes,
) -> None:
    """Over the grey image where there is one, with the contour at the threshold; or that there is none."""
    geometry = _geometry(category, label)
    if found is None:
        side = geometry.crop
        ax.set(xticks=[], yticks=[], xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5), aspect="equal")
        write(ax, 0.5, 0.3, "no map: the run\nkept none of this result", ha="center", va="center", fontsize=9)
        return
    limits = scale(category, label)
    picture = None
    with suppress(PNIError):
        picture = category.image(i, geometry)
    show_map(found, ax, limits=limits, image=picture)
    if math.isfinite(threshold):
        draw_outline(torch.from_numpy(found >= threshold), ax, PREDICTED)
    _outlined(category, i, ax, geometry)
    color_bar(ax, limits, "anomaly score").ax.tick_params(labelsize=8)
