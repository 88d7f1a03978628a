r"""How far every metric moves when the test images are drawn again, pixel metrics included, in about a second.

The percentile bootstrap over images (`intervals`) asks for each metric on a thousand test sets.  Sorting all pixels a
thousand times would take hours; here each image is counted once into bins of score, and a resampled test set is a
weighted sum of the images' counts:

    FPR(t) = sum_i w_i normal_i(t) / sum_i w_i N_i,      w_i = how often image i was drawn,

and likewise for precision, recall and region overlap.  Bins make a small error; it is taken out by adding, to every
replicate, the exact metric minus the binned one on the test set itself.  Not in the paper, which gives no intervals.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int
from numpy import ndarray

from pnilib.errors import PNIError
from pnilib.metrics.regions import defect_pixels

__all__ = ["METRICS", "bootstrap_metrics", "draws"]

METRICS = ("i_auroc", "p_auroc", "aupro_30", "p_f1_max")
BINS = 400
"""of each kind: quantiles of the defective pixels, and of the normal ones, ever finer towards the highest."""


def draws(n_images: int, n: int, seed: int) -> Int[ndarray, "n n_images"]:
    """How often each image occurs in each of `n` resampled test sets; the same for every setting of a category."""
    generator = np.random.default_rng([seed, n_images])
    return generator.multinomial(n_images, np.full(n_images, 1.0 / n_images), size=n)


def bootstrap_metrics(
    maps: Float32[ndarray, "n h w"],
    masks: Sequence[Bool[ndarray, "h w"] | None],
    image_scores: Float[ndarray, " n"],
    labels: Int[ndarray, " n"],
    exact: dict[str, float],
    *,
    n: int = 500,
    seed: int = 0,
) -> dict[str, Float64[ndarray, " n_draws"]]:
    """Replicates of METRICS, fractions; NaN where a resampled test set has one class only, or there are no images.

    masks: None for an image without ground truth, which then counts for I-AUROC alone.  exact: the metrics of the test
    set itself.  Raises PNIError when the lists differ in length.
    """
    if not len(maps) == len(masks) == len(image_scores) == len(labels):
        raise PNIError("bootstrap_metrics: maps, masks, scores and labels differ in number: give one of each an image")
    if len(maps) == 0:
        return {name: np.full(n, np.nan) for name in METRICS}
    weights = draws(len(maps), n, seed).astype(np.float64)
    once = np.ones((1, len(maps)))
    found = {"i_auroc": _image_auroc(image_scores, labels, weights)}
    pixels = [i for i, mask in enumerate(masks) if mask is not None]
    counted = _counts(maps[pixels], [np.asarray(masks[i], dtype=bool) for i in pixels]) if pixels else None
    for k, name in enumerate(METRICS[1:]):
        if counted is None:
            found[name] = np.full(n, np.nan)
            continue
        binned = _pixel_metrics(counted, once[:, pixels])[k][0]
        found[name] = _pixel_metrics(counted, weights[:, pixels])[k] + (exact[name] - binned)
    return found


def _image_auroc(
    scores: Float[ndarray, " n"], labels: Int[ndarray, " n"], weights: Float64[ndarray, "m n"]
) -> Float64[ndarray, " m"]:
    defective, normal = scores[labels == 1].astype(np.float64), scores[labels == 0].astype(np.float64)
    wins = (defective[:, None] > normal) + 0.5 * (defective[:, None] == normal)
    w_defective, w_normal = weights[:, labels == 1], weights[:, labels == 0]
    pairs = w_defective.sum(1) * w_normal.sum(1)
    with np.errstate(invalid="ignore"):
        return ((w_defective @ wins) * w_normal).sum(1) / np.where(pairs > 0, pairs, np.nan)


def _counts(
    maps: Float32[ndarray, "n h w"], masks: Sequence[Bool[ndarray, "h w"]]
) -> tuple[Float64[ndarray, "n bins"], Float64[ndarray, "n bins"], Float64[ndarray, "n bins"], Int[ndarray, " n"]]:
    """Of each image, in bins of falling score: normal pixels, defective pixels, sum of 1/|region| ; its regions."""
    stacked = np.stack(masks)
    defective, normal = maps[stacked], maps[~stacked]
    even = np.linspace(0, 1, BINS)
    edges = [np.quantile(normal, 1 - np.geomspace(1.0, 1e-6, BINS))] if normal.size else []
    edges += [np.quantile(defective, even)] if defective.size else []
    bounds = np.unique(np.concatenate(edges)).astype(np.float32)
    n_bins = len(bounds) + 1
    counts = np.zeros((3, len(maps), n_bins))
    regions = np.zeros(len(maps), dtype=np.int64)
    for i, (scores, mask) in enumerate(zip(maps, masks, strict=True)):
        bins = n_bins - 1 - np.searchsorted(bounds, scores.ravel(), side="right")
        counts[0, i] = np.bincount(bins[~mask.ravel()], minlength=n_bins)
        if mask.any():
            pixels = defect_pixels(mask)
            regions[i] = pixels.n_regions
            own = bins[pixels.idx]
            counts[1, i] = np.bincount(own, minlength=n_bins)
            counts[2, i] = np.bincount(own, weights=1.0 / pixels.region_size, minlength=n_bins)
    return counts[0], counts[1], counts[2], regions


def _pixel_metrics(
    counted: tuple[ndarray, ndarray, ndarray, ndarray], weights: Float64[ndarray, "m n"]
) -> tuple[Float64[ndarray, " m"], Float64[ndarray, " m"], Float64[ndarray, " m"]]:
    """P-AUROC, AUPRO up to FPR 0.3, P-F1-max of each weighted test set."""
    normal, defective, overlap, regions = counted
    false_positive, true_positive = np.cumsum(weights @ normal, 1), np.cumsum(weights @ defective, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        fpr = false_positive / false_positive[:, -1:]
        tpr = true_positive / true_positive[:, -1:]
        pro = np.cumsum(weights @ overlap, 1) / (weights @ regions)[:, None]
        f1 = 2 * true_positive / (true_positive + false_positive + true_positive[:, -1:])
    return _area(fpr, tpr, 1.0), _area(fpr, pro, 0.3), f1.max(1)


def _area(x: Float64[ndarray, "m k"], y: Float64[ndarray, "m k"], limit: float) -> Float64[ndarray, " m"]:
    """Mean height of the polygon from (0, 0) over x = 0 ... limit."""
    x, y = np.pad(x, ((0, 0), (1, 0))), np.pad(y, ((0, 0), (1, 0)))
    left, right = np.minimum(x[:, :-1], limit), np.minimum(x[:, 1:], limit)
    width = np.maximum(x[:, 1:] - x[:, :-1], 1e-300)
    slope = (y[:, 1:] - y[:, :-1]) / width
    middle = y[:, :-1] + slope * ((left + right) / 2 - x[:, :-1])
    return ((right - left) * middle).sum(1) / limit
