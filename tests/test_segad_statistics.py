"""SegAD's statistics and its forest: by hand, against scipy and scikit-learn's wrapper, and what they refuse."""

import numpy as np
import pytest
from scipy import stats

from pnilib.errors import PNIError
from pnilib.segad.forest import VARIANTS, Forest, permutation_importance, threshold_at_tpr
from pnilib.segad.statistics import Column, column_list, image_row, segment_statistics


def some_maps(m: int = 2, side: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.gamma(2.0, 3.0, (m, side, side)).astype(np.float32), rng.integers(0, 4, (side, side))


def test_statistics_by_hand():
    """Segment 0: 0, 0, 0, 4: mean 1, m2 3, m3 6, m4 21; its quantile lies 0.985 of the way from 0 to 4."""
    maps = np.array([[[0.0, 0.0, 0.0, 4.0], [7.0, 7.0, 7.0, 7.0]]])
    labels = np.array([[0, 0, 0, 0], [1, 1, 1, 1]])
    ((first, second, third),) = segment_statistics(maps, labels, 3)
    assert first == pytest.approx([4 * 0.985, 6 / 3**1.5, 21 / 9 - 3, 1])
    assert second[[0, 3]].tolist() == [7, 7] and np.isnan(second[[1, 2]]).all()  # constant
    assert third.tolist() == [0, 0, 0, 0]  # empty
    assert image_row(maps, labels, 3)[-1] == 7


def test_statistics_against_scipy():
    maps, labels = some_maps(3)
    labels[labels == 2] = 3  # an empty one
    found = segment_statistics(maps, labels, 4)
    for i, one in enumerate(maps.astype(np.float64)):
        for segment in (0, 1, 3):
            values = one[labels == segment]
            slow = np.quantile(values, 0.995), stats.skew(values), stats.kurtosis(values), values.mean()
            assert found[i, segment] == pytest.approx(slow, abs=1e-6)
        assert (found[i, 2] == 0).all()


def test_constant_is_what_scipy_calls_constant():
    values = np.full((1, 4, 4), 0.1)
    found = segment_statistics(values, np.zeros((4, 4), int), 1)[0, 0]
    with pytest.warns(RuntimeWarning):
        assert np.isnan(found[1]) and np.isnan(stats.skew(values.ravel()))


def test_columns_in_order_of_the_row():
    columns = column_list(["A", "E"], ["background", "part"])
    assert len(columns) == 4 * 2 * 2 + 2
    assert columns[0] == Column("A", "background", "quantile") and str(columns[6]) == "kurtosis of A in part"
    assert str(columns[8]) == "maximum of A"
    maps, labels = some_maps()
    row = image_row(maps, labels % 2, 2)
    assert row[columns.index(Column("E", "part", "mean"))] == pytest.approx(maps[1][labels % 2 == 1].mean(), rel=1e-6)
    assert row[8] == maps[0].max()


@pytest.mark.parametrize(
    ("maps", "labels", "words"),
    [
        (np.zeros((1, 4, 4)), np.zeros((4, 5), int), "at the maps' size"),
        (np.zeros((1, 4, 4)), np.full((4, 4), 2), "label 2 is none of the 2"),
        (np.zeros((1, 4, 4)), np.full((4, 4), -1), "label -1"),
        (np.full((1, 4, 4), np.nan), np.zeros((4, 4), int), "NaN"),
    ],
)
def test_statistics_refuse(maps, labels, words):
    with pytest.raises(PNIError, match=words):
        segment_statistics(maps, labels, 2)


def test_column_names_refused():
    for bases in ([], ["A", "A"], ["a[0]"], [""]):
        with pytest.raises(PNIError):
            column_list(bases, ["part"])


# --- forest ---


def some_rows(n_good: int = 30, n_bad: int = 10, d: int = 9) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(n_good + n_bad, d))
    labels = np.r_[np.zeros(n_good, int), np.ones(n_bad, int)]
    rows[labels == 1, 0] += 3
    rows[::7, 3] = np.nan
    return rows, labels


def names(d: int = 9) -> list[str]:
    return [f"c{i}" for i in range(d)]


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_forest_is_xgboosts(variant):
    """The numbers of A.1 through the library's other door; the same bytes again, saved, and on two threads."""
    from xgboost import XGBClassifier

    rows, labels = some_rows()
    forest = Forest(names(), variant=variant, seed=5).fit(rows, labels, folds=0)
    trees, rounds, rate, by_tree = {"BRF": (200, 10, 0.3, 0.6), "RF": (2000, 1, 1.0, 0.6), "BT": (1, 2000, 0.3, 1)}[
        variant
    ]
    slow = XGBClassifier(
        n_estimators=rounds, num_parallel_tree=trees, learning_rate=rate, max_depth=5, objective="binary:logitraw",
        colsample_bytree=by_tree, colsample_bynode=0.6, subsample=0.6, reg_alpha=1.0, random_state=5,
        scale_pos_weight=40 / 10, n_jobs=1,
    ).fit(rows.astype(np.float32), labels)  # fmt: skip
    assert (forest.scores(rows) == slow.predict_proba(rows.astype(np.float32))[:, 1]).all()
    blob = forest.to_json()
    assert Forest(names(), variant=variant, seed=5, threads=2).fit(rows, labels, folds=0).to_json() == blob
    loaded = Forest(names()).from_json(blob)
    assert loaded.to_json() == blob and (loaded.scores(rows) == forest.scores(rows)).all()


def test_shap_values_add_up():
    rows, labels = some_rows()
    forest = Forest(names()).fit(rows, labels, folds=0)
    values = forest.shap_values(rows)
    assert values.sum(1) == pytest.approx(forest.scores(rows), abs=1e-4)
    assert np.abs(values[:, :-1]).mean(0).argmax() == 0


def test_importance_finds_the_column():
    rows, labels = some_rows()
    forest = Forest(names()).fit(rows, labels, folds=0)
    lost = permutation_importance(forest, rows, labels, ["told", *["noise"] * 8])
    assert lost["told"][0] > 0.2 > abs(lost["noise"][0])


def test_thresholds():
    """By hand: of bad scores 0 ... 20 the 5 % quantile is 1; 30 good ones promise 1/31 at best."""
    assert threshold_at_tpr(np.arange(21.0)) == pytest.approx(1)
    rows, labels = some_rows()
    forest = Forest(names(), seed=2).fit(rows, labels, fpr=0.01)
    scores = forest.out_of_fold(rows, labels)
    assert forest.thresholds.tpr95 == pytest.approx(np.quantile(scores[labels == 1], 0.05), rel=1e-6)
    assert (scores[labels == 0] >= forest.thresholds.false_alarms).sum() == 0 and "3.23 %" in forest.thresholds.note
    loose = Forest(names(), seed=2).fit(rows, labels, fpr=0.1).thresholds
    assert (scores[labels == 0] >= loose.false_alarms).sum() == 2 and loose.note == ""  # floor(0.1 * 31) = 3rd largest
    few = Forest(names()).fit(rows[-2:], np.array([0, 1]))
    assert np.isnan(few.thresholds.tpr95) and "two parts of each" in few.thresholds.note


@pytest.mark.parametrize(
    ("labels", "words"),
    [(np.zeros(40, int), "no bad parts"), (np.ones(40, int), "no good parts"), (np.full(40, 2), "0 good or 1 bad")],
)
def test_forest_refuses_labels(labels, words):
    with pytest.raises(PNIError, match=words):
        Forest(names()).fit(some_rows()[0], labels)


def test_forest_refuses():
    rows, labels = some_rows()
    with pytest.raises(PNIError, match="not fitted"):
        Forest(names()).scores(rows)
    with pytest.raises(PNIError, match="8 columns"):
        Forest(names(8)).fit(rows, labels)
    with pytest.raises(PNIError, match="unknown"):
        Forest(names(), variant="GBM")
    for blob in (b"{}", b"not json", Forest(["x"]).fit(rows[:, :1], labels, folds=0).to_json()):
        with pytest.raises(PNIError, match=r"forest\.json"):
            Forest(names()).from_json(blob)
