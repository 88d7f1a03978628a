r"""Greedy k-center, exact and fast: what PNI's coresets are selected by (sec. 3.1, [23]).

    pick_{t+1} = argmax_i min_{s <= t} ||x_i - x_{pick_s}||_2     over points not yet picked, ties: lowest i

The distance of a point to the coreset only shrinks, so an old value is an upper
bound.  Only a *pool*, the points with the largest bounds, follows every pick; when the best of the
pool falls below the largest bound outside, a new pool is chosen and brought up to date by one matrix
product.  Points near an early pick are never looked at again.  Matrix products in float32 decide
what can be skipped, with their rounding error allowed for; what is compared is ||x - c||^2 in float64,
so the picks equal those of `greedy_k_center_reference`, index for index.

Memory beyond the features: 12 bytes a point, the pool, and blocks of `BLOCK_BYTES`; the features may be a
memory-mapped array.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from numpy import ndarray
from torch import Tensor
from tqdm.auto import tqdm

from pnilib.errors import PNIError

__all__ = ["POOL", "greedy_k_center", "greedy_k_center_reference"]

BLOCK_BYTES = 4 * 2**20
"""bytes of features converted at a time."""
POOL = 2048
"""points that follow every pick."""


def greedy_k_center_reference(
    features: Float[Tensor, "n d"] | Float[ndarray, "n d"], n: int, start: int = 0
) -> Int64[ndarray, " n_picks"]:
    """The definition, slow: one float64 pass over all points a pick."""
    points = np.asarray(features, dtype=np.float64)
    picks = [start]
    nearest_sq = ((points - points[start]) ** 2).sum(1)
    nearest_sq[start] = -1.0
    while len(picks) < n:
        pick = int(nearest_sq.argmax())
        nearest_sq = np.minimum(nearest_sq, ((points - points[pick]) ** 2).sum(1))
        nearest_sq[pick] = -1.0
        picks.append(pick)
    return np.array(picks, dtype=np.int64)


def greedy_k_center(
    features: Float[Tensor, "n d"] | Float[ndarray, "n d"],
    n: int,
    start: int = 0,
    *,
    rows: Int64[ndarray, " k"] | None = None,
    device: str = "cpu",
    progress: bool = False,
    return_radii: bool = False,
) -> Int64[ndarray, " n_picks"] | tuple[Int64[ndarray, " n_picks"], Float64[ndarray, " n_picks"]]:
    """Indices of the greedy k-center coreset of `n` points, in the order of picking.

    `rows` restricts the choice to some points (`start` and the result still index `features`).
    `return_radii` adds the coverage radius after each pick but the last, and NaN for that one:
    radii[t] = max_i min_{s<=t} ||x_i - x_{pick_s}||, in feature units, never growing.
    Raises PNIError when `n` or `start` does not fit the number of points, or features are not finite.
    """
    n_points = len(features) if rows is None else len(rows)
    if not 1 <= n <= n_points:
        raise PNIError(f"coreset of {n} from {n_points} patches: ask for 1 to {n_points} (emb_ratio)")
    allowed = range(n_points) if rows is None else rows
    if start not in allowed:
        raise PNIError(f"coreset start {start} is not among the {n_points} patches to choose from")
    run = _Selection(features, start if rows is None else int(np.flatnonzero(rows == start)[0]), rows, device)
    radii_sq = []
    for _ in tqdm(range(n - 1), desc="coreset", unit="vector", disable=not progress):
        pick, distance_sq = run.farthest()
        radii_sq.append(max(distance_sq, 0.0))
        run.add(pick)
    picks = np.array(run.picks, dtype=np.int64)
    picks = picks if rows is None else rows[picks]
    return (picks, np.sqrt(np.array([*radii_sq, np.nan]))) if return_radii else picks


class _Selection:
    """Greedy k-center in progress.

    `bound_sq[i]` is the exact squared distance of point i to the first `seen[i]` picks, hence an upper
    bound on its distance to all of them; -1 marks a pick.
    """

    def __init__(
        self,
        features: Float[Tensor, "n d"] | Float[ndarray, "n d"],
        start: int,
        rows: Int64[ndarray, " k"] | None,
        device: str,
    ) -> None:
        self.features, self.rows, self.device = features, rows, torch.device(device)
        self.n_points, d = (len(features) if rows is None else len(rows)), features.shape[1]
        self.block = max(256, BLOCK_BYTES // (8 * d))
        self.mean = torch.zeros(d, device=self.device)
        self.picks = [start]
        self.bound_sq = torch.empty(self.n_points, dtype=torch.float64, device=self.device)
        self.seen = torch.ones(self.n_points, dtype=torch.int32, device=self.device)
        first, largest_sq = self._raw(np.array([start])).double(), 0.0
        total = torch.zeros(d, dtype=torch.float64, device=self.device)
        for where in self._blocks():
            points = self._raw(where).double()
            total += points.sum(0)
            self.bound_sq[where] = ((points - first) ** 2).sum(1)
            largest_sq = max(largest_sq, float((points**2).sum(1).max()))
        if not bool(torch.isfinite(total).all()):
            raise PNIError("coreset: the features hold NaN or infinite values: check images and weights")
        self.bound_sq[start] = -1.0
        self.mean = (total / self.n_points).float()
        self.centres = self._centred(np.array([start]))
        # |x|^2 - 2xc + |c|^2 in float32, x and c centred: each rounding is at most u = 2^-24 of (|x| + |c|)^2
        # <= 16 max |x|^2, and at most d + 8 of them add up.
        self.error = (d + 8) * 2.0**-24 * 16 * largest_sq
        self.pool = torch.empty(0, dtype=torch.int64, device=self.device)
        self.pool_sq = torch.empty(0, dtype=torch.float64, device=self.device)
        self.pool_rows: Tensor | None = None
        self.outside = float("inf")

    def _raw(self, index: slice | Int64[ndarray, " k"]) -> Float[Tensor, "k d"]:
        points = self.features[index if self.rows is None else self.rows[index]]
        points = points if isinstance(points, Tensor) else torch.from_numpy(np.ascontiguousarray(points))
        return points.to(self.device)

    def _centred(self, index: Int64[ndarray, " k"]) -> Float32[Tensor, "k d"]:
        return self._raw(index).float() - self.mean

    def _blocks(self) -> Iterator[slice]:
        for low in range(0, self.n_points, self.block):
            yield slice(low, min(low + self.block, self.n_points))

    def _pairs_sq(self, i: Int64[Tensor, " k"], j: Int64[Tensor, " k"]) -> Float64[Tensor, " k"]:
        """||x_i - x_j||^2 of k pairs in float64, from the features themselves."""
        parts = [torch.empty(0, dtype=torch.float64, device=self.device)]
        for a, b in zip(i.split(self.block), j.split(self.block), strict=True):
            difference = self._raw(a.cpu().numpy()).double() - self._raw(b.cpu().numpy()).double()
            parts.append((difference**2).sum(1))
        return torch.cat(parts)

    def _refresh(self, idx: Int64[Tensor, " k"]) -> None:
        """Make the bounds of some points exact: let them meet the picks that they have not seen."""
        now = len(self.picks)
        picks = torch.tensor(self.picks, device=self.device)
        centre_sq = (self.centres**2).sum(1)
        idx = idx[(self.seen[idx] < now) & (self.bound_sq[idx] >= 0)]
        if len(idx) == 0:
            return
        idx = idx[self.seen[idx].argsort()]
        for part in idx.split(max(64, BLOCK_BYTES // (8 * now))):
            first = int(self.seen[part].min())
            rows = self._centred(part.cpu().numpy())
            sq = torch.addmm(centre_sq[first:], rows, self.centres[first:].T, alpha=-2)
            sq += (rows**2).sum(1, keepdim=True)
            limit = torch.minimum(sq.amin(1) + self.error, self.bound_sq[part].float() * (1 + 1e-6)) + self.error
            row, near = torch.nonzero(sq <= limit[:, None], as_tuple=True)
            exact = self._pairs_sq(part[row], picks[first + near])
            self.bound_sq[part] = self.bound_sq[part].scatter_reduce(0, row, exact, "amin")
            self.seen[part] = now

    def _refill(self) -> None:
        """Choose pools of the largest bounds until the best point of one is the farthest of all."""
        size = min(POOL, self.n_points)
        while True:
            top = self.bound_sq.topk(min(size + 1, self.n_points))
            self.pool = top.indices[:size].sort().values
            self.outside = float(top.values[-1]) if size < self.n_points else float("-inf")
            current = bool((self.seen[self.pool] == len(self.picks)).all())
            self._refresh(self.pool)
            if float(self.bound_sq[self.pool].max()) > self.outside:
                break
            if current:  # more ties than the pool holds
                size = min(4 * size, self.n_points)
        self.pool_sq = self.bound_sq[self.pool]
        small = size <= max(8 * POOL, self.n_points // 8)
        self.pool_rows = self._centred(self.pool.cpu().numpy()) if small else None

    def farthest(self) -> tuple[int, float]:
        """The next pick and its squared distance; ties go to the lowest index."""
        if len(self.pool) == 0 or float(self.pool_sq.max()) <= self.outside:
            self.bound_sq[self.pool] = self.pool_sq
            self.seen[self.pool] = len(self.picks)
            self._refill()
        best = self.pool_sq.max()
        return int(self.pool[self.pool_sq == best].min()), float(best)

    def add(self, pick: int) -> None:
        """Take a pick in, and let the pool meet it."""
        self.picks.append(pick)
        centre = self._centred(np.array([pick]))
        self.centres = torch.cat([self.centres, centre])
        if self.pool_rows is None:
            near = torch.arange(len(self.pool), device=self.device)
        else:
            sq = ((self.pool_rows - centre) ** 2).sum(1)
            near = torch.nonzero(sq <= self.pool_sq.float() * (1 + 1e-6) + self.error).squeeze(1)
        exact = self._pairs_sq(self.pool[near], torch.full_like(near, pick))
        self.pool_sq[near] = torch.minimum(self.pool_sq[near], exact)
        self.pool_sq[self.pool == pick] = -1.0
        self.bound_sq[pick] = -1.0
