"""Input of the metrics: arrays, lists, tensors or columns -> checked numpy arrays.

The public functions accept anything that becomes an array, and say which *image* is wrong.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, Shaped

from pnilib.errors import PNIError

__all__ = ["ArrayLike", "checked_labels", "checked_limit", "checked_map", "checked_mask", "checked_scores"]


@runtime_checkable
class _HasArray(Protocol):
    def __array__(self, *args: Any, **kwargs: Any) -> Any: ...


ArrayLike = _HasArray | Sequence[Any]
"""A numpy array, a tensor, a pandas column, a list."""


def checked_scores(scores: ArrayLike) -> Float[np.ndarray, " n"]:
    """Scores as a float vector (float32 and float64 stay what they are).

    Raises PNIError when they are not one number an image, or when one is NaN or infinite.
    """
    array = _array(scores)
    if array.ndim != 1 or array.dtype.kind not in "fiub":
        raise PNIError(f"scores: shape {array.shape}, type {array.dtype}: give one number an image")
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(array))
    if len(wrong):
        raise PNIError(f"scores: image {wrong[0]} has score {array[wrong[0]]}: metrics need finite scores")
    return array


def checked_labels(labels: ArrayLike, n: int) -> Bool[np.ndarray, " n"]:
    """Labels as a bool vector, True = defective.

    Raises PNIError when there are not `n` of them, or when one is neither 0 nor 1.
    """
    array = _array(labels)
    if array.shape != (n,):
        raise PNIError(f"labels: shape {array.shape} for {n} scores: give one label a score")
    return _binary(array, "labels: image {}", "use 0 = normal, 1 = defective")


def checked_map(anomaly_map: ArrayLike, image: int) -> Float32[np.ndarray, "h w"]:
    """One anomaly map, rounded to float32.

    Raises PNIError, naming the image's index, when it is not (h, w) or not finite in float32.
    """
    array = _array(anomaly_map)
    if array.ndim != 2 or array.dtype.kind not in "fiub":
        raise PNIError(f"map of image {image}: shape {array.shape}, type {array.dtype}: give numbers (h, w)")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        y, x = np.argwhere(~np.isfinite(array))[0]
        raise PNIError(f"map of image {image}: {array[y, x]} at row {y}, column {x}: metrics need finite maps")
    return array


def checked_mask(mask: ArrayLike | None, shape: tuple[int, ...], image: int) -> Bool[np.ndarray, "h w"]:
    """One ground-truth mask, True = defect.

    Raises PNIError, naming the image's index, when it is missing, has another shape than the map, or
    holds anything but 0 and 1.
    """
    if mask is None:
        raise PNIError(f"mask of image {image} is missing: leave the image out of the pixel metrics")
    array = _array(mask)
    if array.shape != shape:
        raise PNIError(f"mask of image {image}: shape {array.shape}, its map {shape}: use the same geometry")
    return _binary(array, f"mask of image {image}: pixel {{}}", "threshold the mask first")


def checked_limit(limit: float) -> float:
    """A false-positive rate to integrate to.  Raises PNIError unless 0 < limit <= 1."""
    if not 0.0 < limit <= 1.0:
        raise PNIError(f"fpr_limit={limit!r}: not in (0, 1]: the usual value is 0.3")
    return float(limit)


def _array(values: Any) -> Shaped[np.ndarray, "..."]:
    if hasattr(values, "detach"):  # a torch tensor, perhaps on a GPU
        values = values.detach().cpu()
    try:
        return np.asarray(values)
    except ValueError:
        raise PNIError("the entries differ in length: give one rectangular array") from None


def _binary(array: Shaped[np.ndarray, "..."], where: str, remedy: str) -> Bool[np.ndarray, "..."]:
    if array.dtype == bool:
        return array
    good = (array == 0) | (array == 1)
    if not np.all(good):
        first = int(np.flatnonzero(~good)[0])
        raise PNIError(f"{where.format(first)} is {array.ravel()[first]}, not 0 or 1: {remedy}")
    return array.astype(bool)
