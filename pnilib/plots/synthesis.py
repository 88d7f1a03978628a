"""Pictures of synthetic defects: where they are, what they are made of, how the generators differ.

`Axes` in, `Axes` out; nothing is saved.  Images and masks are tensors, as everywhere in `pnilib.plots`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float32
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from numpy import ndarray
from torch import Tensor

from pnilib.errors import PNIError
from pnilib.plots.distributions import COLORS
from pnilib.plots.images import draw_outline, show_image

__all__ = ["draw_changes", "draw_measure", "draw_opacity", "draw_patches", "show_area"]


def show_area(
    image: Float[Tensor, "3 h w"], mask: Bool[Tensor, "h w"], ax: Axes, *, title: str = "", dim: float = 0.35
) -> Axes:
    """The defect's area highlighted, as in Figure 3: everything else is dimmed to `dim` of its brightness."""
    shade = mask + (~mask) * dim
    return draw_outline(mask, show_image(image * shade, ax, title=title))


def draw_patches(patches: Sequence[ndarray], ax: Axes, *, columns: int = 12, cell: int = 132, title: str = "") -> Axes:
    """Defect patches (opacity in [0, 1]) as ink on paper, row by row, each at its own size or fitted to `cell` px.

    Raises PNIError without patches.
    """
    if not patches:
        raise PNIError("there are no patches to show: give at least one")
    columns = min(columns, len(patches))
    n_rows = -(-len(patches) // columns)
    for k, patch in enumerate(patches):
        row, column = divmod(k, columns)
        height, width = np.array(patch.shape) * min(1.0, (cell - 8) / max(patch.shape))
        left, top = (column + 0.5) * cell - width / 2, (row + 0.5) * cell - height / 2
        draw_opacity(patch, ax, extent=(left, left + width, top + height, top))
    ax.set_xlim(0, columns * cell)
    ax.set_ylim(n_rows * cell, 0)
    ax.set_aspect("equal")
    if title:
        ax.set_title(title, fontsize=10)
    return ax


def draw_opacity(
    opacity: Float32[ndarray, "h w"],
    ax: Axes,
    *,
    title: str = "",
    extent: tuple[float, float, float, float] | None = None,
) -> Axes:
    """A of eq. (S1): white 0, black 1, whatever the values are.  `extent` (left, right, bottom, top): see imshow."""
    ax.imshow(opacity, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest", extent=extent)
    ax.set_xticks([])
    ax.set_yticks([])
    if title:
        ax.set_title(title, fontsize=10)
    return ax


def draw_changes(
    change: Float[ndarray, "h w"], mask: Bool[Tensor, "h w"], ax: Axes, *, limit: float, title: str = ""
) -> Axes:
    """|I - I_clean| in grey levels of 255, from 0 to `limit`, under the outline of the mask; 0 is black."""
    ax.imshow(change, cmap="magma", vmin=0, vmax=limit, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    if title:
        ax.set_title(title, fontsize=10)
    return draw_outline(mask, ax)


def draw_measure(
    frame: pd.DataFrame, column: str, label: str, ax: Axes, *, logarithmic: bool = True, title: str = ""
) -> Axes:
    """One row of dots a generator (column `generator`, in order of appearance), and a bar at each median.

    `column`: what is drawn; `label`: its name and unit.  A logarithmic axis leaves zeros out.  Raises PNIError for a
    column that the frame does not have.
    """
    if column not in frame:
        raise PNIError(f"{column!r} is not measured: choose from {', '.join(c for c in frame if c != 'generator')}")
    names = list(dict.fromkeys(frame["generator"]))
    for row, name in enumerate(names):
        values = frame.loc[frame["generator"] == name, column].to_numpy(dtype=float)
        values = values[values > 0] if logarithmic else values
        jitter = 0.28 * np.sin(2.4 * np.arange(len(values)))  # spread, the same in every run
        color = COLORS[row % len(COLORS)]
        ax.plot(values, row + jitter, "o", color=color, markersize=3, alpha=0.45, markeredgewidth=0)
        if len(values):
            ax.plot([np.median(values)] * 2, [row - 0.4, row + 0.4], color="black", linewidth=2, solid_capstyle="butt")
    if logarithmic:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlabel(label)
    if title:
        ax.set_title(title, fontsize=10)
    return ax
