"""Forest plots: one line a comparison, a dot for its value, a bar for its interval; what is missing is written there.

`Axes` in, `Axes` out; nothing is saved.  An estimate is (value, low, high); NaN bounds: no interval.
"""

import math
from collections.abc import Mapping

from matplotlib.axes import Axes

from pnilib.errors import PNIError
from pnilib.plots.distributions import COLORS

__all__ = ["Estimate", "draw_forest", "excludes"]

Estimate = tuple[float, float, float]
_MARKS = "osD^v"


def excludes(estimate: Estimate, value: float) -> bool:
    """Whether the interval leaves out `value`; False where it has no bounds."""
    return estimate[1] > value or estimate[2] < value


def draw_forest(
    series: Mapping[str, Mapping[str, Estimate | None]],
    ax: Axes,
    *,
    unit: str,
    zero: float | None = None,
    band: float = math.nan,
) -> Axes:
    """Lines from top to bottom in the order of their first appearance; the series of a line below one another.

    series: its name -> line -> estimate in `unit`; None: its run is missing, NaN: its metric is undefined, both are
    written on the line.  zero: draws a rule there, and fills only the dots whose interval excludes it.  band: half the
    width of a grey strip around it, say of what chance alone does.  A legend where there are two series or more.

    Raises PNIError for no lines, a value that is infinite, or low > high.
    """
    lines = list(dict.fromkeys(line for values in series.values() for line in values))
    if not lines:
        raise PNIError("a forest plot without lines: give one comparison or more")
    middle = 0.0 if zero is None else zero
    if math.isfinite(band) and band > 0:
        ax.axvspan(middle - band, middle + band, color="#e4e4e4", zorder=0, linewidth=0)
    if zero is not None:
        ax.axvline(zero, color="black", linewidth=0.8, zorder=1)
    step = 0.62 / max(1, len(series))
    for k, (name, values) in enumerate(series.items()):
        color, mark = COLORS[k % len(COLORS)], _MARKS[k % len(_MARKS)]
        ax.plot([], [], mark, color=color, label=name)
        for line, estimate in values.items():
            y = lines.index(line) + (k - (len(series) - 1) / 2) * step
            if estimate is None or math.isnan(estimate[0]):
                words = "run missing" if estimate is None else "undefined"
                ax.annotate(words, (0, y), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                            va="center", fontsize=7, color=color)  # fmt: skip
                continue
            value, low, high = estimate
            if not math.isfinite(value) or low > high:
                raise PNIError(f"{line!r}: {estimate} is no (value, low, high): give finite values, low <= high")
            if math.isfinite(low) and math.isfinite(high):
                ax.plot([low, high], [y, y], color=color, linewidth=1.8, solid_capstyle="butt", zorder=2)
            hollow = zero is not None and not excludes(estimate, zero)
            ax.plot(value, y, mark, color=color, markerfacecolor="white" if hollow else color, markersize=5.5, zorder=3)
    ax.set_yticks(range(len(lines)), lines, fontsize=8)
    ax.set_ylim(len(lines) - 0.5, -0.5)
    between = [y - 0.5 for y in range(1, len(lines))]
    ax.hlines(between, 0, 1, transform=ax.get_yaxis_transform(), color="#eeeeee", linewidth=0.6, zorder=0)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(unit)
    if len(series) > 1:
        ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, frameon=False)
    return ax
