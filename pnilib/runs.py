"""A run on disk: one folder a category, fitted once, resumed when killed, never mixed with another.

    <folder>/model/    the fitted PNI (safetensors + JSON, checksums)
    <folder>/run.json  what it was fitted on: configuration, data hash, backbone weights, seconds, versions
    <folder>/work/     stages of a fit in progress; gone once the model is written
"""

import json
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pnilib.artefacts import exclusive, pnilib_version, write_json
from pnilib.config import PNIConfig
from pnilib.data import Split
from pnilib.errors import PNIError
from pnilib.pni import PNI

__all__ = ["fit_or_load", "manifest"]


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
    keep_work: bool = False,
) -> PNI:
    """The model of this configuration and these images: loaded if `folder` holds it, else fitted there.

    A killed fit resumes with the same call.  A folder that holds a model of another configuration or other
    images is left as it is: PNIError says what differs.  Raises PNIError too while another run writes there.
    `keep_work` keeps the features, coreset and MLP checkpoints, so that a later fit with other settings
    in the same `folder`/work shares them.
    """
    folder = Path(folder)
    with exclusive(folder):
        wanted, record = manifest(config, train, device), folder / "run.json"
        if (folder / "model").exists():
            _require_same(record, wanted)
            return PNI.load(folder / "model", device)
        model = PNI(config, device).fit(train, workdir=folder / "work", progress=progress)
        write_json(record, wanted | {"weights": model.embedder.backbone.weights_id, "seconds": model.seconds})
        model.save(folder / "model")
        if not keep_work:
            shutil.rmtree(folder / "work", ignore_errors=True)
        return model


def _require_same(record: Path, wanted: dict[str, Any]) -> None:
    try:
        found = json.loads(record.read_text())
        old, new = found["config"], wanted["config"]
        changed = [f"{k}={old.get(k)} (now {new[k]})" for k in new if old.get(k) != new[k]]
        if found["data"] != wanted["data"]:
            changed.append("other training images")
    except (OSError, ValueError, KeyError, TypeError):
        raise PNIError(f"{record}: is missing or damaged: delete {record.parent} and fit again") from None
    if changed:
        raise PNIError(
            f"{record.parent}: holds a model of {', '.join(changed)}: choose another output folder, or delete this one"
        )
