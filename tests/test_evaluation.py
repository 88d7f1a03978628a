"""Evaluation: one prediction worked out by hand, and what is left out of which metric."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pnilib.config import PNIConfig
from pnilib.data import Split
from pnilib.detector.prediction import Prediction
from pnilib.errors import PNIError
from pnilib.evaluation import METRICS, evaluate

SIDE = 8
CONFIG = PNIConfig(image_resize=SIDE, image_crop=SIDE)


def block() -> np.ndarray:
    """A defect of 2 x 2 pixels."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[2:4, 3:5] = 255
    return mask


def split_of(folder: Path, labels: list[int], masked: list[bool] | None = None) -> Split:
    folder.mkdir(exist_ok=True)
    rows = []
    for i, label in enumerate(labels):
        image, mask = folder / f"{i}.png", folder / f"{i}_mask.png"
        Image.fromarray(np.full((SIDE, SIDE, 3), 40 * i, np.uint8)).save(image)
        Image.fromarray(block()).save(mask)
        has_mask = label == 1 and (masked is None or masked[i])
        rows.append({"image_path": str(image), "mask_path": str(mask) if has_mask else None, "label": label})
    samples = pd.DataFrame(rows)
    samples["mask_path"] = samples["mask_path"].astype(object).where(samples["mask_path"].notna(), None)
    return Split(samples, folder)


def prediction_of(split: Split, maps: np.ndarray, scores: list[float], threshold: float = math.nan) -> Prediction:
    n = len(split)
    idx = np.zeros((n, 1, 1), np.int32)
    paths = [str(path) for path in split.samples["image_path"]]
    return Prediction(CONFIG, paths, maps.astype(np.float32), np.array(scores, np.float32),
                      np.zeros((n, 1, 1), np.float32), idx, idx, threshold)  # fmt: skip


def maps_by_hand() -> np.ndarray:
    """A good image with one pixel at 0.5; a defect found whole; a defect of which half is found."""
    maps = np.zeros((3, SIDE, SIDE))
    maps[0, 0, 0] = 0.5
    maps[1, 2:4, 3:5] = 1.0
    maps[2, 2, 3:5] = 1.0
    return maps


def test_by_hand(tmp_path: Path) -> None:
    """Images score 0.5 (good), 0.9 and 0.3 (bad); 8 defect pixels (6 at 1, 2 at 0) against 184 normal ones."""
    split = split_of(tmp_path, [0, 1, 1])
    found = evaluate(prediction_of(split, maps_by_hand(), [0.5, 0.9, 0.3], threshold=0.6), split)
    m = found.metrics
    assert list(m) == list(METRICS)
    assert m["i_auroc"] == pytest.approx(1 / 2)  # one of two pairs in order
    assert m["i_f1_max"] == pytest.approx(4 / 5) and m["i_threshold"] == pytest.approx(
        0.3
    )  # all called: 2 right, 1 not
    assert (m["fp"], m["fn"]) == (1, 0)
    assert m["normal_threshold"] == 0.6 and (m["normal_fp"], m["normal_fn"]) == (0, 1)
    assert m["p_auroc"] == pytest.approx(6 / 8 + 2 / 8 * (183 / 184) / 2)
    assert m["p_f1_max"] == pytest.approx(12 / 14) and m["p_threshold"] == 1.0
    for limit, key in ((0.3, "aupro_30"), (0.05, "aupro_05"), (0.01, "aupro_01")):
        # overlap 3/4 until the good pixel at 0.5 is passed, then a line from (1/184, 3/4) to (1, 1)
        line = 0.25 / (1 - 1 / 184) * (limit - 1 / 184) ** 2 / 2
        assert m[key] == pytest.approx((0.75 * limit + line) / limit)
    assert (found.n_normal, found.n_defective, found.notes) == (1, 2, [])
    assert (found.interval.low, found.interval.high) == (0.0, 1.0)


def test_defects_without_ground_truth_count_for_the_image_only(tmp_path: Path) -> None:
    split = split_of(tmp_path, [0, 1, 1], [False, True, False])
    found = evaluate(prediction_of(split, maps_by_hand(), [0.5, 0.9, 0.3], 0.6), split)
    assert found.metrics["i_auroc"] == pytest.approx(1 / 2) and found.n_defective == 2
    assert found.metrics["p_auroc"] == found.metrics["p_f1_max"] == found.metrics["aupro_30"] == 1.0  # only image 1
    assert found.notes == ["1 defective images without ground truth left out of the pixel metrics"]


def test_a_defect_outside_the_crop_stays_one_and_is_told(tmp_path: Path) -> None:
    """Of two defects one lies in the rim that the crop cuts off: image metrics count it, pixel metrics see a normal
    image."""
    split = split_of(tmp_path, [0, 1, 1])
    rim = np.zeros((SIDE, SIDE), np.uint8)
    rim[0] = 255
    Image.fromarray(rim).save(tmp_path / "2_mask.png")
    config = CONFIG.replace(image_resize=12, image_crop=SIDE)  # px 0 of the file becomes 0 and 1 of 12: cut
    maps = maps_by_hand()
    maps[2] = 0
    prediction = dataclasses.replace(prediction_of(split, maps, [0.5, 0.9, 0.3], threshold=0.6), config=config)
    found = evaluate(prediction, split)
    assert found.n_defective == 2 and found.metrics["normal_fn"] == 1
    assert found.metrics["i_auroc"] == pytest.approx(1 / 2) and np.isfinite(found.metrics["p_auroc"])
    (note,) = [note for note in found.notes if "crop" in note]
    assert "1 of 2 defect images: the defect lies outside the crop of 8 of 12 px" in note and "2.png" in note


def test_masks_that_mark_nearly_everything_are_told(tmp_path: Path) -> None:
    split = split_of(tmp_path, [0, 1, 1])
    Image.fromarray(255 - block()).save(tmp_path / "1_mask.png")
    prediction = prediction_of(split, maps_by_hand(), [0.5, 0.9, 0.3], threshold=0.6)
    (note,) = evaluate(prediction, split).notes
    assert "1 of 2 masks mark over half" in note and "94%" in note and "masks=inverted" in note
    turned = Split(split.samples.assign(masks="inverted"), split.root)
    (note,) = evaluate(prediction, turned).notes
    assert "2_mask.png: 94%" in note


def test_images_of_unknown_label_are_left_out_of_everything(tmp_path: Path) -> None:
    whole, more = split_of(tmp_path / "a", [0, 1, 1]), split_of(tmp_path / "b", [-1, 0, 1, -1, 1])
    maps = np.zeros((5, SIDE, SIDE))
    maps[[1, 2, 4]] = maps_by_hand()
    maps[[0, 3]] = 9.0
    found = evaluate(prediction_of(more, maps, [9.0, 0.5, 0.9, -9.0, 0.3], 0.6), more)
    expected = evaluate(prediction_of(whole, maps_by_hand(), [0.5, 0.9, 0.3], 0.6), whole)
    assert found.metrics == expected.metrics and found.interval == expected.interval
    assert found.notes == ["2 images of unknown label left out"]
    assert (found.n_normal, found.n_defective) == (1, 2)


@pytest.mark.parametrize(("label", "reason"), [(0, "no defective"), (1, "no normal"), (-1, "no image at all")])
def test_one_class_alone_is_nan_with_a_reason(tmp_path: Path, label: int, reason: str) -> None:
    split = split_of(tmp_path, [label] * 3)
    found = evaluate(prediction_of(split, maps_by_hand(), [0.5, 0.9, 0.3]), split)
    assert math.isnan(found.metrics["i_auroc"]) and math.isnan(found.metrics["i_f1_max"])
    assert math.isnan(found.metrics["fp"]) and math.isnan(found.metrics["normal_fn"])
    assert math.isnan(found.interval.low)
    assert any(note.startswith("AUROC is undefined (NaN)") and reason in note for note in found.notes)
    assert any("no normal-only threshold" in note for note in found.notes)
    has_pixels = label == 1  # of both kinds
    for key in ("p_auroc", "p_f1_max", "aupro_30"):
        assert math.isnan(found.metrics[key]) != has_pixels


def test_a_threshold_serves_even_one_class(tmp_path: Path) -> None:
    """False alarms of the normal-only threshold can be counted on good images alone."""
    split = split_of(tmp_path, [0, 0, 0])
    found = evaluate(prediction_of(split, maps_by_hand(), [0.5, 0.9, 0.3], 0.4), split)
    assert (found.metrics["normal_fp"], found.metrics["normal_fn"]) == (2, 0)


def test_the_released_aupro_is_chosen_by_name(tmp_path: Path) -> None:
    split = split_of(tmp_path, [0, 1, 1])
    prediction = prediction_of(split, maps_by_hand(), [0.5, 0.9, 0.3])
    exact, released = evaluate(prediction, split), evaluate(prediction, split, variant="pni")
    assert exact.metrics["p_auroc"] == released.metrics["p_auroc"]
    assert exact.metrics["aupro_30"] != released.metrics["aupro_30"]
    with pytest.raises(PNIError, match="variant='else' is unknown"):
        evaluate(prediction, split, variant="else")


def test_a_prediction_of_other_images_is_refused(tmp_path: Path) -> None:
    split = split_of(tmp_path, [0, 1, 1])
    prediction = prediction_of(split, maps_by_hand(), [0.5, 0.9, 0.3])
    for other in (split.samples.iloc[:2], split.samples.iloc[[0, 2, 1]]):
        with pytest.raises(PNIError, match="of other images than this split"):
            evaluate(prediction, Split(other, tmp_path))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    split = split_of(tmp_path, [0, 1, 1])
    maps = maps_by_hand()
    maps[1, 0, 0] = value
    with pytest.raises(PNIError, match=r"NaN|inf|finite"):
        evaluate(prediction_of(split, maps, [0.5, 0.9, 0.3]), split)
    with pytest.raises(PNIError, match=r"NaN|inf|finite"):
        evaluate(prediction_of(split, maps_by_hand(), [0.5, value, 0.3]), split)
