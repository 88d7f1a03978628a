"""The explorer without a browser: what its widgets show is compared with the run's files."""

import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from explorer_screen import (
    NAMED,
    ONE,
    TWO,
    facts,
    image_plot,
    numbers,
    on_cards,
    scores,
    screen,
    show,
    text_of,
    tiny_store,
)
from tiny_run import write_unit

from pnilib.apps.explore import open_exploration
from pnilib.apps.explore.maps import base_result, features_of, normal_level
from pnilib.apps.explore.widgets import Explorer
from pnilib.apps.explore.widgets.state import ALL, MARKS, PAGE
from pnilib.apps.explore.words import sentence
from pnilib.detector.explain import cell_at

__all__ = ["screen", "tiny_store"]


# -- every number is the run's ---------------------------------------------------------------------


@pytest.mark.parametrize("key", [ONE, TWO])
def test_counts_are_those_of_the_tables(screen: Explorer, tiny_store: Path, key: str) -> None:
    screen.category.value = key
    checked = 0
    for label in screen.result.options:
        screen.result.value = label
        said, table = facts(tiny_store, key, label), scores(tiny_store, key, label)
        assert screen.samples.slider.value == said["i_threshold"]  # where it starts
        for name, (threshold, prefix) in NAMED.items():
            button = screen.samples.jumps[name]
            assert button.disabled == (said[threshold] is None)
            if button.disabled:
                continue
            button.click()
            found = numbers(screen)
            assert (found["FP"], found["FN"]) == (said[f"{prefix}fp"], said[f"{prefix}fn"])
            called = table["score"] >= said[threshold]
            tp, tn = int((called & (table["label"] == 1)).sum()), int((~called & (table["label"] == 0)).sum())
            fp, fn = found["FP"], found["FN"]
            assert (found["TP"], found["TN"]) == (tp, tn)
            assert found["F1"] == f"{200 * tp / (2 * tp + fp + fn):.2f} %"
            assert (found["FPR"], found["FNR"]) == (f"{100 * fp / 4:.2f} %", f"{100 * fn / 4:.2f} %")
            checked += 1
    assert checked >= 7 and screen.state.message.value == ""


def test_all_categories_are_the_sum_of_the_tables(screen: Explorer, tiny_store: Path) -> None:
    assert screen.category.value == ALL and screen.result.value == "PNI"
    for label in ("PNI", "E", "B", "A"):
        screen.result.value = label
        both = [facts(tiny_store, key, label) for key in (ONE, TWO)]
        found = numbers(screen)
        assert (found["FP"], found["FN"]) == tuple(sum(one[name] for one in both) for name in ("fp", "fn"))
        assert sum(found[name] for name in ("TP", "FP", "FN", "TN")) == 16
        assert screen.samples.slider.disabled and all(button.disabled for button in screen.samples.jumps.values())
        cards = {item["key"]: item for item in screen.samples.gallery.items}
        assert len(cards) == 16
        for key in (ONE, TWO):
            for i, row in enumerate(scores(tiny_store, key, label).itertuples()):
                card = cards[f"{key}:{i}"]
                assert card["caption"] == f"{row.score:.4g} {row.defect_type}" and card["full"] == f"{key}: {row.image}"
    said = text_of(screen.samples.counts.value)
    assert "paper" not in said  # A is not the paper's method
    screen.result.value = "PNI"
    said = text_of(screen.samples.counts.value)
    assert said.endswith("all of MVTec AD: FP 7, FN 12 of 467 normal and 1,258 defective")


def test_title_is_the_row_of_the_table(screen: Explorer, tiny_store: Path) -> None:
    for key, i in ((ONE, 0), (ONE, 1), (ONE, 4), (TWO, 3)):
        screen.show(key, i)
        row, at = scores(tiny_store, key, "PNI").iloc[i], facts(tiny_store, key, "PNI")["i_threshold"]
        truth = "normal" if row["label"] == 0 else "defective (bad)"
        called = row["score"] >= at
        outcome = f"{'true' if called == (row['label'] == 1) else 'false'} {'positive' if called else 'negative'}"
        assert text_of(screen.image.title.value) == (
            f"{key}: {row['image']}, {truth}; PNI: score {row['score']:.5g}, threshold {at:.5g}: {outcome}"
        )
        assert screen.tabs.selected_index == 1


def test_the_answer_is_the_explanation(screen: Explorer, tiny_store: Path) -> None:
    category = open_exploration(tiny_store).categories[TWO]
    base = base_result(category)
    assert base is not None and base.label == "E"
    model, i = category.model(base), 3
    features = features_of(model, category, i)
    grid = (features.shape[0], features.shape[1])
    screen.show(TWO, i)
    assert screen.image.setting.options == ("E", "A", "B", "position")
    answers = set()
    for pixel in ((30, 40), (5, 60)):
        image_plot(screen).clicked = {
            "n": pixel[0],
            "trace": 0,
            "point": [0, 0],
            "x": pixel[1] + 0.3,
            "y": pixel[0] - 0.3,
        }
        assert screen.image.pixel == pixel
        for name in screen.image.setting.options:
            screen.image.setting.value = name
            config = category.results[name].config
            border = config.border_cells if config.border == "replicate" else 0
            found = model.explain_cell(features, cell_at(*pixel, 64, grid, border), config)
            kept = category.results[name].maps
            at = None if kept is None else kept[i][pixel]
            if at is None:  # the run kept no map: the model's
                variant = {name: config}
                image = category.image(i)[None]
                at = model.predict_variants(image, variant)[name].maps[0][pixel]
            limit = facts(tiny_store, TWO, name)["i_threshold"]
            answer = screen.image.answer.value
            words = re.search(r'<p class="pni-sentence"[^>]*>(.*?)</p>', answer)
            assert words is not None and unescape(words[1]) == sentence(
                found, float(at), limit, normal_level(category, name)
            )
            answers.add(words[1])
            for label in ("A", "B", "E", "PNI"):
                kept = np.load(f"{category.results[label].place}.maps.npy")[i][pixel]
                assert f"<td style='padding:0 10px'>{label}<br><b>{kept:.4g}</b></td>" in answer
            assert "nearest allowed, and" in answer or name == "A"
    assert len(answers) > 2 and screen.state.message.value == ""


def test_a_pixel_outside_is_told(screen: Explorer) -> None:
    screen.show(ONE, 0)
    screen.image.ask(64, 3)
    assert "lies outside a 64x64 image" in screen.state.message.value
    screen.image.ask(63, 3)
    assert screen.state.message.value == "" and "pni-sentence" in screen.image.answer.value
    screen.show(ONE, 1)  # another image: nothing was asked yet
    assert screen.image.pixel is None and "click on a pixel" in screen.image.answer.value


# -- threshold -------------------------------------------------------------------------------------


def test_everything_follows_the_threshold(screen: Explorer, tiny_store: Path) -> None:
    screen.category.value, screen.result.value = ONE, "E"
    table = scores(tiny_store, ONE, "E")
    labels, values = table["label"].to_numpy(), table["score"].to_numpy()
    figure = screen.samples.plot.figure
    ordered = np.sort(values)
    assert screen.samples.slider.min < ordered[0] and ordered[-1] < screen.samples.slider.max
    for at in [*(ordered[1:] + ordered[:-1]) / 2, ordered[0] - 0.001, ordered[-1] + 0.001, *ordered[::3]]:
        screen.samples.set_threshold(float(at))
        screen.samples.slider.value = float(at)
        called = values >= at  # at the score itself: defective
        want = [int((called & (labels == 1)).sum()), int((called & (labels == 0)).sum())]
        found = numbers(screen)
        assert [found["TP"], found["FP"], found["FN"], found["TN"]] == [*want, 4 - want[0], 4 - want[1]]
        marks = {key: mark for key, mark in on_cards(screen)}
        assert marks == {
            f"{ONE}:{i}": ("T" if called[i] == labels[i] else "F") + ("P" if called[i] else "N") for i in range(8)
        }
        ((update, traces),) = json.loads(screen.samples.plot.on_top)
        assert update["x"][0] == [at, at] and len(traces) == 3
        recall, fpr = want[0] / 4, want[1] / 4
        precision = None if not sum(want) else pytest.approx(want[0] / sum(want))
        assert update["x"][1:] == [[fpr], [recall]] and update["y"][1:] == [[recall], [precision]]
    assert screen.samples.plot.figure == figure  # only the marks move
    assert [key for key, _ in on_cards(screen)] == [f"{ONE}:{i}" for i in np.argsort(-values, kind="stable")]


def test_the_slider_moves_it(screen: Explorer, tiny_store: Path) -> None:
    screen.category.value, screen.result.value = ONE, "E"
    values = scores(tiny_store, ONE, "E")["score"]
    before = numbers(screen)
    screen.samples.slider.value = screen.samples.slider.max
    assert numbers(screen) == {"TP": 0, "FP": 0, "FN": 4, "TN": 4, "F1": "0.00 %", "FPR": "0.00 %", "FNR": "100.00 %"}
    screen.show(ONE, 2)  # the image's tab judges by it too
    assert (
        "false negative" in screen.image.title.value and f"{screen.samples.slider.max:.5g}" in screen.image.title.value
    )
    screen.samples.jumps["F1-optimal (test)"].click()
    assert numbers(screen) == before and screen.samples.slider.value == facts(tiny_store, ONE, "E")["i_threshold"]
    # a browser that rounds the value to the slider's steps and sends it back moves nothing
    exact = float(values.max())
    screen.samples.set_threshold(exact)
    screen.samples.slider.value = exact + 0.4 * screen.samples.slider.step
    assert screen.state.threshold("E", ONE) == exact and numbers(screen)["TP"] + numbers(screen)["FP"] == 1


@pytest.mark.parametrize(
    ("typed", "at"),
    [("0,5", 0.5), ("0.5", 0.5), (" 0,5 ", 0.5), ("-3", -3.0), ("1e3", 1000.0), ("", None), ("o.5", None),
     ("nan", None), ("inf", None), ("1,2,3", None), ("1.234,5", None), ("0;5", None)],
)  # fmt: skip
def test_a_typed_threshold_is_taken_as_it_is_meant_or_not_at_all(
    screen: Explorer, typed: str, at: float | None
) -> None:
    screen.category.value, screen.result.value = ONE, "E"
    samples, before = screen.samples, screen.state.threshold("E", ONE)
    assert samples.exact.value == f"{before:.6g}" and not samples.slider.readout
    samples.exact.value = typed
    now = screen.state.threshold("E", ONE)
    if at is None:
        assert now == before == samples.slider.value and samples.exact.value == f"{before:.6g}"
        assert f"{typed!r}: is not a number".replace("'", "&#x27;") in screen.state.message.value
        return
    assert now == samples.slider.value == at and samples.exact.value == f"{at:.6g}"
    assert samples.slider.min <= at <= samples.slider.max and screen.state.message.value == ""
    samples.slider.value = at + 0.4 * samples.slider.step  # a browser that rounds moves nothing
    assert screen.state.threshold("E", ONE) == at
    screen.category.value = ALL
    assert samples.exact.disabled and samples.exact.value == ""


def test_each_result_and_category_keeps_its_threshold(screen: Explorer, tiny_store: Path) -> None:
    chosen = {}
    for k, (key, label) in enumerate(((ONE, "E"), (TWO, "E"), (ONE, "PNI"))):
        screen.category.value, screen.result.value = key, label
        values = np.sort(scores(tiny_store, key, label)["score"])
        chosen[key, label] = at = float(values[k + 1 : k + 3].mean())
        screen.samples.slider.value = at
    for (key, label), at in reversed(chosen.items()):
        screen.category.value, screen.result.value = key, label
        assert screen.samples.slider.value == at and screen.state.threshold(label, key) == at
        table = scores(tiny_store, key, label)
        assert numbers(screen)["FP"] == int(((table["score"] >= at) & (table["label"] == 0)).sum())
    screen.category.value = ALL
    screen.result.value = "E"
    tables = [(scores(tiny_store, key, "E"), chosen[key, "E"]) for key in (ONE, TWO)]
    assert numbers(screen)["TP"] == sum(int(((t["score"] >= at) & (t["label"] == 1)).sum()) for t, at in tables)
    screen.result.value, screen.category.value = "PNI", TWO  # untouched: the run's
    assert screen.samples.slider.value == facts(tiny_store, TWO, "PNI")["i_threshold"]
    # compared with the same thresholds
    screen.tabs.selected_index = 2
    screen.result.value, screen.compare.base.value = "PNI", "E"
    assert screen.compare.thresholds == [{ONE: chosen[ONE, "PNI"]}, {key: chosen[key, "E"] for key in (ONE, TWO)}]


# -- filters and pages -----------------------------------------------------------------------------


def test_filters(screen: Explorer, tiny_store: Path) -> None:
    screen.result.value = "E"
    samples = screen.samples
    errors = {kind: int(sum(facts(tiny_store, key, "E")[name] for key in (ONE, TWO)))
              for kind, name in (("false positive", "fp"), ("false negative", "fn"))}  # fmt: skip
    assert min(errors.values()) > 0
    for kind, n in errors.items():
        samples.outcomes.value = (kind,)
        assert [mark for _, mark in on_cards(screen)] == [MARKS[kind]] * n and len(samples.shown) == n
        assert samples.where.value.startswith(f"1 to {n} of {n} samples")
    samples.outcomes.value = tuple(errors)
    assert len(on_cards(screen)) == sum(errors.values())
    before = numbers(screen)  # of all images, not of those that show
    assert before["FP"] + before["FN"] == sum(errors.values())
    samples.outcomes.value = ()
    samples.defects.value = ("bad",)
    assert {key for key, _ in on_cards(screen)} == {f"{key}:{i}" for key in (ONE, TWO) for i in range(4)}
    samples.text.value = "  <B>&$X "  # part of a name, in any case, as it is
    assert on_cards(screen) == [(f"{TWO}:3", "TP")] or on_cards(screen) == [(f"{TWO}:3", "FN")]
    samples.text.value = "(nothing)["
    assert on_cards(screen) == [] and samples.where.value.startswith("0 to 0 of 0 samples")
    samples.clear.click()
    assert len(on_cards(screen)) == 16 and numbers(screen) == before
    assert samples.outcomes.value == samples.defects.value == () and samples.text.value == ""
    table = pd.concat([scores(tiny_store, key, "E") for key in (ONE, TWO)])
    low, high = np.sort(table["score"])[[3, 9]]
    samples.low.value, samples.high.value = repr(float(low)), repr(float(high))
    assert len(samples.shown) == 7 and samples.shown["score"].between(low, high).all()
    for typed in ("much", "nan", "inf", "1,2,3", "1.234,5", "-", "1 000"):
        samples.high.value = typed
        assert "is not a number" in screen.state.message.value and len(samples.shown) == 7
    samples.high.value = repr(float(high)).replace(".", ",")
    assert screen.state.message.value == "" and len(samples.shown) == 7
    screen.category.value = ONE  # its own scale, nothing left out
    assert len(on_cards(screen)) == 8


def test_filters_follow_the_threshold(screen: Explorer) -> None:
    screen.category.value, screen.result.value = ONE, "E"
    screen.samples.outcomes.value = ("false negative",)
    screen.samples.slider.value = screen.samples.slider.max
    assert [mark for _, mark in on_cards(screen)] == ["FN"] * 4
    screen.samples.slider.value = screen.samples.slider.min
    assert on_cards(screen) == [] and numbers(screen)["FP"] == 4


def test_pages_of_thumbnails(tmp_path: Path) -> None:
    n = 2 * PAGE + 5
    values = np.random.default_rng(0).permutation(n) / 64  # exact in float32
    labels = [i % 2 for i in range(n)]
    run = write_unit(tmp_path / "fit-a-1", [float(v) for v in values], labels, metrics={"i_threshold": 20 / 64})
    screen = show(run, tmp_path)
    samples, seen = screen.samples, []
    for k, (first, last) in enumerate(((1, PAGE), (PAGE + 1, 2 * PAGE), (2 * PAGE + 1, n))):
        assert samples.where.value == f"{first} to {last} of {n} samples, highest first"
        assert (samples.back.disabled, samples.forward.disabled) == (k == 0, k == 2)
        seen += [key for key, _ in on_cards(screen)]
        samples.forward.click()
    assert seen == [f"mvtec/part:{i}" for i in np.argsort(-values)]
    assert samples.page == 2  # there is no further one
    samples.slider.value = 30.5 / 64  # moving the threshold stays on the page
    assert samples.page == 2 and numbers(screen)["TP"] + numbers(screen)["FP"] == n - 31
    samples.back.click()
    assert [key for key, _ in on_cards(screen)] == seen[PAGE : 2 * PAGE]
    samples.outcomes.value = ("true positive", "true negative")
    right = sum((values[i] > 30.5 / 64) == labels[i] for i in range(n))
    assert samples.page == 0 and samples.where.value.endswith(f" of {right} samples, highest first")
    samples.clear.click()
    samples.text.value = "012"
    assert on_cards(screen) == [("mvtec/part:12", MARKS[samples.shown["outcome"].iloc[0]])]
    samples.slider.value = samples.slider.max
    assert samples.page == 0 and samples.back.disabled and samples.forward.disabled
