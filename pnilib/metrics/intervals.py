r"""How far a metric moves when the test images are drawn again: the percentile bootstrap.

A test set is a sample.  Drawing n of its n images with replacement, many times, and computing the
metric each time shows the spread that the choice of images alone causes.  Source: not in the paper,
which gives no intervals; Efron's percentile interval.  It says nothing about training randomness (seeds).
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pnilib.errors import PNIError
from pnilib.metrics.checks import ArrayLike, checked_labels, checked_scores
from pnilib.metrics.ranking import image_auroc
from pnilib.metrics.undefined import UndefinedMetricWarning, undefined

__all__ = ["Interval", "bootstrap_interval"]


class Interval(NamedTuple):
    """Bounds, and how many resamples had a value (those with one class only have none)."""

    low: float
    high: float
    n_used: int


def bootstrap_interval(
    statistic: Callable[..., float],
    *arrays: ArrayLike,
    n: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of `statistic(*arrays)` over images, for instance image_auroc(scores, labels).

    The first axis of every array is the image; all are resampled alike, `n` times.  Resamples in which the
    statistic is NaN are left out and show in `n_used`.  The same seed gives the same interval.
    NaN bounds with an UndefinedMetricWarning when no resample has a value.  Raises PNIError when the
    arrays differ in length, or for n < 1 or level outside (0, 1).
    """
    columns = [np.asarray(array) for array in arrays]
    lengths = {len(column) if column.ndim else -1 for column in columns}
    if len(lengths) != 1 or -1 in lengths:
        raise PNIError("bootstrap_interval: the arrays differ in length: give one entry an image in each")
    if n < 1 or not 0.0 < level < 1.0:
        raise PNIError(f"bootstrap_interval: n={n}, level={level}: use n >= 1 and 0 < level < 1")
    n_images = lengths.pop()
    if n_images == 0:
        bound = undefined("bootstrap interval", "no image")
        return Interval(bound, bound, 0)
    if statistic is image_auroc and len(columns) == 2:
        statistic, columns = _counting(*columns)
    generator = np.random.default_rng(seed)
    values = np.empty(n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        for i in range(n):
            drawn = generator.integers(n_images, size=n_images)
            values[i] = statistic(*(column[drawn] for column in columns))
    values = values[~np.isnan(values)]
    if len(values) == 0:
        bound = undefined("bootstrap interval", "the statistic has no value in any resample")
        return Interval(bound, bound, 0)
    low, high = np.quantile(values, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(float(low), float(high), len(values))


def _counting(scores: np.ndarray, labels: np.ndarray) -> tuple[Callable[[np.ndarray], float], list[np.ndarray]]:
    """I-AUROC, and the one column it needs: of a resample only how often each distinct score came in each class counts.

    Several times faster than checking and sorting every resample.
    """
    values = checked_scores(scores)
    defective = checked_labels(labels, len(values))
    distinct, rank = np.unique(values, return_inverse=True)
    k = len(distinct)

    def auroc(drawn: np.ndarray) -> float:
        counts = np.bincount(drawn, minlength=2 * k)
        n_normal, n_defective = counts[:k], counts[k:]
        pairs = int(n_normal.sum()) * int(n_defective.sum())
        lower = np.cumsum(n_normal) - 0.5 * n_normal  # normal images below each score, and half of those at it
        return float(n_defective @ lower) / pairs if pairs else np.nan

    return auroc, [rank + k * defective]
