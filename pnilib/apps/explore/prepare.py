"""What a folder of `pni fit` or `pni score` lacks for exploring: its images scored under each setting, with their maps.

Written into the folder as a unit like those of `pni reproduce` (pnilib.apps.reproduce.units), named by what its numbers
depend on; another fit, another refinement network or other images make another one.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pnilib.apps.explore.category import model_id, new_images
from pnilib.apps.explore.results import read_unit
from pnilib.apps.reproduce.units import environment, write_setting
from pnilib.data import Dataset
from pnilib.detector.pni import PNI
from pnilib.detector.prediction import Prediction
from pnilib.detector.runs import open_run, run_categories
from pnilib.errors import PNIError
from pnilib.evaluation import checked_test
from pnilib.store.files import write_json
from pnilib.store.locks import lock_folder
from pnilib.store.text import read_json

__all__ = ["SCORE", "is_fit", "is_score", "prepare"]

SCORE = "score.json"
"""In the --out of `pni score`: model (its folder), images (the folder that their names are relative to), refined."""


def is_fit(run: Path | str) -> bool:
    """Whether a folder is one of `pni fit`."""
    run = Path(run)
    return (run / "run.json").exists() or any(run.glob("*/run.json"))


def is_score(run: Path | str) -> bool:
    """Whether a folder is one of `pni score`, finished or not."""
    return not is_fit(run) and any((Path(run) / name).exists() for name in ("scores.csv", "scores.part.jsonl"))


def prepare(
    run: Path | str, *, device: str = "cpu", data: Path | str | None = None, progress: bool = False
) -> list[Path]:
    """Score the images of every fitted category, or of a `pni score`, that is not yet; returns the units' folders, none
    for a run that needs no preparation.

    `data`: where the data set, or the scored images, lie now, if they moved.  A killed call loses one category.  Raises
    PNIError when they are not there, a data set has no test images, the images or the model of a `pni score` are others
    by now, or another run writes to a category.
    """
    if is_score(run):
        return [_prepare_score(Path(run), device, data, progress)]
    if is_fit(run):
        return [_prepare_fit(folder, device, data, progress) for folder in run_categories(run)]
    return []


def _prepare_fit(folder: Path, device: str, root: Path | str | None, progress: bool) -> Path:
    try:
        model, dataset = open_run(folder, device, root)
    except PNIError:
        for ready in sorted(folder.glob("scored-*/unit.json")):  # the data set moved; the numbers are here
            if (read_unit(ready.parent) or {}).get("model") == model_id(folder / "model"):
                return ready.parent
        raise
    if len(dataset.test) == 0:
        raise PNIError(
            f"{dataset.root}: {dataset.category} has no test images: there is nothing to explore; "
            "score new images with `pni score`, and explore its output"
        )
    source = read_json(folder / "run.json")["source"]
    found = dict(source, options=sorted(source["options"].items()), root=str(dataset.root))
    return _prepare(folder, folder / "model", model, dataset, progress, source=found, device=device)


def _prepare_score(folder: Path, device: str, images: Path | str | None, progress: bool) -> Path:
    try:
        said = read_json(folder / SCORE)
        model_folder, place, refined = Path(said["model"]), Path(said["images"]), bool(said["refined"])
        table = pd.read_csv(folder / "scores.csv", keep_default_na=False, dtype=str)
        table = table[table["score"] != ""]  # the others could not be read
        names, scores = list(table["image"]), table["score"].astype(np.float64).to_numpy()
    except (OSError, ValueError, KeyError, TypeError):
        raise PNIError(f"{folder}: {SCORE} or scores.csv is missing or damaged: run `pni score` again") from None
    place = place if images is None else Path(images)
    if not place.is_dir():
        raise PNIError(f"{place}: the images of {folder} are not there: say where they are with --data")
    model = PNI.load(model_folder, device)
    source = _source(model_folder)
    dataset = new_images(place, names, source["category"])
    if len(dataset.test) < len(names) or not names:
        raise PNIError(
            f"{place}: has {len(dataset.test)} of the {len(names)} images of {folder}: run `pni score` again"
        )
    unit = _prepare(
        folder, model_folder, model, dataset, progress, source=source, device=device, model_folder=str(model_folder),
        images=str(place.resolve()),
    )  # fmt: skip
    setting = "PNI" if refined else model.config.setting
    ours = pd.read_csv(unit / f"{setting}.scores.csv", keep_default_na=False)["score"].to_numpy(np.float64)
    if not np.allclose(ours, scores, rtol=1e-3, atol=1e-3 * float(np.abs(scores).max())):
        raise PNIError(f"{folder}: the model or the images are others than were scored: run `pni score` again")
    return unit


def _source(model: Path) -> dict[str, Any]:
    """The data set that a model was fitted on, whose patches explain; an unnamed one for a model without a run."""
    try:
        source = read_json(model.parent / "run.json")["source"]
        return dict(source, options=sorted(source["options"].items()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {"dataset": "folder", "root": str(model / "unknown"), "category": model.parent.name, "options": []}


def _prepare(folder: Path, saved: Path, model: PNI, dataset: Dataset, progress: bool, **unit: Any) -> Path:
    """The unit within `folder` of a model `saved` there; `unit`: what unit.json says besides."""
    identity = model_id(saved)
    key = json.dumps([identity, dataset.test.fingerprint()])
    place = folder / f"scored-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    if (place / "unit.json").exists():
        return place
    with lock_folder(folder):
        if (place / "unit.json").exists():  # of another explorer since then, which shows it
            return place
        checked_test(dataset, model.config.geometry)
        for old in folder.glob("scored-*"):
            shutil.rmtree(old)
        names = _score(model, dataset, place, progress)
        write_json(
            place / "unit.json",
            dict(
                kind="scored", name="test", member=model.config.backbone, seed=model.config.seed, model=identity,
                config=model.config.to_dict(), settings=names, needs=[],
            ) | unit | environment(),
        )  # fmt: skip
    return place


def _score(model: PNI, dataset: Dataset, place: Path, progress: bool) -> list[str]:
    """One setting at a time, as the maps of all test images fill the memory."""
    names = model.settings + ([] if model.refinement is None else ["PNI"])
    for name in names:
        refined = name == "PNI"
        config = model.config if refined else model.config.under(name)
        calibration = None
        if config == model.config:
            prediction: Prediction = model.predict(dataset.test, refined=refined, progress=progress)
            calibration = model.refined_calibration if refined else model.calibration
        else:
            prediction = model.predict_variants(dataset.test, {name: config}, progress=progress)[name]
        write_setting(place, name, prediction, dataset, calibration, keep_maps=True)
    return names
