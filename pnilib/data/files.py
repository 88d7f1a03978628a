"""Image files below a folder, and the row that one of them gets in the table of samples."""

import os
from pathlib import Path
from typing import Any

__all__ = ["IMAGE_SUFFIXES", "images_in", "row", "subfolders"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""Files with other names, and hidden ones, are not taken for images."""


def images_in(folder: Path, *, deep: bool = False) -> list[Path]:
    """Image files in `folder` (`deep`: and below), sorted by path; none if it does not exist."""
    if not folder.is_dir():
        return []
    found = folder.rglob("*") if deep else folder.iterdir()
    return sorted(
        (p for p in found if _is_image(p) and not any(s.startswith(".") for s in p.relative_to(folder).parts)),
        key=lambda p: p.relative_to(folder).as_posix(),
    )


def subfolders(folder: Path) -> list[Path]:
    """Visible folders directly in `folder`, sorted; none if it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))


def row(
    image: Path, split: str, label: int, defect_type: str, category: str, mask: Path | None = None
) -> dict[str, Any]:
    """One sample; label 0 normal, 1 defect, -1 unknown."""
    return dict(
        image_path=os.fspath(image), mask_path=None if mask is None else os.fspath(mask), label=label,
        defect_type=defect_type, split=split, category=category,
    )  # fmt: skip


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
