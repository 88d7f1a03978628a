"""Metrics of a prediction against the ground truth of the images that it scores (PNI sec. 4.1).

An image without ground truth (a defect folder without masks) counts for the image metrics and is left out
of the pixel metrics, with a note; an image of unknown label (-1) is left out of both.  A metric without a value is NaN,
and a note says why.  An image whose whole defect lies outside the crop stays a defect, as in the papers that crop: it
counts as missed at image level, although the model never saw it, and as normal pixels; a note says so.
"""

import warnings
from dataclasses import dataclass

import numpy as np

from pnilib.config.geometry import Geometry
from pnilib.data import Dataset, Split
from pnilib.data.appearance import notes_on_truth
from pnilib.detector.prediction import Scored
from pnilib.errors import PNIError
from pnilib.metrics import (
    Interval,
    PixelStatistics,
    UndefinedMetricWarning,
    bootstrap_interval,
    error_counts,
    f1_max,
    image_auroc,
)
from pnilib.store.text import many

__all__ = ["METRICS", "SHORT_NAMES", "Evaluation", "checked_test", "evaluate", "lacking"]

METRICS = {
    "i_auroc": "I-AUROC",
    "p_auroc": "P-AUROC",
    "aupro_30": "AUPRO, FPR <= 0.3",
    "aupro_05": "AUPRO, FPR <= 0.05",
    "aupro_01": "AUPRO, FPR <= 0.01",
    "i_f1_max": "I-F1-max",
    "p_f1_max": "P-F1-max",
    "i_threshold": "image threshold of I-F1-max (test-optimal)",
    "p_threshold": "pixel threshold of P-F1-max (test-optimal)",
    "fp": "false positives at the test-optimal threshold",
    "fn": "false negatives at the test-optimal threshold",
    "normal_threshold": "image threshold from normal training images only",
    "normal_fp": "false positives at the normal-only threshold",
    "normal_fn": "false negatives at the normal-only threshold",
}
"""Keys of `Evaluation.metrics` and what they mean; areas and F1 in [0, 1]."""

SHORT_NAMES = {"i_auroc": "I-AUROC", "p_auroc": "P-AUROC", "aupro_30": "AUPRO", "p_f1_max": "P-F1-max"}
"""As the paper's tables head their columns."""


@dataclass(frozen=True)
class Evaluation:
    """metrics: one value for each key of METRICS, NaN where undefined.  interval: 95 % bootstrap interval of
    I-AUROC over images.  notes: why a value is undefined, what was left out."""

    metrics: dict[str, float]
    interval: Interval
    notes: list[str]
    n_normal: int
    n_defective: int


def checked_test(data: Dataset, geometry: Geometry | None = None) -> Split:
    """The test images; with `geometry`, after each of them and its mask was read once: before hours of scoring.

    Raises PNIError when there are none, and for the first that cannot be read, or whose mask does not fit it.
    """
    test = data.test
    if len(test) == 0:
        raise PNIError(
            f"{data.root}: {data.category} has no test images: put some in its test folder (data set `folder`: say "
            "where with --option test_root=FOLDER when fitting), or use `pni score`"
        )
    faults: list[PNIError] = []
    for i in range(len(test)):
        if geometry is None:
            break
        try:
            test.image(i, geometry)
            test.mask(i, geometry)
        except PNIError as fault:
            faults.append(fault)
    if faults:
        more = f" ({len(faults) - 1} more like it: `pni data check` names them)" if len(faults) > 1 else ""
        raise PNIError(f"{faults[0]}{more}")
    return test


def lacking(test: Split) -> list[str]:
    """What these test images cannot tell, whatever scores them; empty when every metric has a value."""
    labels, has_mask = test.samples["label"].to_numpy(), test.samples["mask_path"].notna().to_numpy()
    if not (labels >= 0).any():
        return ["its test images are unlabelled: no metric has a value"]
    found = [
        f"it has no {name} test image: image metrics have no value"
        for name, label in (("normal", 0), ("defective", 1))
        if not (labels == label).any()
    ]
    if not has_mask[labels == 1].any():
        found.append("it has no mask of a defect: pixel metrics have no value")
    return found


def evaluate(prediction: Scored, test: Split, *, variant: str = "exact") -> Evaluation:
    """All metrics of a prediction; `variant=pni` computes the AUPROs as the release does.

    Raises PNIError when the prediction is not of these images, or a map holds NaN.
    """
    paths = [str(path) for path in test.samples["image_path"]]
    if paths != prediction.image_paths:
        raise PNIError("the prediction is of other images than this split: predict(test) and evaluate the same test")
    labels = test.samples["label"].to_numpy()
    known = labels >= 0
    scores, labels = prediction.image_scores[known], labels[known]
    notes: list[str] = []
    if not known.all():
        notes.append(f"{many(int((~known).sum()), 'image')} of unknown label left out")
    pixels, without_mask = PixelStatistics(), 0
    shares: dict[int, float] = {}
    for i in np.flatnonzero(known):
        mask = test.mask(int(i), prediction.config.geometry)
        if mask is None:
            without_mask += 1
            continue
        pixels.update(prediction.maps[i], mask.numpy())
        if test.samples["label"].iloc[i] == 1:
            shares[int(i)] = float(mask.float().mean())
    notes += notes_on_truth(test, shares, prediction.config.geometry)
    if without_mask:
        notes.append(f"{without_mask} defective images without ground truth left out of the pixel metrics")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UndefinedMetricWarning)
        image, pixel = f1_max(scores, labels), pixels.f1_max()
        areas = pixels.aupro([0.3, 0.05, 0.01], variant)
        metrics = {
            "i_auroc": image_auroc(scores, labels),
            "p_auroc": pixels.auroc(),
            "aupro_30": areas[0.3],
            "aupro_05": areas[0.05],
            "aupro_01": areas[0.01],
            "i_f1_max": image.f1,
            "p_f1_max": pixel.f1,
            "i_threshold": image.threshold,
            "p_threshold": pixel.threshold,
            "normal_threshold": prediction.threshold,
        }
        for prefix, threshold in (("", image.threshold), ("normal_", prediction.threshold)):
            counts = None if np.isnan(threshold) else error_counts(scores, labels, threshold)
            metrics[prefix + "fp"] = float("nan") if counts is None else float(counts.fp)
            metrics[prefix + "fn"] = float("nan") if counts is None else float(counts.fn)
        interval = bootstrap_interval(image_auroc, scores, labels)
    if np.isnan(prediction.threshold) or prediction.threshold_note:
        notes.append(prediction.threshold_note or "no normal-only threshold: the prediction carries none")
    notes += sorted({str(w.message) for w in caught if issubclass(w.category, UndefinedMetricWarning)})
    for other in caught:
        if not issubclass(other.category, UndefinedMetricWarning):
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    return Evaluation(
        {key: float(metrics[key]) for key in METRICS},
        interval,
        notes,
        int((labels == 0).sum()),
        int((labels == 1).sum()),
    )
