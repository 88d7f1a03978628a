"""The explorer's views without a browser: what its screen shows, as figures for notebooks, pages and PNG files.

Samples, threshold and comparison are here, the views of one image and one pixel in `figure_image`, `figure_pixel`.
Each function takes an opened run, makes a `Figure`, because it decides on its panels, and never saves.
What cannot be shown (the data set is elsewhere, a class is empty) is said in its place.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from pnilib.apps.explore.figure_image import draw_image
from pnilib.apps.explore.figure_pixel import draw_pixel
from pnilib.apps.explore.figure_sheets import Tile, draw_sheet, many
from pnilib.apps.explore.opened import Exploration
from pnilib.apps.explore.samples import PAPER_ERRORS, category_counts, changed_sides, counts, is_mvtec, samples
from pnilib.metrics.ranking import precision_recall_curve, roc_curve
from pnilib.plots.curves import histogram_edges
from pnilib.plots.distributions import COLORS
from pnilib.plots.labels import file_label, shortened, suptitle, title, write, write_on

__all__ = [
    "OUTCOME_STYLES",
    "draw_changes",
    "draw_image",
    "draw_pixel",
    "draw_samples",
    "draw_threshold",
]

OUTCOME_STYLES = {
    "false positive": ("FP", COLORS[1]),
    "false negative": ("FN", COLORS[0]),
    "true positive": ("TP", COLORS[2]),
    "true negative": ("TN", "#777777"),
    "unknown": ("?", "#aaaaaa"),
}
"""Letters and colour of each outcome; the letters always stand with the colour."""
CHANGE_STYLES = {"now wrong": ("wrong", COLORS[1], "X"), "now right": ("right", COLORS[0], "o")}
"""Word, colour and mark of a sample that changed sides."""
_GROUPS = (("normal", 0, COLORS[2], "///"), ("defective", 1, COLORS[4], "\\\\\\"), ("unknown", -1, "#888888", ""))


def draw_threshold(opened: Exploration, label: str, thresholds: dict[str, float] | None = None) -> Figure:
    """Scores of normal and defective images at a threshold, what it reaches on the ROC and PR curve, and its errors.

    thresholds: by category key, else the default.  One category is drawn in its score units; several, whose scores
    have no common unit, as distances to their own threshold in standard deviations, and their curves move all
    thresholds together.  Beside PNI on MVTec AD the paper's errors.  Raises PNIError for a result that nobody has.
    """
    table = samples(opened, label, thresholds)
    keys = list(dict.fromkeys(table["category"]))
    one = len(keys) == 1
    threshold = float(table["threshold"].iloc[0]) if one else 0.0
    values, labels = table["score" if one else "margin"].to_numpy(np.float64), table["label"].to_numpy(np.int64)
    found = counts(table)
    figure = Figure(figsize=(15, 4.3), layout="constrained")
    histogram, roc, pr, text = figure.subplots(1, 4, width_ratios=[2.1, 1.15, 1.15, 1.25])
    _draw_histogram(values, labels, threshold, histogram)
    _draw_markers(opened, label, table, histogram)
    histogram.set_xlabel("image score" if one else "score minus its category's threshold, standard deviations")
    known = (labels >= 0) & np.isfinite(values)
    both = 0 < labels[known].sum() < known.sum()
    curve = roc_curve(values[known], labels[known]) if both else None
    steps = precision_recall_curve(values[known], labels[known]) if both else None
    missing = "undefined: no image\nof known label" if not known.any() else (
        f"undefined: no {'normal' if labels[known].all() else 'defective'} image"
    )  # fmt: skip
    rest = "" if one else ",\nall thresholds moved together"
    title(roc, f"ROC{rest}")
    roc.set(xlabel="FPR", ylabel="TPR = 1 - FNR")
    title(pr, f"Precision and recall{rest}")
    pr.set(xlabel="recall = TPR", ylabel="precision")
    _draw_curve(None if curve is None else (curve.fpr, curve.tpr), (found.fpr, 1 - found.fnr), roc, missing)
    _draw_curve(None if steps is None else (steps.recall, steps.precision), (1 - found.fnr, found.precision), pr,
                missing, drawstyle="steps-pre")  # fmt: skip
    _write_counts(opened, label, table, text)
    who = opened.categories[keys[0]].name if one else f"{len(keys)} categories"
    at = f"threshold {threshold:.4g}" if one else "each at its own threshold"
    errors = f"{many(found.fp, 'false positive')} and {many(found.fn, 'false negative')}"
    suptitle(figure, f"{label}, {who}: {errors} in {many(len(table), 'image')}, {at}")
    return figure


def _draw_histogram(values: Float[ndarray, " n"], labels: Int64[ndarray, " n"], threshold: float, ax: Axes) -> None:
    """Counts; the threshold is an edge, so that what stands right of it is called defective."""
    finite = np.isfinite(values)
    if finite.any():
        low, high = float(values[finite].min()), float(values[finite].max())
        edges = histogram_edges(low, high, threshold if low <= threshold <= high else math.nan, 40)
        for name, label, color, hatch in _GROUPS:
            if n := int((labels == label).sum()):
                in_bins = np.histogram(values[finite & (labels == label)], edges)[0]
                ax.stairs(in_bins, edges, fill=True, color=color, alpha=0.35)
                ax.stairs(in_bins, edges, color=color, linewidth=1.3, hatch=hatch, label=f"{name}: {n}")
    if not finite.all():
        write(ax, 0.5, 0.5, f"{many(int((~finite).sum()), 'image')} without a finite threshold: not drawn",
              ha="center", fontsize=8)  # fmt: skip
    if math.isfinite(threshold):
        ax.axvline(threshold, color="black", linewidth=1.6, label="threshold")
    title(ax, f"threshold {threshold:.4g}: called defective to the right" if math.isfinite(threshold) else (
        f"threshold {threshold}: no finite one"
    ))  # fmt: skip
    ax.set(ylabel="images", ylim=(0, ax.get_ylim()[1] * 1.12))


def _draw_markers(opened: Exploration, label: str, table: pd.DataFrame, ax: Axes) -> None:
    """Along the top, where each category's F1-optimal (test) and normal-only threshold lie."""
    for name, metric, mark, color in (
        ("F1-optimal on the test images", "i_threshold", "v", COLORS[1]),
        ("from normal images only", "normal_threshold", "D", COLORS[3]),
    ):
        at, undefined = [], 0
        parts = list(table.groupby("category", sort=False))
        for key, part in parts:
            value = opened.categories[str(key)].results[label].metric(metric)
            if len(parts) > 1:
                value = (value - float(part["threshold"].iloc[0])) / (float(part["score"].std(ddof=0)) or 1.0)
            at += [value] if math.isfinite(value) else []
            undefined += not math.isfinite(value)
        text = f"{name}: {at[0]:.4g}" if len(parts) == 1 and at else name
        if undefined:
            text += ": undefined" if not at else f" (undefined in {many(undefined, 'category', 'categories')})"
        ax.plot(at, [0.965] * len(at), mark, color=color, markeredgecolor="white", markersize=9, label=text, alpha=0.85,
                transform=ax.get_xaxis_transform(), zorder=4)  # fmt: skip
    if ax.get_legend_handles_labels()[0]:
        ax.figure.legend(*ax.get_legend_handles_labels(), fontsize=9, loc="outside lower left", ncols=6, frameon=False)


def _draw_curve(
    curve: tuple[Float[ndarray, " k"], Float[ndarray, " k"]] | None,
    point: tuple[float, float],
    ax: Axes,
    missing: str,
    drawstyle: str = "default",
) -> None:
    """A curve in the unit square and the point that the threshold reaches; `missing`: said where there is none."""
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    ax.grid(color="#e4e4e4", linewidth=0.6)
    if curve is None:
        write(ax, 0.5, 0.5, missing, ha="center", va="center", fontsize=9)
        return
    ax.plot(*curve, color="black", linewidth=1.5, drawstyle=drawstyle)  # type: ignore[arg-type]
    if all(math.isfinite(x) for x in point):
        ax.plot(*point, "o", color=COLORS[1], markeredgecolor="white", markersize=10, zorder=3, clip_on=False)


def _write_counts(opened: Exploration, label: str, table: pd.DataFrame, ax: Axes) -> None:
    """Confusion, rates, the paper's errors where they compare, and the errors of each category."""
    ax.set_axis_off()
    found = counts(table)
    n_normal, n_defective = found.fp + found.tn, found.fn + found.tp
    lines = [
        f"{'':<10}{'called':^20}",
        f"{'':<10}{'normal':>10}{'defective':>11}",
        f"{'normal':<10}{found.tn:>10}{found.fp:>8} FP",
        f"{'defective':<10}{found.fn:>7} FN{found.tp:>11}",
        "",
        f"F1 {_percent(found.f1)}, FPR {_percent(found.fpr)},",
        f"FNR {_percent(found.fnr)}",
    ]
    if unknown := int((table["outcome"] == "unknown").sum()):
        lines.append(f"{many(unknown, 'image')} of unknown label: not counted")
    names = list(dict.fromkeys(table["category"]))
    shown = [opened.categories[name] for name in names]
    if all(is_mvtec(c) and c.results[label].setting in ("PNI", "PNI (ensemble)") for c in shown):
        theirs = PAPER_ERRORS
        lines += [
            "",
            f"here:  {found.fp} FP of {n_normal:,}, {found.fn} FN of {n_defective:,}",
            f"paper: {theirs['fp']} FP of {theirs['n_normal']:,}, {theirs['fn']} FN of {theirs['n_defective']:,}",
            "       (ensemble, 15 categories)",
        ]
    if len(names) > 1:
        lines += ["", f"{'':<13}{'FP':>4}{'FN':>4}"]
        lines += [
            f"{shortened(c.name, 12):<13}{row['fp']:>4}{row['fn']:>4}"
            for c, row in zip(shown, category_counts(opened, table).to_dict("records"), strict=True)
        ]
    size = 9 if len(lines) < 20 else 6.5
    write(ax, 0, 1, "\n".join(lines), family="monospace", fontsize=size, va="top")


def draw_samples(opened: Exploration, table: pd.DataFrame, *, columns: int = 8, most: int = 24) -> Figure:
    """Thumbnails in the order of a table of `samples`, at most `most`, each with its score against its threshold and
    its outcome; the caption says how many more there are.

    Raises PNIError for less than one column or image.
    """
    several = table["category"].nunique() > 1
    tiles: list[Tile] = []
    for row in table.head(max(0, most)).to_dict("records"):
        letters, color = OUTCOME_STYLES[row["outcome"]]
        sign = "≥" if row["score"] >= row["threshold"] else "<"
        category = opened.categories[row["category"]]
        lines = [row["outcome"], f"{row['score']:.4g} {sign} {row['threshold']:.4g}", file_label(row["image"])]
        lines += [shortened(category.name, 24)] if several else []
        tiles.append(Tile(category, int(row["index"]), letters, color, lines))
    more = len(table) - len(tiles)
    caption = f"{many(len(table), 'sample')}; below each: its score against its threshold"
    if more:
        caption = f"{len(tiles)} of {caption}; {more} more not shown"
    return draw_sheet(tiles, columns, caption, most)


def draw_changes(
    opened: Exploration,
    ours: str,
    base: str,
    thresholds: Sequence[dict[str, float]] = ({}, {}),
    *,
    columns: int = 6,
    most: int = 18,
) -> Figure:
    """Both scores of each image with both thresholds, and a sheet of those that changed sides, "now wrong" first.

    thresholds: of `ours` and of `base`, else the default ones.  Several categories are drawn as in `draw_threshold`.
    Raises PNIError when no category has both results.
    """
    table = changed_sides(opened, ours, base, thresholds)
    changed = table[table["changed"] != ""]
    several = table["category"].nunique() > 1
    tiles: list[Tile] = []
    for row in changed.head(max(0, most)).to_dict("records"):
        letters, color, _ = CHANGE_STYLES[row["changed"]]
        category = opened.categories[row["category"]]
        before, after = (OUTCOME_STYLES[row[f"outcome_{which}"]][0] for which in ("base", "ours"))
        lines = [f"{row['changed']}: {before} to {after}", file_label(row["image"])]
        lines += [shortened(category.name, 24)] if several else []
        tiles.append(Tile(category, int(row["index"]), letters, color, lines))
    caption = f"{many(len(changed), 'image')} changed sides" if tiles else "no image changed sides"
    if len(changed) > len(tiles):
        caption = f"{len(tiles)} of {caption}; {len(changed) - len(tiles)} more not shown"
    height = 7.6 if tiles else 4.4
    figure = draw_sheet(tiles, columns, caption, most, left=4.9, least=height, top=0.4)
    width, height = figure.get_size_inches()
    panels = [figure.add_axes((0.75 / width, (height - y) / height, 3.9 / width, 3.0 / height)) for y in (3.5, 7.1)]
    for k, ax in enumerate(panels):
        _draw_scatter(table, ax, near=k == 1)
        for side, name in ((ax.set_xlabel, base), (ax.set_ylabel, ours)):
            side(f"{'margin' if several else 'image score'} of {shortened(name, 30)}", parse_math=False)
    if not tiles:
        panels[1].remove()
    wrong, right = ((table["changed"] == kind).sum() for kind in CHANGE_STYLES)
    write_on(figure, 0.1 / width, 1 - 0.1 / height, f"{ours} against {base}: {right} now right, {wrong} now wrong, of "
             f"{many(len(table), 'image')}", va="top", fontsize=11)  # fmt: skip
    return figure


def _draw_scatter(table: pd.DataFrame, ax: Axes, *, near: bool = False) -> None:
    """base to the right, ours upwards; several categories: their margins in standard deviations.

    near: only what surrounds the images that changed sides, without a legend.
    """
    several = table["category"].nunique() > 1
    parts = {}
    for which in ("base", "ours"):
        score, threshold = table[f"score_{which}"], table[f"threshold_{which}"]
        if several:
            spread = score.groupby(table["category"]).transform(lambda s: float(s.std(ddof=0)) or 1.0)
            parts[which] = ((score - threshold) / spread).to_numpy(), 0.0
        else:
            parts[which] = score.to_numpy(), float(threshold.iloc[0])
    (x, x_at), (y, y_at) = parts["base"], parts["ours"]
    changed = (table["changed"] != "").to_numpy()
    for (name, label, color, _), mark in zip(_GROUPS, "o^s", strict=True):
        group = ~changed & (table["label"] == label).to_numpy()
        if group.any():
            ax.plot(x[group], y[group], mark, color=color, markersize=3.5, alpha=0.7, label=f"{name}, no change")
    for kind, (_, color, mark) in CHANGE_STYLES.items():
        group = (table["changed"] == kind).to_numpy()
        ax.plot(x[group], y[group], mark, color=color, markeredgecolor="black", markeredgewidth=0.5, markersize=6,
                label=f"{kind}: {group.sum()}", zorder=3)  # fmt: skip
    for line, at in ((ax.axvline, x_at), (ax.axhline, y_at)):
        if math.isfinite(at):
            line(at, color="black", linewidth=1)
    if near:
        for values, at, limit in ((x, x_at, ax.set_xlim), (y, y_at, ax.set_ylim)):
            ends = [float(v) for v in (*values[changed], at) if math.isfinite(v)] or [0.0]
            room = 0.25 * (max(ends) - min(ends)) or 1.0
            limit(min(ends) - room, max(ends) + room)
    else:
        unit = "score minus threshold, standard deviations" if several else "lines: thresholds"
        ax.legend(fontsize=7, title=unit, title_fontsize=7, alignment="left", loc="upper left")


def _percent(share: float) -> str:
    return "undefined" if math.isnan(share) else f"{100 * share:.2f} %"
