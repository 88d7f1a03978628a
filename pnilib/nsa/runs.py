"""An NSA run on disk, as `pnilib.detector.runs` keeps PNI's: one folder a category, fitted once, resumed when killed.

<folder>/model/        the fitted network
<folder>/run.json      settings, data hash and place, versions
<folder>/training/     epoch_0020.png ...: what the network draws by then; history.csv: loss by epoch
<folder>/work/         the checkpoint of a fit in progress
"""

import json
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from numpy import ndarray

from pnilib.data import Dataset
from pnilib.data.files import refuse_output_around
from pnilib.detector.runs import open_data, read_record, require_kind
from pnilib.errors import PNIError
from pnilib.machine import library_versions
from pnilib.nsa.config import NSAConfig
from pnilib.nsa.detector import NSA
from pnilib.store.files import write_csv, write_json
from pnilib.store.locks import lock_folder
from pnilib.store.version import pnilib_version

__all__ = ["N_PICTURES", "fit_or_load", "open_run"]

N_PICTURES = 8
"""Strips of pictures that a training leaves."""

_SCORING = ("image_score",)
"""Settings that may change after the fit."""


def fit_or_load(
    data: Dataset,
    config: NSAConfig,
    folder: Path | str,
    *,
    device: str = "cpu",
    workers: int = 0,
    progress: bool = False,
    source: dict[str, Any] | None = None,
    draw: Callable[[NSA, list[ndarray], int, Path], None] | None = None,
    n_pictures: int = N_PICTURES,
) -> NSA:
    """The model of these settings and images: loaded if `folder` holds it, else fitted there.

    draw: makes one of `n_pictures` strips of pictures: (model, training images, epoch, file).  A killed fit resumes
    with the same call.  Raises PNIError when the folder holds a model of other settings or images, or another run fits
    there.
    """
    folder = Path(folder)
    refuse_output_around(data.train.samples["image_path"], folder)
    wanted = {"config": config.to_dict(), "data": data.train.fingerprint()}
    with lock_folder(folder):
        if (folder / "model").exists():
            _require_same(folder, wanted)
            model = NSA.load(folder / "model", device)
            model.config = config
            return model
        model = NSA(config, device)

        def after(epoch: int, model: NSA, images: list[ndarray]) -> None:
            n = config.n_epochs(model.rules_name)
            if draw is not None and epoch in {max(1, round(n * (k + 1) / n_pictures)) for k in range(n_pictures)}:
                draw(model, images, epoch, folder / "training" / f"epoch_{epoch:04d}.png")
                _write_history(model, folder)

        model.fit(
            data.train, data.name, data.category, workers=workers, checkpoint=folder / "work" / "checkpoint",
            after_epoch=after, progress=progress,
        )  # fmt: skip
        _write_history(model, folder)
        facts = {
            "kind": "nsa",
            "rules": model.rules_name,
            "n_train": len(data.train),
            "device": device,
            "seconds": model.seconds,
            "source": source,
            "versions": {
                "pnilib": pnilib_version(),
                "python": platform.python_version(),
                **library_versions("torch", "torchvision", "opencv-python-headless", "numpy"),
            },
        }
        write_json(folder / "run.json", wanted | facts)
        model.save(folder / "model")
        shutil.rmtree(folder / "work", ignore_errors=True)
        return model


def _write_history(model: NSA, folder: Path) -> None:
    write_csv(folder / "training" / "history.csv", pd.DataFrame(model.history))


def _require_same(folder: Path, wanted: dict[str, Any]) -> None:
    require_kind(folder, "nsa")
    found = read_record(folder)
    old, new = found["config"], json.loads(json.dumps(wanted["config"]))
    changed = [f"{k}={old.get(k)} (now {new[k]})" for k in new if k not in _SCORING and old.get(k) != new[k]]
    if found["data"] != wanted["data"]:
        changed.append("other training images")
    if changed:
        raise PNIError(f"{folder}: holds a model of {', '.join(changed)}: choose another output folder, or delete it")


def open_run(folder: Path | str, device: str = "cpu", root: Path | str | None = None) -> tuple[NSA, Dataset]:
    """A fitted model and the data set it came from.

    Raises PNIError as `pnilib.detector.runs.open_data` does, and for a folder of another detector.
    """
    folder = Path(folder)
    return NSA.load(folder / "model", device), open_data(folder, root)
