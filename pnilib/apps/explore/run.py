"""A finished run, opened for looking: scores at once, maps and models when they are asked for.

A run is what `pni reproduce` keeps (its --store, or any folder in it), or a folder of `pni fit` or `pni score`, whose
images `pnilib.apps.explore.prepare` has scored.  All consist of units (pnilib.apps.explore.results).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pnilib.apps.explore.category import Category
from pnilib.apps.explore.results import SettingResult, read_unit
from pnilib.apps.reproduce.plan import slug
from pnilib.errors import PNIError
from pnilib.store.text import read_json

__all__ = ["Category", "Exploration", "SettingResult", "open_exploration"]

ORDER = ("PNI", "PNI (ensemble)", "E", "position", "B", "A", "released")
"""Settings that a reader looks for first; the others follow by name."""


@dataclass(eq=False)
class Exploration:
    """An opened run.  categories: key -> category.  unfinished: what the run lacks, one line each.  second: name of the
    run that it is compared with, "" for none."""

    folder: Path
    categories: dict[str, Category]
    unfinished: list[str] = field(default_factory=list)
    second: str = ""

    @property
    def labels(self) -> list[str]:
        """Of results that any category has, best known first."""
        labels = dict.fromkeys(label for category in self.categories.values() for label in category.results)
        rank = {name: k for k, name in enumerate(ORDER)}
        return sorted(labels, key=lambda label: rank.get(label, len(rank)))

    @property
    def home(self) -> Path:
        """Where notes on it belong: the whole store or `pni fit` folder, whichever part of it was opened."""
        category = next(iter(self.categories.values()))
        folder = category.first.folder.resolve()
        if category.images is not None:
            return folder.parent
        scored = folder.parents[1] if category.first.unit["kind"] == "scored" else self.folder
        return category.first.store or scored

    def counterpart(self, label: str) -> str | None:
        """The same setting, seed and backbone of the other one of two runs, where there is one."""
        mark = f" of {self.second}"
        other = label.removesuffix(mark) if label.endswith(mark) else label + mark
        return other if self.second and other in self.labels else None

    def category(self, key: str) -> Category:
        """By key, or by name alone where that is enough.  Raises PNIError for none."""
        matching = [c for c in self.categories.values() if key in (c.key, c.name)]
        if len(matching) != 1:
            raise PNIError(f"{self.folder}: category {key!r}: choose one of {', '.join(self.categories)}")
        return matching[0]


def open_exploration(
    run: Path | str, *, data: Path | str | None = None, other: Path | str | None = None
) -> Exploration:
    """Open a run.

    `data`: where its data set lies now, if it moved (for a run of one data set).  `other`: a second run of the same
    images, whose results come with " of <folder name>" behind their label, and keep their own models and training
    images.  Units that are not finished are listed and left out.  Raises PNIError for a folder without finished runs.
    """
    opened = _open(Path(run), data)
    if other is None:
        return opened
    second = _open(Path(other), data)
    name = Path(other).resolve().name
    shared = [key for key in opened.categories if key in second.categories]
    differing = {key: _difference(opened.categories[key], second.categories[key]) for key in shared}
    shared = [key for key in shared if not differing[key]]
    opened.unfinished += [f"{name}: {key}: has {why}, so it is not compared" for key, why in differing.items() if why]
    if not shared:
        raise PNIError(f"{other}: shares no category with the same test images with {run}: nothing to compare")
    for key in shared:
        for label, result in second.categories[key].results.items():
            named, suffix = f"{label} of {name}", f"{result.suffix} of {name}"
            opened.categories[key].results[named] = replace(result, label=named, suffix=suffix)
    opened.unfinished += [f"{name}: {line}" for line in second.unfinished]
    return Exploration(opened.folder, opened.categories, opened.unfinished, name)


def _difference(one: Category, other: Category) -> str:
    """Why two runs of a category cannot be compared image by image, "" if they can."""
    if one.names != other.names:
        return "other test images"
    if one.digests and other.digests and one.digests != other.digests:
        return "other test images of the same names"
    return "" if one.labels.tolist() == other.labels.tolist() else "other labels"


def _open(run: Path, data: Path | str | None) -> Exploration:
    if not run.is_dir():
        raise PNIError(f"{run}: is not a folder: give the --store of `pni reproduce`, or the --out of `pni fit`")
    units, unfinished = [], []
    for folder in _unit_folders(run):
        unit = read_unit(folder)
        if unit is None:
            unfinished.append(f"{folder.relative_to(run)}: {_why(folder)}")
        elif unit["settings"]:
            units.append((folder, unit))
    if not units:
        more = f" ({len(unfinished)} not finished)" if unfinished else ""
        raise PNIError(f"{run}: holds no finished run{more}: `pni reproduce` or `pni fit` make them")
    categories = {}
    for key in sorted({(unit["source"]["dataset"], unit["source"]["category"]) for _, unit in units}):
        mine = [(f, u) for f, u in units if (u["source"]["dataset"], u["source"]["category"]) == key]
        category = _category(mine, data)
        categories[category.key] = category
    if data is not None and len({category.dataset for category in categories.values()}) > 1:
        raise PNIError(f"--data {data}: the run has several data sets: open one of them, as {run / key[0]}")
    return Exploration(run, categories, unfinished)


def _unit_folders(run: Path) -> list[Path]:
    """Folders that are or would be units: of a store and of parts of it, and the scored ones of fitted models."""
    folders = {path.parent for depth in range(6) for path in run.glob("*/" * depth + "unit.json")}
    folders |= {path for depth in range(4) for path in run.glob("*/" * depth + "seed*/*-*") if path.is_dir()}
    return sorted(folders)


def _why(folder: Path) -> str:
    if (folder / "unit.json").exists():
        return "its unit.json is damaged: delete the folder and run again"
    try:
        return f"failed: {read_json(folder / 'failed.json')['error']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "not finished: the same command goes on with it"


def _category(units: Sequence[tuple[Path, dict[str, Any]]], data: Path | str | None) -> Category:
    """Of several units of one name the newest counts, of all units those of the newest one's images, and of networks
    those that were trained on a fit that counts."""
    newest: dict[tuple[str, int, str, str], tuple[Path, dict[str, Any]]] = {}
    older: list[Path] = []
    units = sorted(units, key=lambda pair: (pair[0] / "unit.json").stat().st_mtime_ns)
    images = units[-1][1].get("data")
    for folder, unit in units:
        if unit.get("data") != images:
            older.append(folder)
            continue
        name = (unit["member"], unit["seed"], unit["kind"], unit["name"])
        if name in newest:
            older.append(newest[name][0])
        newest[name] = (folder, unit)
    for kind in ("network", "ensemble"):
        for name, (_, unit) in list(newest.items()):
            if unit["kind"] == kind and {Path(need).name for need in unit["needs"]} & {path.name for path in older}:
                older.append(newest.pop(name)[0])
    members = [u["member"] for _, u in newest.values() if u["kind"] != "ensemble"]
    first_member = max(dict.fromkeys(members), key=members.count, default="")
    first_seed = min(u["seed"] for _, u in newest.values())
    source, at = units[-1][1]["source"], units[-1][1].get("images")
    images = None if at is None else Path(at if data is None else data)
    root = Path(source["root"] if data is None or images is not None else data)
    category = Category(source["dataset"], source["category"], root, dict(source["options"]), {}, older, images)
    results = {}
    for folder, unit in newest.values():
        where = [] if unit["member"] in (first_member, "ensemble") else [unit["member"]]
        where += [] if unit["seed"] == first_seed else [f"seed {unit['seed']}"]
        for setting in unit["settings"]:
            suffix = "".join(f", {word}" for word in where)
            label = f"{setting}{suffix}"
            results[label] = SettingResult(label, setting, folder / slug(setting), folder, unit, suffix, category)
    rank = {name: k for k, name in enumerate(ORDER)}
    ordered = sorted(results, key=lambda label: (rank.get(label, len(rank)), "," in label, label))
    category.results = {label: results[label] for label in ordered}
    return category
