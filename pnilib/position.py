r"""Position distribution p(c_dist | x): what was seen at each grid cell in training.

PNI Algorithm 1: for every training image and every coordinate x, hist(idx | x) += 1 with idx the nearest c_dist
of Phi_i(x); then p(c_dist | x) = normalize(hist(. | x)).  The pseudo-code leaves out what the
text after it says: "features in the p x p neighborhood are accumulated in the histogram for
robust estimation" (sec. 3.2).  The window is clipped at the border of the grid.

Switches: `pos_bins=emb` bins over C_emb, as released (B4); `border=replicate` lets only interior cells vote (B13).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt16, UInt32
from numpy import ndarray
from torch import Tensor

from pnilib.errors import PNIError

__all__ = ["PositionHistogram", "count_positions", "count_positions_reference"]


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
        """|C_dist|, or |C_emb| with pos_bins=emb."""
        return int(self.counts.shape[2])

    def probability(self, cells: slice) -> Float32[Tensor, "b n_bins"]:
        """p(c | x) at some cells (row-major); rows sum to 1 (Algorithm 1, line 8).

        A cell that nobody voted for (possible only with border=replicate and a small window) is uniform.
        """
        votes = torch.from_numpy(self.counts.reshape(-1, self.n_bins)[cells].astype(np.float32))
        total = votes.sum(1, keepdim=True)
        return torch.where(total > 0, votes / total.clamp_min(1), 1.0 / self.n_bins)

    def marginal(self) -> Float32[Tensor, " n_bins"]:
        """p(c) over all cells, with one pseudo-count a bin; sums to 1 (for combine=product, ours)."""
        votes = self.counts.sum(axis=(0, 1), dtype=np.float64) + 1.0
        return torch.from_numpy((votes / votes.sum()).astype(np.float32))
