"""The explorer's views say what the run's tables say, whatever is missing and whatever a file is called."""

import dataclasses
import io
import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from tiny_run import ODD, tiny_store, write_unit

from pnilib.apps.explore import Exploration, open_exploration
from pnilib.apps.explore.figures import draw_changes, draw_image, draw_pixel, draw_samples, draw_threshold
from pnilib.apps.explore.pictures import scale
from pnilib.apps.explore.samples import Filter, changed_sides, counts, samples
from pnilib.apps.explore.view import View, stacked
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


def text(view: View) -> str:
    """All of a view: its words, and what stands in its figure, laid out: a text that is no formula fails here."""
    view.figure.draw_without_rendering()
    return "\n".join([view.words, *(one.get_text() for one in view.figure.findobj(Text) if one.get_text())])


# -- the threshold ---------------------------------------------------------------------------------


def test_threshold_says_the_counts_of_the_table(opened: Exploration) -> None:
    """One false positive and one false negative a category, as the data were made; the same as in the run's table."""
    one = only(opened, "one")
    view, result = draw_threshold(one, "E"), one.category("one").results["E"]
    assert (result.metric("fp"), result.metric("fn")) == (1, 1)
    assert "E, one: 1 false positive and 1 false negative in 8 images" in view.words
    assert f"F1 {100 * result.metric('i_f1_max'):.2f} %, FPR 25.00 %, FNR 25.00 %" in view.words
    assert f"F1-optimal (test): {result.metric('i_threshold'):.4g}" in text(view)
    both = text(draw_threshold(opened, "E"))
    assert "E, 2 categories: 2 false positives and 2 false negatives in 16 images" in both
    assert "one 1 FP 1 FN" in both and "all thresholds moved together" in both


def test_the_point_lies_where_the_threshold_leads(tmp_path: Path) -> None:
    """Scores 1 ... 6, threshold 3: of four normal ones one is called, of three defective ones one is not."""
    opened = by_hand(tmp_path, [1, 2, 4, 1.5, 2.5, 5, 6], [0, 0, 0, 0, 1, 1, 1])
    histogram, roc, pr = draw_threshold(opened, "E", {"mvtec/part": 3.0}).figure.axes
    points = [ax.lines[0].get_xydata()[0].tolist() for ax in (roc, pr)]
    assert points[0] == pytest.approx([1 / 4, 2 / 3]) and points[1] == pytest.approx([2 / 3, 2 / 3])
    assert any(list(line.get_xdata()) == [3.0, 3.0] for line in histogram.lines)
    (edges,) = {tuple(patch.get_data().edges) for patch in histogram.patches}
    assert 3.0 in edges, "what stands to the right is called defective"
    above = [patch.get_data().values[np.array(edges[:-1]) >= 3].sum() for patch in histogram.patches]
    assert above == [1, 1, 2, 2], "normal, then defective; each filled and outlined"
    curve = roc.lines[1].get_xydata()
    assert curve[0].tolist() == [0, 0] and curve[-1].tolist() == [1, 1]
    assert np.trapezoid(curve[:, 1], curve[:, 0]) == pytest.approx(11 / 12), "one of twelve pairs is in the wrong order"


@pytest.mark.parametrize(
    ("truth", "said"),
    [([0, 0, 0], "no defective image"), ([1, 1, 1], "no normal image"), ([-1, -1, -1], "no image\nof known label")],
)
def test_one_class_or_none(tmp_path: Path, truth: list[int], said: str) -> None:
    opened = by_hand(tmp_path, [1, 2, 3], truth)
    shown = text(draw_threshold(opened, "E"))
    assert shown.count(f"undefined: {said}") == 2
    assert ("3 of unknown label, not counted, 1 of them called defective" in shown) == (truth[0] < 0)


@pytest.mark.parametrize("threshold", [math.inf, -math.inf, math.nan])
def test_thresholds_that_are_none(opened: Exploration, threshold: float) -> None:
    for run in (opened, only(opened, "one")):
        thresholds = {key: threshold for key in run.categories}
        said = text(draw_threshold(run, "E", thresholds))
        assert "no finite one" in said if len(run.categories) == 1 else "16 images without a finite threshold" in said
        text(draw_changes(run, "PNI", "E", (thresholds, thresholds)))


def test_the_papers_errors_stand_beside_ours(opened: Exploration) -> None:
    assert "7 FP of 467, 12 FN of 1,258" in draw_threshold(opened, "PNI").words
    assert "paper" not in draw_threshold(opened, "E").words
    for category in opened.categories.values():
        category.dataset = "demo"
    assert "paper" not in draw_threshold(opened, "PNI").words


def test_equal_scores_and_an_unknown_result(tmp_path: Path) -> None:
    opened = by_hand(tmp_path, [2.0, 2.0, 2.0], [0, 1, 1])
    text(draw_threshold(opened, "E"))
    with pytest.raises(PNIError, match="has no result 'Z'"):
        draw_threshold(opened, "Z")


# -- samples ---------------------------------------------------------------------------------------


def test_samples_keep_the_tables_order(opened: Exploration) -> None:
    table = Filter(outcomes=("false positive", "false negative")).rows(samples(opened, "E"))
    view = draw_samples(opened, table)
    assert len(view.cards) == 4 and view.words == "1 to 4 of 4 samples, highest first"
    for card, row in zip(view.cards, table.to_dict("records"), strict=True):
        assert (card.image.category, card.image.i) == (row["category"], row["index"])
        sign = "≥" if row["outcome"] == "false positive" else "<"
        for said in (row["image"], row["outcome"], f"{row['score']:.4g} {sign} {row['threshold']:.4g}"):
            assert said in card.name
    assert [one for one in text(view).splitlines() if one in ("FP", "FN")] == ["FP", "FP", "FN", "FN"]
    pixels, frame = np.asarray(Image.open(io.BytesIO(view.picture))), matplotlib.colors.to_rgb("#d55e00")
    left, top = (round(side * size) for side, size in zip(view.cards[0].box, pixels.shape[1::-1], strict=False))
    assert (abs(pixels[top + 100, left + 1] / 255 - frame) < 0.01).all(), "a frame in the colour of its outcome"
    assert np.ptp(pixels[top + 20 : top + 100, left + 20 : left + 100]) > 60, "around the image itself"


def test_samples_say_how_many_more_there_are(opened: Exploration) -> None:
    table = samples(opened, "E")
    view = draw_samples(opened, table, columns=2, most=5, first=10)
    assert [card.image.i for card in view.cards] == table["index"].tolist()[10:15]
    assert view.words.startswith("11 to 15 of 16 samples")
    empty = draw_samples(opened, table[:0])
    assert "no samples to show" in text(empty) and empty.cards == []
    for bad in (dict(columns=0), dict(most=0)):
        with pytest.raises(PNIError, match="1 or more"):
            draw_samples(opened, table, **bad)


def test_samples_without_their_pictures(tmp_path: Path) -> None:
    names = ["part/$\\frac$ <b>\"'.png", "part/\u4e2d\n\t\x07é.png"]
    opened = by_hand(tmp_path, [1.0, 2.0], [0, 1], names=names)
    view = draw_samples(opened, samples(opened, "E"))
    assert text(view).count("cannot\nbe read") == 2 and "is not there" in view.fault
    assert "$\\frac$ <b>\"'.png" in text(view) and f"part/{labels.UNKNOWN * 4}é.png" in text(view)


# -- one image -------------------------------------------------------------------------------------


def test_image_shows_each_result_on_its_scale(opened: Exploration) -> None:
    category = opened.category("two parts")
    i = next(k for k, name in enumerate(category.names) if name.endswith(ODD))
    view = draw_image(opened, "two parts", i, ["A", "position", "E", "PNI", "C"], window=(0.25, 0.5, 0.5))
    panels = {ax.get_title().split(":")[0]: ax for ax in view.pixels}
    assert ODD in view.words and "defective (bad)" in view.words and "kept none" in text(view)
    assert list(panels) == ["image, true defect", "A", "position", "E", "PNI", "C", "PNI minus E"]
    for label in ("A", "E", "PNI"):
        ax, result = panels[label], category.results[label]
        shown, row = ax.images[-1], result.table.iloc[i]
        assert result.maps is not None and (shown.norm.vmin, shown.norm.vmax) == scale(category, label)
        assert np.array_equal(shown.get_array(), result.maps[i])
        called = row["score"] >= result.metric("i_threshold")
        assert ax.get_title() == f"{label}: called {'defective' if called else 'normal'}"
        sign, outcome = ("≥", "true positive") if called else ("<", "false negative")
        said = f"{label}: score {row['score']:.5g} {sign} threshold {result.metric('i_threshold'):.5g}, {outcome}"
        assert said in view.words
    maps = {label: category.results[label].maps[i] for label in ("PNI", "E")}
    levels = {label: (one - scale(category, label)[0]) / np.ptp(scale(category, label)) for label, one in maps.items()}
    change = panels["PNI minus E"].images[0]
    assert np.allclose(np.asarray(change.get_array()), levels["PNI"] - levels["E"], atol=1e-4)
    assert change.norm.vmin == -change.norm.vmax and change.get_cmap().name == "RdBu_r", "red above 0, blue below"
    outlined = [matplotlib.colors.to_hex(one.get_edgecolor()[0]) for one in view.pixels[0].collections]
    assert outlined == [OUTLINE]
    assert {(ax.get_xlim(), ax.get_ylim()) for ax in view.pixels} == {((15.5, 47.5), (63.5, 31.5))}, "zoomed together"


def test_image_without_data_masks_or_result(opened: Exploration, tiny_store: Path, tmp_path: Path) -> None:
    moved = open_exploration(tiny_store, data=tmp_path / "gone")
    view = draw_image(moved, "one", 0, ["A", "PNI"])
    assert "cannot be read" in text(view) and "A: called" in text(view) and str(tmp_path / "gone") in view.fault
    assert str(tmp_path) not in text(view), "a picture may be sent to somebody"
    category = opened.category("one")
    bad = int(np.flatnonzero(category.labels == 1)[0])
    category.test.samples.loc[:, "mask_path"] = None
    assert "its true defect is not known" in text(draw_image(opened, "one", bad, ["E"]))
    for wrong in (("one", 99, ["E"]), ("one", -1, ["E"]), ("one", 0, ["Z"]), ("three", 0, ["E"])):
        with pytest.raises(PNIError):
            draw_image(opened, *wrong)


# -- one pixel -------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["E", "A", "PNI", "no map"])
def test_pixel_says_its_sentence_and_shows_the_crops(opened: Exploration, label: str) -> None:
    category = opened.category("two parts")
    kept = category.results["E"]
    category.results["no map"] = dataclasses.replace(kept, label="no map", artefact=kept.artefact.with_name("no map"))
    category.results["no map"].__dict__.update(facts=kept.facts, table=kept.table)
    view = draw_pixel(opened, "two parts", 3, label, 20, 40)
    said = text(view)
    assert "this patch scores" in view.words.lower() and "score of this patch by setting: A" in view.words
    assert "a normal patch" in view.words, "the level that the verdict compares with is the run's"
    assert f"pixel in row 20, column 40, {label}" in view.words and ODD in view.words
    assert ("The run kept no map of this result" in said) == (label == "no map")
    assert "Seen at this position in training" in said and "votes" in said and "cannot\nbe read" not in said
    assert "Expected here by the network from the neighbors" in said and "training image" in said
    assert ("No gate: the nearest patch of the coreset" in said) == (label == "A")


def test_pixel_without_data_model_or_gate(opened: Exploration, tiny_store: Path, tmp_path: Path) -> None:
    moved = open_exploration(tiny_store, data=tmp_path / "gone")
    fault = draw_pixel(moved, "one", 0, "E", 5, 5).fault
    assert "this pixel is not explained" in fault and "say where it is with --data" in fault
    category = opened.category("one")
    result = category.results["E"]
    lost = dataclasses.replace(result, artefact=tmp_path / "E", folder=tmp_path)
    lost.__dict__.update(facts=result.facts, table=result.table)
    category.results["E"] = lost
    assert "the fitted model of E is not there" in draw_pixel(opened, "one", 0, "E", 5, 5).fault
    facts = result.facts | {"config": result.config.replace(released="rank_transfer").to_dict()}
    ranked = dataclasses.replace(result)
    ranked.__dict__.update(facts=facts, table=result.table)
    category.results["E"] = ranked
    assert "picks by rank" in draw_pixel(opened, "one", 0, "E", 5, 5).fault
    for row, column in ((64, 0), (0, -1)):
        with pytest.raises(PNIError, match="outside"):
            draw_pixel(opened, "one", 0, "E", row, column)


# -- two results -----------------------------------------------------------------------------------


def test_changes_are_those_of_the_table(opened: Exploration) -> None:
    low = {key: -1e9 for key in opened.categories}
    table = changed_sides(opened, "PNI", "E", (low, {}))
    view, n = draw_changes(opened, "PNI", "E", (low, {}), most=3), table["changed"].value_counts()
    assert n["now wrong"] == 6 and n["now right"] == 2  # all called: three good images more wrong, one bad one found
    assert "PNI against E: 2 now right that were wrong, 6 now wrong that were right, of 16 images" in view.words
    assert "the first 3 of these 8 below" in view.words and text(view).count("now wrong: TN to FP") == 3
    assert counts(samples(opened, "PNI", low)).fp == 8
    none = draw_changes(only(opened, "one"), "E", "E")
    assert "no image changed sides" in text(none) and not none.cards
    with pytest.raises(PNIError):
        draw_changes(opened, "E", "Z")


def test_a_click_near_a_point_is_its_image(tmp_path: Path) -> None:
    scores = [1.0, 4.0, 9.0]
    opened = by_hand(tmp_path, scores, [0, 1, 1], settings=["E", "A"])
    view = draw_changes(opened, "E", "A")
    ax, points, images = view.points[0]
    assert sorted(points.tolist()) == [[1, 1], [4, 4], [9, 9]]
    assert len(view.picture) > 1000
    for (x, y), image in zip(points, images, strict=True):
        assert scores[image.i] == x
        left, bottom = view.figure.transFigure.inverted().transform(ax.transData.transform((x, y)))
        assert view.image_at(left + 0.005, 1 - bottom) == image
    assert view.image_at(0.999, 0.001) is None and view.pixel_at(0.5, 0.5) is None


# -- pictures and texts ----------------------------------------------------------------------------


def test_views_stand_below_one_another_under_their_words() -> None:
    red, blue = (View("words", Figure(figsize=size, facecolor=c)) for size, c in (((7, 1), "red"), ((6, 2), "blue")))
    sheet = np.asarray(Image.open(io.BytesIO(stacked([red, blue]))))
    tall = (sheet.shape[0] - 300) // 2
    assert sheet.shape[1] == 700 and 20 < tall < 60 and sheet[:tall].min() < 100, "words"
    assert sheet[tall + 50, 650].tolist() == [255, 0, 0] and sheet[-50, 50].tolist() == [0, 0, 255]
    assert sheet[-50, 650].tolist() == [255, 255, 255]
    again = View("words", Figure(figsize=(7, 1), facecolor="red"))
    assert again.picture == red.picture and again._repr_png_() == stacked([red])
    with pytest.raises(PNIError, match="no view"):
        stacked([])


def test_texts_are_drawn_as_they_are() -> None:
    assert labels.drawable("a$b$ <é> \\x\n\u4e2d\t") == f"a$b$ <é> \\x\n{labels.UNKNOWN}{labels.UNKNOWN}"
    assert labels.shortened("abcdef", 4) == "…def" and labels.shortened("abcd", 4) == "abcd"
    assert labels.file_label("one/test/bad/003.png") == "bad/003.png" and labels.file_label("x.png") == "x.png"


def test_nothing_in_any_view_is_read_as_a_formula(tmp_path: Path) -> None:
    """`$\\frac$` is no formula: matplotlib would fail on it."""
    name, label = "$\\frac$", "E of $\\frac$ run"
    opened = by_hand(
        tmp_path / "run", [1.0, 3.0, 2.0], [0, 1, 1], maps=True, names=[f"{name}{k}.png" for k in range(3)]
    )
    (category,) = opened.categories.values()
    category.name = name
    for other in ("PNI", label):
        category.results[other] = dataclasses.replace(category.results["E"], label=other)
    for view in (
        draw_threshold(opened, label), draw_samples(opened, samples(opened, label)),
        draw_changes(opened, label, "PNI"), draw_image(opened, name, 0, [label, "E"]),
        draw_pixel(opened, name, 0, label, 1, 1),
    ):  # fmt: skip
        assert name in text(view) and stacked([view])
