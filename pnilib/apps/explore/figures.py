"""The explorer's views, each from one function: the page shows it, PNG and HTML files and notebooks hold it.

Samples, threshold and comparison are here, the views of one image and one pixel in `figure_image`, `figure_pixel`.
Each function takes an opened run, makes a `View`, because it decides on its panels, and never saves.
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
from pnilib.apps.explore.figure_pixel import answer_pixel, draw_answer, draw_pixel
from pnilib.apps.explore.figure_sheets import Tile, draw_sheet
from pnilib.apps.explore.run import Exploration
from pnilib.apps.explore.samples import changed_sides, counts, samples
from pnilib.apps.explore.view import ImageRef, View
from pnilib.apps.explore.words import samples_words, sides_words, threshold_words
from pnilib.errors import PNIError
from pnilib.metrics.ranking import precision_recall_curve, roc_curve
from pnilib.plots.curves import histogram_edges
from pnilib.plots.distributions import COLORS
from pnilib.plots.labels import file_label, shortened, title, write
from pnilib.store.text import many

__all__ = [
    "NAMED_THRESHOLDS",
    "OUTCOME_STYLES",
    "answer_pixel",
    "draw_answer",
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
NAMED_THRESHOLDS = {"F1-optimal (test)": "i_threshold", "normal-only": "normal_threshold"}
"""Metrics of a run that are thresholds, by what a reader knows them as."""
CHANGE_STYLES = {"now wrong": ("wrong", COLORS[1], "X"), "now right": ("right", COLORS[0], "o")}
"""Word, colour and mark of a sample that changed sides."""
_GROUPS = (("normal", 0, COLORS[2], "///"), ("defective", 1, COLORS[4], "\\\\\\"), ("unknown", -1, "#888888", ""))


def draw_threshold(opened: Exploration, label: str, thresholds: dict[str, float] | None = None) -> View:
    """Scores of normal and defective images at a threshold, what it reaches on the ROC and PR curve, and its errors.

    thresholds: by category key, else the default.  One category is drawn in its score units; several, whose scores
    have no common unit, as distances to their own threshold in standard deviations, and their curves move all
    thresholds together.  Beside PNI on MVTec AD the paper's errors.  Raises PNIError for a result that nobody has.
    """
    table = samples(opened, label, thresholds)
    single = table["category"].nunique() == 1
    threshold = float(table["threshold"].iloc[0]) if single else 0.0
    values, labels = table["score" if single else "margin"].to_numpy(np.float64), table["label"].to_numpy(np.int64)
    figure = Figure(figsize=(13, 3.5))
    histogram, roc, pr = (
        figure.add_axes((left / 13, 0.28, width / 13, 0.58)) for left, width in ((0.6, 6.2), (7.6, 2.1), (10.6, 2.1))
    )
    _draw_histogram(values, labels, threshold, histogram)
    _draw_named_thresholds(opened, label, table, histogram)
    histogram.set_xlabel("image score" if single else "score minus its category's threshold, standard deviations")
    known = (labels >= 0) & np.isfinite(values)
    both = 0 < labels[known].sum() < known.sum()
    missing = "undefined: no image\nof known label" if not known.any() else (
        f"undefined: no {'normal' if labels[known].all() else 'defective'} image"
    )  # fmt: skip
    total = counts(table)
    for ax, name, x_label, y_label, point in (
        (roc, "ROC", "FPR", "TPR = 1 - FNR", (total.fpr, 1 - total.fnr)),
        (pr, "Precision and recall", "recall = TPR", "precision", (1 - total.fnr, total.precision)),
    ):
        title(ax, name if single else f"{name},\nall thresholds moved together", 9)
        ax.set(
            xlabel=x_label,
            ylabel=y_label,
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
            xticks=(0, 0.5, 1),
            yticks=(0, 0.5, 1),
        )
        if not both:
            write(ax, 0.5, 0.5, missing, ha="center", va="center", fontsize=9)
        elif all(math.isfinite(x) for x in point):
            ax.plot(*point, "o", color=COLORS[1], markeredgecolor="white", markersize=10, zorder=3, clip_on=False)
    if both:
        curve, steps = roc_curve(values[known], labels[known]), precision_recall_curve(values[known], labels[known])
        roc.plot(curve.fpr, curve.tpr, color="black", linewidth=1.5)
        pr.plot(steps.recall, steps.precision, color="black", linewidth=1.5, drawstyle="steps-pre")
    return View(threshold_words(opened, label, table), figure)


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


def _draw_named_thresholds(opened: Exploration, label: str, table: pd.DataFrame, ax: Axes) -> None:
    """Along the top, where each category's F1-optimal (test) and normal-only threshold lie."""
    for (name, metric), mark, color in zip(NAMED_THRESHOLDS.items(), "vD", (COLORS[1], COLORS[3]), strict=True):
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
    ax.legend(fontsize=8.5, loc="upper left", bbox_to_anchor=(-0.07, -0.2), ncols=6, frameon=False)


def draw_samples(opened: Exploration, table: pd.DataFrame, *, columns: int = 9, most: int = 24, first: int = 0) -> View:
    """Thumbnails in the order of a table of `samples`, at most `most` from row `first` on, each with its outcome, file,
    kind of defect and score; over several categories also its category and its threshold.

    Raises PNIError for less than one column or image.
    """
    _require_some(most)
    several = table["category"].nunique() > 1
    tiles: list[Tile] = []
    for row in table.iloc[first : first + most].to_dict("records"):
        category, file, kind = opened.categories[row["category"]], file_label(row["image"]), str(row["defect_type"])
        sign = "≥" if row["score"] >= row["threshold"] else "<"
        lines = [row["outcome"], f"{row['score']:.4g}" + (f" {sign} {row['threshold']:.4g}" if several else ""), file]
        lines += [] if file.startswith(f"{kind}/") else [shortened(kind, 24)]
        lines += [shortened(category.name, 24)] if several else []
        name = f"{category.key}: {row['image']}"
        tiles.append(Tile(category, int(row["index"]), *OUTCOME_STYLES[row["outcome"]], lines, name))
    return draw_sheet(tiles, columns, samples_words(table, first, len(tiles)), nothing="no samples to show")


def draw_changes(
    opened: Exploration,
    ours: str,
    base: str,
    thresholds: Sequence[dict[str, float]] = ({}, {}),
    *,
    columns: int = 6,
    most: int = 24,
) -> View:
    """Both scores of each image with both thresholds, and a sheet of those that changed sides, "now wrong" first.

    thresholds: of `ours` and of `base`, else the default ones.  Several categories are drawn as in `draw_threshold`.
    Raises PNIError when no category has both results.
    """
    _require_some(most)
    table = changed_sides(opened, ours, base, thresholds)
    changed = table[table["changed"] != ""]
    several = table["category"].nunique() > 1
    tiles: list[Tile] = []
    for row in changed.head(most).to_dict("records"):
        letters, color, _ = CHANGE_STYLES[row["changed"]]
        category = opened.categories[row["category"]]
        before, after = (OUTCOME_STYLES[row[f"outcome_{which}"]][0] for which in ("base", "ours"))
        lines = [f"{row['changed']}: {before} to {after}", f"{row['score_base']:.4g} to {row['score_ours']:.4g}"]
        lines += [file_label(row["image"])] + ([shortened(category.name, 24)] if several else [])
        name = f"{category.key}: {row['image']}"
        tiles.append(Tile(category, int(row["index"]), letters, color, lines, name))
    words = sides_words(table, ours, base, len(tiles))
    height = 8.0 if tiles else 4.4
    sheet = draw_sheet(tiles, columns, words, left=4.9, least=height, nothing="no image changed sides")
    width, height = sheet.figure.get_size_inches()
    bottoms = (3.8, 7.5) if tiles else (3.8,)
    panels = [sheet.figure.add_axes((0.75 / width, 1 - y / height, 3.9 / width, 3.0 / height)) for y in bottoms]
    points, images = (
        _scatter_points(table),
        [ImageRef(*key) for key in zip(table["category"], table["index"], strict=True)],
    )
    for k, ax in enumerate(panels):
        _draw_scatter(table, points, ax, near=k == 1)
        for side, name in ((ax.set_xlabel, base), (ax.set_ylabel, ours)):
            side(f"{'margin' if several else 'image score'} of {shortened(name, 30)}", parse_math=False)
    return View(words, sheet.figure, sheet.fault, sheet.cards, [(ax, points, images) for ax in panels])


def _require_some(most: int) -> None:
    if most < 1:
        raise PNIError(f"most={most}: give 1 or more")


def _scatter_points(table: pd.DataFrame) -> Float[ndarray, "n 2"]:
    """Scores of base and ours; over several categories their margins in standard deviations."""
    points = []
    for which in ("base", "ours"):
        values = table[f"score_{which}"]
        if table["category"].nunique() > 1:
            spread = values.groupby(table["category"]).transform(lambda s: float(s.std(ddof=0)) or 1.0)
            values = (values - table[f"threshold_{which}"]) / spread
        points.append(values.to_numpy(np.float64))
    return np.stack(points, 1)


def _draw_scatter(table: pd.DataFrame, points: Float[ndarray, "n 2"], ax: Axes, *, near: bool = False) -> None:
    """base to the right, ours upwards.  near: only what surrounds the images that changed sides, without a legend."""
    several = table["category"].nunique() > 1
    thresholds = [0.0 if several else float(table[f"threshold_{which}"].iloc[0]) for which in ("base", "ours")]
    changed = (table["changed"] != "").to_numpy()
    for (name, label, color, _), mark in zip(_GROUPS, "o^s", strict=True):
        group = points[~changed & (table["label"] == label).to_numpy()]
        if len(group):
            ax.plot(*group.T, mark, color=color, markersize=3.5, alpha=0.7, label=f"{name}, no change")
    for change, (_, color, mark) in CHANGE_STYLES.items():
        group = points[(table["changed"] == change).to_numpy()]
        ax.plot(*group.T, mark, color=color, markeredgecolor="black", markeredgewidth=0.5, markersize=6,
                label=f"{change}: {len(group)}", zorder=3)  # fmt: skip
    for line, at in zip((ax.axvline, ax.axhline), thresholds, strict=True):
        if math.isfinite(at):
            line(at, color="black", linewidth=1)
    if near:
        for k, at in enumerate(thresholds):
            ends = [float(v) for v in (*points[changed, k], at) if math.isfinite(v)] or [0.0]
            room = 0.25 * (max(ends) - min(ends)) or 1.0
            (ax.set_ylim if k else ax.set_xlim)(min(ends) - room, max(ends) + room)
    else:
        unit = "score minus threshold, standard deviations" if several else "lines: thresholds"
        ax.legend(fontsize=7, title=unit, title_fontsize=7, alignment="left", loc="lower left", ncols=2, frameon=False,
                  bbox_to_anchor=(-0.02, 1.0))  # fmt: skip
