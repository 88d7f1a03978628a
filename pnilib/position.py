r"""Position distribution p(c_dist | x): what was seen at each grid cell in training.

PNI Algorithm 1: for every training image and every coordinate x, hist(idx | x) += 1 with idx the nearest c_dist
of Phi_i(x); then p(c_dist | x) = normalize(hist(. | x)).  The pseudo-code leaves out what the
text after it says: "features in the p x p neighborhood are accumulated in the histogram for
robust estimation" (sec. 3.2).  The window is clipped at the border of the grid.

`PositionHistogram.against` and `fit_concentration` turn the counts into evidence for gate=soft (ours).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, UInt16, UInt32
from numpy import ndarray
from torch import Tensor

from pnilib.errors import PNIError

__all__ = [
    "PositionHistogram",
    "count_positions",
    "count_positions_reference",
    "fit_concentration",
    "fit_concentration_reference",
]

CONCENTRATIONS = np.logspace(-1, 6, 29)
"""Candidates for alpha, votes."""


def count_positions_reference(
    bin_idx: Int64[ndarray, "n gh gw"], n_bins: int, patch: int, border: int = 0
) -> Int64[ndarray, "gh gw n_bins"]:
    """Algorithm 1 with the window, word for word."""
    n, gh, gw = bin_idx.shape
    hist = np.zeros((gh, gw, n_bins), dtype=np.int64)
    reach = patch // 2
    for i in range(n):
        for h in range(border, gh - border):
            for w in range(border, gw - border):
                for y in range(max(0, h - reach), min(gh, h + reach + 1)):
                    for x in range(max(0, w - reach), min(gw, w + reach + 1)):
                        hist[y, x, bin_idx[i, h, w]] += 1
    return hist


def count_positions(
    bin_idx: Int64[ndarray, "n gh gw"], n_bins: int, patch: int, border: int = 0
) -> UInt16[ndarray, "gh gw n_bins"] | UInt32[ndarray, "gh gw n_bins"]:
    """Votes of every cell for every bin; the outer `border` cells receive but do not vote.

    One bincount, then a box sum by two passes of cumulative sums.  uint16 while no cell can count higher,
    else uint32.  Raises PNIError when an index is not a bin.
    """
    n, gh, gw = bin_idx.shape
    if bin_idx.size and not (bin_idx.min() >= 0 and bin_idx.max() < n_bins):
        raise PNIError(f"position histogram: a bin index lies outside 0 ... {n_bins - 1}")
    voters = bin_idx[:, border : gh - border, border : gw - border]
    cell = np.arange(gh * gw).reshape(gh, gw)[border : gh - border, border : gw - border]
    flat = np.bincount((cell[None] * n_bins + voters).reshape(-1), minlength=gh * gw * n_bins)
    dtype = np.uint16 if n * patch**2 < 2**16 else np.uint32
    hist = flat.reshape(gh, gw, n_bins).astype(dtype)
    for axis in (0, 1):
        hist = _window_sum(hist, patch, axis)
    return hist


def _window_sum(hist: ndarray, patch: int, axis: int) -> ndarray:
    size, reach = hist.shape[axis], patch // 2
    total = np.insert(np.cumsum(hist, axis=axis, dtype=hist.dtype), 0, 0, axis=axis)  # wraps, differences do not
    at = np.arange(size)
    high = np.minimum(at + reach + 1, size)
    low = np.maximum(at - reach, 0)
    return total.take(high, axis=axis) - total.take(low, axis=axis)


@dataclass(frozen=True)
class PositionHistogram:
    """counts: votes (gh, gw, n_bins), uint16 or uint32."""

    counts: UInt16[ndarray, "gh gw n_bins"] | UInt32[ndarray, "gh gw n_bins"]

    @property
    def n_bins(self) -> int:
        """How many bins were counted: |C_dist|."""
        return int(self.counts.shape[2])

    def probability(self, cells: slice) -> Float32[Tensor, "b n_bins"]:
        """p(c | x) at some cells (row-major); rows sum to 1 (Algorithm 1, line 8).

        A cell that nobody voted for (possible only with border=replicate and a small window) is uniform.
        """
        votes = torch.from_numpy(self.counts.reshape(-1, self.n_bins)[cells].astype(np.float32))
        total = votes.sum(1, keepdim=True)
        return torch.where(total > 0, votes / total.clamp_min(1), 1.0 / self.n_bins)

    def without(self, votes: Int64[ndarray, "gh gw n_bins"]) -> "PositionHistogram":
        """The histogram that would have been counted without the images that gave these votes."""
        return PositionHistogram((self.counts.astype(np.int64) - votes).astype(self.counts.dtype))

    def against(
        self, cells: slice | Int64[Tensor, " b"], alpha: float, bins: Int64[Tensor, " b"] | None = None
    ) -> Float32[Tensor, "b n_bins"] | Float32[Tensor, " b"]:
        """What the place says against each bin at some cells (row-major), or against one bin a cell, nats >= 0 (ours,
        for gate=soft):

            max(0, log p(c) - log p(c | x)),      p(c | x) = (n_x(c) + alpha p(c)) / (n_x + alpha)

        n_x: votes of the cell, p(c): `marginal`.  Evidence for a bin counts nothing: it must not make up for distance.
        """
        flat, p = self.counts.reshape(-1, self.n_bins), self.marginal()
        total = self._total[cells][:, None]
        if bins is None:
            votes = torch.from_numpy(flat[cells if isinstance(cells, slice) else cells.numpy()].astype(np.float32))
        else:
            rows = np.arange(len(flat))[cells] if isinstance(cells, slice) else cells.numpy()
            votes, p, total = torch.from_numpy(flat[rows, bins.numpy()].astype(np.float32)), p[bins], total[:, 0]
        return (p.log() - ((votes + alpha * p) / (total + alpha)).log()).clamp_min(0)

    @cached_property
    def _total(self) -> Float32[Tensor, " cells"]:
        """Votes of each cell."""
        return torch.from_numpy(self.counts.reshape(-1, self.n_bins).sum(1, dtype=np.int64).astype(np.float32))

    def marginal(self) -> Float32[Tensor, " n_bins"]:
        """p(c) over all cells, with one pseudo-count a bin; sums to 1 (for combine=product and gate=soft, ours)."""
        return self._marginal

    @cached_property
    def _marginal(self) -> Float32[Tensor, " n_bins"]:
        votes = self.counts.sum(axis=(0, 1), dtype=np.float64) + 1.0
        return torch.from_numpy((votes / votes.sum()).astype(np.float32))


def fit_concentration(bin_idx: Int64[ndarray, "n gh gw"], n_bins: int, patch: int, border: int = 0) -> float:
    """alpha of `PositionHistogram.against`: how many votes the marginal is worth beside those of a place (ours).

    The candidate under which each image's own bins are most likely given the other images' votes (empirical Bayes,
    leave one image out): small where parts have their place, large where anything may be anywhere.
    """
    mine, total, share = _left_out(bin_idx, n_bins, patch, border)
    likelihood = [float(np.log((mine + a * share) / (total + a)).mean()) for a in CONCENTRATIONS]
    return float(CONCENTRATIONS[int(np.argmax(likelihood))])


def _left_out(
    bin_idx: Int64[ndarray, "n gh gw"], n_bins: int, patch: int, border: int
) -> tuple[Int64[ndarray, " k"], Int64[ndarray, " k"], Float64[ndarray, " k"]]:
    """For each voting cell of each image: the other images' votes for its bin there, all their votes there, and the
    bin's share among all their votes, with one pseudo-count a bin."""
    n, gh, gw = bin_idx.shape
    inner = slice(border, gh - border), slice(border, gw - border)
    counts = count_positions(bin_idx, n_bins, patch, border).astype(np.int64)
    voters = np.zeros((gh, gw), np.int64)
    voters[inner] = 1
    heard, hearers = (
        _window_sum(_window_sum(cells[..., None], patch, 0), patch, 1)[..., 0]
        for cells in (voters, np.ones_like(voters))
    )  # voters in the window of a cell; cells that hear a voter
    reach = patch // 2
    padded = np.full((gh + 2 * reach, gw + 2 * reach), -1, dtype=np.int64)
    everywhere = counts.sum(axis=(0, 1))
    row, column = np.mgrid[inner]
    mine, share = [], []
    for image in bin_idx:
        padded[reach : reach + gh, reach : reach + gw][inner] = image[inner]
        bins = image[inner]
        own = np.zeros(bins.shape, np.int64)
        for h in range(patch):
            for w in range(patch):
                own += padded[h : h + gh, w : w + gw][inner] == bins
        mine.append((counts[row, column, bins] - own).reshape(-1))
        others = everywhere - np.bincount(
            bins.reshape(-1), weights=hearers[inner].reshape(-1), minlength=n_bins
        ).astype(np.int64)
        share.append(((others + 1) / (others.sum() + n_bins))[bins].reshape(-1))
    total = np.tile((n - 1) * heard[inner].reshape(-1), n)
    return np.concatenate(mine), total, np.concatenate(share)


def fit_concentration_reference(bin_idx: Int64[ndarray, "n gh gw"], n_bins: int, patch: int, border: int = 0) -> float:
    """`fit_concentration` as its sentence says it: counts the histogram anew without each image.  Slow, for tests."""
    n, gh, gw = bin_idx.shape
    likelihood = np.zeros(len(CONCENTRATIONS))
    for i in range(n):
        others = count_positions_reference(np.delete(bin_idx, i, axis=0), n_bins, patch, border)
        share = (others.sum(axis=(0, 1)) + 1) / (others.sum() + n_bins)
        for h in range(border, gh - border):
            for w in range(border, gw - border):
                c = bin_idx[i, h, w]
                p = (others[h, w, c] + CONCENTRATIONS * share[c]) / (others[h, w].sum() + CONCENTRATIONS)
                likelihood += np.log(p)
    return float(CONCENTRATIONS[int(likelihood.argmax())])
