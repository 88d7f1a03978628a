"""What lies in the store: units, their state and size; and how to get rid of it."""

import shutil
from pathlib import Path

import pandas as pd

from pnilib.errors import PNIError
from pnilib.store.text import read_json

__all__ = ["CLEANERS", "clean_store", "list_units"]

CLEANERS = ("work", "maps", "models", "failed", "all")
"""Intermediate work; maps of test images (figures need them again); fitted models (so do further networks); failed
units; everything."""

COLUMNS = ["dataset", "category", "backbone", "seed", "unit", "status", "seconds", "bytes", "folder"]


def _units(store: Path) -> list[Path]:
    """Folders of units: <dataset>/<category>/<backbone>/seed<k>/<kind>-<name>-<key>."""
    return sorted(path for path in store.glob("*/*/*/seed*/*-*") if path.is_dir())


def list_units(store: Path | str) -> pd.DataFrame:
    """One row a unit: COLUMNS.  status: done, failed: why, or unfinished.  Raises PNIError for what is no store."""
    store = Path(store)
    if not store.is_dir():
        raise PNIError(f"{store}: is not a folder: give the --store of `pni reproduce`")
    rows = []
    if any([*store.glob("run.json"), *store.glob("*/run.json")]):
        raise PNIError(f"{store}: holds models of `pni fit`: `pni evaluate` and `pni explore` open them")
    for folder in _units(store):
        dataset, category, backbone, seed = folder.relative_to(store).parts[:4]
        status, seconds = "unfinished", float("nan")
        try:
            if (folder / "unit.json").exists():
                status, seconds = "done", read_json(folder / "unit.json")["seconds"]
            elif (folder / "failed.json").exists():
                status = f"failed: {read_json(folder / 'failed.json')['error']}"
        except (ValueError, KeyError):
            status = "damaged: delete its folder"
        rows.append(
            dict(
                dataset=dataset, category=category, backbone=backbone, seed=seed.removeprefix("seed"),
                unit=folder.name.rsplit("-", 1)[0], status=status, seconds=seconds, bytes=_size(folder),
                folder=folder.relative_to(store).as_posix(),
            )
        )  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def clean_store(store: Path | str, what: str) -> int:
    """Delete one of CLEANERS; returns the bytes freed.  A unit whose maps or model go is made anew when needed."""
    store = Path(store)
    if what == "work":
        doomed = list(store.glob("*/*/*/work"))
    elif what == "maps":
        doomed = [file for unit in _units(store) for file in unit.glob("*.maps.npy")]
    elif what == "models":
        doomed = [unit / "model" for unit in _units(store) if (unit / "model").exists()]
    elif what == "failed":
        doomed = [unit for unit in _units(store) if not (unit / "unit.json").exists()]
    else:
        doomed = [path for path in store.iterdir() if path.is_dir()]
    freed = sum(_size(path) for path in doomed)
    for path in doomed:
        if what in ("maps", "models"):  # what held it is no longer whole
            (path.parent / "unit.json").unlink(missing_ok=True)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return freed


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
