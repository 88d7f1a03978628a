"""PNI as one estimator: fit on normal images, predict anomaly maps, save, load (paper Fig. 2).

Stages: features -> coreset -> position and neighborhood distributions -> scores -> maps; a refinement network, trained
separately, may follow.  This class only remembers; the work is in the modules of those names.
"""

import copy
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float32
from numpy import ndarray
from torch import Tensor
from tqdm.auto import tqdm

from pnilib.config import SETTINGS, PNIConfig
from pnilib.coreset import Coreset
from pnilib.data import Split
from pnilib.data.inputs import as_images
from pnilib.detector.calibration import calibration_of, decision, images_to_calibrate, map_limits
from pnilib.detector.compatibility import by_ratio, coreset_of, lacking_parts, require_compatible
from pnilib.detector.explain import Explanation, explain_cell, explain_image
from pnilib.detector.fitting import fit_stages
from pnilib.detector.inference import score_image
from pnilib.detector.prediction import Calibration, Prediction
from pnilib.detector.saving import fingerprint_of, load_model, parts_of
from pnilib.errors import PNIError
from pnilib.features.extraction import Embedder
from pnilib.machine import deterministic_method
from pnilib.maps import MAP_SCORES, require_map_score
from pnilib.neighborhood import NeighborhoodMLP
from pnilib.position import PositionHistogram
from pnilib.refinement.fusion import Refinement
from pnilib.scoring import SoftVeto
from pnilib.store.artefacts import write_artefact

__all__ = ["PNI"]


class PNI:
    """Industrial anomaly detection using position and neighborhood information.

    >>> model = PNI(PNIConfig.profile("demo")).fit(dataset.train)
    >>> prediction = model.predict(dataset.test)

    `device`: "cpu", "cuda" or "cuda:N"; the same device gives the same bytes for the same seed, on CUDA as far as
    torch's deterministic algorithms go (`pnilib.machine`), which are asked for while this class works.  After `fit` or
    `load`: `position` and `mlp` are None where the setting did not need them; `train_fingerprint` is
    `Split.fingerprint()` of the training images.
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
        model was fitted on.
        """
        self._fitted()
        if train.fingerprint() != self.train_fingerprint:
            raise PNIError(
                f"{train.root}: its training images are not those that the model was fitted on, in their order: "
                "calibrate needs these"
            )
        split, own, comparable = images_to_calibrate(train, self.config, self._fitted()[0])
        score = partial(self._predict, split, {"": self.config}, own, progress)
        self.calibration = calibration_of(score("calibration")[""], comparable)
        if self.refinement is not None and self.config.image_score in MAP_SCORES:
            refined = score("refined calibration", self.refinement)[""]
            self.refined_calibration = calibration_of(refined, comparable)
        return self.calibration

    # -- scoring -------------------------------------------------------------------------------

    def with_config(self, **overrides: Any) -> "PNI":
        """The same fitted model under other scoring, map, refinement or fusion settings.

        The calibration is dropped, and so is a refinement network that was trained under other settings (the fusion's
        may change).  A smaller `emb_ratio` keeps the first vectors of the greedy run: what a fit with it would choose.
        Raises PNIError for a setting that a fitted part depends on, or that needs a distribution which was not fitted.
        """
        require_compatible(self, config := self.config.replace(**overrides))
        other = copy.copy(self)
        other.config, other.coreset = config, coreset_of(self, config)
        if config.stage_key("decision") != self.config.stage_key("decision"):
            other.calibration = None
        if config != self.config:
            other.refined_calibration = None
        if config.stage_key("refinement") != self.config.stage_key("refinement"):
            other.refinement = None
        return other

    def with_refinement(self, refinement: Refinement | None) -> "PNI":
        """The same fitted model with another refinement network, not yet calibrated."""
        other = copy.copy(self)
        other.refinement, other.refined_calibration = refinement, None
        return other

    @property
    def settings(self) -> list[str]:
        """Those of SETTINGS that the fitted model can score with: all after a fit with setting=E."""
        return [name for name in SETTINGS if not lacking_parts(self, name)]

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
        self, images: Any, variants: dict[str, PNIConfig], *, refined: bool = False, progress: bool = False
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
        coreset, position, mlp = self._fitted(*variants.values())
        given = as_images(images, self.config.geometry)
        if len(given) == 0:
            raise PNIError("there are no images to score: check the folder")
        groups = [(coreset_of(self, next(iter(g.values()))) or coreset, g) for g in by_ratio(variants)]
        # Filled in place: many small results kept between large passing arrays would fragment the heap.
        refined = refinement is not None
        blank = partial(Prediction.blank, image_paths=given.names, grid=self.embedder.grid, refined=refined)
        decided = {True: self.decision(refined=refined), False: decision(None, self.config.calibration_fpr, 0)}
        result = {name: blank(config, decision=decided[config == self.config]) for name, config in variants.items()}
        for i in tqdm(range(len(given)), desc=what, unit="image", disable=not progress):
            image = given.load(i)
            features = self.embed(image)
            excluded = None if own_image is None else own_image[i]
            for cut, group in groups:  # those of one emb_ratio share the distances
                scored = score_image(features, cut, position, mlp, group, excluded, self.veto)
                for name, (scores, distances) in scored.items():
                    result[name].put(i, image, scores, distances, refinement)
        return result

    def decision(self, *, refined: bool = False) -> tuple[float, str]:
        """The normal-only threshold, NaN for none; and why there is none, or what it cannot promise ("": nothing)."""
        calibration = self.refined_calibration if refined else self.calibration
        return decision(calibration, self.config.calibration_fpr, len(self.train_paths))

    def map_limits(self, *, refined: bool = False) -> tuple[float, float]:
        """Map values at which a heat map is clear and where it is opaque: `pnilib.detector.calibration.map_limits`."""
        if refined and self.refinement is None:
            raise PNIError("the model has no refinement network: train one with `pni refine`")
        return map_limits(self.refined_calibration if refined else self.calibration)

    def _fitted(self, *configs: PNIConfig) -> tuple[Coreset, PositionHistogram | None, NeighborhoodMLP | None]:
        """The fitted parts.  Raises PNIError when there are none, or one is missing that a configuration needs."""
        if self.coreset is None:
            raise PNIError("the model is not fitted: call fit(train) or PNI.load(folder)")
        for config in configs:
            require_compatible(self, config)
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

    # -- keeping --

    def save(self, directory: Path | str) -> None:
        """Write the fitted model, whole or not at all.  Raises PNIError when not fitted, and as `write_artefact`."""
        write_artefact(directory, *parts_of(self))

    def fingerprint(self, *, refined: bool = False) -> str:
        """SHA-256 (hex) of what was learnt, not of scoring settings; `refined`: and of the refinement network."""
        return fingerprint_of(self, refined)

    @classmethod
    def load(cls, directory: Path | str, device: str = "cpu") -> "PNI":
        """Read a saved model; `predict` then gives the same bytes as before on the same machine and device.

        Raises PNIError for a missing, damaged, half-written or newer artefact, or other backbone weights.
        """
        return load_model(cls, directory, device)
