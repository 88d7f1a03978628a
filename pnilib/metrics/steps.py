r"""Where the curves climb: the one table behind AUROC, AUPRO, F1-max and every curve.

Predict "defective" where score >= t and lower t.  The curves rise only where t passes the score of a
*defective* item; between two of those, only false positives are added.  So one row for each
distinct defective score s describes all of them exactly, ties included:

    above       a = number of normal items with score >  s
    at_or_above b = number of normal items with score >= s
    count           number of defective items with score = s
    weight          their share of the curve's height (sums to 1)

On the curve over false-positive rates the row is a straight piece from x = a/N to x = b/N that climbs
by `weight`.  Its share of the area below x = L is therefore closed-form,

    weight * [ (m - a)^2 / (2 (b - a)) + max(L N - b, 0) ] / N,    m = clip(L N, a, b),

the trapezoid of the curve over all distinct thresholds, cut at L by linear interpolation.  With
weight = 1/P and L = 1 this is AUROC; with weight = 1 / (R |r|) for a pixel of region r it is AUPRO.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

__all__ = ["Steps", "area_below", "climb", "sort_top", "vertices"]


@dataclass(frozen=True)
class Steps:
    """One row a distinct defective score, highest score first; `n_normal` is N."""

    score: Float[np.ndarray, " k"]
    above: Int[np.ndarray, " k"]
    at_or_above: Int[np.ndarray, " k"]
    count: Int[np.ndarray, " k"]
    weight: Float[np.ndarray, " k"]
    n_normal: int


def sort_top(values: Float[np.ndarray, " n"], top: int, done: int = 0) -> int:
    """Sort the `top` largest values in place at the end of the array, ascending.

    `done` of them are already there.  Returns how many now are.  Sorting the top 30 % takes about
    half the time of sorting everything, and a later call sorts only the rest.
    """
    if top <= done:
        return done
    rest = values[: len(values) - done]
    new = min(top - done, len(rest))
    if 0 < new < len(rest):
        rest.partition(len(rest) - new)
    rest[len(rest) - new :].sort()
    return done + new


def climb(
    normal: Float[np.ndarray, " n"],
    top: int,
    defective: Float[np.ndarray, " p"],
    weights: Float[np.ndarray, " p"],
) -> Steps:
    """The rows with a < `top`, that is all that matter below a false-positive rate of top/N.

    `normal`: the top largest sorted at the end (`sort_top`); `top` >= 1, top = n gives every row.
    `defective`: in any order; `weights` sum to 1.
    """
    order = np.argsort(defective)[::-1]
    ordered = defective[order]
    first = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    score = ordered[first]
    count = np.diff(np.append(first, len(ordered)))
    weight = np.add.reduceat(weights[order].astype(np.float64), first)

    n = len(normal)
    tail, rest = normal[n - top :], normal[: n - top]
    if top < n:
        seen = int(np.searchsorted(-score, -tail[0], side="right"))  # rows with score >= tail[0]
        score, count, weight = score[:seen], count[:seen], weight[:seen]
    above = top - np.searchsorted(tail, score, side="right")
    at_or_above = top - np.searchsorted(tail, score, side="left")
    if top < n and len(score) and score[-1] == tail[0]:  # ties reach below the sorted part
        at_or_above[-1] += np.count_nonzero(rest == tail[0])
    return Steps(score, above, at_or_above, count, weight, n)


def area_below(steps: Steps, limit: float) -> float:
    """Mean height of the curve over false-positive rates 0 ... `limit`, in [0, 1]."""
    n, a, b = steps.n_normal, steps.above.astype(np.float64), steps.at_or_above.astype(np.float64)
    end = limit * n
    climbing = np.clip(end, a, b) - a
    area = climbing**2 / (2.0 * np.maximum(b - a, 1.0)) + np.maximum(end - b, 0.0)
    return float(steps.weight @ area / end)


def vertices(
    steps: Steps, max_points: int | None = None
) -> tuple[Float[np.ndarray, " v"], Float[np.ndarray, " v"], Float[np.ndarray, " v"]]:
    """Corners (false-positive rate, height, threshold) of the curve from (0, 0) to (1, 1).

    Each corner holds for score >= threshold; the first threshold is +inf.  Straight lines between the
    corners *are* the curve, so nothing is lost, unless `max_points` thins it for a plot.  `steps`
    must have every row.
    """
    rise = np.cumsum(steps.weight)
    before = np.concatenate(([0.0], rise[:-1]))
    just_above = np.nextafter(steps.score, np.inf, dtype=steps.score.dtype)
    x = np.stack([steps.above, steps.at_or_above], axis=1).ravel() / steps.n_normal
    y = np.stack([before, rise], axis=1).ravel()
    t = np.stack([just_above, steps.score], axis=1).ravel().astype(np.float64)
    x, y, t = np.append(0.0, x), np.append(0.0, np.minimum(y, 1.0)), np.append(np.inf, t)
    if x[-1] < 1.0:  # normal items below every defective one
        x, y, t = np.append(x, 1.0), np.append(y, 1.0), np.append(t, -np.inf)
    keep = np.concatenate(([True], (x[1:] != x[:-1]) | (y[1:] != y[:-1])))
    x, y, t = x[keep], y[keep], t[keep]
    thin = thinned(len(x), max_points)
    return x[thin], y[thin], t[thin]


def thinned(n: int, max_points: int | None) -> Int[np.ndarray, " m"]:
    """At most `max_points` indices of 0 ... n-1, evenly spaced, both ends kept."""
    if max_points is None or n <= max_points:
        return np.arange(n)
    return np.unique(np.linspace(0, n - 1, max(max_points, 2)).round().astype(np.int64))
