"""What the papers printed, as one tidy table: every cell of PNI's Tables 1-6 and S1-S11, SegAD's 1-3, NSA's 4-8.

Printed numbers are kept as printed, misprints included; a `note` says what is wrong with a cell.  `averages` recomputes
every printed average from the rows above it, so that a misprint is found by arithmetic and not by reading:

    average = (1/n) * sum of its n categories        (10 objects, 5 textures; 4 + 4 + 4 of VisA; 3 of BTAD)

A printed average is right when it lies within half a unit of its last digit of the recomputed one.  Rows were rounded
too, but that is forgiven (another half unit, of theirs) only where it must be: rows with fewer digits than the average,
and tables that print sub-averages alone, whose overall average was taken over categories that we do not see.
Sources: README.md beside the tables.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pnilib.errors import PNIError

__all__ = [
    "COLUMNS",
    "FOLDER",
    "GROUPS",
    "NOTES",
    "PAPER_COUNTS",
    "TABLES",
    "TEXTURES",
    "averages",
    "best_two",
    "load_published",
    "note_kinds",
    "repeats",
]

FOLDER = Path(__file__).parent

PAPER_COUNTS: dict[str, dict[str, tuple[int, int]]] = {
    "mvtec": {
        "bottle": (209, 83), "cable": (224, 150), "capsule": (219, 132), "carpet": (280, 117), "grid": (264, 78),
        "hazelnut": (391, 110), "leather": (245, 124), "metal_nut": (220, 115), "pill": (267, 167),
        "screw": (320, 160), "tile": (230, 117), "toothbrush": (60, 42), "transistor": (213, 100), "wood": (247, 79),
        "zipper": (240, 151),
    },
    "btad": {"01": (400, 70), "02": (399, 230), "03": (1000, 441)},
    "visa": {
        "candle": (900, 200), "capsules": (542, 160), "cashew": (450, 150), "chewinggum": (453, 150),
        "fryum": (450, 150), "macaroni1": (900, 200), "macaroni2": (900, 200), "pcb1": (904, 200), "pcb2": (901, 200),
        "pcb3": (905, 201), "pcb4": (904, 201), "pipe_fryum": (450, 150),
    },
}  # fmt: skip
"""The paper's data sets: data set -> category -> (training images, test images)."""

COLUMNS = ("table", "method", "dataset", "category", "metric", "value", "printed", "note")
TABLES = (
    *(f"Table {number}" for number in range(1, 7)),
    *(f"Table S{number}" for number in range(1, 12)),
    *(f"SegAD Table {number}" for number in range(1, 4)),
    *(f"NSA Table {number}" for number in range(4, 9)),
)
NOTES = {
    "average": "this average disagrees with the rows of its table",
    "twice": "another table prints another value for the same thing",
    "see": "the same average stands in another table, where it disagrees with the rows",
    "rounding": "another table prints it with more digits, exactly half way",
    "unchecked": "an average with a row that is not printed",
    "lost": "restored, or in doubt: the conversion of the paper to text lost something here",
    "mark": "bold or underscored as the best or second best, but is not",
    "spelling": "the method's name is spelled otherwise here",
}
"""Every note is one or more "kind: sentence."; the kinds, each checked by tests/test_published.py."""
TEXTURES = {"carpet", "grid", "leather", "tile", "wood", "weave", "grain", "tiles", "mtd"}
"""Texture categories of MVTec AD (the paper's Table 1), of the demo data, and MTD; all others are objects."""

GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    "mvtec": {
        "object": (
            "bottle", "cable", "capsule", "hazelnut", "metal_nut",
            "pill", "screw", "toothbrush", "transistor", "zipper",
        ),
        "texture": ("carpet", "grid", "leather", "tile", "wood"),
    },
    "visa": {
        "single_instance": ("cashew", "chewinggum", "fryum", "pipe_fryum"),
        "multiple_instances": ("macaroni1", "macaroni2", "capsules", "candle"),
        "complex_structure": ("pcb1", "pcb2", "pcb3", "pcb4"),
    },
    "btad": {"product": ("01", "02", "03")},
}  # fmt: skip
"""Data set -> printed sub-average -> its categories.  BTAD prints the overall average alone."""


def load_published(table: str | None = None, folder: Path | None = None) -> pd.DataFrame:
    """The cells of `table` ("Table 3", "Table S9", "SegAD Table 2", "NSA Table 7"), or of all tables, in printed order.

    Columns: `COLUMNS`, all text but `value` (float; NaN for text and for cells without a number).  Raises PNIError for
    an unknown table and for a file that is missing or damaged, naming it.
    """
    if table is not None and table not in TABLES:
        raise PNIError(f"{table!r}: is no published table: choose one of {', '.join(TABLES)}")
    return pd.concat(
        [_read(name, FOLDER if folder is None else folder) for name in (TABLES if table is None else (table,))],
        ignore_index=True,
    )


def note_kinds(note: str) -> set[str]:
    """The kinds of a note: {"average", "twice"} of "average: the rows give 91.60. twice: Table S2 prints 91.6."."""
    return {kind for kind in NOTES if note.startswith(f"{kind}: ") or f". {kind}: " in note}


def averages(frame: pd.DataFrame) -> pd.DataFrame:
    """Every printed average of `frame` (as loaded) whose rows are in the same table, with what the rows give.

    Columns: table, method, dataset, metric, category, printed, value, recomputed, difference (printed - recomputed),
    tolerance, verdict, note, explained.  `verdict`: "agrees"; "truncated" (cut off instead of rounded); "differs";
    "unchecked" (a row has no number).  `explained`: there is nothing to explain, or the note does.
    """
    found = []
    one_table = frame[~frame["metric"].str.endswith("_error")]
    for (table, method, dataset, metric), part in one_table.groupby(
        ["table", "method", "dataset", "metric"], sort=False
    ):
        values = {str(name): float(value) for name, value in zip(part["category"], part["value"], strict=True)}
        texts = {str(name): str(text) for name, text in zip(part["category"], part["printed"], strict=True)}
        notes = {str(name): str(note) for name, note in zip(part["category"], part["note"], strict=True)}
        groups = GROUPS.get(str(dataset), {})
        for name in [*groups, "average"]:
            rows, weights = _rows(name, groups, set(values) - {name})
            if not rows or math.isnan(values.get(name, math.nan)):
                continue
            printed, value, note = texts[name], values[name], notes[name]
            recomputed = float(np.average([values[row] for row in rows], weights=weights))
            digits, row_digits = _digits(printed), max(_digits(texts[row]) for row in rows)
            forgiven = 0.5 * 10**-row_digits if row_digits < digits or rows[0] in groups else 0.0
            tolerance = 0.5 * 10**-digits + forgiven
            if math.isnan(recomputed):
                verdict = "unchecked"
            elif abs(value - recomputed) <= tolerance + 1e-9:
                verdict = "agrees"
            else:
                cut = math.floor(recomputed * 10**digits + 1e-6)
                verdict = "truncated" if cut == round(value * 10**digits) else "differs"
            found.append(
                {
                    "table": table, "method": method, "dataset": dataset, "metric": metric, "category": name,
                    "printed": printed, "value": value, "recomputed": recomputed, "difference": value - recomputed,
                    "tolerance": tolerance, "verdict": verdict, "note": note,
                    "explained": verdict in ("agrees", "unchecked") or "average" in note_kinds(note),
                }
            )  # fmt: skip
    return pd.DataFrame(found)


def repeats(frame: pd.DataFrame) -> pd.DataFrame:
    """Every pair of cells of `frame` that print the same thing (method, data set, category, metric) in two tables.

    Columns: method, dataset, category, metric, table, printed, other_table, other_printed, difference, note and
    other_note, same.  They are the same when they differ by at most half a unit of the shorter one's last digit.
    """
    keys = ["method", "dataset", "category", "metric"]
    cells = frame[frame["value"].notna()].reset_index(drop=True)
    cells = cells.assign(order=cells.index, digits=cells["printed"].map(_digits))
    pairs = cells.merge(cells, on=keys, suffixes=("", "_other"))
    pairs = pairs[(pairs["order"] < pairs["order_other"]) & (pairs["table"] != pairs["table_other"])]
    difference = pairs["value"] - pairs["value_other"]
    shorter = pairs[["digits", "digits_other"]].min(axis=1)
    allowed = (0.5 * 10.0**-shorter).where(pairs["digits"] != pairs["digits_other"], 0.0)
    names = {f"{name}_other": f"other_{name}" for name in ("table", "printed", "note")}
    pairs = pairs.rename(columns=names).assign(difference=difference, same=difference.abs() <= allowed + 1e-9)
    kept = [*keys, "table", "printed", "other_table", "other_printed", "difference", "note", "other_note", "same"]
    return pairs[kept].reset_index(drop=True)


def best_two(values: Sequence[float]) -> list[int]:
    """1 for each of the largest values, 2 for each of the next smaller, else 0; NaN is 0, equal values share a rank."""
    order = sorted({value for value in values if not math.isnan(value)}, reverse=True)[:2]
    return [order.index(value) + 1 if value in order else 0 for value in values]


def _rows(name: str, groups: dict[str, tuple[str, ...]], present: set[str]) -> tuple[list[str], list[int]]:
    """The categories that the average `name` is taken over and their weights; none when the table lacks its rows."""
    members = list(groups.get(name, [one for group in groups.values() for one in group]))
    if present.issuperset(members):
        return members, [1] * len(members)
    if name == "average" and present.issuperset(groups):  # the table prints sub-averages alone
        return list(groups), [len(group) for group in groups.values()]
    return [], []


def _digits(printed: str) -> int:
    """Digits after the point: 2 of "98.98", 1 of "97.7 ± 0.3", 0 of "100"."""
    return len(printed.split(" ")[0].partition(".")[2])


def _number(printed: str) -> float:
    """97.7 of "97.7 ± 0.3", a half of "1/2", NaN of text."""
    numerator, _, denominator = printed.partition(" ")[0].partition("/")
    try:
        return float(numerator) / float(denominator or 1)
    except ValueError:
        return math.nan


def _read(table: str, folder: Path) -> pd.DataFrame:
    stem = table.lower().replace(" ", "_")
    path = folder / f"{stem if stem[:5] != 'table' else f'pni_{stem}'}.csv"
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except FileNotFoundError:
        raise PNIError(f"{path}: is missing: published numbers come with the repository, not the package") from None
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise PNIError(f"{path}: cannot be read ({str(error).strip().splitlines()[0]}): restore the file") from error
    if tuple(frame.columns) != COLUMNS:
        raise PNIError(f"{path}: its columns are not {','.join(COLUMNS)}: restore the file")
    if frame.empty or set(frame["table"]) != {table}:
        raise PNIError(f"{path}: holds rows of another table than {table}, or none: restore the file")
    if frame.duplicated(["method", "dataset", "category", "metric"]).any():
        raise PNIError(f"{path}: has one cell twice: restore the file")
    printed = frame["printed"].map(_number)
    values = pd.to_numeric(frame["value"], errors="coerce").fillna(np.inf).where(frame["value"] != "")
    for number, good in enumerate(np.isclose(values, printed, rtol=0, atol=1e-9, equal_nan=True), 2):
        if not good:
            value, text = frame.loc[number - 2, ["value", "printed"]]
            raise PNIError(f"{path}: line {number}: value {value!r} is not what is printed, {text!r}: restore the file")
    return frame.assign(value=values.astype(float))
