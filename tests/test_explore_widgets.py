"""The explorer without a browser: what its page shows is compared with the run's files."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from explorer_screen import (
    NAMED,
    ONE,
    TWO,
    facts,
    gesture,
    in_panel,
    no_pictures,
    numbers,
    on_cards,
    panels,
    scores,
    screen,
    show,
    tiny_store,
)
from tiny_run import write_unit

from pnilib.apps.explore import open_exploration
from pnilib.apps.explore.figures import OUTCOME_STYLES, draw_pixel
from pnilib.apps.explore.maps import features_of, normal_level
from pnilib.apps.explore.view import View
from pnilib.apps.explore.widgets import Explorer, samples_tab
from pnilib.apps.explore.widgets.state import ALL, PAGE
from pnilib.apps.explore.words import sentence
from pnilib.detector.explain import cell_at

__all__ = ["no_pictures", "screen", "tiny_store"]
pytestmark = pytest.mark.usefixtures("no_pictures")


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
    for label in ("PNI", "A"):
        screen.result.value = label
        both = [facts(tiny_store, key, label) for key in (ONE, TWO)]
        found = numbers(screen)
        assert (found["FP"], found["FN"]) == tuple(sum(one[name] for one in both) for name in ("fp", "fn"))
        assert sum(found[name] for name in ("TP", "FP", "FN", "TN")) == 16
        assert screen.samples.slider.disabled and all(button.disabled for button in screen.samples.jumps.values())
        cards = {key: card["name"] for (key, _), card in zip(on_cards(screen), screen.samples.sheet.cards, strict=True)}
        assert len(cards) == 16
        for key in (ONE, TWO):
            for i, row in enumerate(scores(tiny_store, key, label).itertuples()):
                assert f"{key}: {row.image}\n" in cards[f"{key}:{i}"] and f"\n{row.score:.4g} " in cards[f"{key}:{i}"]


def explained(run: Path, key: str, i: int, name: str, pixel: tuple[int, int], value: float) -> str:
    """The sentence of a pixel, made from the run's files."""
    category = open_exploration(run).categories[key]
    result = category.results[name]
    model, border = category.model(result), result.config.border_cells if result.config.border == "replicate" else 0
    features = features_of(model, category, i)
    cell = cell_at(*pixel, 64, (features.shape[0], features.shape[1]), border)
    explanation = model.explain_cell(features, cell, result.config)
    return sentence(explanation, value, facts(run, key, name)["i_threshold"], normal_level(category, name))


def test_a_click_is_answered_by_the_explanation(screen: Explorer, tiny_store: Path) -> None:
    """In any panel; the crops are those of `draw_pixel`."""
    screen.result.value = "E"
    screen.show(TWO, 3)
    setting, answers = screen.image.setting, set()
    assert setting.options == ("E", "A", "B", "position")
    for pixel, panel in (((30, 40), 0), ((5, 60), 3)):
        gesture(screen.image.panels, "click", *in_panel(list(panels(screen).values())[panel], *pixel))
        assert screen.image.pixel == pixel
        for name in ("E", "A", "B"):
            setting.value = name
            value = float(np.load(f"{screen.state.opened.categories[TWO].results[name].artefact}.maps.npy")[3][pixel])
            words = screen.image.answer.words
            assert explained(tiny_store, TWO, 3, name, pixel, value) in words and f"{name} {value:.4g}" in words
            answers.add(words)
    assert len(answers) == 6 and screen.state.message.value == ""
    setting.value = "E"
    drawn = draw_pixel(screen.state.opened, TWO, 3, "E", 5, 60)
    assert screen.image.answer.words == drawn.words
    marks = [ax.lines[0].get_xydata().tolist() for ax in panels(screen).values()]
    assert marks == [[[60, 5]]] * len(panels(screen)), "in every panel"


def test_a_pixel_outside_is_told(screen: Explorer) -> None:
    screen.show(ONE, 0)
    screen.image.ask(64, 3)
    assert "lies outside a 64x64 image" in screen.state.message.value
    screen.image.ask(63, 3)
    assert screen.state.message.value == "" and "this patch scores" in screen.image.answer.words
    screen.show(ONE, 1)  # another image: nothing was asked yet
    assert screen.image.pixel is None and "click on a pixel" in screen.image.answer.words


# -- threshold -------------------------------------------------------------------------------------


def test_everything_follows_the_threshold(screen: Explorer, tiny_store: Path) -> None:
    screen.category.value, screen.result.value = ONE, "E"
    table = scores(tiny_store, ONE, "E")
    labels, values = table["label"].to_numpy(), table["score"].to_numpy()
    ordered = np.sort(values)
    assert screen.samples.slider.min < ordered[0] and ordered[-1] < screen.samples.slider.max
    for at in [float((ordered[2] + ordered[3]) / 2), ordered[0] - 0.001, ordered[-1] + 0.001, *ordered[::3]]:
        screen.samples.set_threshold(float(at))
        called = values >= at  # at the score itself: defective
        tp, fp = int((called & (labels == 1)).sum()), int((called & (labels == 0)).sum())
        found = numbers(screen)
        assert [found["TP"], found["FP"], found["FN"], found["TN"]] == [tp, fp, 4 - tp, 4 - fp]
        assert on_cards(screen) == [
            (f"{ONE}:{i}", ("T" if called[i] == labels[i] else "F") + ("P" if called[i] else "N"))
            for i in np.argsort(-values, kind="stable")
        ]
        histogram, roc, _ = screen.samples.plot.view.figure.axes
        assert any(list(line.get_xdata()) == [at, at] for line in histogram.lines)
        assert roc.lines[0].get_xydata()[0].tolist() == [fp / 4, tp / 4]


def test_thumbnails_are_drawn_anew_only_where_they_change(screen: Explorer) -> None:
    screen.category.value, screen.result.value = ONE, "E"
    samples = screen.samples
    first, words = samples.sheet.view, samples.plot.words
    samples.set_threshold(float(samples.table["score"].sort_values().iloc[4]) - 1e-6)
    kept = samples.sheet.view is first
    samples.set_threshold(samples.slider.max)
    assert samples.sheet.view is not first and samples.plot.words != words
    drawn = samples.sheet.view
    samples.set_threshold(samples.slider.max - 1e-6)
    assert samples.sheet.view is drawn, (kept, "no outcome changed")


def test_the_counts_are_said_before_they_are_drawn(screen: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    screen.category.value, said = ONE, []
    draw, samples = samples_tab.draw_threshold, screen.samples

    def drawn(*what: Any) -> View:
        said.append(samples.plot.words)
        return draw(*what)

    monkeypatch.setattr(samples_tab, "draw_threshold", drawn)
    before = samples.plot.words
    for at in (samples.slider.max, samples.slider.min):
        samples.slider.value = at
        assert said.pop() == samples.plot.words != before


def test_the_slider_moves_it(screen: Explorer, tiny_store: Path) -> None:
    screen.category.value, screen.result.value = ONE, "E"
    values = scores(tiny_store, ONE, "E")["score"]
    before = numbers(screen)
    screen.samples.slider.value = screen.samples.slider.max
    assert numbers(screen) == {"TP": 0, "FP": 0, "FN": 4, "TN": 4, "F1": "0.00 %", "FPR": "0.00 %", "FNR": "100.00 %"}
    screen.show(ONE, 2)  # the image's tab judges by it too
    assert f"threshold {screen.samples.slider.max:.5g}, false negative" in screen.image.panels.words
    screen.samples.jumps["F1-optimal (test)"].click()
    assert numbers(screen) == before and screen.samples.slider.value == facts(tiny_store, ONE, "E")["i_threshold"]
    # a browser that rounds the value to the slider's steps and sends it back moves nothing
    exact = float(values.max())
    screen.samples.set_threshold(exact)
    screen.samples.slider.value = exact + 0.4 * screen.samples.slider.step
    assert screen.state.threshold("E", ONE) == exact and numbers(screen)["TP"] + numbers(screen)["FP"] == 1


def test_a_typed_threshold_is_taken_as_it_is_meant_or_not_at_all(screen: Explorer) -> None:
    screen.category.value, screen.result.value = ONE, "E"
    samples = screen.samples
    for typed, at in (("0,5", 0.5), ("0.25", 0.25), (" 0,75 ", 0.75), ("-3", -3.0), ("1e3", 1000.0)):
        samples.exact.value = typed
        assert screen.state.threshold("E", ONE) == samples.slider.value == at and samples.exact.value == f"{at:.6g}"
        assert samples.slider.min <= at <= samples.slider.max and screen.state.message.value == ""
    for typed in ("", "o.5", "nan", "inf", "1,2,3", "1.234,5", "0;5"):
        samples.exact.value = typed
        assert screen.state.threshold("E", ONE) == 1000 and samples.exact.value == "1000"
        assert f"{typed!r}: is not a number".replace("'", "&#x27;") in screen.state.message.value
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
    screen.tabs.selected_index = 2  # compared with the same thresholds
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
        assert [mark for _, mark in on_cards(screen)] == [OUTCOME_STYLES[kind][0]] * n and len(samples.shown) == n
        assert samples.sheet.words.startswith(f"1 to {n} of {n} samples")
    samples.outcomes.value = tuple(errors)
    before = numbers(screen)  # of all images, not of those that show
    assert len(on_cards(screen)) == before["FP"] + before["FN"] == sum(errors.values())
    samples.outcomes.value = ()
    samples.defects.value = ("bad",)
    assert {key for key, _ in on_cards(screen)} == {f"{key}:{i}" for key in (ONE, TWO) for i in range(4)}
    samples.text.value = "  <B>&$X "  # part of a name, in any case, as it is
    assert [key for key, _ in on_cards(screen)] == [f"{TWO}:3"]
    samples.text.value = "(nothing)["
    assert on_cards(screen) == [] and samples.sheet.words.startswith("0 to 0 of 0 samples")
    samples.clear.click()
    assert len(on_cards(screen)) == 16 and numbers(screen) == before
    assert samples.outcomes.value == samples.defects.value == () and samples.text.value == ""
    table = pd.concat([scores(tiny_store, key, "E") for key in (ONE, TWO)])
    low, high = np.sort(table["score"])[[3, 9]]
    samples.low.value, samples.high.value = repr(float(low)), repr(float(high))
    assert len(samples.shown) == 7 and samples.shown["score"].between(low, high).all()
    for typed in ("much", "nan", "1,2,3", "1 000"):
        samples.high.value = typed
        assert "is not a number" in screen.state.message.value and len(samples.shown) == 7
    samples.high.value = repr(float(high)).replace(".", ",")
    assert screen.state.message.value == "" and len(samples.shown) == 7
    screen.category.value = ONE  # its own scale, nothing left out
    assert len(on_cards(screen)) == 8
    samples.outcomes.value = ("false negative",)  # follows the threshold
    samples.slider.value = samples.slider.max
    assert [mark for _, mark in on_cards(screen)] == ["FN"] * 4
    samples.slider.value = samples.slider.min
    assert on_cards(screen) == [] and numbers(screen)["FP"] == 4


def test_pages_of_thumbnails(tmp_path: Path) -> None:
    n = 2 * PAGE + 5
    values = np.random.default_rng(0).permutation(n) / 64  # exact in float32
    labels = [i % 2 for i in range(n)]
    run = write_unit(tmp_path / "fit-a-1", [float(v) for v in values], labels, metrics={"i_threshold": 20 / 64})
    screen = show(run, tmp_path)
    samples, seen = screen.samples, []
    for k, (first, last) in enumerate(((1, PAGE), (PAGE + 1, 2 * PAGE), (2 * PAGE + 1, n))):
        assert samples.sheet.words.startswith(f"{first} to {last} of {n} samples")
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
    assert samples.page == 0 and f" of {right} samples" in samples.sheet.words
    samples.clear.click()
    samples.text.value = "012"
    assert [key for key, _ in on_cards(screen)] == ["mvtec/part:12"]
    assert samples.back.disabled and samples.forward.disabled
