"""The explorer's figures say what the run's tables say, whatever is missing and whatever a file is called."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from tiny_run import ODD, tiny_store, write_unit

from pnilib.apps.explore import Exploration, open_exploration
from pnilib.apps.explore.figures import (
    draw_changes,
    draw_image,
    draw_pixel,
    draw_samples,
    draw_threshold,
)
from pnilib.apps.explore.pictures import scale
from pnilib.apps.explore.samples import Filter, changed_sides, counts, samples
from pnilib.errors import PNIError
from pnilib.plots import labels
from pnilib.plots.images import OUTLINE

matplotlib.use("Agg")
__all__ = ["tiny_store"]


@pytest.fixture
def opened(tiny_store: Path) -> Exploration:
    return open_exploration(tiny_store)


def only(opened: Exploration, name: str) -> Exploration:
    category = opened.category(name)
    return Exploration(opened.folder, {category.key: category})


def by_hand(folder: Path, scores: list[float], truth: list[int], **more: Any) -> Exploration:
    write_unit(folder / "fit-settings-0", scores, truth, **more)
    return open_exploration(folder)


def drawn(figure: Figure) -> Figure:
    """Laid out: a text that is no formula, and a glyph that is missing, fail here."""
    figure.draw_without_rendering()
    return figure


def words(figure: Figure) -> str:
    """All text of a figure; every one from outside must be plain."""
    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_text())


# -- the threshold ---------------------------------------------------------------------------------


def test_threshold_shows_the_counts_of_the_table(opened: Exploration) -> None:
    """One false positive and one false negative a category, as the data were made; the same as in the run's table."""
    one = only(opened, "one")
    said = words(drawn(draw_threshold(one, "E")))
    result = one.category("one").results["E"]
    assert (result.metric("fp"), result.metric("fn")) == (1, 1)
    assert "E, one: 1 false positive and 1 false negative in 8 images" in said
    assert f"F1-optimal on the test images: {result.metric('i_threshold'):.4g}" in said
    assert f"F1 {100 * result.metric('i_f1_max'):.2f} %, FPR 25.00 %,\nFNR 25.00 %" in said
    both = words(drawn(draw_threshold(opened, "E")))
    assert "E, 2 categories: 2 false positives and 2 false negatives in 16 images" in both
    assert "one             1   1" in both and "all thresholds moved together" in both


def test_the_point_lies_where_the_threshold_leads(tmp_path: Path) -> None:
    """Scores 1 ... 6, threshold 3: of four normal ones one is called, of three defective ones one is not."""
    opened = by_hand(tmp_path, [1, 2, 4, 1.5, 2.5, 5, 6], [0, 0, 0, 0, 1, 1, 1])
    figure = draw_threshold(opened, "E", {"mvtec/part": 3.0})
    histogram, roc, pr, _ = figure.axes
    points = [ax.lines[-1].get_xydata()[0].tolist() for ax in (roc, pr)]
    assert points[0] == pytest.approx([1 / 4, 2 / 3]) and points[1] == pytest.approx([2 / 3, 2 / 3])
    assert any(list(line.get_xdata()) == [3.0, 3.0] for line in histogram.lines)
    (edges,) = {tuple(patch.get_data().edges) for patch in histogram.patches}
    assert 3.0 in edges, "what stands to the right is called defective"
    above = [patch.get_data().values[np.array(edges[:-1]) >= 3].sum() for patch in histogram.patches]
    assert above == [1, 1, 2, 2], "normal, then defective; each filled and outlined"
    for ax, corners in ((roc, ([0, 0], [1, 1])),):
        curve = ax.lines[0].get_xydata()
        assert curve[0].tolist() == corners[0] and curve[-1].tolist() == corners[1]


@pytest.mark.parametrize(
    ("truth", "said"),
    [([0, 0, 0], "no defective image"), ([1, 1, 1], "no normal image"), ([-1, -1, -1], "no image\nof known label")],
)
def test_one_class_or_none(tmp_path: Path, truth: list[int], said: str) -> None:
    opened = by_hand(tmp_path, [1, 2, 3], truth)
    text = words(drawn(draw_threshold(opened, "E")))
    assert text.count(f"undefined: {said}") == 2 and "undefined" in text
    assert ("3 images of unknown label: not counted" in text) == (truth[0] < 0)
    drawn(draw_samples(opened, samples(opened, "E")))


@pytest.mark.parametrize("threshold", [math.inf, -math.inf, math.nan])
def test_thresholds_that_are_none(opened: Exploration, threshold: float) -> None:
    for run in (opened, only(opened, "one")):
        thresholds = {key: threshold for key in run.categories}
        said = words(drawn(draw_threshold(run, "E", thresholds)))
        assert "no finite one" in said if len(run.categories) == 1 else "16 images without a finite threshold" in said
        drawn(draw_changes(run, "PNI", "E", (thresholds, thresholds)))


def test_the_papers_errors_stand_beside_ours(opened: Exploration) -> None:
    assert "paper: 7 FP of 467, 12 FN of 1,258" in words(draw_threshold(opened, "PNI"))
    assert "here:  " in words(draw_threshold(opened, "PNI")) and "paper:" not in words(draw_threshold(opened, "E"))
    for category in opened.categories.values():
        category.dataset = "demo"
    assert "paper:" not in words(draw_threshold(opened, "PNI"))


def test_equal_scores_and_an_unknown_result(tmp_path: Path) -> None:
    opened = by_hand(tmp_path, [2.0, 2.0, 2.0], [0, 1, 1])
    drawn(draw_threshold(opened, "E"))
    with pytest.raises(PNIError, match="has no result 'Z'"):
        draw_threshold(opened, "Z")


# -- samples ---------------------------------------------------------------------------------------


def test_samples_keep_the_tables_order(opened: Exploration) -> None:
    table = Filter(outcomes=("false positive", "false negative")).rows(samples(opened, "E"))
    figure = drawn(draw_samples(opened, table))
    tiles = [text.get_text().splitlines() for text in figure.texts[1:]]
    assert [tile[0] for tile in tiles] == table["outcome"].tolist() and len(tiles) == 4
    for tile, row in zip(tiles, table.to_dict("records"), strict=True):
        assert tile[1].startswith(f"{row['score']:.4g} {'≥' if row['outcome'] == 'false positive' else '<'}")
        assert tile[3] == row["category"].removeprefix("mvtec/")
    assert [ax.texts[0].get_text() for ax in figure.axes] == ["FP", "FP", "FN", "FN"]
    assert all(ax.images for ax in figure.axes)


def test_samples_say_how_many_more_there_are(opened: Exploration) -> None:
    table = samples(opened, "E")
    figure = draw_samples(opened, table, columns=2, most=5)
    assert len(figure.axes) == 5 and "5 of 16 samples" in words(figure) and "11 more not shown" in words(figure)
    empty = draw_samples(opened, table[:0])
    assert "no samples to show" in words(empty) and empty.axes, "notebooks show no figure without axes"
    for bad in (dict(columns=0), dict(most=0)):
        with pytest.raises(PNIError, match="1 or more"):
            draw_samples(opened, table, **bad)


def test_samples_without_their_pictures(tmp_path: Path) -> None:
    names = ["part/$\\frac$ <b>\"'.png", "part/\u4e2d\n\t\x07é.png"]
    opened = by_hand(tmp_path, [1.0, 2.0], [0, 1], names=names)
    figure = drawn(draw_samples(opened, samples(opened, "E")))
    assert words(figure).count("cannot\nbe read") == 2
    assert "$\\frac$ <b>\"'.png" in words(figure) and f"part/{labels.UNKNOWN * 4}é.png" in words(figure)


# -- one image -------------------------------------------------------------------------------------


def test_image_shows_each_result_on_its_scale(opened: Exploration) -> None:
    category = opened.category("two parts")
    i = next(k for k, name in enumerate(category.names) if name.endswith(ODD))
    figure = drawn(draw_image(opened, "two parts", i, ["A", "position", "E", "PNI", "C"]))
    panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    titles = [ax.get_title() for ax in panels]
    assert ODD in words(figure) and titles[0] == "image, true defect" and titles[6].startswith("PNI minus E")
    assert titles[2].startswith("position: called") and "kept none" in words(figure)
    for ax, label in ((panels[1], "A"), (panels[3], "E"), (panels[4], "PNI")):
        result, shown = category.results[label], ax.images[-1]
        assert result.maps is not None and (shown.norm.vmin, shown.norm.vmax) == scale(category, label)
        assert np.array_equal(shown.get_array(), result.maps[i])
        called = result.table["score"].iloc[i] >= result.metric("i_threshold")
        assert ax.get_title().startswith(f"{label}: called {'defective' if called else 'normal'}\nscore ")
    outlined = [matplotlib.colors.to_hex(one.get_edgecolor()[0]) for one in panels[0].collections]
    assert outlined == [OUTLINE]


def test_image_without_data_masks_or_result(opened: Exploration, tiny_store: Path, tmp_path: Path) -> None:
    moved = open_exploration(tiny_store, data=tmp_path / "gone")
    said = words(drawn(draw_image(moved, "one", 0, ["A", "PNI"])))
    assert "is not there" in said.replace("\n", " ") and "A: called" in said
    category = opened.category("one")
    bad = int(np.flatnonzero(category.labels == 1)[0])
    category.test.samples.loc[:, "mask_path"] = None
    assert "its true defect is not known" in words(drawn(draw_image(opened, "one", bad, ["E"])))
    for wrong in (("one", 99, ["E"]), ("one", -1, ["E"]), ("one", 0, ["Z"]), ("three", 0, ["E"])):
        with pytest.raises(PNIError):
            draw_image(opened, *wrong)


# -- one pixel -------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["E", "A", "PNI", "position", "no map"])
def test_pixel_says_its_sentence_and_shows_the_crops(opened: Exploration, label: str) -> None:
    category = opened.category("two parts")
    kept = category.results["E"]
    category.results["no map"] = dataclasses.replace(kept, label="no map", place=kept.place.with_name("no map"))
    category.results["no map"].__dict__.update(facts=kept.facts, table=kept.table)
    figure = drawn(draw_pixel(opened, "two parts", 3, label, 20, 40))
    said = words(figure)
    in_one = said.replace("\n", " ")
    assert "this patch scores" in in_one.lower() and "Score of this patch by setting: A" in in_one
    assert "a normal patch" in in_one  # the level that the verdict compares with is the run's
    assert f"pixel in row 20, column 40, {label}" in said and "this patch\nscore" in said and ODD in said
    assert ("The run kept no map of this result" in said) == (label == "no map")
    assert "Seen at this position in training" in said and "votes" in said
    assert "cannot\nbe read" not in said
    assert "Expected here by the network from the neighbors" in said
    assert ("No gate: the nearest patch of the coreset" in said) == (label == "A")


def test_pixel_without_data_model_or_gate(opened: Exploration, tiny_store: Path, tmp_path: Path) -> None:
    moved = open_exploration(tiny_store, data=tmp_path / "gone")
    said = words(drawn(draw_pixel(moved, "one", 0, "E", 5, 5))).replace("\n", " ")
    assert "This pixel is not explained" in said and "say where it is with --data" in said
    category = opened.category("one")
    result = category.results["E"]
    lost = dataclasses.replace(result, place=tmp_path / "E", folder=tmp_path)
    lost.__dict__.update(facts=result.facts, table=result.table)
    category.results["E"] = lost
    assert "the fitted model of E is not there" in words(drawn(draw_pixel(opened, "one", 0, "E", 5, 5)))
    facts = result.facts | {"config": result.config.replace(released="rank_transfer").to_dict()}
    ranked = dataclasses.replace(result)
    ranked.__dict__.update(facts=facts, table=result.table)
    category.results["E"] = ranked
    assert "picks by rank" in words(drawn(draw_pixel(opened, "one", 0, "E", 5, 5)))
    for row, column in ((64, 0), (0, -1)):
        with pytest.raises(PNIError, match="outside"):
            draw_pixel(opened, "one", 0, "E", row, column)


# -- two results -----------------------------------------------------------------------------------


def test_changes_are_those_of_the_table(opened: Exploration) -> None:
    low = {key: -1e9 for key in opened.categories}
    table = changed_sides(opened, "PNI", "E", (low, {}))
    figure = drawn(draw_changes(opened, "PNI", "E", (low, {}), most=3))
    said, n = words(figure), table["changed"].value_counts()
    assert n["now wrong"] == 6 and n["now right"] == 2  # all called: three good images more wrong, one bad one found
    assert "PNI against E: 2 now right, 6 now wrong, of 16 images" in said
    assert "3 of 8 images changed sides; 5 more not shown" in said and said.count("now wrong: TN to FP") == 3
    assert counts(samples(opened, "PNI", low)).fp == 8


def test_no_changes(opened: Exploration) -> None:
    figure = drawn(draw_changes(only(opened, "one"), "E", "E"))
    assert "no image changed sides" in words(figure) and len(figure.axes) == 1
    with pytest.raises(PNIError):
        draw_changes(opened, "E", "Z")


# -- texts -----------------------------------------------------------------------------------------


def test_texts_are_drawn_as_they_are() -> None:
    assert labels.drawable("a$b$ <é> \\x\n\u4e2d\t") == f"a$b$ <é> \\x\n{labels.UNKNOWN}{labels.UNKNOWN}"
    assert labels.shortened("abcdef", 4) == "…def" and labels.shortened("abcd", 4) == "abcd"
    assert labels.file_label("one/test/bad/003.png") == "bad/003.png" and labels.file_label("x.png") == "x.png"


def test_nothing_in_any_figure_is_read_as_a_formula(tmp_path: Path) -> None:
    """`$\\frac$` is no formula: matplotlib would fail on it."""
    name, odd = "$\\frac$", "of $\\frac$ run"
    opened = by_hand(
        tmp_path / "run", [1.0, 3.0, 2.0], [0, 1, 1], maps=True, names=[f"{name}{k}.png" for k in range(3)]
    )
    (category,) = opened.categories.values()
    category.name = name
    for label in ("PNI", f"E {odd}"):
        other = dataclasses.replace(category.results["E"], label=label)
        category.results[label] = other
    label = f"E {odd}"
    table = samples(opened, label)
    assert isinstance(table, pd.DataFrame)
    for figure in (
        draw_threshold(opened, label), draw_samples(opened, table), draw_changes(opened, label, "PNI"),
        draw_image(opened, name, 0, [label, "E"]), draw_pixel(opened, name, 0, label, 1, 1),
    ):  # fmt: skip
        assert name in words(drawn(figure))
