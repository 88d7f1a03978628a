"""Members of an ensemble: what they may differ in, and what the mean of their maps carries on."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from pnilib.config import PNIConfig
from pnilib.detector.ensembles import ensemble_predictions, require_alike
from pnilib.detector.prediction import Calibration, Prediction
from pnilib.errors import PNIError

NAMES = ["one", "two"]
FEATURES = dict(backbone="densenet201", weights="random", agg_patch=3, dim=512, feature_norm="channel", seed=1)
REFINEMENT = dict(refine_weight=0.3, refine_loss="ce", defects="draem", pool_images=7)


def test_members_may_differ_in_features_and_seed() -> None:
    require_alike(NAMES, [PNIConfig(), PNIConfig(**FEATURES)], refined=True)  # type: ignore[arg-type]
    require_alike(NAMES, [PNIConfig(), PNIConfig(**REFINEMENT)], refined=False)  # type: ignore[arg-type]


def test_every_other_setting_must_agree() -> None:
    changes: dict[str, Any] = REFINEMENT | dict(
        setting="A", combine="product", temperature=1.0, lambda_=0.99, released="dist_threshold", sigma=4.0,
        image_score="top1", ens_norm="minmax_test", mask_resize="floor", calibration_images=20, border="replicate",
        resize="short", image_resize=500, patch=5, emb_ratio=0.02,
    )  # fmt: skip
    for name, value in changes.items():
        with pytest.raises(PNIError, match=f"two has {name}={value}"):
            require_alike(NAMES, [PNIConfig(), PNIConfig(**{name: value})], refined=True)


@pytest.mark.parametrize("change", [dict(image_score="raw_max"), dict(setting="A", released="reweighted")])
def test_a_score_of_the_patches_has_no_mean_map(change: dict[str, Any]) -> None:
    with pytest.raises(PNIError, match="of the patches, not of an ensemble's map"):
        require_alike(NAMES, [PNIConfig(**change)] * 2, refined=False)


def prediction(maps: list[float], **values: Any) -> Prediction:
    """Of images of one pixel; score and threshold of its own."""
    n = len(maps)
    cells, idx = np.zeros((n, 1, 1), np.float32), np.zeros((n, 1, 1), np.int32)
    found = Prediction(
        PNIConfig(), [f"{i}.png" for i in range(n)], np.array(maps, np.float32).reshape(n, 1, 1),
        np.array(maps, np.float32), cells, idx, idx, 5.0,
    )  # fmt: skip
    return dataclasses.replace(found, **values)


def calibrated(low: float, high: float) -> Calibration:
    return Calibration(np.zeros(0, np.float32), low, high)


def test_the_mean_by_hand() -> None:
    both = [prediction([0.0, 2.0], refined=True), prediction([10.0, 30.0], refined=True)]
    found = ensemble_predictions(both, [calibrated(0, 2), calibrated(10, 50)])
    assert found.image_scores.tolist() == [0.0, 0.75] and found.refined
    assert np.isnan(found.threshold) and "an ensemble has none" in found.threshold_note
    found = ensemble_predictions(both, [None, None], ens_norm="minmax_test")
    assert found.image_scores.tolist() == [0.0, 1.0] and found.config.ens_norm == "minmax_test"


@pytest.mark.parametrize(
    ("values", "calibration", "message"),
    [
        (dict(refined=True), calibrated(0, 1), "of two and one only one is refined"),
        (dict(image_paths=["1.png", "0.png"]), calibrated(0, 1), "two scored other images than one, or in another"),
        (dict(config=PNIConfig(setting="A")), calibrated(0, 1), "two has setting=A, one has E"),
        ({}, None, "two has no calibration: fit with calibration_images > 0, or set ens_norm=minmax_test"),
        ({}, calibrated(1, 1), "span nothing"),
    ],
)
def test_what_cannot_be_averaged(values: dict[str, Any], calibration: Calibration | None, message: str) -> None:
    both = [prediction([0.0, 2.0]), prediction([1.0, 3.0], **values)]
    with pytest.raises(PNIError, match=message):
        ensemble_predictions(both, [calibrated(0, 1), calibration], names=NAMES)
