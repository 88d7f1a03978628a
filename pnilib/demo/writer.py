"""Rendered pictures -> an MVTec-AD-shaped folder with a manifest.

    ROOT/manifest.json
    ROOT/<category>/train/good/000.png            test/good/000.png     test/<defect>/000.png
    ROOT/<category>/ground_truth/<defect>/000_mask.png                  0 or 255
    ROOT/<category>/segmentation/<split>/<good or defect>/000.png       part labels of the manifest

The whole tree appears at once: it is written beside its place and renamed.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from pnilib.demo.categories import CATEGORIES, TOLERANCE, render
from pnilib.errors import PNIError
from pnilib.store.files import os_errors, write_json

__all__ = ["GENERATOR_VERSION", "make_demo"]

GENERATOR_VERSION = 1
"""Raise it when equal parameters would give other pictures."""

_MANIFEST = "manifest.json"
_FORMAT = "pnilib-demo"
_RANGES = {
    "n_train": (1, 999),
    "n_good": (1, 999),
    "n_per_defect": (1, 999),
    "size": (64, 1024),
    "seed": (0, 2**31 - 1),
}


def make_demo(
    root: Path | str,
    *,
    categories: Sequence[str] | None = None,
    n_train: int = 40,
    n_good: int = 15,
    n_per_defect: int = 6,
    size: int = 256,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Draw the demo data into `root` and return it; all CATEGORIES unless some are named.

    n_train, n_good: faultless images a category, for training and testing; n_per_defect: test
    images of each defect; size: side of the square images, px.  Every image depends on the seed and
    its own name only, so a smaller set is a part of a larger one.  A `root` that was made with the
    same parameters is checked against its manifest (SHA-256 of every file) and kept.

    Raises PNIError for a parameter out of range, and for a `root` that holds anything else: other
    files, other parameters, or changed pictures.
    """
    numbers = dict(n_train=n_train, n_good=n_good, n_per_defect=n_per_defect, size=size, seed=seed)
    wanted = {"categories": _checked_categories(categories)} | _checked_numbers(numbers)
    root = Path(root)
    with os_errors(root):
        if root.exists() and not root.is_dir():
            raise PNIError(f"{root}: is a file: choose a folder")
        if root.is_dir() and any(root.iterdir()):
            _verify(root, wanted)
            return root
        place = root.resolve()
        part = place.with_name(f".{place.name}.{secrets.token_hex(4)}.tmp")
        try:
            part.mkdir(parents=True)
            _write(part, wanted, progress)
            os.replace(part, place)  # refused by the system if someone filled it meanwhile
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return root


def _checked_categories(categories: Sequence[str] | None) -> list[str]:
    """Names in the order of CATEGORIES."""
    if categories is None:
        return list(CATEGORIES)
    known = ", ".join(CATEGORIES)
    if isinstance(categories, str):
        raise PNIError(f"categories={categories!r}: give a list of names from {known}")
    for name in categories:
        if name not in CATEGORIES:
            raise PNIError(f"categories: {name!r} is unknown: choose from {known}")
    if not categories or len(set(categories)) != len(categories):
        raise PNIError(f"categories: {list(categories)!r} is empty or repeats itself: choose from {known}")
    return [name for name in CATEGORIES if name in categories]


def _checked_numbers(numbers: dict[str, int]) -> dict[str, int]:
    for name, value in numbers.items():
        low, high = _RANGES[name]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise PNIError(f"{name}={value!r}: must be a whole number from {low} to {high}")
    return numbers


def _plan(wanted: dict[str, Any]) -> Iterator[tuple[str, str, str, int]]:
    """(category, split, defect, index) of every image."""
    for category in wanted["categories"]:
        for index in range(wanted["n_train"]):
            yield category, "train", "good", index
        for index in range(wanted["n_good"]):
            yield category, "test", "good", index
        for defect in CATEGORIES[category].defects:
            for index in range(wanted["n_per_defect"]):
                yield category, "test", defect, index


def _write(root: Path, wanted: dict[str, Any], progress: bool) -> None:
    files: dict[str, str] = {}
    faults: dict[str, dict[str, float]] = {}
    plan = list(_plan(wanted))
    draw = partial(_draw, root, wanted["size"], wanted["seed"])
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,  # NumPy and OpenCV let other threads run meanwhile
        tqdm(pool.map(draw, plan), desc="demo data", unit="image", total=len(plan), disable=not progress) as drawn,
    ):
        for written, fault in drawn:
            files |= written
            faults |= fault
    write_json(root / _MANIFEST, _manifest(wanted, files, faults))


def _draw(
    root: Path, size: int, seed: int, which: tuple[str, str, str, int]
) -> tuple[dict[str, str], dict[str, dict[str, float]]]:
    """Write one picture, its parts and its mask; returns their hashes by name, and its fault, if any."""
    category, split, defect, index = which
    picture = render(category, split, defect, index, size=size, seed=seed)
    name = f"{category}/{split}/{defect}/{index:03d}.png"
    images = {name: picture.image[..., ::-1]}  # cv2 writes BGR
    images[f"{category}/segmentation/{split}/{defect}/{index:03d}.png"] = picture.parts
    faults: dict[str, dict[str, float]] = {}
    if defect != "good":
        images[f"{category}/ground_truth/{defect}/{index:03d}_mask.png"] = picture.mask.astype(np.uint8) * 255
        faults[name] = {"severity": round(picture.severity, 4), "area": round(float(picture.mask.mean()), 6)}
    return {path: _write_png(root / path, array) for path, array in images.items()}, faults


def _write_png(path: Path, array: np.ndarray) -> str:
    """Write one PNG; returns the SHA-256 of its bytes."""
    blob = cv2.imencode(".png", array, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(blob)
    return hashlib.sha256(blob).hexdigest()


def _manifest(wanted: dict[str, Any], files: dict[str, str], faults: dict[str, Any]) -> dict[str, Any]:
    described = {
        name: {
            "description": CATEGORIES[name].description,
            "kind": CATEGORIES[name].kind,
            "defects": CATEGORIES[name].defects,
            "parts": dict(enumerate(CATEGORIES[name].parts)),
        }
        for name in wanted["categories"]
    }
    return {
        "format": _FORMAT,
        "version": GENERATOR_VERSION,
        "parameters": wanted,
        "mask": f"255 where a channel differs by more than {TOLERANCE} from the same picture without the fault",
        "categories": described,
        "faults": faults,
        "files": files,
    }


def _verify(root: Path, wanted: dict[str, Any]) -> None:
    """Raises PNIError unless `root` holds exactly the demo data that is wanted."""
    try:
        manifest = json.loads((root / _MANIFEST).read_bytes())
        found = manifest["parameters"] if manifest["format"] == _FORMAT else None
        version, files = manifest["version"], dict(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if not isinstance(found, dict):
        raise PNIError(f"{root}: holds other files, no demo data: choose another folder")
    if version != GENERATOR_VERSION:
        raise PNIError(
            f"{root}: made by version {version} of the generator, this is {GENERATOR_VERSION}: "
            "delete the folder or choose another"
        )
    for name, value in wanted.items():
        if found.get(name) != value:
            raise PNIError(
                f"{root}: holds demo data with {name}={found.get(name)!r}, not {value!r}: "
                "delete the folder or choose another"
            )
    present = {p.relative_to(root).as_posix() for p in root.rglob("*") if not p.is_dir()} - {_MANIFEST}
    for name in sorted(present ^ set(files)):
        state = "does not belong there" if name in present else "is missing"
        raise PNIError(f"{root}: {name} {state}: delete the folder, then make it again")
    for name, expected in files.items():
        if hashlib.sha256((root / name).read_bytes()).hexdigest() != expected:
            raise PNIError(f"{root}: {name} was changed: delete the folder, then make it again")
