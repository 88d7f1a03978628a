"""A finished run, opened for looking: scores at once, maps and models when they are asked for.

A run is what `pni reproduce` keeps (its --store, or any folder in it), or a folder of `pni fit`, whose test images
`pnilib.explore.prepare` has scored.  Both consist of units: folders with a unit.json, and for each setting
<setting>.scores.csv, <setting>/meta.json and perhaps <setting>.maps.npy (pnilib.reproduction.units).

Only listings are read here: names and labels come from the run, pictures from the data set that it was made of.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float32, Int64
from numpy import ndarray
from torch import Tensor

from pnilib.config import PNIConfig
from pnilib.data import Dataset, Split, load_dataset
from pnilib.errors import PNIError
from pnilib.images import Geometry
from pnilib.pni import PNI
from pnilib.reproduction.plan import slug
from pnilib.reproduction.units import image_names
from pnilib.text import read_json

__all__ = ["Category", "Exploration", "Scored", "open_exploration"]

ORDER = ("PNI", "PNI (ensemble)", "E", "position", "B", "A", "released")
"""Settings that a reader looks for first; the others follow by name."""
MODELS = 1
"""fitted models that stay in memory; one takes about a gigabyte at the size of the paper."""


@dataclass(frozen=True)
class Scored:
    """One setting's result on all test images of a category.

    label: the setting; with the seed, backbone or run it came from where that is not the first.  place: its artefact.
    unit: what unit.json says.  folder: of the unit.
    """

    label: str
    setting: str
    place: Path
    folder: Path
    unit: dict[str, Any]

    @cached_property
    def table(self) -> pd.DataFrame:
        """image, label (0, 1, or -1: unknown), defect_type, score (float64 of the stored float32).

        Raises PNIError when the file is missing, damaged, empty, or holds a score that is no number.
        """
        file = self.place.with_name(self.place.name + ".scores.csv")
        try:
            table = pd.read_csv(file, keep_default_na=False, dtype={"image": str, "defect_type": str})
            scores = table["score"].astype(np.float32).astype(np.float64)
            table = table.assign(score=scores, label=table["label"].astype(int))[COLUMNS]
        except (OSError, ValueError, KeyError):
            raise PNIError(f"{file}: is missing or damaged: delete {self.folder} and run again") from None
        if table.empty or not np.isfinite(scores).all() or not table["label"].isin([-1, 0, 1]).all():
            raise PNIError(f"{file}: holds no images, or scores or labels that are none: delete {self.folder}")
        return table

    @cached_property
    def facts(self) -> dict[str, Any]:
        """metrics (None where undefined), notes, limits: as the tables of the run have them."""
        try:
            facts = read_json(self.place / "meta.json")
            metrics = {name: None if value is None else float(value) for name, value in facts["metrics"].items()}
            low, high = map(float, facts["limits"])
            return facts | {"metrics": metrics, "limits": (low, high), "config": dict(facts["config"])}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise PNIError(f"{self.place}: is missing or damaged: delete {self.folder} and run again") from None

    def metric(self, name: str) -> float:
        """Of `pnilib.evaluation.METRICS`; NaN where undefined."""
        value = self.facts["metrics"].get(name)
        return math.nan if value is None else float(value)

    @property
    def maps(self) -> Float32[ndarray, "n h w"] | None:
        """Memory-mapped, anew each time, so that what was read leaves the memory; or None where the run did not keep
        them.  Raises PNIError for a file of another size."""
        file = self.place.with_name(self.place.name + ".maps.npy")
        if not file.exists():
            return None
        try:
            maps = np.lib.format.open_memmap(file, mode="r")  # never unpickles, and opens nothing but .npy
        except (OSError, ValueError):
            raise PNIError(f"{file}: is damaged: delete {self.folder} and run again") from None
        wanted = (len(self.table), self.config.image_crop, self.config.image_crop)
        if maps.shape != wanted or maps.dtype != np.float32:
            found = f"{maps.dtype} {maps.shape}, not float32 {wanted}"
            raise PNIError(f"{file}: holds {found}: delete {self.folder} and run again")
        return maps

    @cached_property
    def config(self) -> PNIConfig:
        return PNIConfig.from_dict(self.facts["config"])


COLUMNS = ["image", "label", "defect_type", "score"]


@dataclass(eq=False)
class Category:
    """One category of a run.

    results: label -> what is finished.  root: where its data set is looked for.  older: units that newer ones replace.
    """

    dataset: str
    name: str
    root: Path
    options: dict[str, Any]
    results: dict[str, Scored]
    older: list[Path] = field(default_factory=list)

    @property
    def key(self) -> str:
        return f"{self.dataset}/{self.name}"

    @property
    def first(self) -> Scored:
        return next(iter(self.results.values()))

    @property
    def names(self) -> list[str]:
        """Of the test images, within the data set."""
        return list(self.first.table["image"])

    @property
    def labels(self) -> Int64[ndarray, " n"]:
        return self.first.table["label"].to_numpy(np.int64)

    @property
    def geometry(self) -> Geometry:
        return self.first.config.geometry

    @cached_property
    def data(self) -> Dataset:
        """The data set, where the run says it is or `open_exploration(data=...)` points to.

        Raises PNIError, naming the place, when it is not there or holds other test images.
        """
        if not self.root.is_dir():
            raise PNIError(f"{self.root}: the data set of {self.key} is not there: say where it is with --data")
        try:
            data = load_dataset(self.dataset, self.root, self.name, **self.options)
        except PNIError as fault:
            raise PNIError(f"{fault} (looked for {self.key}: say where it is with --data)") from None
        test = data.test
        found = image_names(test)
        if found != self.names:
            lost = next((name for name in self.names if name not in found), None)
            why = f"lacks {lost}" if lost is not None else f"holds {len(found)} images, the run {len(self.names)}"
            raise PNIError(f"{self.root}: is not the data set of {self.key}: it {why}: say where that is with --data")
        return data

    @cached_property
    def train(self) -> Split:
        return self.data.train

    @cached_property
    def test(self) -> Split:
        return self.data.test

    def move(self, root: Path) -> None:
        """Look for the data set in another place from now on."""
        self.root = root
        for name in ("data", "train", "test"):
            self.__dict__.pop(name, None)

    def image(self, i: int, geometry: Geometry | None = None) -> Float[Tensor, "3 h w"]:
        """Test image i, RGB in [0, 1]."""
        return self.test.image(i, geometry or self.geometry)

    def mask(self, i: int) -> Bool[Tensor, "h w"] | None:
        """The true defect: all False for a normal image, None where it is unknown."""
        return None if self.labels[i] < 0 else self.test.mask(i, self.geometry)

    def model(self, result: Scored) -> PNI:
        """The fitted detector behind a result: its own, or the one that its network or ensemble needs.

        Raises PNIError when the run keeps none (`pni runs --clean models`), and when the data set at hand has other
        training images than it was fitted on.
        """
        model = _load_model(self.model_folder(result))
        if self.root.is_dir():
            here = [Path(str(path)).name for path in self.train.samples["image_path"]]
            if here != [Path(path).name for path in model.train_paths]:
                raise PNIError(
                    f"{self.root}: its training images are not those of the run: say where they are with --data"
                )
        return model

    def model_folder(self, result: Scored) -> Path:
        store, unit, folder = _store_of(result), result.unit, result.folder
        for _ in range(4):  # ensemble -> network -> fit
            for place in (folder / "model", folder.parent / "model"):
                if (place / "manifest.json").exists():
                    return place
            needs = [need for need in unit.get("needs", []) if "/features-" not in need and "/pool-" not in need]
            if not needs or store is None:
                break
            folder = (store / needs[0]).resolve()
            if not folder.is_relative_to(store):
                break
            unit = _read_unit(folder) or {}
        raise PNIError(f"{result.folder}: the fitted model of {result.label} is not there: run again to have it")


@dataclass(eq=False)
class Exploration:
    """An opened run.  categories: key -> category.  unfinished: what the run lacks, one line each."""

    folder: Path
    categories: dict[str, Category]
    unfinished: list[str] = field(default_factory=list)

    @property
    def labels(self) -> list[str]:
        """Of results that any category has, best known first."""
        found = dict.fromkeys(label for category in self.categories.values() for label in category.results)
        rank = {name: k for k, name in enumerate(ORDER)}
        return sorted(found, key=lambda label: rank.get(label, len(rank)))

    @property
    def home(self) -> Path:
        """Where notes on it belong: the whole store or `pni fit` folder, whichever part of it was opened."""
        first = next(iter(self.categories.values())).first
        scored = first.folder.resolve().parents[1] if first.unit["kind"] == "scored" else self.folder
        return _store_of(first) or scored

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
    images, whose results come with " of <folder name>" behind their label.  Units that are not finished are listed
    and left out.  Raises PNIError for a folder without finished runs.
    """
    opened = _open(Path(run), data)
    if other is not None:
        second = _open(Path(other), data)
        name = Path(other).resolve().name
        shared = [key for key in opened.categories if key in second.categories]
        differing = [key for key in shared if opened.categories[key].names != second.categories[key].names]
        shared = [key for key in shared if key not in differing]
        opened.unfinished += [f"{name}: {key}: has other test images, so it is not compared" for key in differing]
        if not shared:
            raise PNIError(f"{other}: shares no category with the same test images with {run}: nothing to compare")
        for key in shared:
            for label, result in second.categories[key].results.items():
                named = f"{label} of {name}"
                opened.categories[key].results[named] = Scored(
                    named, result.setting, result.place, result.folder, result.unit
                )
        opened.unfinished += [f"{name}: {line}" for line in second.unfinished]
    return opened


def _open(run: Path, data: Path | str | None) -> Exploration:
    if not run.is_dir():
        raise PNIError(f"{run}: is not a folder: give the --store of `pni reproduce`, or the --out of `pni fit`")
    units, unfinished = [], []
    for folder in _unit_folders(run):
        unit = _read_unit(folder)
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
    found = {path.parent for depth in range(6) for path in run.glob("*/" * depth + "unit.json")}
    found |= {path for depth in range(4) for path in run.glob("*/" * depth + "seed*/*-*") if path.is_dir()}
    return sorted(found)


def _why(folder: Path) -> str:
    if (folder / "unit.json").exists():
        return "its unit.json is damaged: delete the folder and run again"
    try:
        return f"failed: {read_json(folder / 'failed.json')['error']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "not finished: the same command goes on with it"


def _read_unit(folder: Path) -> dict[str, Any] | None:
    try:
        unit = read_json(folder / "unit.json")
        source = unit["source"]
        str(source["dataset"]), str(source["category"]), str(source["root"])
        options = [(str(name), value) for name, value in source["options"]]
        texts = {name: str(unit[name]) for name in ("kind", "name", "member")}
        lists = {name: [str(entry) for entry in unit[name]] for name in ("settings", "needs")}
        return unit | texts | lists | {"seed": int(unit["seed"]), "source": source | {"options": options}}
    except (OSError, ValueError, KeyError, TypeError):
        return None


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
    found = {}
    for folder, unit in newest.values():
        where = [] if unit["member"] in (first_member, "ensemble") else [unit["member"]]
        where += [] if unit["seed"] == first_seed else [f"seed {unit['seed']}"]
        for setting in unit["settings"]:
            label = ", ".join([setting, *where])
            found[label] = Scored(label, setting, folder / slug(setting), folder, unit)
    rank = {name: k for k, name in enumerate(ORDER)}
    ordered = sorted(found, key=lambda label: (rank.get(label, len(rank)), "," in label, label))
    source = units[-1][1]["source"]
    root = Path(source["root"] if data is None else data)
    return Category(
        source["dataset"], source["category"], root, dict(source["options"]), {k: found[k] for k in ordered}, older
    )


def _store_of(result: Scored) -> Path | None:
    """The folder that ids of units are relative to; None for a scored fit, and for a unit taken out of its store."""
    folder, unit = result.folder.resolve(), result.unit
    parts = (unit["source"]["dataset"], unit["source"]["category"], unit["member"], f"seed{unit['seed']}")
    store = folder.parents[min(4, len(folder.parents) - 1)]
    return store if folder.parent == store.joinpath(*map(slug, parts)) and unit["kind"] != "scored" else None


@lru_cache(maxsize=MODELS)
def _load_model(folder: Path) -> PNI:
    return PNI.load(folder, "cpu")
