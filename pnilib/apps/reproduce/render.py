"""A filled table as text: numbers, marks by rule, and wide tables in Markdown and LaTeX."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pnilib.apps.reproduce.settings import RULES
from pnilib.apps.reproduce.specs import TableSpec
from pnilib.evaluation import SHORT_NAMES as NAMES

__all__ = ["NAMES", "Table", "marked"]


@dataclass(frozen=True)
class Table:
    """A filled table.  cells: one row a cell: method, category, metric, dataset, paper, printed, ours, sd,
    seeds, low, high, difference, note.  notes: lines to read first.  partial: whether runs are missing."""

    spec: TableSpec
    cells: pd.DataFrame
    notes: list[str]
    partial: bool

    def markdown(self) -> str:
        lines = [f"# {self.spec.number}: {self.spec.title}", "", *(f"{note}  " for note in self.notes), ""]
        for title, frame in self.parts():
            lines += [f"## {title}", "", frame.to_markdown(disable_numparse=True), ""]
        return "\n".join(lines)

    def latex(self) -> str:
        """Each part as a `tabular` within a `table`; needs booktabs."""
        parts = [f"% {self.spec.number}: {self.spec.title}", *(f"% {note}" for note in self.notes)]
        parts += [latex_table(f"{self.spec.number}, {title}", frame) for title, frame in self.parts()]
        return "\n".join(parts) + "\n"

    def parts(self) -> list[tuple[str, pd.DataFrame]]:
        """Wide tables of finished text: marks are `**best**` and `_second_`."""
        if self.spec.number in ("Table S1", "Table S7"):
            columns = {"As printed": "paper", "From the configurations here": "ours"}
            cells = self.cells.drop_duplicates(["method", "metric"])
            return [
                (title, _wide(cells, column, "method", "metric"))
                for title, column in columns.items()
                if cells[column].notna().any()
            ]
        own = self.cells[self.cells["seeds"].notna()]
        if self.spec.number == "Table X2":
            return [
                (
                    "Change under " + ", ".join(f"{name}={value}" for name, value in values.items())
                    + ", points (95 % interval)",
                    self._shown(_texts(some, lambda row: f"{signed_text(row['ours'])} ({range_text(row)})")),
                )
                for rule, values in RULES.items()
                if len(some := own[own["category"] == rule])
            ]  # fmt: skip
        printed = self.cells[self.cells["printed"] != ""]
        parts = {
            "Ours: mean ± sd over seeds, %": marked(_texts(own, value_text), "ours"),
            "Ours: 95 % interval over test images (bootstrap)": _texts(own, range_text),
            "Ours minus the paper's, points": _texts(
                own if own["difference"].notna().any() else own[:0], lambda row: signed_text(row["difference"])
            ),
            "As published": marked(printed.assign(text=printed["printed"]), "paper"),
        }
        return [(title, self._shown(cells)) for title, cells in parts.items() if len(cells)]

    def _shown(self, cells: pd.DataFrame) -> pd.DataFrame:
        """The column `text`, wide: categories by methods where each category is shown, else methods by categories."""
        across = self.spec.every
        rows, columns = ("category", ["method", "metric"]) if across else ("method", ["metric", "category"])
        wide = _wide(cells, "text", rows, columns)
        wide.columns = pd.Index([self._head(*pair) for pair in wide.columns])
        if across:
            wide.index = wide.index.str.replace("_", " ")
        return wide.rename_axis(index="" if across else "method")

    def _head(self, first: str, second: str) -> str:
        """Of a column: (method, metric) where methods are columns, else (metric, category)."""
        if self.spec.every:
            return first if len(self.spec.metrics) == 1 else f"{first} {NAMES[second]}"
        return f"{NAMES[first]} {second.replace('_', ' ')}"


def _texts(cells: pd.DataFrame, text: Callable[[dict[Any, Any]], str]) -> pd.DataFrame:
    return cells.assign(text=[text(row) for row in cells.to_dict("records")])


def _wide(cells: pd.DataFrame, values: str, rows: str, columns: str | list[str]) -> pd.DataFrame:
    """One column as a wide table, its rows and columns in the order in which the cells name them."""
    order, heads = cells[rows].drop_duplicates(), cells[columns].drop_duplicates()
    names = pd.MultiIndex.from_frame(heads) if isinstance(heads, pd.DataFrame) else heads
    return cells.pivot(index=rows, columns=columns, values=values).reindex(index=order, columns=names).fillna("–")


def value_text(row: dict[Any, Any]) -> str:
    spread = f" ± {row['sd']:.2f}" if np.isfinite(row["sd"]) else ""
    return "undefined" if not np.isfinite(row["ours"]) else f"{row['ours']:.2f}{spread}"


def range_text(row: dict[Any, Any]) -> str:
    return f"{row['low']:.2f} – {row['high']:.2f}" if np.isfinite(row["low"]) else "–"


def signed_text(value: float) -> str:
    return f"{value:+.2f}" if np.isfinite(value) else "–"


def marked(cells: pd.DataFrame, column: str) -> pd.DataFrame:
    """Texts with the best of each (category, metric) among the methods in bold, the second best underlined.

    Compared as shown, to two decimals; ties share a rank; a single method is not marked.
    """
    rounded = pd.to_numeric(cells[column], errors="coerce").round(2)
    grouped = rounded.groupby([cells["category"], cells["metric"]])
    rank = grouped.rank(method="dense", ascending=False).where(grouped.transform("count") > 1)
    form = rank.map({1: "**{}**", 2: "_{}_"}).fillna("{}")
    return cells.assign(text=[mark.format(text) for mark, text in zip(form, cells["text"], strict=True)])


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash ", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "±": r"$\pm$", "–": "--",
        "✓": r"\checkmark ",
    }
)  # fmt: skip


def latex_table(caption: str, frame: pd.DataFrame) -> str:
    """A `table` of marked texts, the best in bold, the second best underlined."""

    def escaped(text: object) -> str:
        return str(text).translate(_LATEX)

    def command(text: str) -> str:
        return "textbf:--rwrap" if text.startswith("**") else "underline:--rwrap" if text.startswith("_") else ""

    plain = frame.map(lambda text: text.strip("*_")).rename_axis(index=None, columns=str(frame.index.name or ""))
    style = plain.style.apply(lambda _: frame.map(command), axis=None).format(escaped)
    style = style.format_index(escaped, axis=0).format_index(escaped, axis=1)
    columns = "l" + "r" * len(frame.columns)
    return str(style.to_latex(hrules=True, caption=escaped(caption), column_format=columns)).rstrip()
