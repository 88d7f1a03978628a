"""Pictures of scores: maps side by side on one colour scale, the bounds of eq. (6), scores against thresholds.

`Axes` in, `Axes` out; nothing is saved.  Every panel of a comparison shares one pair of limits.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from numpy import ndarray
from torch import Tensor
from torch.nn import functional as F

from pnilib.errors import PNIError
from pnilib.plots.distributions import COLORS
from pnilib.plots.images import show_image, show_map

__all__ = ["cells_in_mask", "draw_bounds", "draw_gate_plane", "draw_maps", "draw_scores", "draw_table", "label_table"]


def cells_in_mask(mask: Bool[Tensor, "h w"], grid: tuple[int, int]) -> Bool[Tensor, "gh gw"]:
    """Grid cells that a defect touches: all cells with at least one defect pixel."""
    return F.adaptive_max_pool2d(mask.float()[None, None], grid)[0, 0] > 0


def draw_maps(
    image: Float[Tensor, "3 h w"],
    mask: Bool[Tensor, "h w"],
    maps: Mapping[str, Float[ndarray, "mh mw"]],
    axes: Sequence[Axes],
    *,
    limits: tuple[float, float],
    titles: bool = True,
) -> Sequence[Axes]:
    """The image, then each map between the same `limits`, the outline of the true defect over all of them.

    Maps of image size carry the outline; patch maps are drawn without.  Raises PNIError unless there is one
    Axes a map and one more.
    """
    if len(axes) != len(maps) + 1:
        raise PNIError(f"{len(maps)} maps and an image on {len(axes)} Axes: give {len(maps) + 1}")
    show_image(image, axes[0], mask=mask, title="image, true defect" if titles else "")
    for (name, one), ax in zip(maps.items(), axes[1:], strict=True):
        outline = mask if one.shape == tuple(mask.shape) else None
        show_map(one, ax, limits=limits, mask=outline, title=name if titles else "")
    return axes


def draw_bounds(
    score: Float[ndarray, "..."], lower: Float[ndarray, "..."], upper: Float[ndarray, "..."], ax: Axes
) -> Axes:
    """S(x) of each cell between its bounds min(S_nb, S_pos) at tau and at 2 tau, cells in order of the upper bound."""
    order = np.argsort(upper.ravel(), kind="stable")
    at = np.arange(len(order))
    low, high = lower.ravel()[order], upper.ravel()[order]
    ax.fill_between(at, low, high, color="#bbbbbb", step="mid", label="between the bounds")
    ax.plot(at, high, color=COLORS[1], linewidth=3, alpha=0.5, label="upper: min at 2 tau")
    ax.plot(at, low, color=COLORS[0], linewidth=1.2, label="lower: min at tau")
    ax.plot(at, score.ravel()[order], ".", color="black", markersize=2, label="S(x), eq. (6)")
    ax.set(xlabel="cells, by upper bound", ylabel="score, nats")
    ax.legend(fontsize=8, loc="upper left")
    return ax


def draw_gate_plane(
    p_neighborhood: Float[ndarray, " n"], p_position: Float[ndarray, " n"], threshold: float, ax: Axes
) -> Axes:
    """Both probabilities of some vectors in units of tau, and what eq. (6) refuses: below the line a + b = 2 tau.

    Values below 0.01 tau, zero included, are drawn at 0.01.
    """
    floor = 0.01
    a, b = (np.clip(p / threshold, floor, None) for p in (p_neighborhood, p_position))
    edge = np.geomspace(floor / 2, 2 - floor / 2, 400)
    ax.fill_between(edge, floor / 2, 2 - edge, color="#f2c4b3", label="refused by eq. (6)")
    ax.axvline(1, color=COLORS[0], linestyle="--", linewidth=1, label="neighborhood gate alone")
    ax.axhline(1, color=COLORS[2], linestyle="--", linewidth=1, label="position gate alone")
    ax.plot(a, b, ".", color="black", markersize=5, alpha=0.4, label="nearest vector of each cell")
    ax.set(xscale="log", yscale="log", xlabel="p(c | N_p(x)) / tau", ylabel="p(c | x) / tau")
    ax.set_xlim(floor / 2, 3 * max(10.0, float(a.max())))
    ax.set_ylim(floor / 2, 3 * max(10.0, float(b.max())))
    ax.legend(fontsize=8, loc="upper left")
    return ax


def draw_table(frame: pd.DataFrame, ax: Axes, *, low: float = 50.0, high: float = 100.0, digits: int = 1) -> Axes:
    """A table of percentages as numbers on colour, between `low` and `high`; rows and columns as in `frame`."""
    look = dict(cmap="cividis", vmin=low, vmax=high, cbar=False)
    sns.heatmap(frame.astype(float), annot=True, fmt=f".{digits}f", ax=ax, **look)
    return label_table(ax)


def label_table(ax: Axes) -> Axes:
    """Names of a heat map's columns above it, upright; no ticks."""
    ax.xaxis.tick_top()
    ax.tick_params(length=0, rotation=0)
    ax.set(xlabel="", ylabel="")
    return ax


def draw_scores(scores: Float[ndarray, " n"], groups: Sequence[str], thresholds: Mapping[str, float], ax: Axes) -> Axes:
    """Image scores, one line of dots a group in order of appearance, and named thresholds (NaN is left out)."""
    if len(scores) != len(groups):
        raise PNIError(f"{len(scores)} scores in {len(groups)} groups: give one group a score")
    names = list(dict.fromkeys(groups))
    for row, name in enumerate(names):
        own = scores[np.array([group == name for group in groups])]
        jitter = np.linspace(-0.22, 0.22, len(own)) if len(own) > 1 else np.zeros(1)
        ax.plot(own, row + jitter, "o", color=COLORS[2] if name == "good" else COLORS[1], alpha=0.7, markersize=5)
    for (name, value), style in zip(thresholds.items(), ("-", "--", ":", "-.") * len(thresholds), strict=False):
        if not np.isnan(value):
            ax.axvline(value, color="black", linestyle=style, label=f"{name}: {value:.3g}")
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)  # the first group on top, also on a shared axis
    ax.set_xlabel("image score, nats")
    ax.legend(fontsize=8, loc="upper left")
    return ax
