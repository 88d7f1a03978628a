"""The stages of a fit, in the paper's order: features, coresets, position histogram, neighborhood MLP (PNI Fig. 2).

Only the distributions that the setting looks at are fitted (`pnilib.config.NEEDS`), and the soft veto's constants with
gate=soft.

With a work folder each stage is kept in a folder of its own, named by a key of its configuration, the images, the
backbone weights and the kind of device: a killed fit resumes, losing at most one batch of images, one epoch, or the
pass that fits the standardisation.  Fits of several configurations may share a work folder, at the same time too: of
those that need the same stage one makes it, holding the stage's folder, and the others wait for it.
"""

import dataclasses
import hashlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy import ndarray
from torch import Tensor
from tqdm.auto import tqdm

from pnilib.config import NEEDS, PNIConfig
from pnilib.coreset import Coreset, select_coreset
from pnilib.data import Split
from pnilib.detector import steps
from pnilib.detector.veto import fit_veto
from pnilib.features.extraction import Embedder, extract, raw_features
from pnilib.neighborhood import TrainedMLP, train_neighborhood
from pnilib.neighbors import nearest
from pnilib.position import PositionHistogram, count_positions
from pnilib.scoring import SoftVeto
from pnilib.store.artefacts import read_artefact, write_artefact
from pnilib.store.files import os_errors
from pnilib.store.locks import lock_folder

__all__ = ["Fitted", "coreset_from", "coreset_tensors", "fit_stages", "make_features"]


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What was learnt; a distribution that the setting does not look at is None.  seconds: by stage."""

    coreset: Coreset
    position: PositionHistogram | None
    neighborhood: TrainedMLP | None
    veto: SoftVeto | None
    seconds: dict[str, float]


def fit_stages(train: Split, embedder: Embedder, work: Path | None, *, device: str, progress: bool) -> Fitted:
    """All stages that the setting needs; fits the embedder's standardisation in passing.  Without `work` everything
    stays in memory."""
    config, seconds = embedder.config, {}

    def place(stage: str) -> Path | None:
        return _place(work, stage, train, embedder, device)

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        seconds[stage] = time.perf_counter() - began

    @cache
    def dist_idx() -> Int64[ndarray, "n gh gw"]:
        return _nearest_of_each(features, coreset.distribution, device, progress, "nearest C_dist")

    with timed("features"):
        features = make_features(train, embedder, work, device=device, progress=progress)
    with timed("coreset"):
        coreset = _coreset(features, config, place("coreset"), device, progress)
    position = neighborhood = veto = None
    if "position" in NEEDS[config.setting]:
        with timed("position"):
            bins = steps.bins_of(coreset, config)
            own = len(bins) == coreset.n_dist
            bin_idx = dist_idx() if own else _nearest_of_each(features, bins, device, progress, "nearest C_emb")
            border = config.border_cells if config.border == "replicate" else 0
            position = PositionHistogram(count_positions(bin_idx, len(bins), config.patch, border))
        if config.gate == "soft":  # with setting=E too, which can then be scored under every rule
            with timed("veto"):
                veto = fit_veto(features, bin_idx, coreset, position, config, device)
    if "neighborhood" in NEEDS[config.setting]:
        folder = place("neighborhood")
        with timed("neighborhood"), _held(folder):
            neighborhood = train_neighborhood(
                _resident(features, device),
                torch.from_numpy(dist_idx()),
                coreset.n_dist,
                config,
                **steps.training_of_mlp(config),
                device=device,
                checkpoint=None if folder is None else folder / "checkpoint",
                progress=progress,
            )
    return Fitted(coreset, position, neighborhood, veto, seconds)


def _place(work: Path | None, stage: str, train: Split, embedder: Embedder, device: str) -> Path | None:
    """The folder of one stage: its name holds what the stage depends on."""
    if work is None:
        return None
    key = f"{embedder.config.stage_key(stage)} {train.fingerprint()} {embedder.backbone.weights_id}"
    return work / f"{stage}-{hashlib.sha256(f'{key} {torch.device(device).type}'.encode()).hexdigest()[:12]}"


def _held(place: Path | None) -> AbstractContextManager[None]:
    """Hold a stage's folder, waiting for whoever makes the stage now: what it made is found within."""
    return nullcontext() if place is None else lock_folder(place, wait=True)


def make_features(
    train: Split, embedder: Embedder, work: Path | None, *, device: str, progress: bool = False
) -> Float32[ndarray, "n gh gw d"]:
    """The first stage alone: fits the embedder's standardisation, then embeds all images."""
    place = _place(work, "features", train, embedder, device)
    if place is None:
        _fit_norm(train, embedder, progress)
        return extract(train, embedder, progress=progress)
    file, norm = place / "features.npy", place / "norm"
    with os_errors(place), _held(place):
        if norm.exists():
            embedder.load_state(read_artefact(norm)[0]["norm"])
        else:
            _fit_norm(train, embedder, progress)
            file.unlink(missing_ok=True)
            write_artefact(norm, {"norm": embedder.state()}, {})
        if not file.exists():
            extract(train, embedder, out=file, progress=progress)
        # copy-on-write: torch wants writable memory; nothing is ever written
        return np.load(file, mmap_mode="c", allow_pickle=False)


def _fit_norm(train: Split, embedder: Embedder, progress: bool) -> None:
    if embedder.config.feature_norm != "none":
        embedder.fit_norm(raw_features(train, embedder, progress=progress))


def _coreset(
    features: Float32[ndarray, "n gh gw d"], config: PNIConfig, place: Path | None, device: str, progress: bool
) -> Coreset:
    if place is None:
        return select_coreset(features, config, **steps.selection(config), device=device, progress=progress)
    kept = place / "coreset"
    with _held(place):
        if kept.exists():
            tensors, meta = read_artefact(kept)
            return coreset_from(tensors["coreset"], meta["n_dist"])
        coreset = select_coreset(features, config, **steps.selection(config), device=device, progress=progress)
        write_artefact(kept, {"coreset": coreset_tensors(coreset)}, {"n_dist": coreset.n_dist})
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
