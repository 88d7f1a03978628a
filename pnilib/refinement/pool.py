r"""The training set D of triples (I, A_hat, A) on disk (PNI eq. 9); `pnilib.detector.training_pool` makes it.

"I is an artificially generated anomaly image, and A represents the ground-truth anomaly map of I, with 1 assigned to
defect regions and 0 assigned to others.  A_hat is an anomaly map estimated from the proposed algorithm.  We normalize
each map into [0, 1]." (sec. 3.3)

*Normalisation.*  (A_hat - low) / (high - low), low and high being the extremes over all maps of the pool.  Inference
uses the same two numbers, so maps of different images stay comparable; the network sees the result cut to [0, 1].

Each image is one file, complete or absent.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from jaxtyping import Float32, UInt8
from numpy import ndarray
from safetensors import SafetensorError
from torch import Tensor

from pnilib.config import PNIConfig
from pnilib.errors import PNIError

__all__ = ["Pool", "pool_file", "pool_size"]


@dataclass(frozen=True)
class Pool:
    """A finished pool.  low, high: extremes of its maps, score units; name: category, for messages."""

    name: str
    folder: Path
    n: int
    low: float
    high: float

    def item(self, k: int) -> dict[str, ndarray]:
        """image (h, w, 3) uint8; map (h, w) float16 (float32 for scores over 65,504), score units; mask (h, w) bool.

        Raises PNIError for a missing or damaged file.
        """
        with self._readable(k) as path:
            return safetensors.numpy.load_file(path)

    def drawn(self, k: int) -> dict[str, Any]:
        """What was drawn on image k: `kind` ("clean" or a generator's name) and the generator's choices."""
        with self._readable(k) as path, safetensors.safe_open(path, "np") as handle:
            return json.loads(handle.metadata()["drawn"])

    @contextmanager
    def _readable(self, k: int) -> Iterator[Path]:
        path = pool_file(self.folder, k)
        try:
            yield path
        except (OSError, SafetensorError):
            raise PNIError(f"{path}: is missing or damaged: delete it and run `pni refine` again") from None

    def batch(
        self, idx: Sequence[int]
    ) -> tuple[UInt8[Tensor, "b 3 h w"], Float32[Tensor, "b 1 h w"], Float32[Tensor, "b 1 h w"]]:
        """(images, maps normalised and cut to [0, 1], masks) of some items."""
        items = [self.item(k) for k in idx]
        images = torch.from_numpy(np.stack([item["image"] for item in items])).movedim(3, 1)
        maps = np.stack([item["map"] for item in items])[:, None].astype(np.float32)
        maps = ((maps - self.low) / (self.high - self.low)).clip(0, 1)
        masks = np.stack([item["mask"] for item in items])[:, None].astype(np.float32)
        return images, torch.from_numpy(maps), torch.from_numpy(masks)


def pool_size(config: PNIConfig) -> int:
    """Images in a category's pool: `pool_images`, or as many as fit into `pool_gb`."""
    item = config.image_crop**2 * (3 + 2 + 1) + 1024
    return max(2, min(config.pool_images, int(config.pool_gb * 1e9 / item)))


def pool_file(folder: Path, k: int) -> Path:
    """Where image k of a pool lies."""
    return folder / f"{k // 1000:03}" / f"{k:06}.safetensors"
