"""Counts equal the run's tables; sorting, filters and the comparison of two results are what they say."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_run import ODD, tiny_store, write_unit

from pnilib.apps.explore import Exploration, open_exploration
from pnilib.apps.explore.samples import (
    OUTCOMES,
    PAPER_ERRORS,
    Counts,
    Filter,
    category_counts,
    changed_sides,
    counts,
    default_threshold,
    samples,
)
from pnilib.errors import PNIError
from pnilib.metrics import error_counts, f1_max, normal_threshold

__all__ = ["tiny_store"]


@pytest.fixture(scope="module")
def opened(tiny_store: Path) -> Exploration:
    return open_exploration(tiny_store)


def by_hand(tmp_path: Path, scores: list[float], labels: list[int], **options: object) -> Exploration:
    """One category of a hand-written run."""
    write_unit(tmp_path / "u", scores, labels, **options)  # type: ignore[arg-type]
    return open_exploration(tmp_path)


# -- against the run's tables ------------------------------------------------------------------------


def test_counts_equal_the_run_s_tables(opened: Exploration) -> None:
    """At the F1-optimal and at the normal-only threshold, for every result of every category."""
    seen: list[tuple[float, float]] = []
    for key, category in opened.categories.items():
        for label, result in category.results.items():
            for prefix, threshold in (("", "i_threshold"), ("normal_", "normal_threshold")):
                at = result.metric(threshold)
                if math.isnan(at):
                    assert label not in ("A", "B", "E", "PNI") and prefix  # not calibrated
                    continue
                table = samples(opened, label, {key: at})
                found = counts(table[table["category"] == key])
                assert (found.fp, found.fn) == (result.metric(f"{prefix}fp"), result.metric(f"{prefix}fn"))
                assert found.tp + found.fn == result.facts["n_defective"]
                assert found.tn + found.fp == result.facts["n_normal"]
                seen.append((found.fp, found.fn))
                if not prefix:
                    assert found.f1 == pytest.approx(result.metric("i_f1_max"), abs=1e-12)
                    assert default_threshold(result) == at
                    assert (table.loc[table["category"] == key, "threshold"] == at).all()
    assert len(seen) == 2 * (11 + 4) and (1, 1) in seen  # there is something to count


def test_over_categories_each_by_its_own_threshold(opened: Exploration) -> None:
    table = samples(opened, "E")
    results = [category.results["E"] for category in opened.categories.values()]
    assert counts(table).fp == sum(result.metric("fp") for result in results) == 2
    assert counts(table).fn == sum(result.metric("fn") for result in results) == 2
    rows = category_counts(opened, table).set_index("category")
    for key, category in opened.categories.items():
        result = category.results["E"]
        assert rows.loc[key, ["threshold", "fp", "fn"]].tolist() == [
            result.metric("i_threshold"), result.metric("fp"), result.metric("fn"),
        ]  # fmt: skip
    assert set(table["image"]) == {name for category in opened.categories.values() for name in category.names}
    for row in table.itertuples():
        assert opened.categories[row.category].names[row.index] == row.image


def test_a_threshold_that_is_a_score_survives_the_csv(tmp_path: Path) -> None:
    """The trap: 0.1 in float32 is above 0.1, 1/3 below; the file holds decimals, the threshold float64."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=200).astype(np.float32)
    labels = (scores + rng.normal(size=200) > 0).astype(int)
    opened = by_hand(tmp_path, [float(s) for s in scores], labels.tolist())
    for threshold in (f1_max(scores, labels).threshold, normal_threshold(scores[labels == 0], 0.1),
                      *map(float, scores[:40])):  # fmt: skip
        wanted = error_counts(scores, labels, threshold)
        found = counts(samples(opened, "E", {"mvtec/part": threshold}))
        assert (found.tp, found.fp, found.fn, found.tn) == (wanted.tp, wanted.fp, wanted.fn, wanted.tn)
        assert (found.fpr, found.fnr) == (wanted.fpr, wanted.fnr)


def test_the_paper_s_errors() -> None:
    """Supplement, "Limitation": FNR 0.95 % and FPR 1.50 % follow from these counts."""
    assert round(PAPER_ERRORS["fn"] / PAPER_ERRORS["n_defective"], 4) == 0.0095
    assert round(PAPER_ERRORS["fp"] / PAPER_ERRORS["n_normal"], 4) == 0.0150
    assert (PAPER_ERRORS["fp"], PAPER_ERRORS["fn"]) == (7, 12)


# -- counting by hand --------------------------------------------------------------------------------


def test_outcomes_by_hand(tmp_path: Path) -> None:
    scores, labels = [3.0, 2.0, 2.0, 1.0, 0.0, 9.0], [1, 0, 1, 1, 0, -1]
    opened = by_hand(tmp_path, scores, labels)
    table = samples(opened, "E", {"mvtec/part": 2.0})
    assert table["index"].tolist() == [5, 0, 1, 2, 3, 4]  # ties in the run's order
    assert table["outcome"].tolist() == [
        "unknown", "true positive", "false positive", "true positive", "false negative", "true negative",
    ]  # fmt: skip
    assert set(table["outcome"]) == set(OUTCOMES)
    found = counts(table)
    assert found == Counts(tp=2, fp=1, tn=1, fn=1)
    assert (found.f1, found.fpr, found.fnr, found.precision) == pytest.approx((2 / 3, 1 / 2, 1 / 3, 2 / 3))
    spread = np.std(scores)
    assert table["margin"].tolist() == pytest.approx([(s - 2) / spread for s in (9, 3, 2, 2, 1, 0)])
    above = counts(samples(opened, "E", {"mvtec/part": 2.0000000000000004}))  # the next float64
    assert above == Counts(tp=1, fp=0, tn=2, fn=2)
    assert counts(samples(opened, "E", {"mvtec/part": math.inf})) == Counts(0, 0, 2, 3)
    assert counts(samples(opened, "E", {"mvtec/part": -math.inf})) == Counts(3, 2, 0, 0)


@pytest.mark.parametrize(
    ("label", "undefined"), [(0, ("f1", "fnr", "precision")), (1, ("fpr",)), (-1, ("f1", "fpr", "fnr", "precision"))]
)
def test_one_class_or_none(tmp_path: Path, label: int, undefined: tuple[str, ...]) -> None:
    metrics = dict(i_threshold=None, normal_threshold=None if label else 5.0)
    opened = by_hand(tmp_path, [1.0, 2.0], [label] * 2, metrics=metrics)
    result = opened.categories["mvtec/part"].first
    assert default_threshold(result) == (2.0 if label else 5.0)  # the normal-only one, or the highest score
    found = counts(samples(opened, "E"))
    for name in ("f1", "fpr", "fnr", "precision"):
        assert math.isnan(getattr(found, name)) == (name in undefined), name
    assert found == {0: Counts(0, 0, 2, 0), 1: Counts(1, 0, 0, 1), -1: Counts(0, 0, 0, 0)}[label]


def test_equal_scores(tmp_path: Path) -> None:
    table = samples(by_hand(tmp_path, [0.1] * 3, [0, 1, 1]), "E", {"mvtec/part": 0.05})
    assert table["index"].tolist() == [0, 1, 2] and np.isfinite(table["margin"]).all()
    one = samples(by_hand(tmp_path / "one", [0.1], [0]), "E")
    assert one["margin"].tolist() == [0.0] and one["outcome"].tolist() == ["false positive"]


def test_sorted_over_categories_by_margin(tmp_path: Path) -> None:
    """Scores of one category a thousand times the other's: each is measured in its own spread."""
    for name, unit in (("a", 1.0), ("b", 1000.0)):
        source = dict(dataset="mvtec", category=name, root="/nowhere", options=[])
        write_unit(tmp_path / name, [unit * s for s in (0, 4, 1)], [0, 1, 0], source=source)
    opened = open_exploration(tmp_path)
    table = samples(opened, "E", {"mvtec/a": 2.0, "mvtec/b": 3500.0})
    assert list(zip(table["category"].str[-1], table["index"], strict=True)) == [
        ("a", 1), ("b", 1), ("a", 2), ("a", 0), ("b", 2), ("b", 0),
    ]  # fmt: skip
    assert table.index.is_unique


def test_a_result_that_only_some_categories_have(tmp_path: Path) -> None:
    for name, settings in (("a", ["E", "A"]), ("b", ["E"])):
        source = dict(dataset="mvtec", category=name, root="/nowhere", options=[])
        write_unit(tmp_path / name, [0.0], [0], settings=settings, source=source)
    opened = open_exploration(tmp_path)
    assert samples(opened, "A")["category"].tolist() == ["mvtec/a"]
    with pytest.raises(PNIError, match="has no result 'PNI': choose one of E, A"):
        samples(opened, "PNI")


# -- filters -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(opened: Exploration) -> pd.DataFrame:
    return samples(opened, "E")


def slow(table: pd.DataFrame, want: Filter) -> list[int]:
    """Row by row, as a reader would."""
    kept = []
    for at, row in table.iterrows():
        fits = want.low <= row["score"] <= want.high and want.text.lower() in row["image"].lower()
        fits &= not want.outcomes or row["outcome"] in want.outcomes
        fits &= not want.categories or row["category"] in want.categories
        fits &= not want.defect_types or row["defect_type"] in want.defect_types
        if fits:
            kept.append(at)
    return kept


FILTERS = [
    (Filter(), 16),
    (Filter(outcomes=("false positive",)), 2),
    (Filter(outcomes=("false negative", "true negative")), 8),
    (Filter(categories=("mvtec/two parts",)), 8),
    (Filter(defect_types=("good",)), 8),
    (Filter(low=1.0), 8),
    (Filter(high=1.0, defect_types=("bad",)), 2),
    (Filter(text="TWO PARTS/TEST/GOOD"), 4),
    (Filter(text=ODD), 1),
    (Filter(text="Ü.PNG"), 1),
    (Filter(text=".*"), 0),  # no pattern
    (Filter(text="("), 0),
    (Filter(outcomes=("unknown",)), 0),
    (Filter(categories=("mvtec/none",)), 0),
    (Filter(low=2.0, high=1.0), 0),
    (Filter(outcomes=("true positive",), categories=("mvtec/one",), defect_types=("bad",), low=3.0, text="011"), 1),
]


@pytest.mark.parametrize(("want", "n"), FILTERS)
def test_filters_against_a_slow_reader(table: pd.DataFrame, want: Filter, n: int) -> None:
    found = want.rows(table)
    assert list(found.index) == slow(table, want) and len(found) == n
    assert list(found.columns) == list(table.columns)
    if n == 0:
        assert counts(found) == Counts(0, 0, 0, 0)


def test_score_range_includes_its_ends(table: pd.DataFrame) -> None:
    score = float(table["score"].iloc[3])
    assert Filter(low=score, high=score).rows(table)["score"].tolist() == [score]


def test_an_unknown_outcome_is_refused() -> None:
    with pytest.raises(PNIError, match="outcome 'wrong': choose from false positive, false negative"):
        Filter(outcomes=("wrong",))


# -- two results ---------------------------------------------------------------------------------------


def test_changed_sides_by_hand(tmp_path: Path) -> None:
    labels = [0, 0, 1, 1, 1, -1]
    write_unit(tmp_path / "a", [1.0, 5.0, 1.0, 5.0, 1.0, 5.0], labels, settings=["A"], name="a")
    write_unit(tmp_path / "e", [9.0, 0.0, 9.0, 0.0, 0.0, 0.0], labels, settings=["E"], name="e")
    found = changed_sides(open_exploration(tmp_path), "E", "A", ({"mvtec/part": 6.0}, {"mvtec/part": 3.0}))
    said = dict(zip(found["index"], found["changed"], strict=True))
    assert said == {0: "now wrong", 1: "now right", 2: "now right", 3: "now wrong", 4: "", 5: ""}
    assert found["changed"].tolist() == ["now wrong"] * 2 + ["now right"] * 2 + [""] * 2
    row = found.set_index("index").loc[0]
    assert (row["score_base"], row["score_ours"]) == (1.0, 9.0)
    assert (row["threshold_base"], row["threshold_ours"]) == (3.0, 6.0)
    assert (row["outcome_base"], row["outcome_ours"]) == ("true negative", "false positive")
    back = changed_sides(open_exploration(tmp_path), "A", "E", ({"mvtec/part": 3.0}, {"mvtec/part": 6.0}))
    assert dict(zip(back["index"], back["changed"], strict=True))[0] == "now right"


def test_changed_sides_equal_both_tables(opened: Exploration) -> None:
    found = changed_sides(opened, "PNI", "A")
    assert len(found) == 16 and set(found["image"]) == set(samples(opened, "A")["image"])
    for which, label in (("base", "A"), ("ours", "PNI")):
        wanted = samples(opened, label).set_index(["category", "index"])
        for row in found.to_dict("records"):
            one = wanted.loc[(row["category"], row["index"])]
            assert (one["score"], one["outcome"]) == (row[f"score_{which}"], row[f"outcome_{which}"])
    wrong = {which: found[f"outcome_{which}"].str.startswith("false").sum() for which in ("base", "ours")}
    sides = json.loads(found["changed"].value_counts().to_json())
    assert wrong["ours"] - wrong["base"] == sides.get("now wrong", 0) - sides.get("now right", 0)
    assert (changed_sides(opened, "A", "A")["changed"] == "").all()


def test_nothing_to_compare(tmp_path: Path) -> None:
    for name in ("a", "b"):
        source = dict(dataset="mvtec", category=name, root="/nowhere", options=[])
        write_unit(tmp_path / name, [0.0], [0], settings=[name.upper()], source=source)
    with pytest.raises(PNIError, match="no category has both 'A' and 'B'"):
        changed_sides(open_exploration(tmp_path), "B", "A")
