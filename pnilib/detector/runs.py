"""A run on disk: one folder a category, fitted once, resumed when killed, never mixed with another.

<folder>/model/    the fitted PNI (safetensors + JSON, checksums)
<folder>/run.json  what it was fitted on: configuration, data hash and place, weights, seconds, versions
<folder>/work/     stages of a fit in progress; gone once the model is written
"""

import dataclasses
import json
import platform
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pnilib.config import PNIConfig
from pnilib.data import Dataset, Split, load_dataset
from pnilib.data.files import refuse_output_around
from pnilib.detector.pni import PNI
from pnilib.errors import PNIError
from pnilib.machine import library_versions
from pnilib.store.artefacts import read_meta
from pnilib.store.files import write_json
from pnilib.store.locks import lock_folder
from pnilib.store.text import read_json
from pnilib.store.version import pnilib_version

__all__ = [
    "category_folder",
    "fit_or_load",
    "manifest",
    "open_data",
    "open_members",
    "open_run",
    "read_record",
    "require_kind",
    "run_categories",
]

_TAKEN = re.compile(r"refinement|metrics(-refined)?(-ensemble)?\.csv", re.IGNORECASE)
"""What `pni refine` and `pni evaluate` write beside the category folders."""
_LEARNT = [
    f.name for f in dataclasses.fields(PNIConfig) if f.metadata["stage"] not in ("defects", "refinement", "fusion")
]
"""Settings that another model needs; those of the refinement may change."""


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
            **library_versions("torch", "torchvision", "timm", "numpy"),
        },
    }


def category_folder(run: Path, category: str) -> Path:
    """Where a run keeps a category.  Raises PNIError for a name that the run needs for itself."""
    if _TAKEN.fullmatch(category):
        raise PNIError(f"category {category!r}: has the name of a file or folder of every run: rename its folder")
    return run / category


def fit_or_load(
    train: Split,
    config: PNIConfig,
    folder: Path | str,
    *,
    device: str = "cpu",
    progress: bool = False,
    source: dict[str, Any] | None = None,
    wait: bool = False,
) -> PNI:
    """The model of this configuration and these images: loaded if `folder` holds it, else fitted there.

    A killed fit resumes with the same call.  A folder that holds a model of another configuration or other
    images is left as it is: PNIError says what differs (settings of the refinement may: `with_config`).  Raises
    PNIError too while another run fits there, unless it shall `wait` for what that run makes. `source` says where the
    images came from, so that `open_run` finds the test images; another one than before replaces it.
    """
    folder, wanted = Path(folder), manifest(config, train, device)
    refuse_output_around(train.samples["image_path"], folder)
    if not (folder / "model").exists():
        with lock_folder(folder, wait=wait):
            if not (folder / "model").exists():  # nor has it come meanwhile
                model = PNI(config, device).fit(train, workdir=folder / "work", progress=progress)
                facts = {"weights": model.embedder.backbone.weights_id, "seconds": model.seconds, "source": source}
                write_json(folder / "run.json", wanted | facts)
                model.save(folder / "model")
                shutil.rmtree(folder / "work", ignore_errors=True)
                return model
    record = _require_same(folder, wanted)  # without the lock: a model is whole or absent, and several may read it
    if source is not None and record.get("source") != json.loads(json.dumps(source)):  # moved, or other options
        with lock_folder(folder, wait=wait):
            write_json(folder / "run.json", record | {"source": source})
    if (folder / "work").exists():  # left by a run that was killed after it had saved the model
        with suppress(PNIError), lock_folder(folder):
            shutil.rmtree(folder / "work", ignore_errors=True)
    return PNI.load(folder / "model", device).with_config(**config.to_dict())


def run_categories(run: Path | str, wanted: list[str] | None = None, *, kind: str | None = "pni") -> list[Path]:
    """The category folders of a run, sorted; `run` may be one of them.

    Raises PNIError for none, and for a run of another detector than `kind` (None: any).
    """
    run = Path(run)
    if (run / "run.json").exists():
        require_kind(run, kind)
        return [run]
    found = {
        path.parent.name: path.parent for path in sorted(run.glob("*/run.json")) if (path.parent / "model").exists()
    }
    if not found:
        raise PNIError(f"{run}: holds no fitted model: give the --out folder of `pni fit`")
    for name in wanted or []:
        if name not in found:
            raise PNIError(f"{run}: has no category {name!r}: choose one of {', '.join(found)}")
    chosen = [folder for name, folder in found.items() if not wanted or name in wanted]
    for folder in chosen:
        require_kind(folder, kind)
    return chosen


def require_kind(folder: Path, kind: str | None) -> None:
    """Raises PNIError for a category folder of another detector than `kind` (None: any)."""
    try:
        found = str(read_json(folder / "run.json").get("kind", "pni"))
    except (OSError, ValueError, AttributeError):
        return  # whoever reads the rest says what is wrong with it
    if kind not in (None, found):
        command = "pni" if found == "pni" else f"pni {found}"
        raise PNIError(f"{folder}: is a run of `{command} fit`: use `{command} evaluate` and `{command} score` on it")


def open_run(folder: Path | str, device: str = "cpu", root: Path | str | None = None) -> tuple[PNI, Dataset]:
    """A fitted model and the data set it came from; `root` says where the data set is now, if it moved.

    Raises PNIError when the run does not know its data set, or the training images differ from the fitted ones.
    """
    data = open_data(folder, root)
    return PNI.load(Path(folder) / "model", device), data


def open_data(folder: Path | str, root: Path | str | None = None) -> Dataset:
    """The data set of `open_run`, without the model."""
    folder = Path(folder)
    record = read_record(folder)
    source = record.get("source")
    if not source:
        raise PNIError(f"{folder / 'run.json'}: does not say which data set it was fitted on: fit again with `pni fit`")
    place = Path(source["root"] if root is None else root)
    if not place.is_dir():
        raise PNIError(f"{place}: the data set of {folder} is not there: say where it is with --root")
    try:
        data = load_dataset(source["dataset"], place, source["category"], **source["options"])
    except PNIError as fault:
        how = " (the same `pni fit` with it keeps the model)" if "--option" in str(fault) else ""
        raise PNIError(f"{fault}{how}") from None
    if data.train.fingerprint() != record["data"]:
        raise PNIError(f"{place}: its training images are not those that {folder} was fitted on: fit again")
    return data


def open_members(folder: Path | str, others: Sequence[Path | str], device: str = "cpu") -> dict[str, PNI]:
    """The models of other runs that may join that of `folder` in an ensemble, by their folders.

    Raises PNIError for a run that was fitted on other training images, or is named twice.
    """
    data, found = read_record(Path(folder))["data"], {}
    if len({Path(one).resolve() for one in (folder, *others)}) <= len(others):
        raise PNIError(f"{folder}: an ensemble is of several runs: name each once")
    for other in map(Path, others):
        if read_record(other)["data"] != data:
            raise PNIError(
                f"{other}: was fitted on other training images than {folder}: no ensemble can be made of them"
            )
        found[str(other)] = PNI.load(other / "model", device)
    return found


def read_record(folder: Path) -> dict[str, Any]:
    """run.json of a category folder."""
    if not (folder / "run.json").exists() and not (folder / "model").exists():
        raise PNIError(f"{folder}: holds no fitted model: give the --out folder of `pni fit`")
    try:
        record = read_json(folder / "run.json")
        record |= {"config": dict(record["config"]), "data": record["data"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise PNIError(f"{folder / 'run.json'}: is missing or damaged: delete {folder} and fit again") from None
    if (folder / "model").exists():
        _require_own_model(folder, record)
    return record


def _require_own_model(folder: Path, record: dict[str, Any]) -> None:
    """Raises PNIError when run.json says otherwise than the model itself: someone changed it by hand."""
    facts = read_meta(folder / "model")
    told, own = PNIConfig().to_dict() | record["config"], PNIConfig().to_dict() | facts.get("config", {})
    wrong = [f"{name}={told[name]}, the model {name}={own[name]}" for name in _LEARNT if told[name] != own[name]]
    if record["data"] != facts.get("train_fingerprint"):
        wrong.append("other training images than the model")
    if wrong:
        raise PNIError(f"{folder / 'run.json'}: says {wrong[0]}: delete {folder} and fit again")


def _require_same(folder: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """The record of the run in `folder`.  Raises PNIError when it is of other settings or images."""
    require_kind(folder, "pni")
    found = read_record(folder)
    old, new = PNIConfig().to_dict() | found["config"], wanted["config"]  # a setting that came later had its default
    changed = [f"{k}={old.get(k)} (now {new[k]})" for k in new if k in _LEARNT and old.get(k) != new[k]]
    if found["data"] != wanted["data"]:
        changed.append("other training images")
    if changed:
        raise PNIError(f"{folder}: holds a model of {', '.join(changed)}: choose another output folder, or delete it")
    return found
