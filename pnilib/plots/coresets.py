"""Pictures of coresets: greedy picks on the plane, radius against size, where vectors come from, coverage.

`Axes` in, `Axes` out; nothing is saved.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int64
from matplotlib.axes import Axes
from matplotlib.patches import Circle
from numpy import ndarray

from pnilib.plots.images import color_bar

__all__ = ["draw_coverage", "draw_curves", "draw_origins", "draw_picks", "origin_counts"]

_STYLES = ("-", "--", ":", "-.")


def draw_picks(
    points: Float[ndarray, "n 2"], picks: Int64[ndarray, " t"], ax: Axes, *, limit: float, title: str = ""
) -> Axes:
    """Points of the plane after some greedy picks, coloured by their distance to the nearest pick (0 ... `limit`).

    Picks are numbered in their order; the dashed circle, around the nearest pick of the farthest point (red),
    has the coverage radius.
    """
    distances = np.linalg.norm(points[:, None] - points[picks][None], axis=2)
    nearest, owner = distances.min(1), picks[distances.argmin(1)]
    ax.scatter(*points.T, c=nearest, vmin=0, vmax=limit, cmap="viridis", s=14)
    ax.scatter(*points[picks].T, marker="s", s=90, color="black")
    for order, pick in enumerate(picks):
        ax.annotate(str(order + 1), points[pick], color="white", ha="center", va="center", fontsize=7)
    farthest = int(nearest.argmax())
    ax.scatter(*points[farthest], facecolors="none", edgecolors="red", s=80, linewidths=1.5)
    centre = (float(points[owner[farthest], 0]), float(points[owner[farthest], 1]))
    ax.add_patch(Circle(centre, float(nearest[farthest]), fill=False, linestyle="--", color="red"))
    (left, bottom), (right, top) = points.min(0), points.max(0)
    margin = 0.08 * max(right - left, top - bottom)
    ax.set_xlim(left - margin, right + margin)  # the same for every number of picks, whatever the circle
    ax.set_ylim(bottom - margin, top + margin)
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(title, fontsize=10)
    return ax


def draw_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    ax: Axes,
    *,
    x_label: str,
    y_label: str,
    mark: tuple[float, str] | None = None,
    title: str = "",
) -> Axes:
    """Quantities (x, y) against coreset size on a logarithmic x axis; `mark` is one size and its name."""
    for (name, (x, y)), style in zip(curves.items(), _STYLES * len(curves), strict=False):
        ax.plot(x, y, style, marker="o" if len(x) < 20 else "", markersize=4, label=name)
    if mark is not None:
        ax.axvline(mark[0], color="grey", linewidth=1)
        ax.annotate(mark[1], (mark[0], 0.98), xycoords=("data", "axes fraction"), xytext=(-4, 0),
                    textcoords="offset points", ha="right", va="top", color="grey")  # fmt: skip
    ax.set_xscale("log")
    ax.set_xlabel(x_label)
    ax.set_ylabel(y_label)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, loc="upper right")
    ax.set_title(title, fontsize=10)
    return ax


def origin_counts(cell_idx: Int64[ndarray, " m"], grid: tuple[int, int]) -> Int64[ndarray, "gh gw"]:
    """How many coreset vectors come from each grid cell, over all training images."""
    return np.bincount(cell_idx, minlength=grid[0] * grid[1]).reshape(grid)


def draw_origins(counts: Int64[ndarray, "gh gw"], ax: Axes, *, label: str, title: str = "") -> Axes:
    """Counts a cell, with their colour bar."""
    limits = (0.0, float(max(1, counts.max())))
    ax.imshow(counts, cmap="viridis", vmin=limits[0], vmax=limits[1], interpolation="nearest")
    color_bar(ax, limits, label, "viridis")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(title, fontsize=10)
    return ax


def draw_coverage(distances: Mapping[str, Float[ndarray, " n"]], ax: Axes, *, title: str = "") -> Axes:
    """Share of points farther from their nearest coreset vector than a distance; the curve ends at the radius."""
    for (name, values), style in zip(distances.items(), _STYLES * len(distances), strict=False):
        ordered = np.sort(values)
        share = 1 - np.arange(len(ordered)) / len(ordered)
        ax.semilogy(ordered, share, style, label=name)
        ax.plot(ordered[-1], share[-1], "o", color=ax.lines[-1].get_color())
    ax.set_xlabel("distance to the nearest coreset vector (feature units)")
    ax.set_ylabel("share of patches farther away")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, loc="lower right")
    ax.set_title(title, fontsize=10)
    return ax
