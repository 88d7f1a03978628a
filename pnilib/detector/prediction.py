"""What scoring a set of images yields: maps, scores, and which coreset vector each patch matched."""

from dataclasses import dataclass

from jaxtyping import Float32, Int32
from numpy import ndarray

from pnilib.config import PNIConfig

__all__ = ["Calibration", "Prediction"]


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
    cannot promise.  refined: whether the maps went
    through the refinement network, which puts them on another scale.
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
