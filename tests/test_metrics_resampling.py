"""The binned bootstrap against metrics computed afresh on each resampled test set."""

import numpy as np
import pytest

from pnilib.errors import PNIError
from pnilib.metrics import PixelStatistics, bootstrap_interval, image_auroc
from pnilib.metrics.resampling import METRICS, bootstrap_metrics, draws


def test_set(n: int = 8, side: int = 24, seed: int = 0):  # a maker, not a test
    rng = np.random.default_rng(seed)
    maps = rng.normal(0, 1, (n, side, side)).astype(np.float32)
    masks = np.zeros((n, side, side), bool)
    labels = (np.arange(n) % 2).astype(np.int64)
    for i in np.flatnonzero(labels):
        masks[i, 3 : 5 + i, 4:9] = True
        masks[i, 15:18, 12 : 14 + i // 2] = True
        maps[i][masks[i]] += 1.5
    return maps, list(masks), maps.max((1, 2)), labels


test_set.__test__ = False  # type: ignore[attr-defined]


def exact(maps, masks, scores, labels) -> dict[str, float]:
    pixels = PixelStatistics.from_maps(maps, masks)
    return {
        "i_auroc": image_auroc(scores, labels), "p_auroc": pixels.auroc(), "aupro_30": pixels.aupro(0.3),
        "p_f1_max": pixels.f1_max().f1,
    }  # fmt: skip


def test_each_replicate_is_the_metric_of_its_test_set() -> None:
    maps, masks, scores, labels = test_set()
    found = bootstrap_metrics(maps, masks, scores, labels, exact(maps, masks, scores, labels), n=30, seed=4)
    for b, often in enumerate(draws(len(maps), 30, 4)):
        drawn = np.repeat(np.arange(len(maps)), often)
        if len(set(labels[drawn])) < 2:
            assert np.isnan(found["i_auroc"][b])
            continue
        slow = exact(maps[drawn], [masks[i] for i in drawn], scores[drawn], labels[drawn])
        assert found["i_auroc"][b] == pytest.approx(slow["i_auroc"], abs=1e-12)
        for name in METRICS[1:]:
            assert found[name][b] == pytest.approx(slow[name], abs=4e-3), name


def test_interval_of_i_auroc_is_that_of_the_plain_bootstrap() -> None:
    maps, masks, scores, labels = test_set(n=40)
    values = bootstrap_metrics(maps, masks, scores, labels, exact(maps, masks, scores, labels), n=4000)["i_auroc"]
    plain = bootstrap_interval(image_auroc, scores, labels, n=4000)
    assert np.quantile(values, [0.025, 0.975]) == pytest.approx([plain.low, plain.high], abs=0.01)


def test_hand_case() -> None:
    """Two images, one pixel defective, scored highest: every metric 1 wherever it exists."""
    maps = np.array([[[0.0, 1.0]], [[2.0, 0.5]]], np.float32)
    masks = [np.zeros((1, 2), bool), np.array([[True, False]])]
    labels = np.array([0, 1])
    ones = dict.fromkeys(METRICS, 1.0)
    found = bootstrap_metrics(maps, masks, np.array([1.0, 2.0]), labels, ones, n=50)
    both = np.all(draws(2, 50, 0) > 0, axis=1)
    assert both.any() and not both.all()
    assert np.all(found["i_auroc"][both] == 1) and np.isnan(found["i_auroc"][~both]).all()
    assert found["p_f1_max"][both] == pytest.approx(1.0) and found["aupro_30"][both] == pytest.approx(1.0)


def test_images_without_ground_truth_count_for_i_auroc_alone() -> None:
    maps, masks, scores, labels = test_set()
    values = exact(maps, masks, scores, labels)
    masks[1] = None
    with_less = bootstrap_metrics(maps, masks, scores, labels, values, n=20)
    assert np.isfinite(with_less["p_auroc"]).any()
    nothing = bootstrap_metrics(maps, [None] * len(maps), scores, labels, values, n=20)
    assert np.isnan(nothing["p_auroc"]).all() and np.isfinite(nothing["i_auroc"]).any()


def test_the_same_seed_draws_the_same_sets_for_every_setting() -> None:
    assert np.array_equal(draws(9, 5, 3), draws(9, 5, 3)) and not np.array_equal(draws(9, 5, 3), draws(9, 5, 4))
    assert (draws(9, 5, 3).sum(1) == 9).all()


def test_lists_of_different_lengths() -> None:
    maps, masks, scores, labels = test_set()
    with pytest.raises(PNIError, match="differ in number"):
        bootstrap_metrics(maps, masks[1:], scores, labels, {})
