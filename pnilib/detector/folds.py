"""Cross-fitting: an image is scored by a model that has not seen it, as every test image is."""

import hashlib
import shutil
from pathlib import Path

import numpy as np

from pnilib.data import Split
from pnilib.detector.pni import PNI
from pnilib.detector.runs import fit_or_load
from pnilib.errors import PNIError

__all__ = ["drop_folds", "fold_models"]


def fold_models(model: PNI, train: Split, work: Path, *, progress: bool = False) -> list[PNI]:
    """Models to score training images with: image i by number i modulo their count.

    `pool_maps=held_out`: model k is fitted, with the configuration of `model`, on the images outside fold k; kept below
    work/folds-..., for a killed run and for other pools of these images, until `drop_folds`.  Else only `model`
    itself.  Raises PNIError for a single image to hold out.
    """
    config = model.config
    if config.pool_maps != "held_out":
        return [model]
    if len(train) < 2:
        raise PNIError(
            "pool_maps=held_out needs two training images, there is one: set pool_maps=leave_out, or add images"
        )
    folds = min(config.pool_folds, len(train))
    key = hashlib.sha256(f"{config.stage_key('maps')} {folds} {train.fingerprint()}".encode()).hexdigest()[:16]
    idx = np.arange(len(train))
    return [
        fit_or_load(
            Split(train.samples.iloc[idx % folds != k], train.root),
            config.replace(calibration_images=0),
            work / f"folds-{key}" / str(k),
            device=model.device,
            progress=progress,
            wait=True,
        )
        for k in range(folds)
    ]


def drop_folds(work: Path) -> None:
    """Delete the models of all folds: a pool, once full, needs them no more."""
    for folder in work.glob("folds-*"):
        shutil.rmtree(folder, ignore_errors=True)
