"""Why SegAD calls a part bad: SHAP values of its forest by statistic, and by segment on the image.

A value is what a column adds to the score (margin, XGBoost's exact TreeSHAP): red towards bad, blue towards good.  One
scale for all images of a picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Integer
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy import ndarray
from torch import Tensor

from pnilib.errors import PNIError
from pnilib.plots.images import show_image, show_map
from pnilib.plots.labels import drawable, title
from pnilib.segad.statistics import WHOLE, Column

__all__ = ["Why", "draw_labels", "draw_learning_curve", "draw_reasons", "draw_segment_values", "why_figure"]

_CMAP = "coolwarm"
_TINTS = "tab10"


@dataclass(frozen=True)
class Why:
    """One image with its reasons.  image: RGB in [0, 1]; base_map and labels at its size; reasons: of
    `SegAD.explain`; name: above the row."""

    image: Float[Tensor, "3 h w"]
    base_map: Float[ndarray, "h w"]
    labels: Integer[ndarray, "h w"]
    segments: Sequence[str]
    reasons: pd.DataFrame
    name: str


def draw_labels(
    image: Float[Tensor, "3 h w"], labels: Integer[ndarray, "h w"], segments: Sequence[str], ax: Axes
) -> Axes:
    """The grey image with each segment in a colour of its own, named in the legend."""
    colours = colormaps[_TINTS](np.arange(len(segments)) % 10)[:, :3]
    grey = image.mean(0).cpu().numpy()[..., None]
    ax.imshow(0.55 * grey + 0.45 * colours[labels], interpolation="nearest")
    for segment, colour in zip(segments, colours, strict=True):
        ax.plot([], [], "s", color=colour, label=drawable(segment))
    ax.legend(fontsize=6, loc="lower right", framealpha=0.85)
    ax.set_axis_off()
    return ax


def draw_reasons(reasons: pd.DataFrame, ax: Axes, *, most: int = 8, limit: float | None = None) -> Axes:
    """The `most` columns of the largest |SHAP|, the largest on top, with the statistic's value.  limit: of the axis."""
    first = reasons.head(most)
    shap = first["shap"].to_numpy(float)
    at = np.arange(len(first))
    bound = limit or float(np.abs(shap).max()) or 1.0
    ax.barh(at, shap, color=colormaps[_CMAP](Normalize(-bound, bound)(shap)), edgecolor="#555555", linewidth=0.4)
    names = [
        f"{drawable(Column(base, segment, statistic))} = {'–' if value != value else format(value, '.3g')}"
        for base, segment, statistic, value in first[["base", "segment", "statistic", "value"]].itertuples(index=False)
    ]
    ax.set_yticks(at, names, fontsize=7)
    ax.invert_yaxis()
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_xlim(-1.05 * bound, 1.05 * bound)
    ax.set_xlabel("SHAP value: towards good < 0 < towards bad", fontsize=7)
    ax.tick_params(axis="x", labelsize=7)
    return ax


def draw_segment_values(
    image: Float[Tensor, "3 h w"],
    labels: Integer[ndarray, "h w"],
    segments: Sequence[str],
    reasons: pd.DataFrame,
    ax: Axes,
    *,
    limit: float,
) -> Axes:
    """The grey image, each segment tinted by the sum of its columns' SHAP values, between -limit and limit.

    The maximum of a whole map belongs to no segment and is left out: the bars have it.
    """
    of_segment = reasons[reasons["segment"] != WHOLE].groupby("segment")["shap"].sum()
    sums = np.array([float(of_segment.get(name, 0.0)) for name in segments])
    tint = colormaps[_CMAP](Normalize(-limit, limit)(sums))[:, :3]
    grey = image.mean(0).cpu().numpy()[..., None]
    ax.imshow(0.5 * grey + 0.5 * tint[labels], interpolation="nearest", vmin=0, vmax=1)
    ax.set_axis_off()
    return ax


def why_figure(parts: Sequence[Why], base: str) -> Figure:
    """A row an image: the image, its map of the detector `base`, its segments tinted by SHAP, the reasons.

    The map's colours and the SHAP values are on one scale for all rows.  Raises PNIError for no image.
    """
    if not parts:
        raise PNIError("there is no image to explain: give one at least")
    limits = min(float(p.base_map.min()) for p in parts), max(float(p.base_map.max()) for p in parts)
    bars = max(float(p.reasons["shap"].abs().max()) for p in parts) or 1.0
    sums = [p.reasons[p.reasons["segment"] != WHOLE].groupby("segment")["shap"].sum().abs().max() for p in parts]
    tints = max(map(float, sums)) or 1.0
    figure = Figure(figsize=(11.5, 2.3 * len(parts) + 0.5), layout="constrained")
    grid = figure.subplots(len(parts), 4, squeeze=False, width_ratios=(1, 1.15, 1.15, 1.6))
    for part, axes in zip(parts, grid, strict=True):
        show_image(part.image, axes[0])
        title(axes[0], part.name, 7)
        show_map(part.base_map, axes[1], limits=limits)
        draw_segment_values(part.image, part.labels, part.segments, part.reasons, axes[2], limit=tints)
        draw_reasons(part.reasons, axes[3], most=6, limit=bars)
        for ax, scale, cmap in ((axes[1], limits, "magma"), (axes[2], (-tints, tints), _CMAP)):
            bar = figure.colorbar(ScalarMappable(Normalize(*scale), cmap), ax=ax, fraction=0.046)
            bar.ax.tick_params(labelsize=6)
    title(grid[0, 1], f"base map {base}, score", 8)
    title(grid[0, 2], "SHAP, summed by segment", 8)
    title(grid[0, 3], "largest SHAP values", 8)
    return figure


def draw_learning_curve(table: pd.DataFrame, ax: Axes, *, metric: str = "cl_auroc") -> Axes:
    """Mean over seeds against the number of bad parts, ± sd as a band; base maps as lines of their own.

    table: rows of `run_protocol` for several n_bad.
    """
    for method, own in table.groupby("method", sort=False):
        by_count = own.groupby("n_bad")[metric]
        mean, sd = 100 * by_count.mean(), 100 * by_count.std()
        style = (
            dict(linewidth=2.2, marker="o") if method == "SegAD" else dict(linewidth=1.2, linestyle="--", marker=".")
        )
        line = ax.plot(mean.index, mean, label=drawable(method), **style)[0]  # type: ignore[arg-type]
        ax.fill_between(mean.index, mean - sd, mean + sd, color=line.get_color(), alpha=0.12, linewidth=0)
    names = {"cl_auroc": "Cl. AUROC, %", "fpr_95": "FPR at 95 % TPR, %"}
    ax.set(xlabel="bad parts to learn from", ylabel=f"{names.get(metric, metric)}, mean ± sd")
    ax.legend(fontsize=8, loc="lower right" if metric == "cl_auroc" else "upper right")
    return ax
