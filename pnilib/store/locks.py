"""Folders that one run at a time writes to, and the mark that says: results, no images."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from pnilib.errors import PNIError
from pnilib.store.files import os_errors
from pnilib.store.text import read_json

__all__ = ["LOCK", "MARK", "is_output", "lock_folder", "mark_output"]

LOCK = ".pnilib.lock"
MARK = ".pnilib-output"
_RECORDS = {"run.json": {"config", "data", "versions"}, "unit.json": {"kind", "member", "source"}}
_SCORES = "image,score,defective,problem\n"
"""What tells folders of results of the versions before the marker: a file and keys in it, or how it begins."""


def mark_output(directory: Path | str) -> None:
    """Mark `directory` (made if absent) as the kit's own results: never to be read as images."""
    directory = Path(directory)
    with os_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        if not (directory / MARK).exists():
            (directory / MARK).write_text("Results of pnilib: no folder with this file is read as images.\n", "utf-8")


def is_output(directory: Path | str) -> bool:
    """Whether a folder holds results of the kit: by the marker file, or by what older versions wrote there."""
    directory = Path(directory)
    if (directory / MARK).is_file() or any(_is_record(directory / name, keys) for name, keys in _RECORDS.items()):
        return True
    try:  # heat maps of `pni score`
        return directory.name == "heatmaps" and (directory.parent / "scores.csv").read_text("utf-8").startswith(_SCORES)
    except (OSError, ValueError):
        return False


def _is_record(file: Path, keys: set[str]) -> bool:
    try:
        return keys <= read_json(file).keys()
    except (OSError, ValueError, AttributeError):
        return False


@contextmanager
def lock_folder(directory: Path | str, *, output: bool = True, wait: bool = False) -> Iterator[None]:
    """Hold `directory` (made if absent) for one run; `output`: and mark it as results.

    When another run, in this process or another, holds it: raises PNIError at once, or with `wait` waits, so that what
    the other has made is there to be used.  A run that died holds nothing.  Not for an artefact's own folder, which is
    replaced as a whole: hold the folder that it lies in.
    """
    directory = Path(directory)
    with os_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(directory / LOCK, timeout=-1 if wait else 0)
    try:
        with os_errors(directory):
            try:
                lock.acquire()
            except filelock.Timeout:  # an OSError too, so it is caught inside
                raise PNIError(
                    f"{directory}: another run is writing there: wait for it or choose another folder"
                ) from None
        if output:
            mark_output(directory)
        yield
    finally:
        lock.release()
