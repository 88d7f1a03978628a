"""One pixel explained: in words, and with the training patches that it was compared to (see `figures`)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from jaxtyping import Float32, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy import ndarray
from torch import Tensor

from pnilib.apps.explore.category import Category
from pnilib.apps.explore.figure_image import MARK, category_with, draw_input, draw_map, mark_pixel, read_input
from pnilib.apps.explore.maps import explained_by, features_of, maps_of, normal_level
from pnilib.apps.explore.pictures import crop, rgb, scale
from pnilib.apps.explore.run import Exploration
from pnilib.apps.explore.samples import default_threshold
from pnilib.apps.explore.view import View
from pnilib.apps.explore.words import pixel_words
from pnilib.config import PNIConfig
from pnilib.detector.explain import Bin, Explanation, Match, cell_at
from pnilib.errors import PNIError
from pnilib.plots.distributions import COLORS
from pnilib.plots.images import cell_box, crop_patch
from pnilib.plots.labels import shortened, title, write_on

__all__ = ["PixelAnswer", "answer_pixel", "draw_answer", "draw_pixel"]

CONTEXT = 2
"""cells on each side of a patch in its crop."""
_WIDTH, _LEFT, _PICTURE, _STEP, _CROP, _ROW = 13.0, 3.75, 2.75, 1.5, 0.98, 1.82  # inches


@dataclass(frozen=True)
class PixelAnswer:
    """Why a pixel of test image i scores as it does under a result.

    pixel: (row, column).  threshold: of the image.  anomaly_map: None where the run kept none.  grid: of the model.
    explanation: None where there is none, and `fault` says why.
    """

    category: Category
    i: int
    label: str
    pixel: tuple[int, int]
    threshold: float
    config: PNIConfig
    anomaly_map: Float32[ndarray, "h w"] | None
    words: str
    grid: tuple[int, int] = (0, 0)
    explanation: Explanation | None = None
    fault: str = ""


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
) -> View:
    """Why a pixel of test image i scores as it does under a result: its matches as crops of the training images that
    they come from, the nearer ones that a gate shut, what was seen here in training, what the neighbors let expect.

    threshold: of the image, else the default one.  `label` may also be a setting that E's model can compute.  Where
    the pixel cannot be explained (no data set, no model, the release's rank gate) the view says why.  Raises PNIError
    for a pixel, an image or a result that is not there.
    """
    part = category_with(opened, category, i)
    maps = maps_of(part, i, (label,))
    return draw_answer(answer_pixel(part, i, label, (row, column), maps, threshold, most=most))


def answer_pixel(
    category: Category,
    i: int,
    label: str,
    pixel: tuple[int, int],
    maps: Mapping[str, Float32[ndarray, "h w"]],
    threshold: float | None = None,
    *,
    features: Callable[[], Tensor] | None = None,
    most: int = 5,
) -> PixelAnswer:
    """The words of `draw_pixel`, and what its picture is made of, in milliseconds.  maps: those of `maps_of`.
    features: of the image, where they are made already.  Raises as `draw_pixel` does."""
    result, config = explained_by(category, label)
    size, border = config.image_crop, config.border_cells if config.border == "replicate" else 0
    cell_at(*pixel, size, (1, 1))  # raises for a pixel outside
    if threshold is None:
        threshold = default_threshold(category.results[label]) if label in category.results else math.nan
    answer = partial(PixelAnswer, category, i, label, pixel, threshold, config, maps.get(label))
    values = {
        name: float(anomaly_map[pixel]) for name, anomaly_map in maps.items() if anomaly_map.shape == (size, size)
    }
    try:
        model = category.model(result)
        embedded = features_of(model, category, i) if features is None else features()
        grid = int(embedded.shape[0]), int(embedded.shape[1])
        cell = cell_at(*pixel, size, grid, border)
        explanation = model.explain_cell(embedded, cell, config, most=most)
        scores = {name: model.explain_cell(embedded, cell, config.under(name), most=1).score for name in model.settings}
        level = normal_level(category, label)
    except PNIError as fault:
        words = pixel_words(category, i, label, pixel, None, values, {}, threshold)
        return answer(words, fault=f"this pixel is not explained: {fault}")
    words = pixel_words(category, i, label, pixel, explanation, values, scores, threshold, level)
    return answer(words, grid, explanation)


def draw_answer(answer: PixelAnswer) -> View:
    """The image and the map with the pixel marked, and rows of training crops."""
    category, i, config = answer.category, answer.i, answer.config
    rows = [] if answer.explanation is None else _rows(answer, answer.explanation)
    height = max(2 * (_PICTURE + 0.25), _ROW * len(rows)) + 0.1
    figure = Figure(figsize=(_WIDTH, height))
    test = read_input(category, i, config.geometry)
    for k in range(2):
        edge = height - (k + 1) * (_PICTURE + 0.25)
        box = 0.1 / _WIDTH, edge / height, (_PICTURE + 0.22) / _WIDTH, _PICTURE / height
        ax = figure.add_axes(box, anchor="W")
        if k == 0:
            draw_input(test, ax)
        else:
            draw_map(answer.anomaly_map, scale(category, answer.label), answer.threshold, test, ax)
            title(ax, f"map, {shortened(answer.label, 30)}", 9)
        if answer.explanation is not None:
            y, x, bottom, right = cell_box(answer.explanation.cell, answer.grid, config.image_crop)
            _box(ax, y - 0.5, x - 0.5, bottom - y, right - x)
        mark_pixel(ax, *answer.pixel)
    sheet = figure.add_axes((0, 0, 1, 1), zorder=-1)  # in inches: an Axes for each crop would take most of the time
    for k, (heading, crops) in enumerate(rows):
        top = height - k * _ROW - 0.05
        write_on(figure, _LEFT / _WIDTH, top / height, heading, fontsize=9, va="top", weight="bold")
        for m, patch in enumerate(crops):
            _draw_crop(patch, _LEFT + m * _STEP, top - 0.22 - _CROP, sheet)
            below = "\n".join(patch.lines)
            write_on(figure, (_LEFT + m * _STEP) / _WIDTH, (top - 0.26 - _CROP) / height, below, va="top", fontsize=7)
    sheet.set_axis_off()
    sheet.set(xlim=(0, _WIDTH), ylim=(0, height), aspect="auto")
    return View(answer.words, figure, answer.fault)


class _Crop(NamedTuple):
    """A training patch with a frame and lines below; `make`: its pixels, PNIError where they cannot be had."""

    make: Callable[[], UInt8[ndarray, "h w 3"]]
    color: str
    lines: tuple[str, ...]


def _rows(answer: PixelAnswer, explanation: Explanation) -> list[tuple[str, list[_Crop]]]:
    """A heading and crops for each gate, and for both distributions."""
    category, grid = answer.category, answer.grid
    home = explained_by(category, answer.label)[0].home or category

    def own() -> UInt8[ndarray, "h w 3"]:
        image = category.image(answer.i, answer.config.geometry)
        return rgb(crop_patch(image, explanation.cell, grid, context=CONTEXT))

    def taken(patch: Match | Bin, color: str, *lines: str) -> _Crop:
        make = partial(crop, home, patch.train_image, patch.train_cell, grid, CONTEXT)
        return _Crop(make, color, (*lines, f"training image {patch.train_image}"))

    def matched(word: str, color: str, match: Match) -> _Crop:
        lines = [f"{word}: {match.distance:.3g} away"]
        lines += [f"+ {match.added:.3g} for its place"] if match.added else []
        sources = {"neighbors": match.p_neighborhood, "position": match.p_position}
        return taken(match, color, *lines, *(f"{name} p {p:.2g}" for name, p in sources.items() if not math.isnan(p)))

    rows = []
    for name, match in explanation.matches.items():
        allows_none, n, shut = name in explanation.none_allowed, explanation.n_shut[name], explanation.shut[name]
        word = "nearest" if name == "none" else "shut too" if allows_none else "counts" if name == "veto" else "allowed"
        passed = "passed over" if name == "veto" else "shut"
        crops = [matched(word, COLORS[2], match), *(matched(passed, COLORS[1], other) for other in shut)]
        nearer = f"the {n:,} nearer ones that are {passed}" if n > 1 else f"the nearer one that is {passed}"
        nearer = f"{len(shut)} of {nearer}" if len(shut) < n else nearer
        which = "it allows none, so the farthest counts" if allows_none else "the nearest that it allows"
        if name == "none":
            heading = "No gate: the nearest patch of the coreset"
        elif name == "veto":
            heading = f"Soft veto of the position: what counts{f', and {nearer}' if n else ''}"
        else:
            heading = f"{name[0].upper()}{name[1:]} gate, open where p > τ = {explanation.tau:.2g}: {which}"
            heading += f", and {nearer}" if n else "; none is nearer"
        rows.append((heading, crops))
    patch = _Crop(own, "black", ("this patch", f"score {explanation.score:.3g}"))
    rows[0] = (rows[0][0], [patch, *rows[0][1]])
    if math.isfinite(explanation.nearest.p_position):
        seen = [taken(seen, "#777777", f"p {seen.probability:.2g}, {seen.votes:,} votes") for seen in explanation.seen]
        many = f"{explanation.n_seen:,} kinds of patch" if explanation.n_seen != 1 else "1 kind of patch"
        rows.append((f"Seen at this position in training: {many}{'; the commonest' if seen else ''}", seen))
    if explanation.expected:
        expected = [taken(expected, "#777777", f"p {expected.probability:.2g}") for expected in explanation.expected]
        rows.append(("Expected here by the network from the neighbors: the most probable", expected))
    return rows


def _draw_crop(patch: _Crop, left: float, bottom: float, ax: Axes) -> None:
    """In inches; the cell itself is boxed within its surroundings."""
    try:
        extent = left, left + _CROP, bottom, bottom + _CROP
        ax.imshow(patch.make(), interpolation="nearest", extent=extent, aspect="auto")
        side = _CROP / (2 * CONTEXT + 1)
        _box(ax, bottom + CONTEXT * side, left + CONTEXT * side, side, side)
    except PNIError:
        ax.text(left + _CROP / 2, bottom + _CROP / 2, "image cannot\nbe read", ha="center", va="center", fontsize=7)
    ax.add_patch(Rectangle((left, bottom), _CROP, _CROP, fill=False, color=patch.color, linewidth=2))


def _box(ax: Axes, y: float, x: float, height: float, width: float) -> None:
    for color, line in (("black", 2.6), (MARK, 1.2)):
        ax.add_patch(Rectangle((x, y), width, height, fill=False, color=color, linewidth=line))
