"""One pixel explained, as a figure: patches shown as crops of their training images."""

import io
import math
import textwrap
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy import ndarray
from PIL import Image
from torch import Tensor

from pnilib.apps.explore.figure_image import category_with, draw_input, draw_map, truth
from pnilib.apps.explore.maps import explained_by, features_of, maps_of, normal_level
from pnilib.apps.explore.opened import Category, Exploration
from pnilib.apps.explore.pictures import crop
from pnilib.apps.explore.samples import default_threshold
from pnilib.apps.explore.words import sentence
from pnilib.config import PNIConfig
from pnilib.detector.explain import Bin, Explanation, Match, cell_at
from pnilib.detector.pni import PNI
from pnilib.errors import PNIError
from pnilib.plots.distributions import COLORS
from pnilib.plots.images import cell_box, crop_patch
from pnilib.plots.labels import drawable, file_label, shortened, title, write, write_on

__all__ = ["draw_pixel"]

CONTEXT = 2
"""cells on each side of a patch in its crop."""
_WIDTH, _LEFT, _PICTURE, _STEP, _CROP, _ROW = 13.4, 3.75, 2.75, 1.38, 0.98, 1.8  # inches
_MARK = "#ffd400"  # yellow, edged with black: neither truth's nor prediction's colour


class _Crop(NamedTuple):
    """A training patch with a frame and lines below; `make`: its pixels, PNIError where they cannot be had."""

    make: Callable[[], UInt8[ndarray, "h w 3"]]
    color: str
    lines: tuple[str, ...]


def draw_pixel(
    opened: Exploration,
    category: str,
    i: int,
    label: str,
    row: int,
    column: int,
    threshold: float | None = None,
    *,
    most: int = 5,
) -> Figure:
    """Why a pixel of test image i scores as it does under a result: its matches as crops of the training images that
    they come from, the nearer ones that a gate shut, what was seen here in training, what the neighbors let expect.

    threshold: of the image, else the default one.  `label` may also be a setting that E's model can compute.  Where
    the pixel cannot be explained (no data set, no model, the release's rank gate) the figure says why.  Raises PNIError
    for a pixel, an image or a result that is not there.
    """
    part = category_with(opened, category, i)
    result, config = explained_by(part, label)
    size, border = config.image_crop, config.border_cells if config.border == "replicate" else 0
    cell_at(row, column, size, (1, 1))  # raises for a pixel outside
    if threshold is None:
        threshold = default_threshold(part.results[label]) if label in part.results else math.nan
    found_map = maps_of(part, i, (label,)).get(label)
    value = math.nan if found_map is None else float(found_map[row, column])
    rows: list[tuple[str, list[_Crop]]] = []
    box = None
    try:
        model = part.model(result)
        features = features_of(model, part, i)
        grid = (int(features.shape[0]), int(features.shape[1]))
        cell = cell_at(row, column, size, grid, border)
        found = model.explain_cell(features, cell, config, most=most)
        text = sentence(found, value, threshold, normal_level(part, label))
        box = cell_box(cell, grid, size)
        text += f" Score of this patch by setting: {_settings(model, features, cell, config)}."
        rows = _rows(result.home or part, part.image(i, config.geometry), found, grid)
    except PNIError as fault:
        text = f"This pixel is not explained: {fault}"
    words = textwrap.wrap(drawable(text), 165)
    head = 0.42 + 0.19 * len(words)
    height = head + 0.1 + max(2 * (_PICTURE + 0.25), _ROW * len(rows))
    figure = Figure(figsize=(_WIDTH, height))
    name = file_label(part.names[i], 60)
    where = f"{part.name}: {name}, pixel in row {row}, column {column}, {label}; {truth(part, i)}"
    write_on(figure, 0.1 / _WIDTH, 1 - 0.1 / height, where, va="top", fontsize=11)
    write_on(figure, 0.1 / _WIDTH, 1 - 0.36 / height, "\n".join(words), va="top", fontsize=9.5, linespacing=1.3)
    for k in range(2):
        bottom = height - head - (k + 1) * (_PICTURE + 0.25)
        ax = figure.add_axes((0.1 / _WIDTH, bottom / height, (_PICTURE + 0.22) / _WIDTH, _PICTURE / height))
        if k == 0:
            draw_input(part, i, ax, config.geometry)
        else:
            draw_map(part, i, label, found_map, threshold, ax)
            title(ax, f"map, {shortened(label, 30)}", 8.5)
        ax.set_anchor("W")
        _mark(ax, row, column, box)
    for k, (heading, crops) in enumerate(rows):
        top = height - head - k * _ROW
        write_on(figure, _LEFT / _WIDTH, top / height, heading, fontsize=9, va="top", weight="bold")
        for m, one in enumerate(crops):
            _draw_crop(one, _LEFT + m * _STEP, top - 0.22 - _CROP, figure)
    return figure


def _rows(
    category: Category, image: Float[Tensor, "3 h w"], found: Explanation, grid: tuple[int, int]
) -> list[tuple[str, list[_Crop]]]:
    """A heading and crops for each gate, and for both distributions."""

    def own() -> UInt8[ndarray, "h w 3"]:
        pixels = crop_patch(image, found.cell, grid, context=CONTEXT).clamp(0, 1).permute(1, 2, 0).numpy()
        return (pixels * 255).round().astype(np.uint8)

    def taken(one: Match | Bin, color: str, *lines: str) -> _Crop:
        make = partial(_training_crop, category, one.train_image, one.train_cell, grid)
        return _Crop(make, color, (*lines, f"training image {one.train_image}"))

    def matched(word: str, color: str, one: Match) -> _Crop:
        sources = {"neighbors": one.p_neighborhood, "position": one.p_position}
        known = [f"{name} p {p:.2g}" for name, p in sources.items() if not math.isnan(p)]
        return taken(one, color, f"{word}: {one.distance:.3g} away", *known)

    rows = []
    for name, match in found.matches.items():
        none = name in found.none_allowed
        crops = [matched("nearest" if name == "none" else "shut too" if none else "allowed", COLORS[2], match)]
        crops += [matched("shut", COLORS[1], one) for one in found.shut[name]]
        n, shown = found.n_shut[name], len(found.shut[name])
        shut = f"the {n} nearer ones that it shuts" if n > 1 else "the nearer one that it shuts"
        shut = f"{shown} of {shut}" if shown < n else shut
        gate = "No gate" if name == "none" else f"{name[0].upper()}{name[1:]} gate, open where p > τ = {found.tau:.2g}"
        which = "it allows none, so the farthest counts" if none else "the nearest that it allows"
        rows.append((f"{gate}: {which}{f', and {shut}' if n else '; none is nearer'}", crops))
    patch = _Crop(own, "black", ("this patch", f"score {found.score:.3g}"))
    rows[0] = (rows[0][0], [patch, *rows[0][1]])
    if list(found.matches) == ["none"]:
        rows[0] = ("No gate: the nearest patch of the coreset", rows[0][1])
    seen = [taken(one, "#777777", f"p {one.probability:.2g}, {one.votes:,} votes") for one in found.seen]
    if seen:
        many = f"{found.n_seen} kinds of patch" if found.n_seen != 1 else "1 kind of patch"
        rows.append((f"Seen at this position in training: {many}; the commonest", seen))
    if found.expected:
        expected = [taken(one, "#777777", f"p {one.probability:.2g}") for one in found.expected]
        rows.append(("Expected here by the network from the neighbors: the most probable", expected))
    return rows


def _settings(model: PNI, features: Float32[Tensor, "gh gw d"], cell: int, config: PNIConfig) -> str:
    """The patch's score under each setting that the fitted model can score."""
    found = []
    for name in model.settings:
        score = model.explain_cell(features, cell, config.under(name), most=1).score
        found.append(f"{name} {score:.3g}")
    return ", ".join(found)


def _training_crop(
    category: Category, train_image: int, train_cell: int, grid: tuple[int, int]
) -> UInt8[ndarray, "h w 3"]:
    return np.asarray(Image.open(io.BytesIO(crop(category, train_image, train_cell, grid, CONTEXT))).convert("RGB"))


def _draw_crop(one: _Crop, left: float, bottom: float, figure: Figure) -> None:
    """At a place in inches; the cell itself is boxed within its surroundings."""
    width, height = figure.get_size_inches()
    ax = figure.add_axes((left / width, bottom / height, _CROP / width, _CROP / height))
    try:
        pixels = one.make()
        ax.imshow(pixels, interpolation="nearest")
        h, w = pixels.shape[0] / (2 * CONTEXT + 1), pixels.shape[1] / (2 * CONTEXT + 1)
        for color, line in (("black", 2.2), (_MARK, 1.1)):
            ax.add_patch(Rectangle((CONTEXT * w - 0.5, CONTEXT * h - 0.5), w, h, fill=False, color=color, lw=line))
    except PNIError:
        write(ax, 0.5, 0.5, "image cannot\nbe read", ha="center", va="center", fontsize=7)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(color=one.color, linewidth=2)
    write_on(figure, left / width, (bottom - 0.04) / height, "\n".join(one.lines), va="top", fontsize=7)


def _mark(ax: Axes, row: int, column: int, box: tuple[int, int, int, int] | None) -> None:
    """A ring round the pixel, and a box round its cell where that is known."""
    if box is not None:
        top, left, bottom, right = box
        for color, line in (("black", 2.6), (_MARK, 1.2)):
            ax.add_patch(
                Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, color=color, linewidth=line)
            )
    for color, line in (("black", 3.4), (_MARK, 1.6)):
        ax.plot(column, row, "o", color=color, markersize=17, markerfacecolor="none", markeredgewidth=line)
        ax.plot(column, row, ".", color=color, markersize=line + 1)
