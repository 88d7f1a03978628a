"""Cross-fitting: an image is scored by a model that has not seen it, as every test image is."""

from pathlib import Path

import numpy as np

from pnilib.data import Split
from pnilib.errors import PNIError
from pnilib.pni import PNI
from pnilib.runs import fit_or_load

__all__ = ["fold_models"]


def fold_models(model: PNI, train: Split, work: Path, *, progress: bool = False) -> list[PNI]:
    """Models to score training images with: image i by number i modulo their count.

    `pool_maps=held_out`: model k is fitted, with the configuration of `model`, on the images outside fold k (kept below
    `work`, so that a killed run resumes); else only `model` itself.  Raises PNIError for a single image to hold out.
    """
    config = model.config
    if config.pool_maps != "held_out":
        return [model]
    if len(train) < 2:
        raise PNIError(
            "pool_maps=held_out needs two training images, there is one: set pool_maps=leave_out, or add images"
        )
    folds = min(config.pool_folds, len(train))
    idx = np.arange(len(train))
    return [
        fit_or_load(
            Split(train.samples.iloc[idx % folds != k], train.root),
            config.replace(calibration_images=0),
            work / str(k),
            device=model.device,
            progress=progress,
        )
        for k in range(folds)
    ]
