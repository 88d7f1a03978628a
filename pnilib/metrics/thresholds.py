r"""From scores to decisions: a threshold from normal data alone, and the errors it makes.

Everywhere in this package an item is called defective when score >= threshold.

Deviation: the released code counts a score *equal* to the threshold as neither kind of error.  The paper's error counts
(sec. 4.2: 7 false positives, 12 false negatives) use the F1-optimal threshold of the test set itself;
`normal_threshold` needs no test label.
"""

import math
from typing import NamedTuple

import numpy as np

from pnilib.errors import PNIError
from pnilib.metrics.checks import ArrayLike, checked_labels, checked_scores
from pnilib.metrics.undefined import undefined
from pnilib.store.text import many

__all__ = ["ErrorCounts", "error_counts", "normal_threshold", "threshold_note"]


class ErrorCounts(NamedTuple):
    """Counts, false-positive rate fp / (fp + tn) and false-negative rate fn / (fn + tp)."""

    tp: int
    fp: int
    fn: int
    tn: int
    fpr: float
    fnr: float


def error_counts(scores: ArrayLike, labels: ArrayLike, threshold: float) -> ErrorCounts:
    """Right and wrong decisions of "defective where score >= threshold".

    A rate of an empty class is NaN with an UndefinedMetricWarning; the counts are always given.
    Raises PNIError for bad scores, labels or a NaN threshold.
    """
    values = checked_scores(scores)
    positive = checked_labels(labels, len(values))
    if math.isnan(threshold):
        raise PNIError("threshold is NaN: was it taken from an undefined metric?")
    called = values.astype(np.float64) >= threshold
    tp, fp = int(np.sum(called & positive)), int(np.sum(called & ~positive))
    fn, tn = int(np.sum(positive)) - tp, int(np.sum(~positive)) - fp
    fpr = fp / (fp + tn) if fp + tn else undefined("false-positive rate", "no normal image")
    fnr = fn / (fn + tp) if fn + tp else undefined("false-negative rate", "no defective image")
    return ErrorCounts(tp, fp, fn, tn, fpr, fnr)


def normal_threshold(normal_scores: ArrayLike, fpr: float = 0.01) -> float:
    """A threshold that a new normal image reaches with probability at most `fpr`, or 1 / (n + 1) if that is more.

    Split-conformal rule: of n calibration scores let v be the k-th largest, k = floor(fpr (n + 1)), that is the
    ceil((n + 1) (1 - fpr))-th smallest.  The threshold is the next number above v (in the scores' own precision).  A
    new normal image exchangeable with these exceeds v with probability at most k / (n + 1) <= fpr; k / (n + 1) exactly
    where no scores are equal.

    For fpr < 1 / (n + 1), k is 0 and only infinity would do: v is then the largest score, and the promise 1 / (n + 1);
    `threshold_note` says so.  With n = 50 nothing can promise 1 %, only 1.96 %.

    The scores must come from normal images that the model was not fitted on; scores of its own
    training images are too low.  NaN with an UndefinedMetricWarning without scores.  Raises PNIError
    unless 0 <= fpr < 1.
    """
    values = checked_scores(normal_scores)
    if not 0.0 <= fpr < 1.0:
        raise PNIError(f"fpr={fpr!r}: not in [0, 1): it is the tolerated share of false alarms")
    if len(values) == 0:
        return undefined("normal_threshold", "no normal score")
    k = math.floor(fpr * (len(values) + 1) + 1e-9)  # 0.29 * 100 is 28.999999999999996
    largest = np.sort(values)[::-1]
    return float(np.nextafter(largest[max(k - 1, 0)], np.inf, dtype=values.dtype))


def threshold_note(n: int, fpr: float) -> str:
    """One line where `normal_threshold` of n scores cannot hold `fpr`; empty where it can."""
    least = 1 / (n + 1)
    if fpr > least - 1e-9:
        return ""
    images = many(n, "calibration image")
    return f"threshold: {images} cannot promise fewer than {100 * least:.3g} % false alarms (asked: {100 * fpr:.3g} %)"
