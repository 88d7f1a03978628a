"""PNI as one estimator: fit on normal images, predict anomaly maps, save, load (paper Fig. 2, without refinement).

Stages, each cached by its own key in `workdir`: features -> coreset -> position and neighborhood
distributions -> scores -> maps.  This class only remembers; the work is in the modules of those names.
"""

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, Int64
from numpy import ndarray
from torch import Tensor
from tqdm.auto import tqdm

from pnilib.artefacts import os_errors, read_artefact, write_artefact, write_json
from pnilib.config import PNIConfig
from pnilib.coreset import Coreset, select_coreset
from pnilib.data import Split
from pnilib.errors import PNIError
from pnilib.features import Embedder, extract, raw_features
from pnilib.maps import anomaly_maps, image_scores, repeat_inner
from pnilib.metrics import normal_threshold
from pnilib.neighborhood import NeighborhoodMLP, log_probability, train_neighborhood
from pnilib.neighbors import nearest
from pnilib.position import PositionHistogram, count_positions
from pnilib.prediction import Calibration, Prediction
from pnilib.scoring import PatchScores, patch_distances, score_patches, tau

__all__ = ["PNI", "SCORE_BYTES"]

SCORE_BYTES = 64 * 2**20
"""bytes of one distance matrix during scoring; about six arrays of this size are alive at once."""
_KIND = "pnilib.PNI"


class PNI:
    """Industrial anomaly detection using position and neighborhood information.

    >>> model = PNI(PNIConfig.profile("demo")).fit(dataset.train)
    >>> prediction = model.predict(dataset.test)

    `device`: "cpu", "cuda" or "cuda:N"; the same device gives the same bytes for the same seed.
    """

    def __init__(self, config: PNIConfig | None = None, device: str = "cpu") -> None:
        self.config = PNIConfig() if config is None else config
        self.device = device
        self.embedder = Embedder(self.config, device)
        self.coreset: Coreset | None = None
        self.position: PositionHistogram | None = None
        self.mlp: NeighborhoodMLP | None = None
        self.calibration: Calibration | None = None
        self.train_paths: list[str] = []
        self.history: list[dict[str, float]] = []
        self.seconds: dict[str, float] = {}

    # -- fitting -------------------------------------------------------------------------------

    def fit(self, train: Split, *, workdir: Path | str | None = None, progress: bool = False) -> "PNI":
        """Learn from normal images.

        With `workdir`, features go to a memory-mapped file there and every stage is kept: a killed fit resumes
        with the same call, losing at most one batch of images or one epoch; stages whose
        configuration or images changed are made anew.  Without, everything stays in memory.

        The neighborhood MLP is trained only for the settings that use it, B and E.
        Raises PNIError for an empty split, unreadable images, or a coreset larger than the number of patches.
        """
        if len(train) == 0:
            raise PNIError("there are no training images: check the data set's train folder")
        work = None if workdir is None else Path(workdir)
        data_key = hashlib.sha256(f"{train.fingerprint()} {self.embedder.backbone.weights_id}".encode()).hexdigest()
        self.train_paths = [str(path) for path in train.samples["image_path"]]
        self.seconds = {}
        features = self._features(train, work, self._key("features", data_key), progress)
        self.coreset = self._coreset(features, work, self._key("coreset", data_key), progress)
        with self._timed("position"):
            self.position = self._position(features, progress)
        if self.config.setting in ("B", "E"):
            with self._timed("neighborhood"):
                self._neighborhood(features, work, self._key("neighborhood", data_key), progress)
        if self.config.calibration_images > 0:
            with self._timed("calibration"):
                self.calibrate(train, progress=progress)
        return self

    def _key(self, stage: str, data_key: str) -> str:
        return f"{self.config.stage_key(stage)}-{data_key[:32]}"

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - began

    def _features(self, train: Split, work: Path | None, key: str, progress: bool) -> Float32[ndarray, "n gh gw d"]:
        with self._timed("features"):
            kept = None if work is None else _cached(work / "norm", key)
            if kept is not None:
                self.embedder.load_state(kept[0]["norm"])
            elif self.config.feature_norm != "none":
                self.embedder.fit_norm(raw_features(train, self.embedder, progress=progress))
            if work is None:
                return extract(train, self.embedder, progress=progress)
            file, done = work / "features.npy", work / "features.json"
            with os_errors(work):
                if kept is None:
                    done.unlink(missing_ok=True)
                    write_artefact(work / "norm", {"norm": self.embedder.state()}, {"key": key})
                if not (done.exists() and file.exists() and json.loads(done.read_text()) == {"key": key}):
                    extract(train, self.embedder, out=file, progress=progress, key=key)
                    write_json(done, {"key": key})
                # copy-on-write: torch wants writable memory; nothing is ever written
                return np.load(file, mmap_mode="c", allow_pickle=False)

    def _coreset(self, features: ndarray, work: Path | None, key: str, progress: bool) -> Coreset:
        with self._timed("coreset"):
            kept = None if work is None else _cached(work / "coreset", key)
            if kept is not None:
                return _coreset_from(kept[0]["coreset"], kept[1]["n_dist"])
            coreset = select_coreset(features, self.config, device=self.device, progress=progress)
            if work is not None:
                write_artefact(work / "coreset", {"coreset": _coreset_tensors(coreset)},
                               {"key": key, "n_dist": coreset.n_dist})  # fmt: skip
            return coreset

    def _labels(self, features: ndarray, vectors: Tensor, progress: bool, what: str) -> Int64[ndarray, "n gh gw"]:
        vectors = vectors.to(self.device)
        rows = [
            nearest(torch.from_numpy(image).to(self.device).flatten(0, 1), vectors)[1][:, 0].cpu().numpy()
            for image in tqdm(features, desc=what, unit="image", disable=not progress)
        ]
        return np.stack(rows).reshape(features.shape[:3])

    def _position(self, features: ndarray, progress: bool) -> PositionHistogram:
        assert self.coreset is not None
        config, coreset = self.config, self.coreset
        vectors = coreset.distribution if config.pos_bins == "dist" else coreset.embedding
        border = config.border_cells if config.border == "replicate" else 0
        bin_idx = self._labels(features, vectors, progress, "position histogram")
        return PositionHistogram(count_positions(bin_idx, len(vectors), config.patch, border))

    def _neighborhood(self, features: ndarray, work: Path | None, key: str, progress: bool) -> None:
        assert self.coreset is not None
        target = torch.from_numpy(self._labels(features, self.coreset.distribution, progress, "MLP targets"))
        trained = train_neighborhood(
            _resident(features, self.device),
            target,
            self.coreset.n_dist,
            self.config,
            device=self.device,
            checkpoint=None if work is None else work / f"mlp-{hashlib.sha256(key.encode()).hexdigest()[:12]}",
            progress=progress,
        )
        self.mlp, self.history = trained.mlp, trained.history

    def calibrate(self, train: Split, *, progress: bool = False) -> Calibration:
        """Score normal training images, each without the coreset vectors that came from it."""
        count = min(self.config.calibration_images, len(train))
        chosen = np.unique(np.linspace(0, len(train) - 1, count).round().astype(int))
        split = Split(train.samples.iloc[chosen], train.root)
        found = self._predict(split, {"": self.config}, [int(i) for i in chosen], progress, "calibration")[""]
        self.calibration = Calibration(found.image_scores, float(found.maps.min()), float(found.maps.max()))
        return self.calibration

    # -- scoring -------------------------------------------------------------------------------

    def with_config(self, **overrides: Any) -> "PNI":
        """The same fitted model under other scoring or map settings; the calibration is dropped.

        Raises PNIError for a setting that a fitted part depends on.
        """
        config = self.config.replace(**overrides)
        self._require_compatible(config)
        other = object.__new__(PNI)
        other.__dict__.update(self.__dict__)
        other.config, other.calibration = config, None if config != self.config else self.calibration
        return other

    def _require_compatible(self, config: PNIConfig) -> None:
        late = {f.name for f in dataclasses.fields(PNIConfig) if f.metadata["stage"] in ("scoring", "maps")}
        for name, value in config.to_dict().items():
            if name not in late and value != getattr(self.config, name):
                raise PNIError(f"{name}={value}: the model was fitted with {getattr(self.config, name)}: fit again")

    def predict(self, images: Split | Float32[Tensor, "n 3 h w"], *, progress: bool = False) -> Prediction:
        """Anomaly maps and scores of a split, or of RGB images in [0, 1] of the configured size."""
        return self.predict_variants(images, {"": self.config}, progress=progress)[""]

    def predict_variants(
        self,
        images: Split | Float32[Tensor, "n 3 h w"],
        variants: dict[str, PNIConfig],
        *,
        progress: bool = False,
    ) -> dict[str, Prediction]:
        """`predict` under several scoring settings at once: features and distances are computed once."""
        for config in variants.values():
            self._require_compatible(config)
        return self._predict(images, variants, None, progress, "scoring")

    @torch.no_grad()
    def _predict(
        self,
        images: Split | Tensor,
        variants: dict[str, PNIConfig],
        own_image: list[int] | None,
        progress: bool,
        what: str,
    ) -> dict[str, Prediction]:
        """`own_image`: index among the training images whose coreset vectors each image must not use."""
        if len(images) == 0:
            raise PNIError("there are no images to score: check the folder")
        collected: dict[str, list[tuple[Tensor, ...]]] = {name: [] for name in variants}
        for i in tqdm(range(len(images)), desc=what, unit="image", disable=not progress):
            image = images[i] if isinstance(images, Tensor) else images.image(i, self.config.geometry)
            features = self._embed(image)
            excluded = None if own_image is None else own_image[i]
            for name, (scores, distances) in self._score(features, variants, excluded).items():
                config = variants[name]
                patches = scores.score.view(1, *features.shape[:2])
                if config.border == "replicate":
                    patches = repeat_inner(patches, config.border_cells)
                final = anomaly_maps(patches, config.image_crop, config.sigma)
                image_score = image_scores(final, patches, distances.view(*patches.shape, -1), config)
                collected[name].append(
                    (
                        final,
                        image_score,
                        patches,
                        scores.match_idx.view_as(patches),
                        scores.nearest_idx.view_as(patches),
                    )
                )
        paths = [f"image {i}" for i in range(len(images))]
        if isinstance(images, Split):
            paths = [str(path) for path in images.samples["image_path"]]
        result = {}
        for name, config in variants.items():
            maps, scores_, patches, match, near = (
                torch.cat(parts).cpu() for parts in zip(*collected.pop(name), strict=True)
            )
            result[name] = Prediction(
                config, paths, maps.numpy(), scores_.numpy(), patches.numpy(),
                match.int().numpy(), near.int().numpy(), self._threshold(config),
            )  # fmt: skip
        return result

    def _threshold(self, config: PNIConfig) -> float:
        if self.calibration is None or config != self.config:
            return math.nan
        return float(normal_threshold(self.calibration.image_scores, config.calibration_fpr))

    def _embed(self, image: Float32[Tensor, "3 h w"]) -> Float32[Tensor, "gh gw d"]:
        if self.coreset is None:
            raise PNIError("the model is not fitted: call fit(train) or PNI.load(folder)")
        side = self.config.image_crop
        if tuple(image.shape) != (3, side, side):
            raise PNIError(f"image of shape {tuple(image.shape)}: the model wants (3, {side}, {side})")
        features = self.embedder.embed(image[None].to(self.device))[0]
        if not bool(torch.isfinite(features).all()):
            raise PNIError("features are not finite: the image holds NaN or the weights do not fit")
        return features

    def _score(
        self, features: Float32[Tensor, "gh gw d"], variants: dict[str, PNIConfig], own_image: int | None
    ) -> dict[str, tuple[PatchScores, Tensor]]:
        """Per variant the patch scores of one image, and the distances to the nearest vectors of each patch."""
        assert self.coreset is not None and self.position is not None
        coreset = self.coreset
        vectors, emb_to_dist = coreset.embedding.to(self.device), coreset.emb_to_dist.to(self.device)
        foreign = None if own_image is None else (coreset.image_idx == own_image).to(self.device)
        if foreign is not None and bool(foreign.all()):
            foreign = None  # a single training image: nothing else to compare with
        needs_nb = any(config.setting in ("B", "E") for config in variants.values())
        if needs_nb and self.mlp is None:
            raise PNIError("the model was fitted without the neighborhood MLP: fit with setting=E to use B or E")
        logits = self.mlp.logits_map(features[None])[0].flatten(0, 1) if needs_nb and self.mlp is not None else None
        marginal = self.position.marginal().to(self.device)
        flat = features.flatten(0, 1)
        step = max(1, SCORE_BYTES // (4 * len(vectors)))
        parts: dict[str, list[tuple[PatchScores, Tensor]]] = {name: [] for name in variants}
        for low in range(0, len(flat), step):
            cells = slice(low, low + step)
            distances = patch_distances(flat[cells], vectors)
            if foreign is not None:
                distances[:, foreign] = math.inf
            p_position = self.position.probability(cells).to(self.device)
            for name, config in variants.items():
                p_nb = None if logits is None else log_probability(logits[cells], config.temperature).exp()
                scores = score_patches(distances, p_nb, p_position, marginal, emb_to_dist, coreset.n_dist, config)
                k = min(config.reweight_neighbors, len(vectors)) if config.image_score == "reweight" else 1
                parts[name].append((scores, distances.topk(k, dim=1, largest=False).values))
        return {
            name: (
                PatchScores(
                    *(torch.cat([getattr(s, f) for s, _ in found]) for f in ("score", "match_idx", "nearest_idx"))
                ),
                torch.cat([d for _, d in found]),
            )
            for name, found in parts.items()
        }

    @torch.no_grad()
    def explain(self, image: Float32[Tensor, "3 h w"]) -> pd.DataFrame:
        """Why each patch of one image scores as it does: one row a grid cell, row-major.

        row, column; score; nearest_idx and nearest_distance regardless of gates; p_neighborhood and p_position of
        that vector's C_dist (or bin), and whether each exceeds tau; match_idx and match_distance of the vector
        that counts; and the training image and cell that both vectors came from.
        """
        features = self._embed(image)
        assert self.coreset is not None and self.position is not None
        coreset, config = self.coreset, self.config
        scores = self._score(features, {"": config}, None)[""][0]
        near, match = scores.nearest_idx.cpu(), scores.match_idx.cpu()
        flat = features.flatten(0, 1).cpu()
        gh, gw = features.shape[:2]
        threshold = tau(config, len(coreset.embedding), coreset.n_dist)
        bins = near if config.pos_bins == "emb" else coreset.emb_to_dist[near]
        cells = torch.arange(gh * gw)
        p_position = self.position.probability(slice(None))[cells, bins]
        table = {
            "row": cells // gw, "column": cells % gw, "score": scores.score.cpu(),
            "nearest_idx": near, "nearest_distance": (flat - coreset.embedding[near]).norm(dim=1),
            "p_position": p_position, "open_position": p_position > threshold,
            "match_idx": match, "match_distance": (flat - coreset.embedding[match]).norm(dim=1),
            "nearest_train_image": coreset.image_idx[near], "nearest_train_cell": coreset.cell_idx[near],
            "match_train_image": coreset.image_idx[match], "match_train_cell": coreset.cell_idx[match],
        }  # fmt: skip
        if self.mlp is not None:
            logits = self.mlp.logits_map(features[None])[0].flatten(0, 1).cpu()
            p_nb = log_probability(logits, config.temperature).exp()[cells, coreset.emb_to_dist[near]]
            table |= {"p_neighborhood": p_nb, "open_neighborhood": p_nb > threshold}
        return pd.DataFrame({name: column.numpy() for name, column in table.items()})

    # -- keeping -------------------------------------------------------------------------------

    def save(self, directory: Path | str) -> None:
        """Write the fitted model: safetensors and JSON with checksums; an older model there is replaced at the end.

        Raises PNIError when not fitted, for a folder with other files in it, or a place that cannot be written.
        """
        if self.coreset is None or self.position is None:
            raise PNIError("the model is not fitted: nothing to save")
        tensors = {
            "norm": self.embedder.state(),
            "coreset": _coreset_tensors(self.coreset),
            "position": {"counts": torch.from_numpy(self.position.counts)},
        }
        if self.mlp is not None:
            tensors["neighborhood"] = self.mlp.state_dict()
        if self.calibration is not None:
            tensors["calibration"] = {
                "image_scores": torch.from_numpy(self.calibration.image_scores),
                "limits": torch.tensor([self.calibration.low, self.calibration.high], dtype=torch.float64),
            }
        meta = {
            "kind": _KIND,
            "config": self.config.to_dict(),
            "n_dist": self.coreset.n_dist,
            "weights_id": self.embedder.backbone.weights_id,
            "train_paths": self.train_paths,
            "history": self.history,
            "seconds": self.seconds,
        }
        write_artefact(directory, tensors, meta)

    @classmethod
    def load(cls, directory: Path | str, device: str = "cpu") -> "PNI":
        """Read a saved model; `predict` then gives the same bytes as before on the same machine and device.

        Raises PNIError for a missing, damaged, half-written or newer artefact, or other backbone weights.
        """
        tensors, meta = read_artefact(directory)
        if meta.get("kind") != _KIND:
            raise PNIError(f"{directory}: not a fitted PNI model: give the folder that `pni fit` wrote")
        model = cls(PNIConfig.from_dict(meta["config"]), device)
        if meta["weights_id"] != model.embedder.backbone.weights_id:
            raise PNIError(
                f"{directory}: was fitted with other {model.config.backbone} weights: give those, or fit again"
            )
        model.embedder.load_state(tensors.get("norm", {}))
        model.coreset = _coreset_from(tensors["coreset"], meta["n_dist"])
        model.position = PositionHistogram(tensors["position"]["counts"].numpy())
        if "neighborhood" in tensors:
            mlp = NeighborhoodMLP(model.coreset.embedding.shape[1], model.coreset.n_dist, model.config)
            mlp.load_state_dict(tensors["neighborhood"])
            model.mlp = mlp.to(device).eval()
        if "calibration" in tensors:
            low, high = tensors["calibration"]["limits"].tolist()
            model.calibration = Calibration(tensors["calibration"]["image_scores"].numpy(), low, high)
        model.train_paths, model.history, model.seconds = (
            meta["train_paths"],
            meta["history"],
            meta["seconds"],
        )
        return model


def _cached(folder: Path, key: str) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None:
    """A stage's artefact, or None if there is none of this key.  Raises PNIError for a damaged one."""
    if not folder.exists():
        return None
    tensors, meta = read_artefact(folder)
    return (tensors, meta) if meta.get("key") == key else None


def _coreset_tensors(coreset: Coreset) -> dict[str, Tensor]:
    return {f.name: getattr(coreset, f.name) for f in dataclasses.fields(coreset) if f.name != "n_dist"}


def _coreset_from(tensors: dict[str, Tensor], n_dist: int) -> Coreset:
    return Coreset(n_dist=n_dist, **tensors)


def _resident(features: ndarray, device: str) -> Float32[Tensor, "n gh gw d"]:
    """Training features on the accelerator when they take less than half of its free memory."""
    tensor = torch.from_numpy(features)
    if torch.device(device).type == "cuda" and features.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
        return tensor.to(device)
    return tensor
