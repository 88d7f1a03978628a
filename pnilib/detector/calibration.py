"""The normal-only threshold: which training images can be scored without themselves, and what that promises.

A training image is scored without the coreset vectors that came from it.  Those of an equal image must go as well, or
it would be compared with itself; where none are left, it says nothing about other normal images.
"""

import hashlib
import math

import numpy as np

from pnilib.config import PNIConfig
from pnilib.config.geometry import Geometry
from pnilib.coreset import Coreset
from pnilib.data import Split
from pnilib.detector.prediction import Calibration, Prediction
from pnilib.errors import PNIError
from pnilib.metrics import normal_threshold, threshold_note

__all__ = ["calibration_of", "decision", "equal_images", "images_to_calibrate", "map_limits"]


def equal_images(split: Split, geometry: Geometry) -> list[list[int]]:
    """For each image the indices of all that are equal once decoded, resized and cropped, its own among them.

    Raises PNIError for one that cannot be read.
    """
    groups: dict[bytes, list[int]] = {}
    of = []
    for i in range(len(split)):
        group = groups.setdefault(hashlib.sha256(split.image(i, geometry).numpy().tobytes()).digest(), [])
        group.append(i)
        of.append(group)
    return of


def decision(calibration: Calibration | None, fpr: float, n_train: int) -> tuple[float, str]:
    """The normal-only threshold, NaN where there is none; and why that is so, or what it cannot promise ("": nothing).

    `fpr`: the tolerated share of false alarms.  `n_train`: training images of the model.
    """
    if calibration is None:
        return math.nan, "no normal-only threshold: the model carries no calibration for these settings"
    n = len(calibration.image_scores)
    if n == 0:
        why = "there is one training image alone" if n_train == 1 else "the training images are equal"
        return math.nan, f"no normal-only threshold: {why}, with nothing to compare with: nothing is called defective"
    return normal_threshold(calibration.image_scores, fpr), threshold_note(n, fpr)


def images_to_calibrate(train: Split, config: PNIConfig, coreset: Coreset) -> tuple[Split, list[list[int]], bool]:
    """Training images evenly over the split; for each the images whose vectors it must not use, itself and its equals;
    and whether these have any others to be compared with.  Raises PNIError where the configuration asks for none."""
    count = min(config.calibration_images, len(train))
    if count == 0:
        raise PNIError("calibrate needs images: set calibration_images > 0")
    evenly = np.unique(np.linspace(0, len(train) - 1, count).round().astype(int))
    equal, sources = equal_images(train, config.geometry), set(coreset.image_idx.tolist())
    comparable = [i for i in evenly if not sources <= set(equal[i])]
    chosen = comparable or list(evenly)
    return Split(train.samples.iloc[chosen], train.root), [equal[i] for i in chosen], bool(comparable)


def calibration_of(scored: Prediction, comparable: bool) -> Calibration:
    """What is kept of scored training images; without any that are `comparable`, their maps' range alone."""
    scores = scored.image_scores[: None if comparable else 0]
    return Calibration(scores, float(scored.maps.min()), float(scored.maps.max()))


def map_limits(calibration: Calibration | None) -> tuple[float, float]:
    """Map values at which a heat map is clear and where it is opaque: the middle of what the calibration images' maps
    reach, and 1.25 times the most that they reach, counted from their least where that is negative (a refined map's).

    Raises PNIError without a calibration.
    """
    if calibration is None:
        raise PNIError(
            "the model carries no calibration, which sets threshold and colours: fit with calibration_images > 0"
        )
    low, high = calibration.low, calibration.high
    return (low + high) / 2, high + 0.25 * (high - min(low, 0.0))
