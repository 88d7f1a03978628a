"""What a folder of `pni fit` lacks for exploring: its test images scored under each setting, with their maps.

Written beside the model as a unit like those of `pni reproduce` (pnilib.reproduction.units), in a folder named by what
its numbers depend on; another refinement network or other test images make another one.
"""

import hashlib
import json
import shutil
from pathlib import Path

from pnilib.artefacts import exclusive, write_json
from pnilib.data import Dataset
from pnilib.errors import PNIError
from pnilib.evaluation import checked_test
from pnilib.pni import PNI
from pnilib.prediction import Prediction
from pnilib.reproduction.units import environment, write_setting
from pnilib.runs import open_run, run_categories
from pnilib.text import read_json

__all__ = ["is_fit", "prepare"]


def is_fit(run: Path | str) -> bool:
    """Whether a folder is one of `pni fit`, not of `pni reproduce`."""
    run = Path(run)
    return (run / "run.json").exists() or any(run.glob("*/run.json"))


def prepare(
    run: Path | str, *, device: str = "cpu", data: Path | str | None = None, progress: bool = False
) -> list[Path]:
    """Score the test images of every fitted category that is not yet; returns the units' folders.

    `data`: where the data set lies now, if it moved.  A killed call loses one category.  Raises PNIError when the
    data set is not there, has no test images, or another run writes to a category.
    """
    return [_prepare(folder, device, data, progress) for folder in run_categories(run)]


def _prepare(folder: Path, device: str, root: Path | str | None, progress: bool) -> Path:
    try:
        model, dataset = open_run(folder, device, root)
    except PNIError:
        if ready := sorted(folder.glob("scored-*/unit.json")):  # the data set moved; the numbers are here
            return ready[-1].parent
        raise
    facts = None if model.refinement is None else model.refinement.facts()
    identity = json.dumps([model.config.to_dict(), dataset.train.fingerprint(), dataset.test.fingerprint(), facts])
    place = folder / f"scored-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    if (place / "unit.json").exists():
        return place
    with exclusive(folder):
        if (place / "unit.json").exists():  # of another explorer since then, which shows it
            return place
        checked_test(dataset, model.config.geometry)
        for old in folder.glob("scored-*"):
            shutil.rmtree(old)
        _score(model, dataset, place, progress)
        source = read_json(folder / "run.json")["source"]
        found = dict(source, options=sorted(source["options"].items()), root=str(dataset.root))
        write_json(
            place / "unit.json",
            dict(
                kind="scored", name="test", member=model.config.backbone, seed=model.config.seed, source=found,
                config=model.config.to_dict(), settings=_settings(model), needs=[], device=device,
            ) | environment(),
        )  # fmt: skip
    return place


def _settings(model: PNI) -> list[str]:
    return model.settings if model.refinement is None else [*model.settings, "PNI"]


def _score(model: PNI, dataset: Dataset, place: Path, progress: bool) -> None:
    """One setting at a time, as the maps of all test images fill the memory."""
    for name in _settings(model):
        refined = name == "PNI"
        config = model.config if refined else model.config.under(name)
        calibration = None
        if config == model.config:
            prediction: Prediction = model.predict(dataset.test, refined=refined, progress=progress)
            calibration = model.refined_calibration if refined else model.calibration
        else:
            prediction = model.predict_variants(dataset.test, {name: config}, progress=progress)[name]
        write_setting(place, name, prediction, dataset, calibration, keep_maps=True)
