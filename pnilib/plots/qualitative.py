"""Images beside their anomaly maps and masks: PNI Figures 1, 6, 8 and S5 to S8.

One column a sample, one row a kind of picture; too many columns go on in a band below.  White contours: where the map
reaches its threshold.  Cyan: the true defect.  Colour scales come from the caller, one per category and method, never
from the picture itself.  Each function makes a `Figure`, because it decides on its panels, and never saves.
"""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy import ndarray
from torch import Tensor

from pnilib.errors import PNIError
from pnilib.plots.images import draw_outline, show_image, show_map

__all__ = ["PREDICTED", "Sample", "draw_comparison", "draw_errors", "draw_localization"]

PREDICTED = "#ffffff"
"""Colour of contours at a threshold; cyan (`images.OUTLINE`) is the truth's."""
_TINT = (1.0, 0.25, 0.1)
_CELL, _GAP, _LEFT, _RIGHT = 1.75, 0.05, 0.27, 0.85  # inches: panel, between panels, left and right of them
_ERRORS = {"false positive": "false positives", "false negative": "false negatives"}


@dataclass(frozen=True)
class Sample:
    """One test image with what a figure shows of it.

    image: RGB in [0, 1].  mask: the true defect, all False for a normal image, None where it is unknown.  title: above
    the column.  By name of the method: maps; thresholds, pixels with map >= threshold are called anomalous (NaN: no
    contour); limits, the colour scale (low, high), the same for all images of a category.  normal: a normal image of
    the same category to show above, or None.

    Raises PNIError when sizes differ, or a map has no threshold or no limits.
    """

    image: Float[Tensor, "3 h w"]
    mask: Bool[Tensor, "h w"] | None
    maps: dict[str, Float32[ndarray, "h w"]]
    title: str = ""
    thresholds: dict[str, float] = field(default_factory=dict)
    limits: dict[str, tuple[float, float]] = field(default_factory=dict)
    normal: Float[Tensor, "3 nh nw"] | None = None

    def __post_init__(self) -> None:
        size = tuple(self.image.shape[1:])
        if self.mask is not None and tuple(self.mask.shape) != size:
            raise PNIError(f"{self.title!r}: mask {tuple(self.mask.shape)}, image {size}: use the same geometry")
        for name, one in self.maps.items():
            if one.shape != size:
                raise PNIError(f"{self.title!r}: map {name!r} {one.shape}, image {size}: use the same geometry")
            if name not in self.thresholds or name not in self.limits:
                raise PNIError(f"{self.title!r}: map {name!r} needs a threshold (NaN: none) and limits")
            low, high = self.limits[name]
            if not (np.isfinite(low) and np.isfinite(high) and low < high):
                raise PNIError(f"{self.title!r}: limits {(low, high)} of {name!r} are no colour scale: give low < high")


class _Row(NamedTuple):
    """One row of pictures: its label, who draws a sample of it, and for maps the method whose scale a bar shows."""

    label: str
    draw: Callable[[Sample, Axes], Axes]
    scale: str = ""


def draw_comparison(samples: Sequence[Sample], names: Sequence[str], *, columns: int = 8) -> Figure:
    """Figures 1 and S7: each image with its true defect, then the map of each method in `names` with its contour.

    A first row shows `normal` where any sample has one.  Raises PNIError for a name that a sample has no map of.
    """
    rows = [_Row("normal", _normal)] if any(sample.normal is not None for sample in samples) else []
    rows += [_Row("image, truth", _truth), *(_map_row(name, name) for name in names)]
    return _figure(samples, rows, columns, "no images to show")


def draw_localization(samples: Sequence[Sample], name: str, *, columns: int = 8) -> Figure:
    """Figures 6, 8 and S8: the image with its true defect, the predicted mask over the image, the map with contour.

    Raises PNIError for a sample without a map `name`.
    """
    rows = [_Row("image, truth", _truth), _Row("predicted mask", _predicted(name)), _map_row("anomaly map", name)]
    return _figure(samples, rows, columns, "no images to show")


def draw_errors(samples: Sequence[Sample], name: str, kind: str, *, columns: int = 8) -> Figure:
    """Figures S5 and S6: every image that the detector got wrong, and its map.

    kind: "false positive" or "false negative".  The contour is at the sample's threshold: give that of the image
    decision, as the paper does; where the image score is the map's maximum, a false negative then has none.  Without
    samples the figure says so: that is a result.  Raises PNIError for another kind, or a sample without the map.
    """
    if kind not in _ERRORS:
        raise PNIError(f"kind={kind!r} is no error of a detector: choose one of {', '.join(_ERRORS)}")
    image = _Row("image", _plain) if kind == "false positive" else _Row("image, truth", _truth)
    return _figure(samples, [image, _map_row("anomaly map", name)], columns, f"no {_ERRORS[kind]} at this threshold")


def _normal(sample: Sample, ax: Axes) -> Axes:
    if sample.normal is None:
        ax.set_axis_off()
        return ax
    return show_image(sample.normal, ax)


def _plain(sample: Sample, ax: Axes) -> Axes:
    return show_image(sample.image, ax)


def _truth(sample: Sample, ax: Axes) -> Axes:
    if sample.mask is None:
        show_image(sample.image, ax)
        ax.text(0.5, 0.03, "no true mask", transform=ax.transAxes, ha="center", va="bottom", fontsize=7,
                bbox=dict(boxstyle="square,pad=0.15", facecolor="white", linewidth=0, alpha=0.8))  # fmt: skip
        return ax
    return show_image(sample.image, ax, mask=sample.mask)  # no tint: it would hide wrong colours


def _predicted(name: str) -> Callable[[Sample, Axes], Axes]:
    def draw(sample: Sample, ax: Axes) -> Axes:
        mask = _called(sample, name)
        red = sample.image.new_tensor(_TINT)[:, None, None]
        tinted = torch.where(mask, 0.55 * sample.image + 0.45 * red, sample.image)
        return draw_outline(mask, show_image(tinted, ax), PREDICTED)

    return draw


def _map_row(label: str, name: str) -> _Row:
    def draw(sample: Sample, ax: Axes) -> Axes:
        show_map(sample.maps[name], ax, limits=sample.limits[name])
        return draw_outline(_called(sample, name), ax, PREDICTED)

    return _Row(label, draw, name)


def _called(sample: Sample, name: str) -> Bool[Tensor, "h w"]:
    """Where the map reaches its threshold; nowhere for NaN."""
    return torch.from_numpy(sample.maps[name] >= sample.thresholds[name])


def _figure(samples: Sequence[Sample], rows: Sequence[_Row], columns: int, nothing: str) -> Figure:
    """Samples in bands of at most `columns`, as even as they can be; a colour bar beside each row of maps."""
    if columns < 1:
        raise PNIError(f"columns={columns}: give 1 or more")
    if not samples:
        figure = Figure(figsize=(4.0, 1.0))
        figure.add_axes((0, 0, 1, 1)).set_axis_off()  # Jupyter shows no figure without axes
        figure.text(0.5, 0.5, nothing, ha="center", va="center", fontsize=11)
        return figure
    for sample in samples:
        for row in rows:
            if row.scale and row.scale not in sample.maps:
                known = ", ".join(sample.maps) or "none"
                raise PNIError(f"{sample.title!r}: there is no map {row.scale!r}: choose from {known}")
    n_bands = -(-len(samples) // columns)
    n_columns = -(-len(samples) // n_bands)
    titles = [_wrapped(sample.title) for sample in samples]
    height = _CELL * min(1.5, max(sample.image.shape[1] / sample.image.shape[2] for sample in samples))
    head = 0.1 + 0.15 * max(title.count("\n") + 1 for title in titles)
    figure = Figure(
        figsize=(_LEFT + n_columns * (_CELL + _GAP) + _RIGHT, n_bands * (head + len(rows) * (height + _GAP)) + _GAP)
    )
    top = float(figure.get_figheight())
    for band in range(n_bands):
        here = range(band * n_columns, min((band + 1) * n_columns, len(samples)))
        top -= head
        for r, row in enumerate(rows):
            top -= height
            for k, column in zip(here, range(n_columns), strict=False):
                ax = _axes(figure, _LEFT + column * (_CELL + _GAP), top, _CELL, height)
                row.draw(samples[k], ax).set_anchor("N")
                if r == 0:
                    ax.set_title(titles[k], fontsize=8, pad=3)
            middle = (top + height / 2) / figure.get_figheight()
            figure.text(0.5 * _LEFT / figure.get_figwidth(), middle, row.label, rotation=90, ha="center", va="center",
                        fontsize=9)  # fmt: skip
            if row.scale:
                left = _LEFT + len(here) * (_CELL + _GAP) + 0.03
                _bar(_axes(figure, left, top, 0.1, height), row.scale, samples)
            top -= _GAP
    return figure


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place in inches: every panel of a column has the same left edge, whatever bars stand beside it."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, bottom / h, width / w, height / h))


def _wrapped(title: str) -> str:
    """Lines that fit above a panel."""
    return "\n".join(textwrap.fill(line, 22) for line in title.splitlines())


def _bar(ax: Axes, name: str, samples: Sequence[Sample]) -> None:
    """Scores where all samples of the figure share one scale, else only which end is which."""
    scales = {tuple(map(float, sample.limits[name])) for sample in samples}
    limits = samples[0].limits[name] if len(scales) == 1 else (0.0, 1.0)
    assert isinstance(ax.figure, Figure)
    bar = ax.figure.colorbar(ScalarMappable(Normalize(*limits), "magma"), cax=ax)
    ax.tick_params(labelsize=7)
    if len(scales) == 1:
        bar.set_label("anomaly score", fontsize=8)
    else:
        bar.set_ticks([0.0, 1.0], labels=["low", "high"])
        low, high = ax.get_yticklabels()
        low.set_verticalalignment("bottom")  # inside the bar's height: another bar may follow
        high.set_verticalalignment("top")
        bar.set_label("anomaly score,\nscale of its category", fontsize=8)
