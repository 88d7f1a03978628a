"""A run on disk: one folder a category, fitted once, resumed when killed, never mixed with another.

<folder>/model/    the fitted PNI (safetensors + JSON, checksums)
<folder>/run.json  what it was fitted on: configuration, data hash and place, weights, seconds, versions
<folder>/work/     stages of a fit in progress; gone once the model is written
"""

import dataclasses
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pnilib.artefacts import exclusive, pnilib_version, write_json
from pnilib.config import PNIConfig
from pnilib.data import Dataset, Split, load_dataset
from pnilib.errors import PNIError
from pnilib.pni import PNI
from pnilib.text import read_json

__all__ = ["fit_or_load", "manifest", "open_run", "run_categories"]


def manifest(config: PNIConfig, train: Split, device: str) -> dict[str, Any]:
    """What identifies and documents a run: configuration, data, device, versions."""
    return {
        "config": config.to_dict(),
        "data": train.fingerprint(),
        "n_train": len(train),
        "device": device,
        "versions": {
            "pnilib": pnilib_version(),
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "torchvision", "numpy", "faiss-cpu")},
        },
    }


def fit_or_load(
    train: Split,
    config: PNIConfig,
    folder: Path | str,
    *,
    device: str = "cpu",
    progress: bool = False,
    source: dict[str, Any] | None = None,
) -> PNI:
    """The model of this configuration and these images: loaded if `folder` holds it, else fitted there.

    A killed fit resumes with the same call.  A folder that holds a model of another configuration or other
    images is left as it is: PNIError says what differs (settings of the refinement may: `with_config`).  Raises
    PNIError too while another run fits there. `source` says where the images came from, so that `open_run` finds
    the test images.
    """
    folder, wanted = Path(folder), manifest(config, train, device)
    if not (folder / "model").exists():
        with exclusive(folder):
            if not (folder / "model").exists():  # nor has it come meanwhile
                model = PNI(config, device).fit(train, workdir=folder / "work", progress=progress)
                facts = {"weights": model.embedder.backbone.weights_id, "seconds": model.seconds, "source": source}
                write_json(folder / "run.json", wanted | facts)
                model.save(folder / "model")
                shutil.rmtree(folder / "work", ignore_errors=True)
                return model
    _require_same(folder, wanted)  # without the lock: a model is whole or absent, and several notebooks may read it
    return PNI.load(folder / "model", device).with_config(**config.to_dict())


def run_categories(run: Path | str, wanted: list[str] | None = None) -> list[Path]:
    """The category folders of a run, sorted; `run` may be one of them.  Raises PNIError for none."""
    run = Path(run)
    if (run / "run.json").exists():
        return [run]
    found = {
        path.parent.name: path.parent for path in sorted(run.glob("*/run.json")) if (path.parent / "model").exists()
    }
    if not found:
        raise PNIError(f"{run}: holds no fitted model: give the --out folder of `pni fit`")
    for name in wanted or []:
        if name not in found:
            raise PNIError(f"{run}: has no category {name!r}: choose one of {', '.join(found)}")
    return [folder for name, folder in found.items() if not wanted or name in wanted]


def open_run(folder: Path | str, device: str = "cpu", root: Path | str | None = None) -> tuple[PNI, Dataset]:
    """A fitted model and the data set it came from; `root` says where the data set is now, if it moved.

    Raises PNIError when the run does not know its data set, or the training images differ from the fitted ones.
    """
    folder = Path(folder)
    record = read_record(folder)
    source = record.get("source")
    if not source:
        raise PNIError(f"{folder / 'run.json'}: does not say which data set it was fitted on: fit again with `pni fit`")
    place = Path(source["root"] if root is None else root)
    if not place.is_dir():
        raise PNIError(f"{place}: the data set of {folder} is not there: say where it is with --root")
    data = load_dataset(source["dataset"], place, source["category"], **source["options"])
    if data.train.fingerprint() != record["data"]:
        raise PNIError(f"{place}: its training images are not those that {folder} was fitted on: fit again")
    return PNI.load(folder / "model", device), data


def read_record(folder: Path) -> dict[str, Any]:
    """run.json of a category folder."""
    try:
        record = read_json(folder / "run.json")
        return record | {"config": dict(record["config"]), "data": record["data"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise PNIError(f"{folder / 'run.json'}: is missing or damaged: delete {folder} and fit again") from None


def _require_same(folder: Path, wanted: dict[str, Any]) -> None:
    found = read_record(folder)
    old, new = found["config"], wanted["config"]
    learnt = {
        f.name for f in dataclasses.fields(PNIConfig) if f.metadata["stage"] not in ("defects", "refinement", "fusion")
    }
    changed = [f"{k}={old.get(k)} (now {new[k]})" for k in new if k in learnt and old.get(k) != new[k]]
    if found["data"] != wanted["data"]:
        changed.append("other training images")
    if changed:
        raise PNIError(f"{folder}: holds a model of {', '.join(changed)}: choose another output folder, or delete it")
