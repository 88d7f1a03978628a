"""What the reader says about samples: a note and a corrected label each, in one CSV beside the run.

The data set is never touched.  Several explorers may have one run open: a save reads the file again under a lock and
changes one row, and a row that somebody else changed since it was shown is not overwritten.
"""

import csv
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from pnilib.artefacts import os_errors, write_csv
from pnilib.errors import PNIError

__all__ = ["LABELS", "Note", "Notes"]

LABELS = ("", "normal", "defective", "unsure")
"""A corrected label; empty: the data set's is right, or was not looked at."""
COLUMNS = ["category", "image", "label", "note", "saved"]
WAIT = 10.0
"""s, for another explorer's save."""


@dataclass(frozen=True)
class Note:
    """label: one of LABELS.  saved: UTC, ISO 8601; empty when it never was."""

    label: str = ""
    text: str = ""
    saved: str = ""


class Notes:
    """The notes of a run in `file`, which exists from the first save on."""

    def __init__(self, file: Path | str) -> None:
        self.file = Path(file)

    def all(self) -> dict[tuple[str, str], Note]:
        """(category, image) -> note, as the file is now.  Raises PNIError when it is damaged."""
        try:
            with open(self.file, newline="", encoding="utf-8") as handle:
                reader = csv.DictReader(handle, strict=True)
                if reader.fieldnames != COLUMNS:
                    raise PNIError(f"{self.file}: is no file of notes (columns {', '.join(COLUMNS)}): move it away")
                rows = list(reader)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, csv.Error):
            raise PNIError(f"{self.file}: cannot be read: move it away, or restore it") from None
        if any(None in row.values() or None in row for row in rows):
            raise PNIError(f"{self.file}: has a line with too few or too many fields: restore it")
        return {(r["category"], r["image"]): Note(r["label"], r["note"], r["saved"]) for r in rows}

    def of(self, category: str, image: str) -> Note:
        """An empty one where nothing was said."""
        return self.all().get((category, image), Note())

    def save(self, category: str, image: str, label: str, text: str, shown: Note) -> Note:
        """Write one sample's note and return it; an empty one takes the row away.

        `shown`: what the reader saw before.  Raises PNIError when the file says something else by now, for an unknown
        label, and when the file cannot be written.
        """
        if label not in LABELS:
            raise PNIError(f"label {label!r}: choose one of {', '.join(filter(None, LABELS))}, or none")
        with os_errors(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            try:
                with FileLock(f"{self.file}.lock", timeout=WAIT):
                    rows = self.all()
                    now = rows.get((category, image), Note())
                    if now != shown:
                        raise PNIError(
                            f"{image}: another explorer saved {now.text or 'an empty note'!r}"
                            f"{f' and label {now.label}' if now.label else ''} meanwhile: save again to replace it"
                        )
                    new = Note(label, text, datetime.now(UTC).isoformat(timespec="seconds"))
                    rows.pop((category, image), None)
                    if label or text:
                        rows[category, image] = new
                    write_csv(
                        self.file,
                        [dict(category=c, image=i, label=n.label, note=n.text, saved=n.saved)
                         for (c, i), n in sorted(rows.items())],
                        COLUMNS,
                    )  # fmt: skip
            except Timeout:
                raise PNIError(f"{self.file}: another explorer is saving: try again") from None
        return new if label or text else Note()
