"""Images -> patch features Phi_i (paper sec. 2): backbone, aggregation, optional standardisation.

`Embedder` does a batch, `extract` a whole split: into memory, or into a memory-mapped file whose
extraction survives being killed.
"""

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import psutil
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from pnilib.config import PNIConfig
from pnilib.config.geometry import Geometry
from pnilib.errors import PNIError
from pnilib.features.aggregation import Aggregation, aggregate_mean
from pnilib.features.backbones import level_shapes, load_backbone
from pnilib.features.normalization import FeatureNorm
from pnilib.store.text import read_json

__all__ = ["Embedder", "ImageSource", "extract", "raw_features"]


@runtime_checkable
class ImageSource(Protocol):
    """What is needed of a `pnilib.data.Split`."""

    @property
    def samples(self) -> Any:
        """Table with a column `image_path`."""

    def __len__(self) -> int: ...

    def image(self, index: int, geometry: Geometry) -> Tensor:
        """Image (3, crop, crop) in [0, 1]."""

    def fingerprint(self) -> str:
        """Another one for other images."""


class Embedder:
    """Backbone, aggregation and standardisation of one configuration.

    `norm` is None until `fit_norm` or `load_state`; `embed` standardises once it is there.
    Raises PNIError as `load_backbone` does.
    """

    def __init__(self, config: PNIConfig, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self.backbone = load_backbone(config, self.device)
        self.norm: FeatureNorm | None = None
        self.aggregation: Aggregation | None = None
        self.channels = tuple(channels for channels, _, _ in level_shapes(config))
        if config.backbone != "scattering" and config.aggregation == "pool":
            self.aggregation = Aggregation(self.channels, config.agg_patch, config.dim).to(self.device)

    @property
    def grid(self) -> tuple[int, int]:
        """Patch grid (gh, gw) of the configured image size."""
        _, gh, gw = level_shapes(self.config)[0]
        return gh, gw

    @property
    def dim(self) -> int:
        """Channels of what `embed` returns now: it may change once `norm` is fitted."""
        if self.norm is not None:
            return self.norm.dim
        return sum(self.channels) if self.aggregation is None else self.config.dim

    @torch.no_grad()
    def raw(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b gh gw d"]:
        """Aggregated features before standardisation, on the embedder's device."""
        levels = self.backbone(images.to(self.device))
        if self.aggregation is None:
            border = "exist" if self.config.backbone == "scattering" else "zeros"
            embeddings = aggregate_mean(levels, self.config.agg_patch, border)
        else:
            embeddings = self.aggregation(levels)
        return embeddings.permute(0, 2, 3, 1).contiguous()

    def embed(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b gh gw d"]:
        """Features Phi of images in [0, 1]; standardised if a norm is fitted."""
        features = self.raw(images)
        return features if self.norm is None else self.norm(features)

    def fit_norm(self, batches: Iterable[Tensor]) -> None:
        """Fits `feature_norm` on raw features (b gh gw d), streamed; nothing to do for `none`."""
        if self.config.feature_norm != "none":
            self.norm = FeatureNorm.fit(self.config.feature_norm, batches, self.config.dim)

    def state(self) -> dict[str, Tensor]:
        """What was fitted, as tensors; empty without a norm."""
        return {} if self.norm is None else self.norm.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state`.  Raises PNIError when it does not fit the configuration."""
        wanted = set() if self.config.feature_norm == "none" else {"norm_mean", "norm_linear"}
        if set(state) != wanted:
            raise PNIError(
                f"feature_norm={self.config.feature_norm}: the saved state holds {sorted(state)}: it was "
                "fitted with another configuration: fit again"
            )
        self.norm = FeatureNorm.load(self.config.feature_norm, state) if wanted else None


def raw_features(split: ImageSource, embedder: Embedder, batch: int = 8, progress: bool = True) -> Iterator[Tensor]:
    """Raw features of a split, batch by batch (b gh gw d): feed them to `Embedder.fit_norm`."""
    bar = tqdm(total=len(split), desc="features", unit="image", disable=not progress)
    with bar:
        for _, images in _batches(split, embedder.config.geometry, 0, batch):
            yield embedder.raw(images)
            bar.update(len(images))


def extract(
    split: ImageSource,
    embedder: Embedder,
    out: Path | None = None,
    batch: int = 8,
    progress: bool = True,
) -> np.ndarray:
    """Features of all images of a split: float32 (n, gh, gw, d), standardised if a norm is fitted.

    Without `out` in memory; with it a read-only memory map of that .npy file.  The file is written as
    `out`.part beside `out`.progress: a killed run goes on after the last whole batch; one of other
    images, configuration, weights, standardisation or kind of device starts anew.  An existing `out`
    is replaced.

    Raises PNIError when memory or disk are too small, an image cannot be read, or features are not
    finite.
    """
    shape = (len(split), *embedder.grid, embedder.dim)
    n_bytes = 4 * int(np.prod(shape))
    if out is None:
        if n_bytes > psutil.virtual_memory().available:
            raise PNIError(f"features: {n_bytes / 2**30:.1f} GiB do not fit in memory: give a file to map (out)")
        features, done, save = np.empty(shape, np.float32), 0, None
    else:
        out = Path(out)
        save = _PartialFile(out, shape, _identity(split, embedder))
        features, done = save.features, save.done
    bar = tqdm(total=len(split), initial=done, desc="features", unit="image", disable=not progress)
    with bar:
        for start, images in _batches(split, embedder.config.geometry, done, batch):
            values = embedder.embed(images)
            _require_finite(values, split, start)
            features[start : start + len(values)] = values.cpu().numpy()
            if save is not None:
                save.checkpoint(start + len(values))
            bar.update(len(values))
    return features if save is None else save.finish()


def _identity(split: ImageSource, embedder: Embedder) -> str:
    """Hash of all that features depend on."""
    parts = [split.fingerprint(), embedder.backbone.weights_id, embedder.config.stage_key("features"),
             embedder.device.type]  # fmt: skip
    digest = hashlib.sha256(" ".join(parts).encode())
    for name, tensor in sorted(embedder.state().items()):
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def _require_finite(values: Tensor, split: ImageSource, start: int) -> None:
    bad = ~torch.isfinite(values).flatten(1).all(1)
    if bad.any():
        path = split.samples["image_path"].iloc[start + int(bad.nonzero()[0, 0])]
        raise PNIError(f"{path}: its features are not finite: check the image and the weights")


def _batches(split: ImageSource, geometry: Geometry, start: int, batch: int) -> Iterator[tuple[int, Tensor]]:
    """(first index, images) from `start` on; two threads decode the next batches meanwhile."""
    pending: deque[Future[Tensor]] = deque()
    upcoming = iter(range(start, len(split)))
    with ThreadPoolExecutor(max_workers=2) as pool:

        def refill() -> None:
            while len(pending) < 2 * batch and (index := next(upcoming, None)) is not None:
                pending.append(pool.submit(split.image, index, geometry))

        refill()
        while pending:
            images = [pending.popleft().result() for _ in range(min(batch, len(pending)))]
            refill()
            yield start, torch.stack(images)
            start += len(images)


class _PartialFile:
    """A .npy memory map under a temporary name, with a sidecar that says how far it got."""

    def __init__(self, out: Path, shape: tuple[int, ...], key: str) -> None:
        self.out = out
        self.part = out.with_name(out.name + ".part")
        self.sidecar = out.with_name(out.name + ".progress")
        self.wanted = {"key": key, "shape": list(shape)}
        self.done = self._resumable()
        if self.done:
            self.features = np.lib.format.open_memmap(self.part, mode="r+")
            return
        out.parent.mkdir(parents=True, exist_ok=True)
        for stale in (self.sidecar, self.part):
            stale.unlink(missing_ok=True)
        needed, free = 4 * int(np.prod(shape)), shutil.disk_usage(out.parent).free
        if needed > free:  # writing to a map on a full disk kills the process
            raise PNIError(f"{out}: features need {needed / 2**30:.1f} GiB, {free / 2**30:.1f} are free: make room")
        self.features = np.lib.format.open_memmap(self.part, mode="w+", dtype=np.float32, shape=shape)

    def _resumable(self) -> int:
        """Images already done by a run of the same key and shape; else 0."""
        try:
            state = read_json(self.sidecar)
            features = np.lib.format.open_memmap(self.part, mode="r")
            same = {k: state[k] for k in self.wanted} == self.wanted
            fits = list(features.shape) == self.wanted["shape"] and features.dtype == np.float32
            return int(state["done"]) if same and fits else 0
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def checkpoint(self, done: int) -> None:
        """Makes the first `done` rows durable, then says so."""
        self.features.flush()
        temporary = self.sidecar.with_name(self.sidecar.name + ".tmp")
        temporary.write_text(json.dumps(self.wanted | {"done": done}), encoding="utf-8")
        os.replace(temporary, self.sidecar)

    def finish(self) -> np.ndarray:
        """Gives the file its name; returns it, read-only."""
        del self.features
        os.replace(self.part, self.out)
        self.sidecar.unlink(missing_ok=True)
        return np.load(self.out, mmap_mode="r", allow_pickle=False)
