"""Detection and localisation metrics (PNI sec. 4.1), exact, with NaN and a reason where undefined.

One idea carries them all (`steps`): curves rise only at the scores of defective items, so one table of
counts at those scores gives every area and every curve without a loop over thresholds.
"""

from pnilib.metrics.intervals import Interval, bootstrap_interval
from pnilib.metrics.pixels import PixelStatistics, PROCurve, aupro, pixel_auroc, pro_curve
from pnilib.metrics.ranking import (
    F1Max,
    PRCurve,
    ROCCurve,
    f1_max,
    image_auroc,
    precision_recall_curve,
    roc_curve,
)
from pnilib.metrics.thresholds import ErrorCounts, error_counts, normal_threshold, threshold_note
from pnilib.metrics.undefined import UndefinedMetricWarning

__all__ = [
    "ErrorCounts",
    "F1Max",
    "Interval",
    "PRCurve",
    "PROCurve",
    "PixelStatistics",
    "ROCCurve",
    "UndefinedMetricWarning",
    "aupro",
    "bootstrap_interval",
    "error_counts",
    "f1_max",
    "image_auroc",
    "normal_threshold",
    "pixel_auroc",
    "precision_recall_curve",
    "pro_curve",
    "roc_curve",
    "threshold_note",
]
