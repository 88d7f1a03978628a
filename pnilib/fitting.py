"""The stages of a fit, in the paper's order: features, coresets, position histogram, neighborhood MLP (PNI Fig. 2).

With a work folder each stage is kept in a folder of its own, named by a key of its configuration, the images, the
backbone weights and the kind of device: a killed fit resumes, losing at most one batch of images, one epoch, or the
pass that fits the standardisation.  Fits of several configurations may share a work folder, and share its stages.
"""

import dataclasses
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy import ndarray
from torch import Tensor
from tqdm.auto import tqdm

from pnilib.artefacts import os_errors, read_artefact, write_artefact, write_json
from pnilib.config import PNIConfig
from pnilib.coreset import Coreset, select_coreset
from pnilib.data import Split
from pnilib.features import Embedder, extract, raw_features
from pnilib.neighborhood import TrainedMLP, train_neighborhood
from pnilib.neighbors import nearest
from pnilib.position import PositionHistogram, count_positions

__all__ = ["Fitted", "coreset_from", "coreset_tensors", "fit_stages", "make_features"]


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What was learnt.  neighborhood: None for the settings without the MLP.  seconds: by stage."""

    coreset: Coreset
    position: PositionHistogram
    neighborhood: TrainedMLP | None
    seconds: dict[str, float]


def fit_stages(train: Split, embedder: Embedder, work: Path | None, *, device: str, progress: bool) -> Fitted:
    """All stages; fits the embedder's standardisation in passing.  Without `work` everything stays in memory."""
    config, seconds = embedder.config, {}

    def key(stage: str) -> str:
        return _key(stage, train, embedder, device)

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        seconds[stage] = time.perf_counter() - began

    with timed("features"):
        features = make_features(train, embedder, work, device=device, progress=progress)
    with timed("coreset"):
        coreset = _coreset(features, config, _place(work, "coreset", key("coreset")), device, progress)
    with timed("position"):
        dist_idx = _nearest_of_each(features, coreset.distribution, device, progress, "nearest C_dist")
        bin_idx, n_bins = dist_idx, coreset.n_dist
        if config.pos_bins == "emb":
            bin_idx, n_bins = (
                _nearest_of_each(features, coreset.embedding, device, progress, "nearest C_emb"),
                len(coreset.embedding),
            )
        border = config.border_cells if config.border == "replicate" else 0
        position = PositionHistogram(count_positions(bin_idx, n_bins, config.patch, border))
    neighborhood = None
    if config.setting in ("B", "E"):
        with timed("neighborhood"):
            neighborhood = train_neighborhood(
                _resident(features, device),
                torch.from_numpy(dist_idx),
                coreset.n_dist,
                config,
                device=device,
                checkpoint=_place(work, "mlp", key("neighborhood")),
                progress=progress,
            )
    return Fitted(coreset, position, neighborhood, seconds)


def _key(stage: str, train: Split, embedder: Embedder, device: str) -> str:
    identity = f"{train.fingerprint()} {embedder.backbone.weights_id} {torch.device(device).type}"
    return f"{embedder.config.stage_key(stage)}-{hashlib.sha256(identity.encode()).hexdigest()[:32]}"


def _place(work: Path | None, name: str, key: str) -> Path | None:
    """The folder of one stage."""
    return None if work is None else work / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def make_features(
    train: Split, embedder: Embedder, work: Path | None, *, device: str, progress: bool = False
) -> Float32[ndarray, "n gh gw d"]:
    """The first stage alone: fits the embedder's standardisation, then embeds all images."""
    key = _key("features", train, embedder, device)
    place = _place(work, "features", key)
    kept = None if place is None else _cached(place / "norm")
    if kept is not None:
        embedder.load_state(kept[0]["norm"])
    elif embedder.config.feature_norm != "none":
        embedder.fit_norm(raw_features(train, embedder, progress=progress))
    if place is None:
        return extract(train, embedder, progress=progress)
    file, done = place / "features.npy", place / "features.json"
    with os_errors(place):
        if kept is None:
            done.unlink(missing_ok=True)
            write_artefact(place / "norm", {"norm": embedder.state()}, {})
        if not (done.exists() and file.exists()):
            extract(train, embedder, out=file, progress=progress, key=key)
            write_json(done, {"key": key})
        # copy-on-write: torch wants writable memory; nothing is ever written
        return np.load(file, mmap_mode="c", allow_pickle=False)


def _coreset(
    features: Float32[ndarray, "n gh gw d"], config: PNIConfig, place: Path | None, device: str, progress: bool
) -> Coreset:
    kept = None if place is None else _cached(place)
    if kept is not None:
        return coreset_from(kept[0]["coreset"], kept[1]["n_dist"])
    coreset = select_coreset(features, config, device=device, progress=progress)
    if place is not None:
        write_artefact(place, {"coreset": coreset_tensors(coreset)}, {"n_dist": coreset.n_dist})
    return coreset


def _nearest_of_each(
    features: Float32[ndarray, "n gh gw d"], vectors: Float32[Tensor, "m d"], device: str, progress: bool, what: str
) -> Int64[ndarray, "n gh gw"]:
    vectors = vectors.to(device)
    rows = [
        nearest(torch.from_numpy(image).to(device).flatten(0, 1), vectors)[1][:, 0].cpu().numpy()
        for image in tqdm(features, desc=what, unit="image", disable=not progress)
    ]
    return np.stack(rows).reshape(features.shape[:3])


def _cached(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None:
    """A stage's artefact, or None if there is none.  Raises PNIError for a damaged one."""
    return read_artefact(folder) if folder.exists() else None


def coreset_tensors(coreset: Coreset) -> dict[str, Tensor]:
    """What an artefact keeps of a coreset, beside `n_dist`."""
    return {f.name: getattr(coreset, f.name) for f in dataclasses.fields(coreset) if f.name != "n_dist"}


def coreset_from(tensors: dict[str, Tensor], n_dist: int) -> Coreset:
    """Inverse of `coreset_tensors`."""
    return Coreset(n_dist=n_dist, **tensors)


def _resident(features: ndarray, device: str) -> Float32[Tensor, "n gh gw d"]:
    """Training features on the accelerator when they take less than half of its free memory."""
    tensor = torch.from_numpy(features)
    if torch.device(device).type == "cuda" and features.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
        return tensor.to(device)
    return tensor
