"""What scoring a set of images yields: maps, scores, and which coreset vector each patch matched."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int32
from numpy import ndarray
from torch import Tensor

from pnilib.config import PNIConfig
from pnilib.config.geometry import Geometry
from pnilib.detector import steps
from pnilib.detector.inference import is_soft
from pnilib.maps import anomaly_maps, repeat_inner
from pnilib.refinement.fusion import Refinement
from pnilib.scoring import PatchScores

__all__ = ["Calibration", "Prediction", "Scored", "Settings"]


@runtime_checkable
class Settings(Protocol):
    """What a detector was set to."""

    @property
    def geometry(self) -> Geometry: ...
    def to_dict(self) -> dict[str, Any]: ...


@runtime_checkable
class Scored(Protocol):
    """Scores of n images by any detector of this kit, as `pnilib.evaluation` and the reports take them."""

    @property
    def config(self) -> Settings: ...
    @property
    def name(self) -> str: ...
    @property
    def image_paths(self) -> list[str]: ...
    @property
    def maps(self) -> Float32[ndarray, "n h w"]: ...
    @property
    def image_scores(self) -> Float32[ndarray, " n"]: ...
    @property
    def threshold(self) -> float: ...
    @property
    def threshold_note(self) -> str: ...
    @property
    def refined(self) -> bool: ...


@dataclass(frozen=True)
class Calibration:
    """Scores of normal training images, each scored without the coreset vectors taken from it.

    image_scores: (k,), none where every image would be compared with itself alone.  low, high: minimum and maximum over
    the map pixels of the scored images, with (k = 0) or without their own vectors.
    An approximation of fitting without that image: the coreset was chosen, and the neighborhood MLP and the position
    histogram were fitted, with it.
    """

    image_scores: Float32[ndarray, " k"]
    low: float
    high: float


@dataclass(frozen=True)
class Prediction:
    """Scores of n images; higher = more anomalous.

    maps: final anomaly maps (n, h, w).  image_scores: (n,).  patch_scores: S(x) before smoothing (n, gh, gw).
    match_idx: the C_emb vector that S(x) is measured to; nearest_idx: the nearest one regardless of gates; both
    (n, gh, gw).  threshold: normal-only image threshold, NaN for none; threshold_note: why there is none, or what it
    cannot promise.  refined: whether the maps went through the refinement network, which puts them on another scale.
    """

    config: PNIConfig
    image_paths: list[str]
    maps: Float32[ndarray, "n h w"]
    image_scores: Float32[ndarray, " n"]
    patch_scores: Float32[ndarray, "n gh gw"]
    match_idx: Int32[ndarray, "n gh gw"]
    nearest_idx: Int32[ndarray, "n gh gw"]
    threshold: float
    refined: bool = False
    threshold_note: str = ""

    @property
    def name(self) -> str:
        """Short name of its rule, as `A`, `E, product` or `soft veto`."""
        if is_soft(self.config):
            return "soft veto"
        return f"E, {self.config.combine}" if self.config.setting == "E" else self.config.setting

    @classmethod
    def blank(
        cls,
        config: PNIConfig,
        image_paths: list[str],
        grid: tuple[int, int],
        *,
        refined: bool,
        decision: tuple[float, str],
    ) -> "Prediction":
        """One to be filled in by `put`, image by image; `grid`: (gh, gw) cells; `decision`: threshold and its note."""
        n, side, (threshold, note) = len(image_paths), config.image_crop, decision
        return cls(
            config,
            image_paths,
            maps=np.empty((n, side, side), np.float32),
            image_scores=np.empty(n, np.float32),
            patch_scores=np.empty((n, *grid), np.float32),
            match_idx=np.empty((n, *grid), np.int32),
            nearest_idx=np.empty((n, *grid), np.int32),
            threshold=threshold,
            refined=refined,
            threshold_note=note,
        )

    def put(
        self,
        i: int,
        image: Float32[Tensor, "3 h w"],
        scores: PatchScores,
        distances: Float32[Tensor, "cells k"],
        refinement: Refinement | None = None,
    ) -> None:
        """Fill in image i: patch scores -> map (refined, where there is a network) -> image score.

        `distances`: of each cell to its k nearest vectors, gates or not.
        """
        config, grid = self.config, self.patch_scores.shape[1:]
        cells = (scores.score, scores.match_idx, scores.nearest_idx)
        patches, match, nearest = (values.view(1, *grid) for values in cells)
        if config.border == "replicate":  # a border cell shows its inner one's score, so its matches too
            patches, match, nearest = (
                repeat_inner(values, config.border_cells) for values in (patches, match, nearest)
            )
        final = anomaly_maps(patches, config.image_crop, config.sigma)
        if refinement is not None:
            final = steps.fuse(refinement, image.to(final.device), final[0], config)[None]
        self.maps[i] = final[0].cpu().numpy()
        self.image_scores[i] = float(steps.image_scores(final, patches, distances.view(*patches.shape, -1), config))
        self.patch_scores[i] = patches[0].cpu().numpy()
        self.match_idx[i] = match[0].cpu().numpy()
        self.nearest_idx[i] = nearest[0].cpu().numpy()
