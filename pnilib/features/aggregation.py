"""Levels -> one embedding a cell: neighborhood and adaptive average pooling (paper sec. 2).

The feature at each cell "is extended to incorporate neighborhood features within a specific patch
size p", then "adaptive average pooling is performed to output a single feature of dimension d".

Order: as PatchCore and the released code do, each level is unfolded into its p x p windows at
its own resolution, the coarser one is resized bilinearly, each is pooled to d (channel-major), and
the stacked levels are pooled to d again.  The paper's text resizes and concatenates first.

All of this is one fixed linear map.  An output channel is a mean over a contiguous run of the
channel-major window values, so it touches only a few neighboring channels: `Aggregation` does it as
that many depthwise p x p convolutions and never unfolds.  Memory: three maps of d channels at a time,
instead of the c p^2 channels of `aggregate_literal`.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Aggregation", "aggregate_literal", "aggregate_mean", "pooling_bands"]


def aggregate_literal(levels: list[Tensor], patch: int, dim: int) -> Float[Tensor, "b d gh gw"]:
    """Levels (b, c_l, h_l, w_l), the finest first -> embeddings, as the text says.  Slow, for tests."""
    size = levels[0].shape[-2:]
    pooled = []
    for level in levels:
        windows = F.unfold(level, patch, padding=patch // 2)  # b, c p p, h w
        windows = windows.reshape(len(level), -1, *level.shape[-2:])
        windows = F.interpolate(windows, size=size, mode="bilinear", align_corners=False)
        pooled.append(F.adaptive_avg_pool1d(windows.permute(0, 2, 3, 1).flatten(0, 2), dim))
    stacked = torch.stack(pooled, dim=1).flatten(1)
    embeddings = F.adaptive_avg_pool1d(stacked, dim)
    return embeddings.reshape(len(levels[0]), *size, dim).permute(0, 3, 1, 2)


def pooling_bands(channels: int, patch: int, dim: int, n_levels: int, level: int) -> tuple[int, Tensor, Tensor]:
    """What one level adds to the embedding: (first output channel, first input channels, weights).

    Output `first + r` receives sum_k weights[r, k] * window(channel starts[r] + k): `starts` (rows,),
    `weights` (rows, k, patch, patch).  Adaptive pooling of n values to d: bin i is the mean over
    floor(i n/d) ... ceil((i+1) n/d) - 1; the second pooling averages n_levels bins in a row.
    """
    area = patch * patch
    total = channels * area
    bins = [(m, m * total // dim, -((m + 1) * total // -dim)) for m in range(dim)]
    first = level * dim // n_levels
    rows = ((level + 1) * dim - 1) // n_levels - first + 1
    starts = torch.full((rows,), channels, dtype=torch.int64)
    ends = torch.zeros(rows, dtype=torch.int64)
    for m, low, high in bins:
        row = (level * dim + m) // n_levels - first
        starts[row] = min(int(starts[row]), low // area)
        ends[row] = max(int(ends[row]), (high - 1) // area + 1)
    width = int((ends - starts).max())
    starts = starts.clamp(max=channels - width)
    weights = torch.zeros(rows, width * area, dtype=torch.float64)
    for m, low, high in bins:
        row = (level * dim + m) // n_levels - first
        offset = int(starts[row]) * area
        weights[row, low - offset : high - offset] += 1 / (n_levels * (high - low))
    return first, starts, weights.reshape(rows, width, patch, patch).float()


def aggregate_mean(levels: list[Tensor], patch: int, border: str = "exist") -> Float[Tensor, "b d gh gw"]:
    """aggregation=concat: mean over patch x patch cells of each level, coarser levels resized bilinearly, all channels
    kept.  For networks with few channels, and `scattering`.

    `border`: `zeros` outside the level, as `aggregate_literal` unfolds it; or the mean of the cells that `exist`.  Such
    means of fewer cells spread more: border cells then are half of a greedy coreset, and normal corners score highest.
    """
    size, zeros = levels[0].shape[-2:], border == "zeros"
    means = [F.avg_pool2d(level, patch, stride=1, padding=patch // 2, count_include_pad=zeros) for level in levels]
    resized = [F.interpolate(mean, size=size, mode="bilinear", align_corners=False) for mean in means]
    return torch.cat(resized, dim=1)


class Aggregation(nn.Module):
    """`aggregate_literal` for fixed channel counts, without its memory."""

    def __init__(self, channels: tuple[int, ...], patch: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.firsts = []
        for level, n_channels in enumerate(channels):
            first, starts, weights = pooling_bands(n_channels, patch, dim, len(channels), level)
            self.firsts.append(first)
            self.register_buffer(f"starts{level}", starts, persistent=False)
            self.register_buffer(f"weights{level}", weights, persistent=False)

    def forward(self, levels: list[Tensor]) -> Float[Tensor, "b d gh gw"]:
        """Levels (b, c_l, h_l, w_l), the finest first -> embeddings."""
        size = levels[0].shape[-2:]
        embeddings = levels[0].new_zeros(len(levels[0]), self.dim, *size)
        for index, level in enumerate(levels):
            starts = self.get_buffer(f"starts{index}")
            weights = self.get_buffer(f"weights{index}")
            rows, width, patch, _ = weights.shape
            pooled = torch.zeros((), device=level.device)
            for k in range(width):
                band = level[:, starts + k]
                pooled = pooled + F.conv2d(band, weights[:, k, None], padding=patch // 2, groups=rows)
            first = self.firsts[index]
            embeddings[:, first : first + rows] += F.interpolate(
                pooled, size=size, mode="bilinear", align_corners=False
            )
        return embeddings
