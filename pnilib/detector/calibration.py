"""The normal-only threshold: which training images can be scored without themselves, and what that promises.

A training image is scored without the coreset vectors that came from it.  Those of an equal image must go as well, or
it would be compared with itself; where none are left, it says nothing about other normal images.
"""

import hashlib
import math

from pnilib.config.geometry import Geometry
from pnilib.data import Split
from pnilib.detector.prediction import Calibration
from pnilib.metrics import normal_threshold, threshold_note

__all__ = ["decision", "equal_images"]


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
