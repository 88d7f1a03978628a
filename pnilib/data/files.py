"""Image files below a folder, for every command alike, and the rows that they get in the table of samples.

What counts as an image is decided here once: a visible file whose name ends in one of IMAGE_SUFFIXES.  Linked files
and folders are followed, each real folder once.  What the kit itself wrote is marked (`pnilib.store.locks`)
and never read as images.  Whatever else lies there is counted by reason, so that every command can say what it did not
read.
"""

import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pnilib.errors import PNIError
from pnilib.store.locks import is_output
from pnilib.store.text import shown

__all__ = [
    "EXPECTED",
    "IMAGE_SUFFIXES",
    "LEFT_OUT",
    "Listing",
    "Samples",
    "images_in",
    "list_images",
    "no_image",
    "refuse_output",
    "refuse_output_around",
    "row",
    "subfolders",
    "unread_note",
]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""In any case of letters."""

_SYSTEM_NAMES = {
    "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "lost+found",
    "__macosx", "__pycache__", "@eadir", "@recycle", "@tmp", "@recently-snapshot", "#recycle", "#snapshot",
}  # fmt: skip
"""Left by file managers and servers, in lower case; more is hidden by a dot (`._x`, `.DS_Store`)."""

_HIDDEN, _OUTPUT, _TWICE = "hidden", "folder written by pnilib", "link to a folder read already"
LEFT_OUT = "left out by normal="
EXPECTED = (_HIDDEN, _OUTPUT, _TWICE, LEFT_OUT)
"""Reasons for not reading that ask nothing of anyone."""


@dataclass(frozen=True)
class Listing:
    """Images below a folder, sorted by path, and what else lies there, by reason: hidden, a format, ..."""

    folder: Path
    images: list[Path] = field(default_factory=list)
    not_read: list[tuple[str, Path]] = field(default_factory=list)

    def note(self) -> str:
        """`FOLDER: not read: 4 .jp2, 2 hidden`; "" when everything was read."""
        return f"{shown(self.folder)}: {unread_note(self.not_read)}" if self.not_read else ""


@dataclass
class Samples:
    """What a layout finds: rows of the table, notes for whoever reads numbers made from them, what it did not read."""

    rows: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    not_read: list[tuple[str, Path]] = field(default_factory=list)


def unread_note(not_read: Iterable[tuple[str, Path]]) -> str:
    """`not read: 4 .jp2, 2 hidden`."""
    counts = Counter(reason for reason, _ in not_read)
    return "not read: " + ", ".join(f"{n} {reason}" for reason, n in sorted(counts.items()))


def list_images(folder: Path | str, *, deep: bool = False, without: Path | str | None = None) -> Listing:
    """All images in `folder` (`deep`: and below), and what is no image; an empty listing if it does not exist.

    `without`: a folder to leave out, as results.  Raises PNIError for a folder below that may not be read.
    """
    found = Listing(Path(folder))
    if not found.folder.is_dir():
        return found
    left_out = None if without is None else Path(without).resolve()
    seen: set[Path] = set()
    folders, links = deque([found.folder]), deque[Path]()
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()  # real folders before links to them
        real = folder.resolve()
        if real in seen:
            found.not_read.append((_TWICE, folder))
            continue
        seen.add(real)
        for path in _read(folder, found):
            if is_output(path) or path.resolve() == left_out:
                found.not_read.append((_OUTPUT, path))
            elif not deep:
                found.not_read.append(("folder", path))
            else:
                (links if path.is_symlink() else folders).append(path)
    found.images.sort(key=Path.as_posix)  # all below one folder
    return found


def no_image(found: Listing, remedy: str) -> PNIError:
    """The line for a listing without images, with what lies there instead."""
    instead = f" ({unread_note(found.not_read)})" if found.not_read else ""
    return PNIError(f"{shown(found.folder)}: holds no image{instead}: {remedy}")


def images_in(folder: Path, *, deep: bool = False) -> list[Path]:
    """The images of `list_images`."""
    return list_images(folder, deep=deep).images


def subfolders(folder: Path) -> list[Path]:
    """Visible folders directly in `folder`, linked ones too, none that the kit wrote; sorted; none if it does not
    exist."""
    if not folder.is_dir():
        return []
    return sorted(p for p in _entries(folder) if p.is_dir() and not _is_hidden(p.name) and not is_output(p))


def refuse_output(folder: Path) -> None:
    """Raise PNIError when the kit wrote `folder`: its heat maps and plots are no images to learn from or to score."""
    if is_output(folder):
        raise PNIError(
            f"{folder}: holds results of pnilib, not images: give the folder of the images, or move these elsewhere"
        )


def refuse_output_around(images: Iterable[Path | str], out: Path | str) -> None:
    """Raise PNIError when any of `images` lies in `out` or below, which is about to be marked as results.

    `out` may lie beside them, or in a folder of its own below theirs: that is left out when they are listed.
    """
    places = {Path(os.path.abspath(out)), Path(out).resolve()}
    for folder in sorted({Path(image).parent for image in images}):
        here = (Path(os.path.abspath(folder)), folder.resolve())
        if any(path.is_relative_to(place) for path in here for place in places):
            raise PNIError(
                f"{out}: holds the images of {folder}, and a folder of results is never read as images: choose another "
                "folder to write to"
            )


def row(
    image: Path, split: str, label: int, defect_type: str, category: str, mask: Path | list[Path] | None = None
) -> dict[str, Any]:
    """One sample; label 0 normal, 1 defect, -1 unknown.  Several masks of an image become a tuple of their names."""
    masks = tuple(os.fspath(path) for path in ([mask] if isinstance(mask, Path) else mask or []))
    return dict(
        image_path=os.fspath(image), mask_path=masks if len(masks) > 1 else masks[0] if masks else None, label=label,
        defect_type=defect_type, split=split, category=category,
    )  # fmt: skip


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def _read(folder: Path, found: Listing) -> list[Path]:
    """Sort the files of one folder into `found`; its visible sub-folders."""
    folders = []
    for path in _entries(folder):
        if _is_hidden(path.name):
            found.not_read.append((_HIDDEN, path))
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
    return folders


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(folder.iterdir())
    except OSError as fault:
        raise PNIError(f"{shown(folder)}: cannot be listed ({fault.strerror}): check the folder's rights") from None
