r"""How well scores rank defective above normal: AUROC, ROC, precision-recall, F1-max.

Image-level AUROC (I-AUROC) is the paper's detection metric (sec. 4.1, "Evaluation Metrics"); F1-max is the
third column of its Table 3.  The paper gives no formula; these are the usual ones, exact over all
distinct thresholds, with "defective" predicted where score >= threshold:

    AUROC = P(score of a defective > score of a normal) + P(equal) / 2
    F1(t) = 2 TP / (2 TP + FP + FN)

Deviation: the released code computes F1 as 2PR / (P + R + 1e-6); here there is no constant.
A threshold chosen by F1-max on the test set is *test-optimal*: an optimistic number that no user of
a detector can reach.  `normal_threshold` is the honest alternative.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from pnilib.metrics.checks import ArrayLike, checked_labels, checked_scores
from pnilib.metrics.steps import Steps, area_below, climb, thinned, vertices
from pnilib.metrics.undefined import undefined, why_undefined

__all__ = [
    "F1Max",
    "PRCurve",
    "ROCCurve",
    "best_f1",
    "f1_max",
    "image_auroc",
    "precision_recall",
    "precision_recall_curve",
    "roc_curve",
]

NO_VALUES = np.full(2, np.nan)  # two points, so that an area under them is NaN as well


class F1Max(NamedTuple):
    """The largest F1, the (highest) threshold that reaches it, and precision and recall there."""

    f1: float
    threshold: float
    precision: float
    recall: float


class ROCCurve(NamedTuple):
    """Corners of the ROC polygon, threshold falling from +inf."""

    fpr: Float[np.ndarray, " k"]
    tpr: Float[np.ndarray, " k"]
    threshold: Float[np.ndarray, " k"]


class PRCurve(NamedTuple):
    """Precision and recall at falling thresholds, recall rising; no artificial point at recall 0."""

    precision: Float[np.ndarray, " k"]
    recall: Float[np.ndarray, " k"]
    threshold: Float[np.ndarray, " k"]


def image_auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve in [0, 1], ties counted half (I-AUROC of sec. 4.1).

    `scores` (n,), higher = more anomalous; `labels` (n,), 0 normal, 1 defective.  NaN and an
    UndefinedMetricWarning when one class is empty.  Raises PNIError for bad scores or labels.
    """
    steps = _steps("AUROC", scores, labels)
    return np.nan if steps is None else area_below(steps, 1.0)


def roc_curve(scores: ArrayLike, labels: ArrayLike) -> ROCCurve:
    """ROC curve from (0, 0) to (1, 1); two NaN points when one class is empty."""
    steps = _steps("ROC curve", scores, labels)
    return ROCCurve(NO_VALUES, NO_VALUES, NO_VALUES) if steps is None else ROCCurve(*vertices(steps))


def precision_recall_curve(scores: ArrayLike, labels: ArrayLike) -> PRCurve:
    """Precision and recall at every threshold at which recall changes; two NaN points if undefined.

    sum_k (recall_k - recall_{k-1}) precision_k is the average precision.
    """
    steps = _steps("precision-recall curve", scores, labels)
    return PRCurve(NO_VALUES, NO_VALUES, NO_VALUES) if steps is None else precision_recall(steps)


def f1_max(scores: ArrayLike, labels: ArrayLike) -> F1Max:
    """Largest F1 over all distinct thresholds; NaN everywhere when one class is empty.

    For pixels pass flattened maps and masks, or use PixelStatistics.f1_max.
    """
    steps = _steps("F1-max", scores, labels)
    return F1Max(np.nan, np.nan, np.nan, np.nan) if steps is None else best_f1(steps)


def precision_recall(steps: Steps, max_points: int | None = None) -> PRCurve:
    """The precision-recall curve of all rows, at most `max_points` of them."""
    true_positive = np.cumsum(steps.count)
    precision = true_positive / (true_positive + steps.at_or_above)
    recall = true_positive / true_positive[-1]
    thin = thinned(len(recall), max_points)
    return PRCurve(precision[thin], recall[thin], steps.score[thin].astype(np.float64))


def best_f1(steps: Steps) -> F1Max:
    """F1-max of all rows.  A threshold between two defective scores only adds false positives."""
    true_positive = np.cumsum(steps.count)
    predicted = true_positive + steps.at_or_above
    f1 = 2.0 * true_positive / (predicted + true_positive[-1])
    k = int(np.argmax(f1))  # the first of equals: the highest threshold
    precision, recall = true_positive[k] / predicted[k], true_positive[k] / true_positive[-1]
    return F1Max(float(f1[k]), float(steps.score[k]), float(precision), float(recall))


def _steps(metric: str, scores: ArrayLike, labels: ArrayLike) -> Steps | None:
    values = checked_scores(scores)
    positive = checked_labels(labels, len(values))
    normal, defective = np.sort(values[~positive]), values[positive]
    if reason := why_undefined(len(normal), len(defective), "image"):
        undefined(metric, reason)
        return None
    return climb(normal, len(normal), defective, np.full(len(defective), 1.0 / len(defective)))
