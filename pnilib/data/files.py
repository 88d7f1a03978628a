"""Image files below a folder, for every command alike, and the row that one of them gets in the table of samples.

What counts as an image is decided here once: a visible file whose name ends in one of IMAGE_SUFFIXES.  Linked files
and folders are followed, each real folder once.  What the kit itself wrote is marked (`pnilib.artefacts.exclusive`)
and never read as images.  Whatever else lies there is counted by reason, so that every command can say what it did not
read.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pnilib.artefacts import is_output
from pnilib.errors import PNIError
from pnilib.text import shown

__all__ = ["IMAGE_SUFFIXES", "Listing", "images_in", "is_hidden", "list_images", "row", "subfolders"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""In any case of letters."""

_SYSTEM_NAMES = {"thumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "lost+found", "#recycle"}
"""Left by file managers and servers; `._x`, `.ipynb_checkpoints`, `@eaDir` and `__MACOSX` by their first letter."""


@dataclass(frozen=True)
class Listing:
    """Images below a folder, sorted by path, and what else lies there, by reason: hidden, a format, ..."""

    folder: Path
    images: list[Path] = field(default_factory=list)
    not_read: list[tuple[str, Path]] = field(default_factory=list)

    def note(self) -> str:
        """`FOLDER: not read: 4 .jp2, 2 hidden`; "" when everything was read."""
        if not self.not_read:
            return ""
        counts = Counter(reason for reason, _ in self.not_read)
        return f"{shown(self.folder)}: not read: " + ", ".join(f"{n} {reason}" for reason, n in sorted(counts.items()))


def list_images(folder: Path | str, *, deep: bool = False) -> Listing:
    """All images in `folder` (`deep`: and below), and what is no image; an empty listing if it does not exist.

    Raises PNIError for a folder below that may not be read.
    """
    found = Listing(Path(folder))
    if found.folder.is_dir():
        _walk(found.folder, deep, found, set())
        found.images.sort(key=lambda p: p.relative_to(found.folder).as_posix())
    return found


def images_in(folder: Path, *, deep: bool = False) -> list[Path]:
    """The images of `list_images`."""
    return list_images(folder, deep=deep).images


def subfolders(folder: Path) -> list[Path]:
    """Visible folders directly in `folder`, linked ones too, none that the kit wrote; sorted; none if it does not
    exist."""
    if not folder.is_dir():
        return []
    return sorted(p for p in _entries(folder) if p.is_dir() and not is_hidden(p.name) and not is_output(p))


def is_hidden(name: str) -> bool:
    """Hidden files and folders, and what file managers and servers leave behind."""
    return name.startswith((".", "@", "__")) or name.lower() in _SYSTEM_NAMES


def row(
    image: Path, split: str, label: int, defect_type: str, category: str, mask: Path | list[Path] | None = None
) -> dict[str, Any]:
    """One sample; label 0 normal, 1 defect, -1 unknown.  Several masks of an image become a tuple of their names."""
    masks = tuple(os.fspath(path) for path in ([mask] if isinstance(mask, Path) else mask or []))
    return dict(
        image_path=os.fspath(image), mask_path=masks if len(masks) > 1 else masks[0] if masks else None, label=label,
        defect_type=defect_type, split=split, category=category,
    )  # fmt: skip


def _walk(folder: Path, deep: bool, found: Listing, seen: set[Path]) -> None:
    seen.add(folder.resolve())
    folders = []
    for path in _entries(folder):
        if is_hidden(path.name):
            found.not_read.append(("hidden", path))
        elif path.is_dir():
            folders.append(path)
        elif not path.exists():
            found.not_read.append(("broken link", path))
        elif not path.is_file():
            found.not_read.append(("special file", path))
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            found.images.append(path)
        else:
            found.not_read.append((shown(path.suffix.lower()) or "file without ending", path))
    for path in sorted(folders, key=lambda p: (p.is_symlink(), p)):  # a real folder before a link to it
        if is_output(path):
            found.not_read.append(("folder written by pnilib", path))
        elif not deep:
            found.not_read.append(("folder", path))
        elif path.resolve() in seen:
            found.not_read.append(("link to a folder read already", path))
        else:
            _walk(path, deep, found, seen)


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(folder.iterdir())
    except OSError as fault:
        raise PNIError(f"{shown(folder)}: cannot be listed ({fault.strerror}): check the folder's rights") from None
