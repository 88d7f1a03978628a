"""Image-level metrics: hand-worked cases, brute force over all thresholds, scikit-learn, undefined cases."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from pnilib.errors import PNIError
from pnilib.metrics import (
    UndefinedMetricWarning,
    bootstrap_interval,
    error_counts,
    f1_max,
    image_auroc,
    normal_threshold,
    precision_recall_curve,
    roc_curve,
    threshold_note,
)


def cases():
    """Scores and labels: distinct, heavily tied, almost constant, perfectly separated, single precision."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    raw = rng.standard_normal(60) + labels
    return [
        (raw, labels),
        (np.round(raw), labels),
        (np.where(raw > 2, 1.0, 0.0), labels),
        (labels + 0.0, labels),
        (raw.astype(np.float32), labels),
        (np.round(raw * 3).astype(int), labels.astype(bool)),
    ]


def test_auroc_is_the_share_of_correctly_ordered_pairs():
    for scores, labels in cases():
        wins = 0.0
        for d in scores[labels == 1]:
            for n in scores[labels == 0]:
                wins += 1.0 if d > n else 0.5 if d == n else 0.0
        pairs = np.sum(labels == 1) * np.sum(labels == 0)
        assert image_auroc(scores, labels) == pytest.approx(wins / pairs, abs=1e-12)
        assert image_auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_auroc_by_hand():
    # defective 3, 2; normal 2, 1.  Pairs: 3>2, 3>1, 2=2, 2>1 -> (1 + 1 + 1/2 + 1) / 4
    assert image_auroc([3, 2, 2, 1], [1, 1, 0, 0]) == 3.5 / 4


def test_f1_max_is_the_best_of_all_thresholds():
    for scores, labels in cases():
        best = (-1.0, 0.0, 0.0, 0.0)
        for threshold in np.unique(scores)[::-1]:
            called = scores >= threshold
            tp = np.sum(called & (labels == 1))
            precision, recall = tp / np.sum(called), tp / np.sum(labels == 1)
            f1 = 2 * precision * recall / (precision + recall) if tp else 0.0
            if f1 > best[0] + 1e-12:
                best = (f1, float(threshold), precision, recall)
        assert f1_max(scores, labels) == pytest.approx(best, abs=1e-12)


def test_f1_max_by_hand():
    # t=4: tp 1 of 2, fp 0 -> 2/3.   t=2: tp 2, fp 1 -> 4/5, precision 2/3.   t=1: tp 2, fp 2 -> 2/3.
    assert f1_max([4, 3, 2, 1], [1, 0, 1, 0]) == pytest.approx((0.8, 2.0, 2 / 3, 1.0))


def test_f1_max_prefers_the_highest_of_equal_thresholds():
    # t=3: tp 1, fp 0, fn 1 -> 2/3.   t=1: tp 2, fp 2 -> 4/6, the same.
    assert f1_max([3, 2, 2, 1], [1, 0, 0, 1]).threshold == 3.0


def test_f1_max_agrees_with_the_errors_counted_at_its_threshold():
    for scores, labels in cases():
        best = f1_max(scores, labels)
        counts = error_counts(scores, labels, best.threshold)
        assert 2 * counts.tp / (2 * counts.tp + counts.fp + counts.fn) == pytest.approx(best.f1)
        assert 1 - counts.fnr == pytest.approx(best.recall)


def test_curves():
    for scores, labels in cases():
        roc = roc_curve(scores, labels)
        assert (roc.fpr[0], roc.tpr[0], roc.threshold[0]) == (0, 0, np.inf)
        assert (roc.fpr[-1], roc.tpr[-1]) == (1, 1)
        assert np.all(np.diff(roc.threshold) < 0)
        area = np.sum(np.diff(roc.fpr) * (roc.tpr[1:] + roc.tpr[:-1]) / 2)
        assert area == pytest.approx(image_auroc(scores, labels), abs=1e-12)
        for fpr, tpr, threshold in zip(*roc, strict=True):  # every corner is what its threshold does
            counts = error_counts(scores, labels, threshold)
            assert (counts.fpr, 1 - counts.fnr) == pytest.approx((fpr, tpr))

        pr = precision_recall_curve(scores, labels)
        average = np.sum(np.diff(pr.recall, prepend=0) * pr.precision)
        assert average == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
        for precision, recall, threshold in zip(*pr, strict=True):
            counts = error_counts(scores, labels, threshold)
            assert counts.tp / (counts.tp + counts.fp) == pytest.approx(precision)
            assert 1 - counts.fnr == pytest.approx(recall)


def test_order_and_monotone_transforms_do_not_matter():
    scores, labels = cases()[1]
    order = np.random.default_rng(1).permutation(len(scores))
    assert image_auroc(scores[order], labels[order]) == image_auroc(scores, labels)
    assert f1_max(scores[order], labels[order]) == f1_max(scores, labels)
    assert image_auroc(np.exp(scores), labels) == image_auroc(scores, labels)
    assert image_auroc(-scores, labels) == pytest.approx(1 - image_auroc(scores, labels))


def test_lists_and_tensors_are_accepted():
    assert image_auroc(torch.tensor([0.1, 0.9], requires_grad=True), torch.tensor([0, 1])) == 1.0
    assert image_auroc((0.1, 0.9), [False, True]) == 1.0


@pytest.mark.parametrize(
    ("scores", "labels", "reason"),
    [([], [], "no image at all"), ([1.0], [0], "no defective image"), ([1.0], [1], "no normal image")],
)
@pytest.mark.parametrize("metric", [image_auroc, f1_max, roc_curve, precision_recall_curve])
def test_undefined_is_nan_with_a_reason(metric, scores, labels, reason):
    with pytest.warns(UndefinedMetricWarning, match=reason) as caught:
        value = metric(scores, labels)
    assert len(caught) == 1
    assert np.isnan(value).all()


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.0, np.nan], [0, 1], "image 1 has score nan"),
        ([0.0, 1.0, -np.inf], [0, 1, 1], "image 2 has score -inf"),
        ([0.0, 1.0], [0, 2], "image 1 is 2, not 0 or 1"),
        ([0.0, 1.0], [0, 1, 1], "one label a score"),
        ([[0.0, 1.0]], [0, 1], "one number an image"),
        (["a", "b"], [0, 1], "one number an image"),
        ([0.0, [1.0, 2.0]], [0, 1], "rectangular"),
    ],
)
def test_bad_input_is_refused(scores, labels, message):
    with pytest.raises(PNIError, match=message):
        image_auroc(scores, labels)


def test_error_counts_by_hand():
    # called at >= 2: scores 3 (defective), 2 (normal), 2 (defective); missed: 1 (defective)
    assert error_counts([3, 2, 2, 1, 0], [1, 0, 1, 1, 0], 2) == (2, 1, 1, 1, 1 / 2, 1 / 3)
    with pytest.warns(UndefinedMetricWarning, match="no defective"):
        counts = error_counts([1.0, 2.0], [0, 0], 2)
    assert counts[:4] == (0, 1, 0, 1) and counts.fpr == 0.5 and np.isnan(counts.fnr)
    with pytest.raises(PNIError, match="undefined metric"):
        error_counts([1.0], [1], np.nan)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "fpr", "rank"), [(99, 0.01, 99), (99, 0.05, 95), (99, 0.29, 71), (50, 0.02, 50),
                                                (49, 0.02, 49), (48, 0.02, 48), (8, 0.02, 8), (8, 0.0, 8), (1, 0.3, 1),
                                                (3, 0.25, 3), (3, 0.5, 2), (100, 0.02, 99)])  # fmt: skip
def test_normal_threshold_is_just_above_the_conformal_rank(dtype, n, fpr, rank):
    """ceil((n + 1) (1 - fpr)) by hand, or the largest where that exceeds n."""
    scores = np.random.default_rng(0).standard_normal(n).astype(dtype)
    assert normal_threshold(scores, fpr) == np.nextafter(np.sort(scores)[rank - 1], dtype(np.inf))


@pytest.mark.parametrize(("n", "fpr", "said"), [
    (8, 0.02, "threshold: 8 calibration images cannot promise fewer than 11.1 % false alarms (asked: 2 %)"),
    (1, 0.25, "threshold: 1 calibration image cannot promise fewer than 50 % false alarms (asked: 25 %)"),
    (50, 0.0, "threshold: 50 calibration images cannot promise fewer than 1.96 % false alarms (asked: 0 %)"),
    (49, 0.02, ""), (3, 0.25, ""), (99, 0.01, ""), (48, 0.02, "2.04 %"),
])  # fmt: skip
def test_a_promise_that_cannot_hold_is_named(n, fpr, said):
    assert said in threshold_note(n, fpr) and bool(said) == bool(threshold_note(n, fpr))


def test_normal_threshold_with_ties_stays_below_the_share():
    # k = floor(0.5 * 5) = 2, second largest = 1: more than 1 means nobody but 2
    assert normal_threshold([2.0, 1.0, 1.0, 1.0], 0.5) == np.nextafter(1.0, 2.0)
    with pytest.warns(UndefinedMetricWarning, match="no normal score"):
        assert np.isnan(normal_threshold([]))
    with pytest.raises(PNIError, match="share of false alarms"):
        normal_threshold([1.0], 1.0)


def test_normal_threshold_keeps_its_promise_for_new_normals():
    """Exchangeable normals are called with probability floor(fpr (n + 1)) / (n + 1), at most fpr; or 1 / (n + 1)."""
    draws = np.random.default_rng(0).standard_normal((4000, 41))
    for n, fpr, promised in [(40, 0.05, 2 / 41), (40, 0.02, 1 / 41), (9, 0.25, 2 / 10), (1, 0.02, 1 / 2)]:
        rate = np.mean([row[40] >= normal_threshold(row[:n], fpr) for row in draws])
        assert rate == pytest.approx(promised, abs=4 * np.sqrt(promised * (1 - promised) / 4000))


def test_bootstrap_interval():
    scores, labels = cases()[0]
    interval = bootstrap_interval(image_auroc, scores, labels, n=200, seed=3)
    assert interval.low < image_auroc(scores, labels) < interval.high
    assert interval == bootstrap_interval(image_auroc, scores, labels, n=200, seed=3)
    assert interval != bootstrap_interval(image_auroc, scores, labels, n=200, seed=4)
    narrow = bootstrap_interval(image_auroc, scores, labels, n=200, level=0.5, seed=3)
    assert interval.low < narrow.low < narrow.high < interval.high


@pytest.mark.parametrize(("scores", "labels"), cases())
def test_counted_resamples_are_those_that_are_sorted(scores, labels):
    fast = bootstrap_interval(image_auroc, scores, labels, n=60)
    slow = bootstrap_interval(lambda *drawn: image_auroc(*drawn), scores, labels, n=60)
    assert fast == pytest.approx(slow, abs=1e-12)


def test_bootstrap_interval_of_a_mean_is_the_normal_one():
    # standard error of the mean of 0, 1 with equal shares: 0.5 / sqrt(400) = 0.025
    values = np.tile([0.0, 1.0], 200)
    interval = bootstrap_interval(lambda v: float(v.mean()), values, n=4000)
    assert interval.low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.005)
    assert interval.high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.005)


def test_bootstrap_leaves_out_resamples_without_a_value():
    # of two images, half of the resamples hold one class only
    interval = bootstrap_interval(image_auroc, [0.0, 1.0], [0, 1], n=400)
    assert interval[:2] == (1.0, 1.0) and 150 < interval.n_used < 250
    with pytest.warns(UndefinedMetricWarning, match="in any resample"):
        empty = bootstrap_interval(image_auroc, [0.0, 1.0], [0, 0], n=10)
    assert np.isnan(empty.low) and empty.n_used == 0
    with pytest.warns(UndefinedMetricWarning, match="no image"):
        bootstrap_interval(image_auroc, [], [])
    with pytest.raises(PNIError, match="differ in length"):
        bootstrap_interval(image_auroc, [0.0, 1.0], [0])
    with pytest.raises(PNIError, match="0 < level < 1"):
        bootstrap_interval(image_auroc, [0.0], [0], level=95)
