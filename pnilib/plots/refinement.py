"""Pictures of the refinement: maps along a line, their values around a defect, losses (PNI sec. 3.3).

`Axes` in, `Axes` out; nothing is saved.  The network's own drawing: `pnilib.plots.network`.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
import seaborn as sns
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from numpy import ndarray
from torch import Tensor

from pnilib.errors import PNIError
from pnilib.plots.distributions import COLORS

__all__ = ["draw_gradient_shares", "draw_history", "draw_profiles", "draw_surroundings", "window"]


def window(mask: Bool[Tensor, "h w"], side: int) -> tuple[slice, slice]:
    """Rows and columns of a square of `side` px (the image's, if it is smaller) around the middle of a defect.

    Raises PNIError for an empty mask.
    """
    found = mask.nonzero()
    if len(found) == 0:
        raise PNIError("the mask is empty: there is no defect to look at")
    spans = []
    for where, length in zip(found.T, mask.shape, strict=True):
        own = min(side, length)
        middle = (int(where.min()) + int(where.max()) + 1) // 2
        start = min(max(0, middle - own // 2), length - own)
        spans.append(slice(start, start + own))
    return spans[0], spans[1]


def draw_profiles(
    truth: Bool[ndarray, " w"], profiles: Mapping[str, Float[ndarray, " w"]], ax: Axes, *, label: str, title: str = ""
) -> Axes:
    """Maps along one line of pixels, the true defect shaded; `label`: the maps' unit."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], truth, [False]]).astype(int)))
    for k, (start, end) in enumerate(edges.reshape(-1, 2)):
        ax.axvspan(start - 0.5, end - 0.5, color="#dddddd", label="true defect" if k == 0 else None)
    for (name, values), color, style in zip(profiles.items(), cycle(COLORS), cycle(("-", "--", "-.")), strict=False):
        ax.plot(np.arange(len(values)), values, style, color=color, label=name)
    ax.set(xlabel="px along the line", ylabel=label, xlim=(-0.5, len(truth) - 0.5))
    ax.legend(fontsize=8, loc="upper right")
    ax.set_title(title, fontsize=10)
    return ax


def draw_surroundings(
    values: Mapping[str, Float[ndarray, " _n"]], ax: Axes, *, label: str, n_bins: int = 60, title: str = ""
) -> Axes:
    """Distributions of map values, one outline a group, on common bins; a tick under the axis at each median.

    What exceeds the largest 99.5 % quantile of a group lies outside.  Raises PNIError for an empty group.
    """
    for name, group in values.items():
        if len(group) == 0:
            raise PNIError(f"group {name!r} is empty: there is no distribution to draw")
    low = min(float(group.min()) for group in values.values())
    high = max(float(np.quantile(group, 0.995)) for group in values.values())
    bins = np.linspace(low, max(high, low + 1e-6), n_bins + 1)
    for (name, group), color, style in zip(values.items(), cycle(COLORS), cycle(("-", "--", "-.", ":")), strict=False):
        share = np.histogram(group, bins)[0] / len(group)
        ax.stairs(100 * share, bins, color=color, linestyle=style, linewidth=1.6, label=name)
        ax.plot([np.median(group)] * 2, [0, -0.05], color=color, linewidth=3, clip_on=False,
                transform=ax.get_xaxis_transform())  # fmt: skip
    ax.set(xlabel=label, ylabel="pixels, %", xlim=(bins[0], bins[-1]), ylim=(0, None))
    ax.tick_params(axis="x", pad=9)
    ax.legend(fontsize=8, loc="upper right")
    ax.set_title(title, fontsize=10)
    return ax


def draw_history(histories: Mapping[str, Sequence[Mapping[str, float]]], ax: Axes, *, title: str = "") -> Axes:
    """Loss by iteration, each training divided by its own first value: different losses have no common unit.

    A training that was too short to log any is named in the legend.
    """
    for (name, rows), color, style in zip(
        histories.items(), cycle(COLORS), cycle(("-", "--", "-.", ":")), strict=False
    ):
        relative = [row["loss"] / rows[0]["loss"] for row in rows]
        name = name if rows else f"{name}: too short to log a loss"
        ax.plot([row["iteration"] for row in rows], relative, style, color=color, marker="o", markersize=3, label=name)
    ax.axhline(1, color="black", linewidth=0.8, linestyle=":")
    ax.set(xlabel="iteration", ylabel="loss / its first logged value", ylim=(0, None))
    ax.legend(fontsize=8, loc="upper right")
    ax.set_title(title, fontsize=10)
    return ax


def draw_gradient_shares(errors: Float[ndarray, " b"], ax: Axes, *, title: str = "") -> Axes:
    """What each image of a batch contributes to the gradient, %, under the norm of eq. (10) and under its square.

    errors: ||Ã - A||_2 of each.  The gradient of a norm has length 1 whatever the error, that of a square 2 ||e||.
    Raises PNIError for an error of 0 or less: the norm has no gradient there.
    """
    if not (errors > 0).all():
        raise PNIError("an error of 0 has no direction: give positive norms")
    at = np.arange(len(errors))
    shares = {"norm, eq. (10)": np.full(len(errors), 1 / len(errors)), "squared": errors / errors.sum()}
    table = pd.DataFrame(shares).melt(var_name="norm", value_name="share")
    sns.barplot(
        table, x=np.tile(at, len(shares)), y=100 * table["share"], hue="norm", palette=COLORS[:2], saturation=1, ax=ax
    )
    ax.set_xticks(at, [f"{e:.3g}" for e in errors])
    ax.set(xlabel="error ||Ã - A|| of the image", ylabel="share of the gradient, %")
    ax.legend(fontsize=8, loc="upper right")
    ax.set_title(title, fontsize=10)
    return ax
