"""Files that are either complete or absent, and what the operating system refuses as one line.

Every file is written to a temporary name beside its place and renamed when it is whole, so that a stopped run, a full
disk or a second reader never leaves or sees half a file.
"""

import errno
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from pnilib.errors import PNIError

__all__ = ["atomic_write", "json_text", "os_errors", "write_csv", "write_json"]


@contextmanager
def os_errors(path: Path | str) -> Iterator[None]:
    """Turn the operating system's refusals about `path` into one PNIError line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise PNIError(f"{path}: the disk is full: free some space or choose another folder") from error
        if isinstance(error, NotADirectoryError | FileExistsError):
            for place in (Path(path), *Path(path).parents):
                if place.is_file():
                    raise PNIError(f"{place}: is a file: choose a folder") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise PNIError(f"{path}: no permission: choose another folder") from error
        reason = error.strerror or str(error)
        raise PNIError(f"{path}: {reason}: check the path") from error


@contextmanager
def atomic_write(path: Path | str, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file that becomes `path` when the block ends without an error.

    `mode` is "w" (UTF-8 text; half a character, as in an undecodable file name, as `\\udcNN`, which JSON reads back) or
    "wb".  Parent folders are made.  After an error nothing is left,
    and an older `path` stays as it was.  Raises PNIError when the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}.tmp")  # 255 bytes are a name's limit
    with os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        text = {} if "b" in mode else {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
        try:
            with open(temporary, mode.replace("w", "x"), **text) as handle:  # type: ignore[call-overload]
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, keys in the given order.

    Raises PNIError for a value that JSON has no word for (NaN, a tensor, ...) and when the folder
    cannot be written.
    """
    with atomic_write(path) as handle:
        handle.write(json_text(path, value))


def write_csv(path: Path | str, table: Any, columns: Sequence[str] | None = None) -> None:
    """Write a tidy table: a header, then one line a row; floats keep every digit, None is empty.

    `table` is a data frame, or one mapping a row with the `columns` in their order.  Raises PNIError when a row has a
    column that is not listed, or the folder cannot be written.
    """
    import pandas as pd

    if columns is not None:
        if unknown := [name for row in table for name in row if name not in columns]:
            raise PNIError(f"{path}: column {unknown[0]!r} is not in the header: add it to `columns`")
        table = pd.DataFrame(table, columns=list(columns), dtype=object)
    with atomic_write(path) as handle:
        table.to_csv(handle, index=False, lineterminator="\n")


def json_text(path: Path | str, value: Any) -> str:
    try:
        return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise PNIError(f"{path}: not JSON ({error}): give plain finite values") from None
