"""Pictures of printed tables: cells as printed on colour, misprints framed; recomputed averages; numbers printed twice.

`Axes` in, `Axes` out; nothing is saved.  A frame around a cell means that its note speaks of a misprint (red, solid)
or of a cell that the conversion to text lost (black, dotted).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.patches import Rectangle
from pandas.io.formats.style import Styler

from pnilib.errors import PNIError
from pnilib.plots.distributions import COLORS
from pnilib.plots.maps import label_table
from pnilib.published import best_two, note_kinds

__all__ = ["draw_averages", "draw_gains", "draw_pairs", "draw_printed", "style_printed"]

MISPRINTS = {"average", "twice", "see"}


@dataclass(frozen=True)
class _Grid:
    """One printed table as frames of one shape: numbers, text as printed, notes, ranks (1 best, 2 second, 0)."""

    values: pd.DataFrame
    texts: pd.DataFrame
    notes: pd.DataFrame
    ranks: pd.DataFrame


def _grid(cells: pd.DataFrame, rows: str, columns: str, rank: str) -> _Grid:
    sides = [cells[names.split(",")].agg(" ".join, axis=1).str.strip() for names in (rows, columns)]
    named = cells.assign(row=sides[0], column=sides[1])
    if named.duplicated(["row", "column"]).any():
        raise PNIError(f"two cells in one place of {rows} x {columns}: choose one table and one metric")
    down, across = (list(side.unique()) for side in sides)
    values, texts, notes = (
        named.pivot(index="row", columns="column", values=one).reindex(index=down, columns=across)
        for one in ("value", "printed", "note")
    )
    ranks = values.apply(lambda line: pd.Series(best_two(line.tolist()), line.index), axis=1 if rank == "rows" else 0)
    return _Grid(values, texts.fillna(""), notes.fillna(""), ranks)


def draw_printed(
    cells: pd.DataFrame, ax: Axes, *, rows: str, columns: str, limits: tuple[float, float], rank: str = "rows"
) -> Axes:
    """Tidy cells as the printed table: text as printed (without its error), colour from the value between `limits`.

    `rows` and `columns` are columns of `cells`, or two of them joined by a comma.  Best bold, second best underlined,
    within each of the rows or of the columns (`rank`); averages take part as any other.  Raises PNIError when two cells
    fall into one place.
    """
    grid = _grid(cells, rows, columns, rank)
    ax.imshow(grid.values.to_numpy(float), cmap="cividis", vmin=limits[0], vmax=limits[1], aspect="auto")
    for (y, x), value in np.ndenumerate(grid.values.to_numpy(float)):
        ink = "white" if value < sum(limits) / 2 else "black"
        place, kinds = grid.ranks.iat[y, x], note_kinds(str(grid.notes.iat[y, x]))
        text = str(grid.texts.iat[y, x]).partition(" ")[0]
        weight = "bold" if place == 1 else "normal"
        ax.text(x, y, text, ha="center", va="center", fontsize=8, weight=weight, color=ink)
        if place == 2:
            ax.plot([x - 0.3, x + 0.3], [y + 0.32, y + 0.32], linewidth=0.9, color=ink)
        if kinds & (MISPRINTS | {"lost"}):
            edge, line = ("red", "-") if kinds & MISPRINTS else ("black", ":")
            ax.add_patch(Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, fill=False, edgecolor=edge, linestyle=line, lw=2))
    for axis, labels in ((ax.xaxis, grid.values.columns), (ax.yaxis, grid.values.index)):
        axis.set_ticks(range(len(labels)), [str(name) for name in labels], fontsize=8)
    ax.xaxis.tick_top()
    for label in ax.get_xticklabels():
        label.set(rotation=40, ha="left", rotation_mode="anchor")
    ax.tick_params(length=0)
    return ax


def style_printed(
    cells: pd.DataFrame, *, rows: str, columns: str, rank: str = "rows", name: str = "published"
) -> Styler:
    """The same table as text: best bold, second best underlined, misprints framed, notes under the mouse.

    `rank` may be "none".  `name` marks the table's style in the page and must differ from table to table.  Raises
    PNIError when two cells fall into one place.
    """
    grid = _grid(cells, rows, columns, rank)
    styles = grid.ranks.astype(object)
    for y, x in np.ndindex(styles.shape):
        kinds = note_kinds(str(grid.notes.iat[y, x]))
        place = 0 if rank == "none" else int(grid.ranks.to_numpy()[y, x])
        frame = "2px solid red" if kinds & MISPRINTS else "2px dotted" if "lost" in kinds else ""
        styles.iat[y, x] = ("", "font-weight: bold;", "text-decoration: underline;")[place] + (
            f"border: {frame};" if frame else ""
        )
    texts = grid.texts.rename_axis(None).rename_axis(None, axis=1)
    styles = styles.set_axis(texts.index).set_axis(texts.columns, axis=1)
    styler = texts.style.apply(lambda _: styles, axis=None)
    styler = styler.set_tooltips(grid.notes.set_axis(texts.index).set_axis(texts.columns, axis=1))
    return styler.set_uuid(name.lower().replace(" ", "_")).set_caption(name)


def draw_averages(checked: pd.DataFrame, ax: Axes) -> Axes:
    """Printed minus recomputed of `published.averages`, in units of the last printed digit, table by table."""
    tables = list(dict.fromkeys(checked["table"]))
    digits = checked["printed"].map(lambda text: len(text.partition(" ")[0].partition(".")[2]))
    units = checked["difference"] * 10.0**digits
    bad = checked["verdict"].isin(["differs", "truncated"])
    spread = checked.groupby("table").cumcount() / checked.groupby("table")["table"].transform("size") - 0.5
    x = checked["table"].map(tables.index) + 0.7 * spread
    ax.axhspan(-0.5, 0.5, color="#dddddd", label="half a unit: rounding")
    ax.plot(
        x[~bad],
        units[~bad],
        ".",
        color=COLORS[0],
        markersize=4,
        label="agrees (outside the band: only sub-averages are printed)",
    )
    ax.plot(x[bad], units[bad], "D", color="red", markersize=5, label="disagrees")
    ax.set_yscale("symlog", linthresh=1)
    ax.set_yticks([-100, -10, -1, 0, 1, 10, 100], ["-100", "-10", "-1", "0", "1", "10", "100"])
    ax.set_xticks(range(len(tables)), tables, rotation=40, ha="right", fontsize=8)
    ax.set_ylabel("printed - recomputed, units of the last digit")
    ax.legend(fontsize=8, loc="lower left")
    return ax


def draw_pairs(pairs: Mapping[str, Mapping[str, float]], ax: Axes, *, unit: str) -> Axes:
    """One line for each name of `pairs`; on it a dot for each of its values, the label of each beside it.

    Colour follows the order of the labels within a line; the smallest value is labelled on its left.
    """
    for y, values in enumerate(pairs.values()):
        ax.plot(list(values.values()), [y] * len(values), color="#999999", zorder=1)
        for k, (label, value) in enumerate(values.items()):
            ax.plot(value, y, "o", color=COLORS[k % len(COLORS)], zorder=2)
            left = value == min(values.values())
            ax.annotate(
                label,
                (value, y),
                (-8 if left else 8, 0),
                textcoords="offset points",
                ha="right" if left else "left",
                va="center",
                fontsize=8,
            )
    ax.set_yticks(range(len(pairs)), list(pairs), fontsize=8)
    ax.set_ylim(len(pairs) - 0.5, -0.5)
    ax.margins(x=0.3)
    ax.set_xlabel(unit)
    return ax


def draw_gains(gains: pd.DataFrame, ax: Axes, *, limit: float) -> Axes:
    """Differences in points as numbers on colour, blue a gain and red a loss; colour is logarithmic beyond +-0.1."""
    norm = SymLogNorm(0.1, vmin=-limit, vmax=limit, base=10)
    look = dict(cmap="RdBu", norm=norm, cbar=False)
    sns.heatmap(gains.astype(float), annot=True, fmt="+.2f", annot_kws={"fontsize": 8}, ax=ax, **look)
    ax.tick_params(labelsize=8)
    return label_table(ax)
