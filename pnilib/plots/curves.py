"""Pixel precision-recall curves and histograms of pixel scores (PNI Figures 5, 7 and S4).

`Axes` in, `Axes` out; nothing is read, computed from images or saved.  Rates and F1 come in as fractions and are
written in percent.  Both figures call a pixel anomalous where its score >= threshold.
"""

from collections.abc import Mapping
from itertools import cycle

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from numpy import ndarray

from pnilib.errors import PNIError
from pnilib.plots.distributions import COLORS

__all__ = ["SETTING_STYLES", "draw_pixel_histogram", "draw_pr_curves", "histogram_edges"]

SETTING_STYLES: dict[str, tuple[str, str]] = {
    "A": (COLORS[4], ":"),
    "B": (COLORS[5], "-."),
    "E": (COLORS[2], "--"),
    "PNI": (COLORS[1], "-"),
    "PNI (ensemble)": (COLORS[0], "-"),
    "released": (COLORS[3], "--"),
}
"""Colour and line style of a setting, the same in every figure; other names take theirs in order of appearance."""

_OTHERS = (("#332288", "-"), ("#882255", "--"), ("#666666", "-."), ("#999933", ":"))
_NORMAL, _DEFECTIVE, _THRESHOLD = COLORS[2], COLORS[1], COLORS[0]
_ROOM = 0.7  # of the height is for the densities, the rest for the legend
_ISO_F1 = (0.2, 0.4, 0.6, 0.8, 0.9)


def draw_pr_curves(
    curves: Mapping[str, tuple[Float[ndarray, " _k"], Float[ndarray, " _k"], float]], ax: Axes, *, title: str = ""
) -> Axes:
    """Precision over recall, one curve a setting: name -> (recall rising, precision, F1-max), all in [0, 1].

    The legend gives F1-max in percent beside each name, "undefined" where it is NaN or the curve has no point.  A dot
    marks the point of the curve with the largest F1; grey lines join points of equal F1.  The curve is the step curve
    whose area is the average precision.  Raises PNIError when recall and precision differ in length.

    Source: PNI Figures 5 and S4.
    """
    _draw_iso_f1(ax)
    others = cycle(_OTHERS)
    for name, (recall, precision, f1_max) in curves.items():
        if len(recall) != len(precision):
            raise PNIError(f"curve {name!r}: {len(recall)} recalls, {len(precision)} precisions: give one a point")
        color, style = SETTING_STYLES[name] if name in SETTING_STYLES else next(others)
        known = np.isfinite(recall) & np.isfinite(precision)
        x, y = recall[known], precision[known]
        defined = len(x) > 0 and np.isfinite(f1_max)
        label = f"{name}   {100 * f1_max:.2f}" if defined else f"{name}   undefined"
        ax.plot(x, y, style, color=color, linewidth=1.7, drawstyle="steps-pre", label=label)
        if defined:
            best = int(np.argmax(2 * x * y / np.maximum(x + y, 1e-300)))
            ax.plot(x[best], y[best], "o", color=color, markeredgecolor="white", markersize=7, zorder=3)
    ax.set(xlabel="pixel recall", ylabel="pixel precision", xlim=(0, 1), ylim=(0, 1.02))
    if curves:
        ax.legend(fontsize=8, loc="lower left", title="F1-max, %", title_fontsize=8, alignment="left")
    ax.set_title(title, fontsize=10)
    return ax


def _draw_iso_f1(ax: Axes) -> None:
    """Lines of equal F1, precision = F1 r / (2 r - F1), named at recall 1 outside the axis."""
    for f1 in _ISO_F1:
        recall = np.linspace(f1 / (2 - f1), 1, 100)  # from precision 1 on
        ax.plot(recall, f1 * recall / (2 * recall - f1), color="#bbbbbb", linewidth=0.7, zorder=0)
        ax.annotate(f"F1 {100 * f1:.0f}", (1, f1 / (2 - f1)), xytext=(3, 0), textcoords="offset points",
                    va="center", fontsize=7, color="#777777", annotation_clip=False)  # fmt: skip


def histogram_edges(low: float, high: float, threshold: float, n_bins: int = 100) -> Float[ndarray, " edges"]:
    """Edges of equal bins for all scores `low` ... `high`: `n_bins` or one more, laid out from the threshold.

    The threshold is an edge exactly and the last edge lies above `high`, so that `numpy.histogram` counts each score
    once, and those at or above the threshold to its right.  Without a threshold (NaN), laid out from `low`.  Raises
    PNIError for bounds that are not finite or in the wrong order, or fewer than 1 bin.
    """
    if not (np.isfinite(low) and np.isfinite(high) and low <= high and n_bins >= 1):
        raise PNIError(f"{n_bins} bins from {low} to {high}: give finite bounds in order and 1 bin or more")
    start = float(low if np.isnan(threshold) else threshold)
    low, high = min(low, start), max(high, start)
    width = max((high - low) / n_bins, 1e-6 * max(abs(low), abs(high)), 1e-12)  # one value is a span too
    below, above = int(np.ceil((start - low) / width)), int((high - start) // width) + 1
    below += start - below * width > low  # rounding
    above += start + above * width <= high
    return start + width * np.arange(-below, above + 1)


def draw_pixel_histogram(
    edges: Float[ndarray, " b_plus_1"],
    normal: Int[ndarray, " b"],
    defective: Int[ndarray, " b"],
    threshold: float,
    ax: Axes,
    *,
    title: str = "",
) -> Axes:
    """Distributions of the scores of normal (green) and anomalous (red) pixels, and the F1-optimal threshold (blue).

    edges, (b + 1,), rising, span all scores and hold the threshold, but not as the last (`histogram_edges`); normal
    and defective, (b,), are counts.  Drawn as densities, each of area 1, on a linear axis: there the hatched areas
    *are* the rates, the false positives right of the threshold and the false negatives left of it, which a
    logarithmic axis would hide, and normal pixels are many but do not dominate.  The tall peak of the normal pixels
    is cut off at four times that of the anomalous ones, and its height written there.  The title ends with FPR and
    FNR in percent, "undefined" for a class without pixels.  With a NaN threshold there are no rates.

    Raises PNIError for edges that do not rise, counts that do not fit them or are negative, or a threshold that is
    not the lower edge of a bin.  Source: PNI Figure 7.
    """
    _checked_bins(edges, normal, defective, threshold)
    above = edges[:-1] >= threshold
    rates = {"FPR": _share(normal, above), "FNR": _share(defective, ~above)}
    widths = np.diff(edges)
    densities = [counts / (max(1, counts.sum()) * widths) for counts in (normal, defective)]
    peaks = [float(density.max()) for density in densities]
    top = 4 * peaks[1] if 0 < 4 * peaks[1] < peaks[0] else max(peaks) or 1.0
    errors = (above, ~above)
    looks = ((_NORMAL, "///"), (_DEFECTIVE, "\\\\\\"))
    names = ("normal", "anomalous")
    wrongs = ("false positives", "false negatives")
    for k, counts in enumerate((normal, defective)):
        if counts.sum() == 0:
            ax.plot([], [], color=looks[k][0], label=f"no {names[k]} pixel")
            continue
        density = np.minimum(densities[k], top)
        label = f"{names[k]}: {counts.sum():,} px"
        ax.stairs(density, edges, color=looks[k][0], alpha=0.3, fill=True, label=label)
        ax.stairs(density, edges, color=looks[k][0], linewidth=1.3)
        if not np.isnan(threshold):
            wrong = np.where(errors[k], density, 0.0)
            ax.stairs(wrong, edges, fill=True, facecolor="none", edgecolor=looks[k][0], hatch=looks[k][1],
                      linewidth=0, label=wrongs[k])  # fmt: skip
    if not np.isnan(threshold):
        ax.axvline(threshold, ymax=_ROOM, color=_THRESHOLD, linewidth=1.6, label=f"threshold {threshold:.3g}")
    if peaks[0] > top:
        at = int(densities[0].argmax())
        ax.annotate(f"↑ {peaks[0]:.3g}", (float(edges[at : at + 2].mean()), top), xytext=(3, 2), fontsize=8,
                    textcoords="offset points", color=_NORMAL, ha="left", va="bottom")  # fmt: skip
    ax.set(xlabel="anomaly score of a pixel", ylabel="density", xlim=(edges[0], edges[-1]), ylim=(0, top / _ROOM))
    ax.legend(fontsize=8, loc="upper center", ncols=2, frameon=False)
    shown = "no threshold" if np.isnan(threshold) else ", ".join(f"{n} {_percent(v)}" for n, v in rates.items())
    ax.set_title(f"{title}\n{shown}" if title else shown, fontsize=10)
    return ax


def _checked_bins(edges: ndarray, normal: ndarray, defective: ndarray, threshold: float) -> None:
    if len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise PNIError("the edges of the bins do not rise: give two or more, each above the one before")
    for name, counts in (("normal", normal), ("defective", defective)):
        if counts.shape != (len(edges) - 1,) or (counts < 0).any():
            raise PNIError(f"{name}: {len(counts)} counts for {len(edges) - 1} bins, or negative: give one count a bin")
    if not np.isnan(threshold) and threshold not in edges[:-1]:
        raise PNIError(
            f"the threshold {threshold:g} is not the lower edge of a bin: make the edges with histogram_edges"
        )


def _share(counts: Int[ndarray, " b"], chosen: ndarray) -> float:
    return float(counts[chosen].sum() / counts.sum()) if counts.sum() else float("nan")


def _percent(share: float) -> str:
    return "undefined" if np.isnan(share) else f"{100 * share:.2f} %"
