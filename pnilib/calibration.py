"""The normal-only threshold: which training images can be scored without themselves, and what that promises.

A training image is scored without the coreset vectors that came from it.  Those of an equal file must go as well, or
the image would be compared with itself; where none are left, it says nothing about other normal images.
"""

import hashlib
import math
import os
from collections import Counter
from collections.abc import Sequence

from pnilib.errors import PNIError
from pnilib.metrics import normal_threshold, threshold_note
from pnilib.prediction import Calibration

__all__ = ["decision", "equal_files"]


def equal_files(paths: Sequence[str | os.PathLike[str]]) -> list[list[int]]:
    """For each file the indices of all files with the same bytes, its own among them.

    Only files of equal length are read.  Raises PNIError for one that cannot be.
    """
    try:
        sizes = [os.stat(path).st_size for path in paths]
        common = Counter(sizes)
        keys: list[tuple[int, object]] = []
        for i, (path, size) in enumerate(zip(paths, sizes, strict=True)):
            if common[size] == 1:
                keys.append((size, i))
                continue
            with open(path, "rb") as file:
                keys.append((size, hashlib.file_digest(file, "sha256").digest()))
    except OSError as fault:
        raise PNIError(f"{fault.filename}: cannot be read ({fault.strerror}): check the file") from None
    groups: dict[tuple[int, object], list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    return [groups[key] for key in keys]


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
