r"""Pixel metrics of a test set, image by image: P-AUROC, AUPRO, P-F1-max and their curves.

Each anomalous pixel of a region r carries weight 1 / (R |r|) for AUPRO (R regions in all images) and 1/P
for P-AUROC (P anomalous pixels); `steps` turns both into areas in closed form.  For AUPRO only the
top limit * N of the N normal scores are sorted.  Source: PNI sec. 4.1, "Evaluation Metrics".

What counts as what: an image labelled defective whose mask is empty (for instance because the crop cut the
defect away) contributes normal pixels; a region cut by the crop is its visible part; normal pixels of good
images count.  Maps are rounded to float32.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, overload

import numpy as np
from jaxtyping import Float, Float32, Int

from pnilib.errors import PNIError
from pnilib.metrics.checks import ArrayLike, checked_limit, checked_map, checked_mask
from pnilib.metrics.ranking import NO_VALUES, F1Max, PRCurve, ROCCurve, best_f1, precision_recall
from pnilib.metrics.regions import defect_pixels
from pnilib.metrics.released_aupro import released_area, released_thresholds
from pnilib.metrics.steps import Steps, area_below, climb, sort_top, vertices
from pnilib.metrics.undefined import undefined, why_undefined

__all__ = ["PROCurve", "PixelStatistics", "aupro", "pixel_auroc", "pro_curve"]

VARIANTS = ("exact", "pni")


class PROCurve(NamedTuple):
    """Corners of the curve of mean region overlap over false-positive rate, threshold falling from +inf."""

    fpr: Float[np.ndarray, " k"]
    pro: Float[np.ndarray, " k"]
    threshold: Float[np.ndarray, " k"]


def pixel_auroc(maps: Iterable[ArrayLike], masks: Iterable[ArrayLike | None]) -> float:
    """Area under the pixels' ROC curve in [0, 1] (P-AUROC); see PixelStatistics."""
    return PixelStatistics.from_maps(maps, masks).auroc()


def aupro(
    maps: Iterable[ArrayLike],
    masks: Iterable[ArrayLike | None],
    fpr_limit: float = 0.3,
    variant: str = "exact",
) -> float:
    """Area under the per-region overlap up to `fpr_limit`, divided by it; see PixelStatistics.aupro."""
    return PixelStatistics.from_maps(maps, masks).aupro(fpr_limit, variant)


def pro_curve(maps: Iterable[ArrayLike], masks: Iterable[ArrayLike | None], max_points: int | None = None) -> PROCurve:
    """Per-region overlap over false-positive rate, from (0, 0) to (1, 1); see PixelStatistics."""
    return PixelStatistics.from_maps(maps, masks).pro_curve(max_points)


class PixelStatistics:
    """Collects maps and masks one image at a time; the metrics share one sort.

    Memory: 4 bytes a pixel (float32), 4 more an anomalous pixel (its region's size), and again 4 bytes a
    normal pixel while the images are joined for the sort, which itself is in place.

    Attributes: `n_images`, `n_regions`.  Metrics without a value are NaN with an UndefinedMetricWarning.
    """

    def __init__(self) -> None:
        self.n_images = 0
        self.n_regions = 0
        self._normal: list[Float32[np.ndarray, " n"]] = []
        self._defective: list[Float32[np.ndarray, " p"]] = []
        self._sizes: list[Int[np.ndarray, " p"]] = []
        self._holes: list[Float32[np.ndarray, " q"]] = []
        self._hole_sizes: list[Int[np.ndarray, " q"]] = []
        self._n_sorted = 0  # so many of the largest of _normal[0] are sorted, at its end

    @classmethod
    def from_maps(cls, maps: Iterable[ArrayLike], masks: Iterable[ArrayLike | None]) -> "PixelStatistics":
        """Statistics of a whole set.  Raises PNIError when there are not as many masks as maps."""
        statistics = cls()
        try:
            for anomaly_map, mask in zip(maps, masks, strict=True):
                statistics.update(anomaly_map, mask)
        except ValueError as error:
            if isinstance(error, PNIError) or "zip()" not in str(error):
                raise
            raise PNIError("maps and masks differ in number: give one mask an anomaly map") from None
        return statistics

    def update(self, anomaly_map: ArrayLike, mask: ArrayLike | None) -> None:
        """Add one image: map (h, w), mask (h, w) with True or 1 = defect.

        Raises PNIError, naming the image by its position, for NaN or infinity, different shapes, a
        missing mask, or a mask that is not binary.  A refused image leaves the statistics as they were.
        """
        scores = checked_map(anomaly_map, self.n_images)
        defect = checked_mask(mask, scores.shape, self.n_images)
        self.n_images += 1
        self._normal.append(scores[~defect])
        if not defect.any():
            return
        pixels = defect_pixels(defect)
        self.n_regions += pixels.n_regions
        flat = scores.ravel()
        self._defective.append(flat[pixels.idx])
        self._sizes.append(pixels.region_size.astype(np.int32))
        self._holes.append(flat[pixels.hole_idx])
        self._hole_sizes.append(pixels.hole_region_size.astype(np.int32))

    def merge(self, other: "PixelStatistics") -> None:
        """Add all images of `other`, which stays as it is."""
        self.n_images += other.n_images
        self.n_regions += other.n_regions
        self._normal += [part.copy() for part in other._normal]  # sorted in place later
        self._defective += other._defective
        self._sizes += other._sizes
        self._holes += other._holes
        self._hole_sizes += other._hole_sizes

    def auroc(self) -> float:
        """P-AUROC in [0, 1], ties counted half."""
        steps = self._steps("P-AUROC")
        return np.nan if steps is None else area_below(steps, 1.0)

    @overload
    def aupro(self, limits: float = 0.3, variant: str = "exact") -> float: ...
    @overload
    def aupro(self, limits: Sequence[float], variant: str = "exact") -> dict[float, float]: ...
    def aupro(self, limits: float | Sequence[float] = 0.3, variant: str = "exact") -> float | dict[float, float]:
        """AUPRO up to one false-positive rate, or {limit: AUPRO} for several, from one sort.

        `variant` "exact" (a map without information gives limit / 2), or "pni", the released one (`pro`).
        Raises PNIError for a limit outside (0, 1] or an unknown variant.
        """
        if variant not in VARIANTS:
            raise PNIError(f"variant={variant!r} is unknown: choose one of {', '.join(VARIANTS)}")
        several = [limits] if isinstance(limits, int | float) else limits
        wanted = [checked_limit(limit) for limit in several]
        if not wanted:
            return {}
        area = self._exact if variant == "exact" else self._released
        areas = area(wanted)
        return areas[wanted[0]] if isinstance(limits, int | float) else areas

    def f1_max(self) -> F1Max:
        """Largest F1 of the pixels over all distinct thresholds (test-optimal)."""
        steps = self._steps("P-F1-max")
        return F1Max(np.nan, np.nan, np.nan, np.nan) if steps is None else best_f1(steps)

    def pr_curve(self, max_points: int | None = None) -> PRCurve:
        """Precision-recall curve of the pixels, thinned to `max_points` for a plot."""
        steps = self._steps("precision-recall curve")
        return PRCurve(NO_VALUES, NO_VALUES, NO_VALUES) if steps is None else precision_recall(steps, max_points)

    def roc_curve(self, max_points: int | None = None) -> ROCCurve:
        """ROC curve of the pixels, thinned to `max_points` for a plot."""
        steps = self._steps("ROC curve")
        return ROCCurve(NO_VALUES, NO_VALUES, NO_VALUES) if steps is None else ROCCurve(*vertices(steps, max_points))

    def pro_curve(self, max_points: int | None = None) -> PROCurve:
        """Per-region overlap curve, thinned to `max_points` for a plot."""
        steps = self._steps("PRO curve", by_region=True)
        return PROCurve(NO_VALUES, NO_VALUES, NO_VALUES) if steps is None else PROCurve(*vertices(steps, max_points))

    def _exact(self, limits: list[float]) -> dict[float, float]:
        steps = self._steps("AUPRO", max(limits), by_region=True)
        return {limit: np.nan if steps is None else area_below(steps, limit) for limit in limits}

    def _released(self, limits: list[float]) -> dict[float, float]:
        normal, defective = self._join()
        if reason := why_undefined(len(normal), len(defective), "pixel"):
            return dict.fromkeys(limits, undefined("AUPRO", reason))
        filled = np.concatenate([defective, *self._holes])
        weights = 1.0 / (self.n_regions * np.concatenate([*self._sizes, *self._hole_sizes], dtype=np.float64))
        thresholds = released_thresholds(
            float(min(normal.min(), defective.min())), float(max(normal.max(), defective.max()))
        )
        areas = {}
        for limit in limits:
            top = normal[len(normal) - self._sort(limit) :]
            area = released_area(top, len(normal), filled, weights, thresholds, limit)
            reason = f"no two thresholds differ in false-positive rate up to {limit}"
            areas[limit] = undefined("released AUPRO", reason) if area is None else area
        return areas

    def _steps(self, metric: str, limit: float = 1.0, by_region: bool = False) -> Steps | None:
        normal, defective = self._join()
        if reason := why_undefined(len(normal), len(defective), "pixel"):
            undefined(metric, reason)
            return None
        if by_region:
            weights = 1.0 / (self.n_regions * np.concatenate(self._sizes, dtype=np.float64))
        else:
            weights = np.full(len(defective), 1.0 / len(defective))
        return climb(normal, self._sort(limit), defective, weights)

    def _join(self) -> tuple[Float32[np.ndarray, " n"], Float32[np.ndarray, " p"]]:
        if len(self._normal) != 1:
            self._normal = [np.concatenate([np.empty(0, np.float32), *self._normal])]
            self._n_sorted = 0
        return self._normal[0], np.concatenate([np.empty(0, np.float32), *self._defective])

    def _sort(self, limit: float) -> int:
        """Sort enough of the largest normal scores for this limit; returns how many that is."""
        normal = self._normal[0]
        top = min(len(normal), int(limit * len(normal)) + 2)  # + 1, and one for rounding of limit * N
        self._n_sorted = sort_top(normal, top, self._n_sorted)
        return top
