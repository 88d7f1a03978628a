"""Numbers as text, marks by rule, and wide tables as Markdown and LaTeX."""

from typing import Any

import numpy as np
import pandas as pd

from pnilib.evaluation import SHORT_NAMES as NAMES

__all__ = [
    "NAMES",
    "head",
    "latex_table",
    "markdown_table",
    "marked",
    "range_text",
    "signed_text",
    "value_text",
]


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
    rounded = pd.to_numeric(cells[column], errors="coerce").round(2).to_numpy()
    text = cells["text"].tolist()
    groups: dict[tuple[str, str], list[int]] = {}
    for i, key in enumerate(zip(cells["category"], cells["metric"], strict=True)):
        if np.isfinite(rounded[i]):
            groups.setdefault(key, []).append(i)
    for group in groups.values():
        ranks = sorted({rounded[i] for i in group}, reverse=True)
        for i in group if len(group) > 1 else ():
            if rounded[i] == ranks[0]:
                text[i] = f"**{text[i]}**"
            elif rounded[i] == ranks[1]:
                text[i] = f"_{text[i]}_"
    return cells.assign(text=text)


def head(across: bool, single: bool, first: str, second: str) -> str:
    """Of a column: (method, metric) where methods are columns, else (metric, category)."""
    if across:
        return first if single else f"{first} {NAMES[second]}"
    return f"{NAMES[first]} {second.replace('_', ' ')}"


def markdown_table(frame: pd.DataFrame) -> str:
    lines = [f"| {frame.index.name or ''} | " + " | ".join(map(str, frame.columns)) + " |"]
    lines.append("|---|" + "---|" * len(frame.columns))
    for name, row in zip(frame.index, frame.to_numpy(), strict=True):
        lines.append(f"| {name} | " + " | ".join(str(text) for text in row) + " |")
    return "\n".join(lines)


_ESCAPES: tuple[tuple[str, str], ...] = (
    ("\\", r"\textbackslash "), ("_", r"\_"), ("%", r"\%"), ("&", r"\&"), ("#", r"\#"), ("±", r"$\pm$"), ("–", "--"),
    ("✓", r"\checkmark "),
)  # fmt: skip


def latex_table(caption: str, frame: pd.DataFrame) -> str:
    def plain(text: str) -> str:
        for old, new in _ESCAPES:
            text = text.replace(old, new)
        return text

    def cell(text: str) -> str:
        if text.startswith("**"):
            return rf"\textbf{{{plain(text.strip('*'))}}}"
        if text.startswith("_") and text.endswith("_"):
            return rf"\underline{{{plain(text.strip('_'))}}}"
        return plain(text)

    rows = [
        " & ".join([plain(str(frame.index.name or "")), *(plain(str(name)) for name in frame.columns)])
        + r" \\ \midrule"
    ]
    for name, row in zip(frame.index, frame.to_numpy(), strict=True):
        rows.append(" & ".join([plain(str(name)), *(cell(str(text)) for text in row)]) + r" \\")
    body = "\n".join(rows)
    return (
        f"\\begin{{table}}\n\\caption{{{plain(caption)}}}\n"
        f"\\begin{{tabular}}{{l{'r' * len(frame.columns)}}}\n\\toprule\n"
        f"{body}\n\\bottomrule\n\\end{{tabular}}\n\\end{{table}}"
    )
