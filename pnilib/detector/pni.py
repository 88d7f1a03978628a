"""PNI as one estimator: fit on normal images, predict anomaly maps, save, load (paper Fig. 2).

Stages, each cached by its own key in `workdir`: features -> coreset -> position and neighborhood
distributions -> scores -> maps; a refinement network, trained separately (pnilib.refinement), may follow.  This class
only remembers; the work is in the modules of those names.
"""

import dataclasses
import hashlib
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32
from numpy import ndarray
from torch import Tensor
from tqdm.auto import tqdm

from pnilib.config import NEEDS, RELEASED_STEPS, SETTINGS, PNIConfig
from pnilib.coreset import Coreset, coreset_size
from pnilib.data import Split
from pnilib.data.inputs import as_images
from pnilib.detector import steps
from pnilib.detector.calibration import decision, equal_images
from pnilib.detector.explain import Explanation, explain_cell, explain_image
from pnilib.detector.fitting import coreset_from, coreset_tensors, fit_stages
from pnilib.detector.inference import is_soft, score_image
from pnilib.detector.prediction import Calibration, Prediction
from pnilib.errors import PNIError
from pnilib.features.extraction import Embedder
from pnilib.machine import deterministic_method
from pnilib.maps import MAP_SCORES, anomaly_maps, repeat_inner, require_map_score
from pnilib.neighborhood import NeighborhoodMLP
from pnilib.position import PositionHistogram
from pnilib.refinement.fusion import Refinement
from pnilib.scoring import PatchScores, SoftVeto
from pnilib.store.artefacts import read_artefact, write_artefact

__all__ = ["PNI"]

_KIND = "pnilib.PNI"

_LATE_STAGES = ("scoring", "maps", "decision", "defects", "refinement", "fusion")
_LATE = {f.name for f in dataclasses.fields(PNIConfig) if f.metadata["stage"] in _LATE_STAGES}
"""Settings on which nothing depends that `fit` learns; `emb_ratio` may be lowered besides, see `_cut`."""


def _early(config: PNIConfig) -> dict[str, Any]:
    """What a fitted model cannot be changed in."""
    released = ",".join(name for name in config.released if RELEASED_STEPS[name] not in _LATE_STAGES)
    return {name: getattr(config, name) for name in config.names() if name not in _LATE} | {"released": released}


def _calibration(found: Prediction, comparable: bool) -> Calibration:
    scores = found.image_scores[: None if comparable else 0]
    return Calibration(scores, float(found.maps.min()), float(found.maps.max()))


class PNI:
    """Industrial anomaly detection using position and neighborhood information.

    >>> model = PNI(PNIConfig.profile("demo")).fit(dataset.train)
    >>> prediction = model.predict(dataset.test)

    `device`: "cpu", "cuda" or "cuda:N"; the same device gives the same bytes for the same seed, on CUDA as far as
    torch's deterministic algorithms go (`pnilib.machine`), which are asked for while this class works.  After `fit` or
    `load`: `position` and `mlp` are None where the setting did not need them; `train_fingerprint` is
    `Split.fingerprint()` of the training images, "" in a model saved before pnilib kept it.
    """

    def __init__(self, config: PNIConfig | None = None, device: str = "cpu") -> None:
        self.config = PNIConfig() if config is None else config
        self.device = device
        self.embedder = Embedder(self.config, device)
        self.coreset: Coreset | None = None
        self.position: PositionHistogram | None = None
        self.mlp: NeighborhoodMLP | None = None
        self.veto: SoftVeto | None = None
        self.calibration: Calibration | None = None
        self.refinement: Refinement | None = None
        self.refined_calibration: Calibration | None = None
        self.train_paths: list[str] = []
        self.train_fingerprint = ""
        self.history: list[dict[str, float]] = []
        self.seconds: dict[str, float] = {}

    # -- fitting -------------------------------------------------------------------------------

    @deterministic_method
    def fit(self, train: Split, *, workdir: Path | str | None = None, progress: bool = False) -> "PNI":
        """Learn from normal images.

        With `workdir`, features go to a memory-mapped file there and every stage is kept: a killed fit resumes
        with the same call, losing at most what `pnilib.detector.fitting` says; stages whose
        configuration or images changed are made anew.  Fits may share the folder, at the same time too.
        Without, everything stays in memory.

        Only what the setting looks at is learnt: the position histogram for `position` and E, the neighborhood MLP for
        B and E, the soft veto's constants with gate=soft.  Fit with setting=E, gate=soft to score with all of them.
        Raises PNIError for an empty split, unreadable images, or a coreset larger than the number of patches.
        """
        if len(train) == 0:
            raise PNIError("there are no training images: check the data set's train folder")
        work = None if workdir is None else Path(workdir)
        self.train_fingerprint = train.fingerprint()
        fitted = fit_stages(train, self.embedder, work, device=self.device, progress=progress)
        self.coreset, self.position, self.seconds = fitted.coreset, fitted.position, fitted.seconds
        self.veto = fitted.veto
        self.mlp = None if fitted.neighborhood is None else fitted.neighborhood.mlp
        self.history = [] if fitted.neighborhood is None else fitted.neighborhood.history
        self.train_paths = [str(path) for path in train.samples["image_path"]]
        if self.config.calibration_images > 0:
            began = time.perf_counter()
            self.calibrate(train, progress=progress)
            self.seconds["calibration"] = time.perf_counter() - began
        return self

    def calibrate(self, train: Split, *, progress: bool = False) -> Calibration:
        """Score normal training images, each without the coreset vectors that came from it or from an equal one.

        An image that has no others to be compared with is left out; without any that has, there is no threshold.
        With a refinement network, their refined maps are calibrated too.  Raises PNIError for other images than the
        model was fitted on; of a model that was saved before pnilib kept their fingerprint only the file names can be
        compared.
        """
        self._fitted()
        if self.train_fingerprint:
            known = train.fingerprint() == self.train_fingerprint
        else:
            names = [Path(path).name for path in train.samples["image_path"]]
            known = names == [Path(path).name for path in self.train_paths]
        if not known:
            raise PNIError(
                f"{train.root}: its training images are not those that the model was fitted on, in their order: "
                "calibrate needs these"
            )
        count = min(self.config.calibration_images, len(train))
        if count == 0:
            raise PNIError("calibrate needs images: set calibration_images > 0")
        chosen = np.unique(np.linspace(0, len(train) - 1, count).round().astype(int))
        equal, sources = equal_images(train, self.config.geometry), set(self._fitted()[0].image_idx.tolist())
        others = [i for i in chosen if not sources <= set(equal[i])]
        split = Split(train.samples.iloc[others or chosen], train.root)
        own, variants = [equal[i] for i in others or chosen], {"": self.config}
        found = self._predict(split, variants, own, progress, "calibration")[""]
        self.calibration = _calibration(found, bool(others))
        if self.refinement is not None and self.config.image_score in MAP_SCORES:
            found = self._predict(split, variants, own, progress, "refined calibration", self.refinement)[""]
            self.refined_calibration = _calibration(found, bool(others))
        return self.calibration

    # -- scoring -------------------------------------------------------------------------------

    def with_config(self, **overrides: Any) -> "PNI":
        """The same fitted model under other scoring, map, refinement or fusion settings.

        The calibration is dropped, and so is a refinement network that was trained under other settings (the fusion's
        may change).  A smaller `emb_ratio` keeps the first vectors of the greedy run: what a fit with it would choose.
        Raises PNIError for a setting that a fitted part depends on, or that needs a distribution which was not fitted.
        """
        config = self.config.replace(**overrides)
        self._require_compatible(config)
        other = object.__new__(PNI)
        other.__dict__.update(self.__dict__)
        other.config, other.coreset = config, self._cut(config)
        if config.stage_key("decision") != self.config.stage_key("decision"):
            other.calibration = None
        if config != self.config:
            other.refined_calibration = None
        if config.stage_key("refinement") != self.config.stage_key("refinement"):
            other.refinement = None
        return other

    def with_refinement(self, refinement: Refinement | None) -> "PNI":
        """The same fitted model with another refinement network, not yet calibrated."""
        other = object.__new__(PNI)
        other.__dict__.update(self.__dict__)
        other.refinement, other.refined_calibration = refinement, None
        return other

    def _require_compatible(self, config: PNIConfig) -> None:
        for name, value in _early(config).items():
            fitted = _early(self.config)[name]
            smaller = name == "emb_ratio" and value < fitted and "emb_bins" not in config.released
            if value != fitted and name == "released":
                raise PNIError(
                    f"released={value or 'none'}: the model was fitted with {fitted or 'none'} of the steps that a fit "
                    f"depends on: name {'these, too' if fitted else 'none of them'}, or fit again"
                )
            if value != fitted and not smaller:
                raise PNIError(f"{name}={value}: the model was fitted with {fitted}: fit again")
        if self.coreset is not None and (lacking := self._lacking(config.setting)):
            raise PNIError(
                f"setting={config.setting}: the model was fitted without the distribution of {' and '.join(lacking)}: "
                f"fit with setting=E, or use {' or '.join(self.settings)}"
            )
        if self.coreset is not None and is_soft(config) and self.veto is None:
            raise PNIError(
                "gate=soft: the model was fitted without its constants: fit with setting=position, gate=soft"
            )

    @property
    def settings(self) -> list[str]:
        """Those of SETTINGS that the fitted model can score with: all after a fit with setting=E."""
        return [name for name in SETTINGS if not self._lacking(name)]

    def _lacking(self, setting: str) -> list[str]:
        """Distributions that a setting looks at and the model does not have."""
        fitted = {"position": self.position, "neighborhood": self.mlp}
        return [name for name in NEEDS[setting] if fitted[name] is None]

    def _cut(self, config: PNIConfig) -> Coreset | None:
        """The coreset of `config`: a beginning of the fitted one where its ratio is smaller."""
        if self.coreset is None or config.emb_ratio == self.config.emb_ratio:
            return self.coreset
        border = config.border_cells if config.border == "replicate" else 0
        cells = math.prod(side - 2 * border for side in self.embedder.grid)
        return self.coreset.first(coreset_size(len(self.train_paths) * cells, config.emb_ratio, config.emb_max))

    def predict(self, images: Any, *, refined: bool = False, progress: bool = False) -> Prediction:
        """Anomaly maps and scores of a split, or of one image or several, from disk or in memory.

        >>> model.predict(dataset.test)
        >>> model.predict(["new/0.png", "new/1.png"])
        >>> model.predict(frame)  # NumPy, (h, w, 3), RGB, 8 bits: as `cv2.imread(name)[..., ::-1]`
        >>> model.predict(tensor)  # (n, 3, s, s) in [0, 1], s = image_crop: as `dataset.test.image(i, geometry)`

        Paths, Pillow images and arrays (h, w, 3) of any size are resized and cropped as files are
        (`pnilib.data.inputs` lists all that is taken).  `refined`: fuse each map with the refinement network's.

        Raises PNIError for values outside [0, 1] (8 bits: 0 ... 255), NaN, other shapes, no images, and when the model
        has no network to refine with.
        """
        return self.predict_variants(images, {"": self.config}, refined=refined, progress=progress)[""]

    def maps(self, images: Any, *, without_image: list[int] | None = None) -> Float32[ndarray, "n h w"]:
        """Anomaly maps of images as `predict` takes them, not refined.

        `without_image`: the training image whose coreset vectors each must not use.
        """
        return self._predict(images, {"": self.config}, without_image, False, "")[""].maps

    def predict_variants(
        self,
        images: Any,
        variants: dict[str, PNIConfig],
        *,
        refined: bool = False,
        progress: bool = False,
    ) -> dict[str, Prediction]:
        """`predict` under several scoring or fusion settings at once: features and distances are computed once.

        Raises PNIError for `refined` settings that the network was not trained for, or an image score of the patches.
        """
        self._fitted(*variants.values())
        for config in variants.values():
            trained = self.refinement is not None
            if refined and (not trained or config.stage_key("refinement") != self.config.stage_key("refinement")):
                raise PNIError("the model has no refinement network of these settings: train one with `pni refine`")
            if refined:
                require_map_score(config, "a refined map")
        return self._predict(images, variants, None, progress, "scoring", self.refinement if refined else None)

    @deterministic_method
    @torch.no_grad()
    def _predict(
        self,
        images: Any,
        variants: dict[str, PNIConfig],
        own_image: Sequence[int | list[int]] | None,
        progress: bool,
        what: str,
        refinement: Refinement | None = None,
    ) -> dict[str, Prediction]:
        """`own_image`: indices of the training images whose coreset vectors each image must not use."""
        self._fitted(*variants.values())
        given = as_images(images, self.config.geometry)
        if len(given) == 0:
            raise PNIError("there are no images to score: check the folder")
        # Filled in place: many small results kept between large passing arrays would fragment the heap.
        refined = refinement is not None
        result = {name: self._blank(config, given.names, refined) for name, config in variants.items()}
        for i in tqdm(range(len(given)), desc=what, unit="image", disable=not progress):
            image = given.load(i)
            features = self.embed(image)
            excluded = None if own_image is None else own_image[i]
            for name, (scores, distances) in self._score(features, variants, excluded).items():
                config, into = variants[name], result[name]
                cells = (scores.score, scores.match_idx, scores.nearest_idx)
                patches, match, nearest = (values.view(1, *features.shape[:2]) for values in cells)
                if config.border == "replicate":  # a border cell shows its inner one's score, so its matches too
                    patches, match, nearest = (
                        repeat_inner(values, config.border_cells) for values in (patches, match, nearest)
                    )
                final = anomaly_maps(patches, config.image_crop, config.sigma)
                if refinement is not None:
                    final = steps.fuse(refinement, image.to(final.device), final[0], config)[None]
                into.maps[i] = final[0].cpu().numpy()
                into.image_scores[i] = float(
                    steps.image_scores(final, patches, distances.view(*patches.shape, -1), config)
                )
                into.patch_scores[i] = patches[0].cpu().numpy()
                into.match_idx[i] = match[0].cpu().numpy()
                into.nearest_idx[i] = nearest[0].cpu().numpy()
        return result

    def _score(
        self, features: Tensor, variants: dict[str, PNIConfig], excluded: int | list[int] | None
    ) -> dict[str, tuple[PatchScores, Tensor]]:
        """By variant: patch scores and distances; those of one `emb_ratio` share the distances."""
        coreset, position, mlp = self._fitted()
        found: dict[str, tuple[PatchScores, Tensor]] = {}
        for ratio in dict.fromkeys(config.emb_ratio for config in variants.values()):
            group = {name: config for name, config in variants.items() if config.emb_ratio == ratio}
            own = self._cut(next(iter(group.values()))) or coreset
            found |= score_image(features, own, position, mlp, group, excluded, self.veto)
        return found

    def _blank(self, config: PNIConfig, paths: list[str], refined: bool) -> Prediction:
        n, side, grid = len(paths), config.image_crop, self.embedder.grid
        own = config == self.config
        threshold, note = self.decision(refined=refined) if own else decision(None, config.calibration_fpr, 0)
        return Prediction(
            config,
            paths,
            maps=np.empty((n, side, side), np.float32),
            image_scores=np.empty(n, np.float32),
            patch_scores=np.empty((n, *grid), np.float32),
            match_idx=np.empty((n, *grid), np.int32),
            nearest_idx=np.empty((n, *grid), np.int32),
            threshold=threshold,
            refined=refined,
            threshold_note=note,
        )

    def decision(self, *, refined: bool = False) -> tuple[float, str]:
        """The normal-only threshold, NaN for none; and why there is none, or what it cannot promise ("": nothing)."""
        calibration = self.refined_calibration if refined else self.calibration
        return decision(calibration, self.config.calibration_fpr, len(self.train_paths))

    def _fitted(self, *configs: PNIConfig) -> tuple[Coreset, PositionHistogram | None, NeighborhoodMLP | None]:
        """The fitted parts.  Raises PNIError when there are none, or one is missing that a configuration needs."""
        if self.coreset is None:
            raise PNIError("the model is not fitted: call fit(train) or PNI.load(folder)")
        for config in configs:
            self._require_compatible(config)
        return self.coreset, self.position, self.mlp

    @deterministic_method
    def embed(self, image: Float32[Tensor, "3 h w"]) -> Float32[Tensor, "gh gw d"]:
        """Local features of one RGB image in [0, 1].  Raises PNIError for another size than configured, or NaN."""
        side = self.config.image_crop
        if tuple(image.shape) != (3, side, side):
            raise PNIError(f"image of shape {tuple(image.shape)}: the model wants (3, {side}, {side})")
        features = self.embedder.embed(image[None].to(self.device))[0]
        if not bool(torch.isfinite(features).all()):
            raise PNIError("features are not finite: the image holds NaN or the weights do not fit")
        return features

    @deterministic_method
    @torch.no_grad()
    def explain(self, image: Any) -> pd.DataFrame:
        """Why each patch of one image, as `predict` takes it, scores as it does: one row a grid cell, row-major.

        row, column; score; nearest_idx and nearest_distance regardless of gates; p_neighborhood and p_position of
        that vector's C_dist (or bin), and whether each exceeds tau, where the model has them; match_idx and
        match_distance of the vector that counts; with gate=soft, nearest_against and match_against, nats that the
        place says against these vectors, and level, what the score is divided by; and the training image and cell that
        both vectors came from.  With border=replicate a border cell's row is that of the inner cell whose score it
        shows.
        """
        given = as_images(image, self.config.geometry)
        if len(given) != 1:
            raise PNIError(f"explain wants one image, not {len(given)}: give them one at a time")
        return explain_image(self.embed(given.load(0)), *self._fitted(self.config), self.config, self.veto)

    def explain_cell(
        self, features: Float32[Tensor, "gh gw d"], cell: int, config: PNIConfig, *, most: int = 5
    ) -> Explanation:
        """Why one cell, by its flat index, of an image whose features `embed` gave scores as it does, under a setting
        of this model; `most`: how many vectors and bins are listed.

        Raises PNIError for the release's rank gate and its loop (B6, B7), whose choice follows no gate.
        """
        own = self.with_config(**config.to_dict())
        return explain_cell(features, cell, *own._fitted(config), config, own.veto, most=most)

    # -- keeping -------------------------------------------------------------------------------

    def save(self, directory: Path | str) -> None:
        """Write the fitted model: safetensors and JSON with checksums; an older model there is replaced at the end.

        Raises PNIError when not fitted, for a folder with other files in it, or a place that cannot be written.
        """
        write_artefact(directory, *self._parts())

    def fingerprint(self, *, refined: bool = False) -> str:
        """SHA-256 (hex) of what was learnt from the training images; `refined`: and of the refinement network.

        Scoring settings and the calibration are not part of it.  Raises PNIError when not fitted.
        """
        digest = hashlib.sha256(self.embedder.backbone.weights_id.encode())
        for stem, group in self._parts()[0].items():
            if stem in ("calibration", "refined_calibration") or (stem == "refinement" and not refined):
                continue
            for name, tensor in sorted(group.items()):
                values = tensor.detach().cpu().contiguous().numpy()
                digest.update(f"{stem} {name} {values.dtype} {values.shape}\0".encode())
                digest.update(values.tobytes())
        return digest.hexdigest()

    def _parts(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Tensors by file, and facts: what `save` writes."""
        if self.coreset is None:
            raise PNIError("the model is not fitted: nothing to save")
        tensors = {"norm": self.embedder.state(), "coreset": coreset_tensors(self.coreset)}
        if self.position is not None:
            tensors["position"] = {"counts": torch.from_numpy(self.position.counts)}
        if self.veto is not None:
            constants = torch.tensor([self.veto.alpha, self.veto.distance], dtype=torch.float64)
            tensors["veto"] = {"constants": constants, "level": self.veto.level}
        if self.mlp is not None:
            tensors["neighborhood"] = self.mlp.state_dict()
        for name, found in (("calibration", self.calibration), ("refined_calibration", self.refined_calibration)):
            if found is not None:
                tensors[name] = {
                    "image_scores": torch.from_numpy(found.image_scores),
                    "limits": torch.tensor([found.low, found.high], dtype=torch.float64),
                }
        if self.refinement is not None:
            tensors["refinement"] = self.refinement.network.state_dict()
        meta = {
            "kind": _KIND,
            "config": self.config.to_dict(),
            "n_dist": self.coreset.n_dist,
            "weights_id": self.embedder.backbone.weights_id,
            "train_paths": self.train_paths,
            "train_fingerprint": self.train_fingerprint,
            "history": self.history,
            "seconds": self.seconds,
            "refinement": None if self.refinement is None else self.refinement.facts(),
        }
        return tensors, meta

    @classmethod
    def load(cls, directory: Path | str, device: str = "cpu") -> "PNI":
        """Read a saved model; `predict` then gives the same bytes as before on the same machine and device.

        Raises PNIError for a missing, damaged, half-written or newer artefact, or other backbone weights.
        """
        tensors, meta = read_artefact(directory)
        if meta.get("kind") != _KIND:
            raise PNIError(f"{directory}: not a fitted PNI model: give the folder that `pni fit` wrote")
        try:
            config = PNIConfig.from_dict(meta["config"])
        except (KeyError, TypeError, PNIError) as error:
            raise PNIError(f"{directory}: its settings cannot be read ({error}): fit again") from None
        model = cls(config, device)
        if meta["weights_id"] != model.embedder.backbone.weights_id:
            raise PNIError(
                f"{directory}: was fitted with other {model.config.backbone} weights: give those, or fit again"
            )
        try:
            model.embedder.load_state(tensors.get("norm", {}))
            model.coreset = coreset_from(tensors["coreset"], meta["n_dist"])
            if "position" in tensors:
                model.position = PositionHistogram(tensors["position"]["counts"].numpy())
            if "veto" in tensors:
                alpha, distance = tensors["veto"]["constants"].tolist()
                model.veto = SoftVeto(alpha, distance, tensors["veto"]["level"])
            if "neighborhood" in tensors:
                mlp = NeighborhoodMLP(
                    model.coreset.embedding.shape[1], model.coreset.n_dist, model.config, steps.offsets(model.config)
                )
                mlp.load_state_dict(tensors["neighborhood"])
                model.mlp = mlp.to(device).eval()
            for name in ("calibration", "refined_calibration"):
                if name in tensors:
                    low, high = tensors[name]["limits"].tolist()
                    setattr(model, name, Calibration(tensors[name]["image_scores"].numpy(), low, high))
            if meta.get("refinement"):
                network = steps.network_class(model.config)(model.config)
                model.refinement = Refinement.restored(network, tensors["refinement"], meta["refinement"], device)
            model.train_paths, model.train_fingerprint = meta["train_paths"], meta.get("train_fingerprint", "")
            model.history, model.seconds = meta["history"], meta["seconds"]
        except (KeyError, TypeError, RuntimeError):
            raise PNIError(f"{directory}: its parts do not fit together: fit again") from None
        return model
