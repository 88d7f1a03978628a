"""Rates that the package's own functions reach on this machine, each measured when it is first asked for.

Random numbers of the configured shapes, none larger than `_LARGE` in any one direction; a mean of some calls after the
first, or the first alone where it takes more than a second.  All times are wall time.
"""

import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pnilib.config import PNIConfig
from pnilib.coreset import POOL, greedy_k_center
from pnilib.estimate.dimensions import Sizes
from pnilib.features import Embedder
from pnilib.maps import anomaly_maps
from pnilib.metrics import PixelStatistics
from pnilib.neighborhood import gather_neighbors
from pnilib.neighbors import nearest
from pnilib.scoring import patch_distances, score_patches

__all__ = ["DetectorSpeeds", "seconds_of"]

_LARGE = 4096
"""what is measured is never larger than this in any one direction."""


def seconds_of(work: Callable[[], Any], device: str, least: float = 0.2) -> float:
    """Seconds of a call: mean of some after the first, or the first alone if it takes long."""
    spent, calls = _time(work, device), 0
    if spent > 1.0:
        return spent
    spent = 0.0
    while spent < least:
        spent, calls = spent + _time(work, device), calls + 1
    return spent / calls


def _time(work: Callable[[], Any], device: str) -> float:
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if on_gpu:
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


class DetectorSpeeds:
    """Of a fit of `config` with sizes `z`; also used for other numbers of images."""

    def __init__(self, config: PNIConfig, z: Sizes, device: str) -> None:
        self.config, self.z, self.device = config, z, device
        self.generator = torch.Generator().manual_seed(0)

    def _random(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator).to(self.device)

    @torch.no_grad()
    def _seconds(self, work: Callable[[], Any], least: float = 0.2) -> float:
        return seconds_of(work, self.device, least)

    @cached_property
    def image(self) -> float:
        """Seconds an image, to its features; weights do not matter, so random ones do."""
        config = self.config if self.config.backbone == "scattering" else self.config.replace(weights="random")
        embedder = Embedder(config, self.device)
        picture = self._random(1, 3, config.image_crop, config.image_crop)
        return self._seconds(lambda: embedder.raw(picture))

    @cached_property
    def flops(self) -> float:
        """Floating-point operations a second, in matrix products as wide as the MLP's."""
        inner = min(self.z.mlp_inputs, _LARGE)
        left, right = self._random(512, inner), self._random(inner, min(self.config.mlp_width, 2048))
        return 2 * left.numel() * right.shape[1] / self._seconds(lambda: left @ right)

    @cached_property
    def add(self) -> float:
        """Bytes a second of an addition."""
        values = self._random(512, _LARGE)
        return 4 * values.numel() / self._seconds(lambda: values + values, 0.05)

    @cached_property
    def pick(self) -> float:
        """Seconds a pick of greedy k-center in its pool."""
        some, picks = self._random(min(self.z.n_patches, 4 * POOL), self.z.d).cpu().numpy(), min(64, self.z.n_patches)
        return self._seconds(lambda: greedy_k_center(some, picks, device=self.device)) / picks

    @cached_property
    def read(self) -> float:
        """Bytes a second (of float64) of greedy k-center's pass over all features."""
        some = self._random(min(self.z.n_patches, 4 * POOL), self.z.d)
        return 8 * some.numel() / self._seconds(lambda: (some.double() - 1).square().sum())

    @cached_property
    def label(self) -> float:
        """Seconds a (cell, vector) pair in finding the nearest of the vectors."""
        cells = self._random(min(self.z.cells, _LARGE), self.z.d)
        vectors = self._random(min(self.z.n_dist, _LARGE), self.z.d)
        return self._seconds(lambda: nearest(cells, vectors)) / (len(cells) * len(vectors))

    @cached_property
    def gate(self) -> float:
        """Seconds a (cell, vector) pair in distances, distributions, gates and minimum."""
        z, config = self.z, self.config
        m = min(z.n_emb, 2 * _LARGE)
        flat, vectors = self._random(min(z.cells, 128), z.d), self._random(m, z.d)
        n_dist, bins = min(z.n_dist, m), min(z.n_bins, m)
        to_dist = torch.arange(m, device=self.device) % n_dist
        p_position = self._random(len(flat), bins if config.pos_bins == "dist" else m) / 64
        p_nb = self._random(len(flat), n_dist) / 64
        marginal = torch.full((p_position.shape[1],), 1e-3, device=self.device)

        def score() -> Any:
            distances = patch_distances(flat, vectors)
            return score_patches(distances, p_nb, p_position, marginal, to_dist, n_dist, config)

        return self._seconds(score) / (len(flat) * m)

    @cached_property
    def smooth(self) -> float:
        """Seconds an image, from patch scores to map."""
        patches = self._random(1, self.z.side, self.z.side)
        return self._seconds(lambda: anomaly_maps(patches, self.config.image_crop, self.config.sigma), 0.05)

    @cached_property
    def gather(self) -> float:
        """Seconds a cell, to collect its neighborhood."""
        z = self.z
        n = max(1, min(8, 8 * 2**20 // (z.cells * z.d)))
        maps = self._random(n, z.side, z.side, z.d)
        cells = torch.randint(n * z.cells, (256,), generator=self.generator)
        return self._seconds(lambda: gather_neighbors(maps, cells, self.config)) / len(cells)

    @cached_property
    def evaluate(self) -> float:
        """Seconds an image, for a setting's pixel metrics."""
        side, n = self.config.image_crop, 4
        maps = self._random(n, side, side).cpu().numpy()
        masks = maps > 2
        masks[1:, : side // 8, : side // 8] = True

        def metrics() -> None:
            found = PixelStatistics.of(list(maps), list(masks))
            found.f1_max(), found.auroc(), found.aupro([0.3, 0.05, 0.01])

        return self._seconds(metrics) / n
