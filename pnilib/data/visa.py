"""VisA as published: the table split_csv/1cls.csv names images and masks, with split and label.

The table may have been through a spreadsheet on Windows: a byte order mark, UTF-16, semicolons or tabs, backslashes,
labels and file endings in other letters than on disk.
"""

import csv
import io
from pathlib import Path

from pnilib.data.files import Samples, row
from pnilib.data.words import is_defect, is_normal
from pnilib.errors import PNIError
from pnilib.store.text import read_text

__all__ = ["read_visa", "visa_categories"]

_COLUMNS = ("object", "split", "label", "image", "mask")


def visa_categories(root: Path) -> list[str]:
    """The objects of the table, sorted.  Raises PNIError when it is missing or lacks a column."""
    return sorted({line["object"] for line in _lines(root)} - {""})


def read_visa(root: Path, category: str) -> Samples:
    """VisA's own one-class split.

    Raises PNIError when the file lacks a column, has an unknown value, or points outside `root`.
    """
    table = _table(root)
    rows, folders = [], dict[Path, dict[str, Path]]()
    for number, line in enumerate(_lines(root), start=2):
        if line["object"] != category:
            continue
        split, label = line["split"].lower(), line["label"]
        if split not in ("train", "test") or not (is_normal(label) or is_defect(label)):
            raise PNIError(f"{table}: line {number}: unknown split or label: restore the published file")
        image, mask = (_inside(root, line[c], table, number) if line[c] else None for c in ("image", "mask"))
        if image is None:
            raise PNIError(f"{table}: line {number}: names no image: restore the published file")
        mask = None if mask is None else _on_disk(mask, folders)
        defect = is_defect(label)
        if split == "train" and defect:
            raise PNIError(f"{table}: line {number}: a defect among the training images: move it to the test images")
        kind = "anomaly" if defect else "normal"
        rows.append(row(_on_disk(image, folders) or image, split, int(defect), kind, category, mask))
    rows.sort(key=lambda r: (r["split"] == "test", r["label"], r["image_path"]))
    return Samples(rows)


def _table(root: Path) -> Path:
    return root / "split_csv" / "1cls.csv"


def _lines(root: Path) -> list[dict[str, str]]:
    table = _table(root)
    if not table.is_file():
        raise PNIError(f"{table}: does not exist: extract the whole VisA archive below {root}")
    text = read_text(table)
    head = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text), delimiter=max(",;\t", key=head.count))
    names = {name.strip().lower(): name for name in reader.fieldnames or ()}
    for column in _COLUMNS:
        if column not in names:
            raise PNIError(f"{table}: lacks the column {column!r}: restore the published file")
    return [{c: (line[names[c]] or "").strip() for c in _COLUMNS} for line in reader]


def _inside(root: Path, name: str, table: Path, number: int) -> Path:
    path = root / name.replace("\\", "/")
    if not path.resolve().is_relative_to(root.resolve()):
        raise PNIError(f"{table}: line {number}: {name!r} lies outside the data set: restore the published file")
    return path


def _on_disk(path: Path, folders: dict[Path, dict[str, Path]]) -> Path | None:
    """The file itself, or the one whose name differs in the case of its letters only; None for neither."""
    if path.is_file():
        return path
    if path.parent not in folders:
        there = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
        folders[path.parent] = {entry.name.casefold(): entry for entry in there if entry.is_file()}
    return folders[path.parent].get(path.name.casefold())
