"""A folder that is replaced as a whole while others read it or replace it, too.

No rename replaces a folder that is not empty, so there are two: the old one leaves, the new one comes.  Between them
the place is empty for some microseconds.

Nothing here is from the paper.
"""

import errno
import glob
import os
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pnilib.errors import PNIError

__all__ = ["settled", "swap"]

T = TypeVar("T")

_PATIENCE = 2.0
"""seconds to wait for a new folder where an old one left; a killed writer may never bring it."""


def settled(directory: Path, look: Callable[[], T]) -> T:
    """What `look` finds in a folder, looked for again where a writer replaced the folder meanwhile."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        before = _identity(directory)
        try:
            return look()
        except PNIError:
            absent = before is None and any(directory.parent.glob(f".{glob.escape(directory.name)}.*.old"))
            if (before == _identity(directory) and not absent) or time.monotonic() > deadline:
                raise
        time.sleep(0.001)


def _identity(directory: Path) -> tuple[int, ...] | None:
    """Another one after the folder was replaced; None where there is none."""
    try:
        found = directory.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def swap(new: Path, directory: Path) -> None:
    """Put the complete folder `new` in the place of `directory`, others may be doing the same: the last one stays.

    On failure the older one is back.
    """
    old = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}.old")
    try:
        while True:
            try:
                os.rename(new, directory)  # also onto an empty folder
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            shutil.rmtree(old, ignore_errors=True)  # taken again since the last round
            with suppress(FileNotFoundError):  # another writer has just moved it away
                os.rename(directory, old)
    except BaseException:
        with suppress(OSError):  # nothing was moved, or another writer's has come
            os.rename(old, directory)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
