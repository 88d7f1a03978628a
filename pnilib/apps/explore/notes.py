"""What the reader says about samples: a note and a corrected label each, in one CSV beside the run.

The data set is never touched.  Several explorers may have one run open: a save reads the file again under a lock and
changes one row, and a row that somebody else changed since it was shown is not overwritten.
"""

import csv
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from pnilib.errors import PNIError
from pnilib.store.files import atomic_write, os_errors

__all__ = ["LABELS", "Note", "Notes"]

LABELS = ("", "normal", "defective", "unsure")
"""A corrected label; empty: the data set's is right, or was not looked at."""
COLUMNS = ["category", "image", "label", "note", "saved"]
WAIT = 10.0
"""s, for another explorer's save."""
LONGEST = 20_000
"""characters of a note; far below what a CSV reader takes."""


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
            with open(self.file, newline="", encoding="utf-8-sig") as handle:  # spreadsheets put a mark before it
                reader = csv.DictReader(handle, strict=True)
                names, rows = reader.fieldnames, list(reader)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, csv.Error):
            raise PNIError(f"{self.file}: cannot be read: move it away, or restore it") from None
        if names != COLUMNS:
            raise PNIError(f"{self.file}: is no file of notes (columns {', '.join(COLUMNS)}): move it away")
        if any(None in row.values() or None in row for row in rows):
            raise PNIError(f"{self.file}: has a line with too few or too many fields: restore it")
        if unknown := [row["label"] for row in rows if row["label"] not in LABELS]:
            raise PNIError(
                f"{self.file}: label {unknown[0]!r}: is none of {', '.join(filter(None, LABELS))}: correct it"
            )
        return {(r["category"], r["image"]): Note(r["label"], r["note"], r["saved"]) for r in rows}

    def of(self, category: str, image: str) -> Note:
        """An empty one where nothing was said."""
        return self.all().get((category, image), Note())

    def save(self, category: str, image: str, label: str, text: str, shown: Note) -> Note:
        """Write one sample's note and return it; an empty one takes the row away.

        `shown`: what the reader saw before.  Raises PNIError when the file says something else by now, for an unknown
        label, a text that the file could not give back, and when the file cannot be written.
        """
        if label not in LABELS:
            raise PNIError(f"label {label!r}: choose one of {', '.join(filter(None, LABELS))}, or none")
        if len(text) > LONGEST:
            raise PNIError(f"{image}: the note has {len(text):,} characters: shorten it to {LONGEST:,}")
        try:
            f"{category}{image}{text}".encode()
        except UnicodeEncodeError:
            raise PNIError(f"{image!r}: its name or note holds a code that is no text: take it out") from None
        with os_errors(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            try:
                with FileLock(f"{self.file}.lock", timeout=WAIT):
                    rows = self.all()
                    now = rows.get((category, image), Note())
                    if now != shown:
                        raise PNIError(
                            f"{image}: another explorer saved {repr(now.text) if now.text else 'an empty note'}"
                            f"{f' and label {now.label}' if now.label else ''} meanwhile: save again to replace it"
                        )
                    new = Note(label, text, datetime.now(UTC).isoformat(timespec="seconds"))
                    rows.pop((category, image), None)
                    if label or text:
                        rows[category, image] = new
                    with atomic_write(self.file) as handle:  # all quoted: else a lone \r would end the line
                        writer = csv.writer(handle, quoting=csv.QUOTE_ALL, lineterminator="\n")
                        writer.writerow(COLUMNS)
                        writer.writerows((c, i, n.label, n.text, n.saved) for (c, i), n in sorted(rows.items()))
            except Timeout:
                raise PNIError(f"{self.file}: another explorer is saving: try again") from None
        return new if label or text else Note()
