r"""Anomaly maps and segments of one image -> one row of numbers (SegAD; the release's SegAD.py, lines 33-76).

Of each base map, over the n pixels v_1 ... v_n of each segment, and of each map its maximum:

    0.995 quantile (linear),    mean m,    skewness m_3 / m_2^(3/2),    kurtosis m_4 / m_2^2 - 3,
    m_k = (1/n) sum_i (v_i - m)^k        (biased, as `scipy.stats`)

With K segments and M maps that is 4 K M + M columns.  The supplement has no section on them: this is the release.

Rules where a statistic has no value:

- an *empty* segment: all four are 0 (the release's);
- a *constant* segment: skewness and kurtosis are NaN, which XGBoost takes as missing (the release's, by scipy).
  Constant means m_2 <= (eps m)^2 with the eps of float64, scipy's rule too.

Deviation: sums are in float64 whatever the map's type; the release sums in the map's own.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Integer
from numpy import ndarray

from pnilib.errors import PNIError

__all__ = ["MAXIMUM", "QUANTILE", "STATISTICS", "WHOLE", "Column", "column_list", "image_row", "segment_statistics"]

QUANTILE = 0.995
STATISTICS = ("quantile", "skewness", "kurtosis", "mean")
"""In the release's order."""
MAXIMUM = "maximum"
WHOLE = "whole map"


class Column(NamedTuple):
    """One column of the table: a statistic of a base map over a segment, or the maximum of the whole map."""

    base: str
    segment: str
    statistic: str

    def __str__(self) -> str:
        """`kurtosis of position in foreground`; `maximum of position`."""
        where = "" if self.segment == WHOLE else f" in {self.segment}"
        return f"{self.statistic} of {self.base}{where}"


def column_list(bases: Sequence[str], segments: Sequence[str]) -> list[Column]:
    """4 K M + M columns, base by base: segments, of each the four statistics, then the map's maximum.

    Raises PNIError for names that are empty, repeated, or hold [, ] or <, which XGBoost refuses.
    """
    for what, names in (("base map", bases), ("segment", segments)):
        if not names or len(set(names)) != len(names):
            raise PNIError(f"{what}s {list(names)}: none, or one is named twice: give each a name of its own")
        if wrong := [name for name in names if not name or set(name) & set("[]<")]:
            raise PNIError(f"{what} {wrong[0]!r}: XGBoost takes no empty name and no [, ] or <: rename it")
    return [
        column
        for base in bases
        for column in (
            *(Column(base, segment, statistic) for segment in segments for statistic in STATISTICS),
            Column(base, WHOLE, MAXIMUM),
        )
    ]


def segment_statistics(
    maps: Float[ndarray, "m h w"], labels: Integer[ndarray, "_h _w"], n_segments: int
) -> Float64[ndarray, "m k 4"]:
    """STATISTICS of each map over each segment 0 ... k - 1, as the module says.

    Raises PNIError when the sizes differ, a label is not one of the segments, or a map is not finite.
    """
    if maps.shape[1:] != labels.shape:
        raise PNIError(f"segmentation of {labels.shape} for maps of {maps.shape[1:]}: give labels at the maps' size")
    if labels.size and not (labels.min() >= 0 and labels.max() < n_segments):
        wrong = int(labels.max()) if labels.max() >= n_segments else int(labels.min())
        raise PNIError(f"segmentation: label {wrong} is none of the {n_segments} segments 0 ... {n_segments - 1}")
    if not np.isfinite(maps).all():
        raise PNIError(f"anomaly map {int((~np.isfinite(maps)).any((1, 2)).argmax())}: holds NaN or infinity")
    found = np.zeros((len(maps), n_segments, len(STATISTICS)))
    for segment in range(n_segments):
        inside = labels == segment
        if inside.any():
            for i, one in enumerate(maps):
                found[i, segment] = _of_values(one[inside].astype(np.float64))
    return found


def _of_values(values: Float64[ndarray, " n"]) -> tuple[float, float, float, float]:
    """The four statistics; n > 0."""
    n, mean = len(values), float(values.mean())
    centred = values - mean
    squares = centred * centred
    second, third, fourth = (float(a @ b) / n for a, b in ((centred, centred), (squares, centred), (squares, squares)))
    quantile = float(np.quantile(values, QUANTILE))
    if second <= (np.finfo(np.float64).eps * mean) ** 2:
        return quantile, np.nan, np.nan, mean
    return quantile, third / second**1.5, fourth / second**2 - 3, mean


def image_row(
    maps: Float[ndarray, "m h w"], labels: Integer[ndarray, "_h _w"], n_segments: int
) -> Float64[ndarray, " d"]:
    """One image's row, in the order of `column_list`.  Raises PNIError as `segment_statistics` does."""
    of_segments = segment_statistics(maps, labels, n_segments).reshape(len(maps), -1)
    return np.concatenate([of_segments, maps.max((1, 2))[:, None]], 1).ravel()
