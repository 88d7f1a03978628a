"""Text on disk, read in one place: what this kit wrote is UTF-8, what users bring may be UTF-8 or UTF-16 with a mark.

File names are bytes: one that is no UTF-8 (from a Windows archive, say) is a str with surrogates inside, which no
UTF-8 file and no terminal takes.  `shown` makes it printable; JSON files keep it as an escape, so that it survives.

Nothing here is from the paper.
"""

import codecs
import json
import os
from pathlib import Path
from typing import Any

from pnilib.errors import PNIError

__all__ = ["many", "read_json", "read_text", "shown"]

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def read_text(path: Path | str) -> str:
    """The whole file, line ends as "\\n": UTF-8, or whatever its byte order mark says.

    Raises PNIError when it is neither, OSError when it cannot be read.
    """
    blob = Path(path).read_bytes()
    encoding = next((name for mark, name in _MARKS if blob.startswith(mark)), "utf-8")
    try:
        text = blob.decode(encoding)
    except UnicodeDecodeError:
        raise PNIError(f"{path}: is no {encoding[:6].upper()} text: save it as UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path | str) -> Any:
    """A JSON file that this kit wrote.  Raises OSError when it cannot be read, ValueError when it is no JSON."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def shown(name: str | os.PathLike[str]) -> str:
    """A name as text that every file and terminal takes: undecodable bytes become `\\xNN`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace") if _has_surrogate(os.fspath(name)) else os.fspath(name)


def many(n: int, noun: str, plural: str = "") -> str:
    """`1 image`, `2 images`."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)
