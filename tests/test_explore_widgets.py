"""The explorer without a browser: widgets are moved by their traits, and what they show is compared with the run's.

`test_explore_browser` drives the same in Chromium.
"""

import base64
import io
import json
import math
import re
import shutil
from collections.abc import Iterator
from functools import cache
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import ipywidgets as W
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny_run import CATEGORIES, ODD, tiny_store, write_data, write_unit

from pnilib.errors import PNIError
from pnilib.explore import open_exploration
from pnilib.explore.explanation import cell_at, explain_cell, sentence
from pnilib.explore.maps import base_result, features_of
from pnilib.explore.notes import Note, Notes
from pnilib.explore.pictures import change_colours, rgb, scale, thumbnail
from pnilib.explore.widgets import Explorer, explore
from pnilib.explore.widgets.plot import Plot
from pnilib.explore.widgets.state import ALL, MARKS, PAGE
from pnilib.reproduction.store import clean_store

__all__ = ["tiny_store"]

ONE, TWO = (f"mvtec/{name}" for name in CATEGORIES)
NAMED = {"F1-optimal (test)": ("i_threshold", ""), "normal-only": ("normal_threshold", "normal_")}
HOSTILE = """<img src=x onerror=alert(1)>&<script>"'$x`ü"""
"""Where a name may hold any character but the path's own."""


@pytest.fixture
def store(tiny_store: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(tiny_store, tmp_path / "store"))


@pytest.fixture
def screen(tiny_store: Path, tmp_path: Path) -> Explorer:
    return show(tiny_store, tmp_path)


def show(run: Path, place: Path, *, may_point: bool = True, **options: Any) -> Explorer:
    """The explorer of a run, with notes.csv in `place`."""
    return Explorer(open_exploration(run, **options), Notes(place / "notes.csv"), may_point=may_point)


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@cache
def place_of(run: Path, key: str, label: str) -> Path:
    """Of a result's files."""
    return open_exploration(run).categories[key].results[label].place


def facts(run: Path, key: str, label: str) -> dict[str, Any]:
    """Metrics as the run's file has them."""
    found: dict[str, Any] = json.loads((place_of(run, key, label) / "meta.json").read_text())["metrics"]
    return found


def scores(run: Path, key: str, label: str) -> pd.DataFrame:
    """The run's file, row by row."""
    table = pd.read_csv(f"{place_of(run, key, label)}.scores.csv", keep_default_na=False)
    return table.assign(score=table["score"].astype(np.float32).astype(float))


def text_of(html: str) -> str:
    return unescape(re.sub(r"<[^>]*>", "", html)).replace("\xa0", " ")


def numbers(screen: Explorer) -> dict[str, Any]:
    """What the line of counts says: TP, FP, FN, TN as numbers, rates as text."""
    text = text_of(screen.samples.counts.value).split("paper")[0]
    found: dict[str, Any] = {name: int(n) for name, n in re.findall(r"(TP|FP|FN|TN) (\d+)", text)}
    return found | {name: value for name, value in re.findall(r"(F1|FPR|FNR) (undefined|[\d.]+ %)", text)}


def on_cards(screen: Explorer) -> list[tuple[str, str]]:
    """(key, mark) of the cards that show."""
    return [(item["key"], item["mark"]) for item in screen.samples.gallery.items]


def choose(gallery: W.Widget, key: str) -> None:
    """What the browser does for a click on a card."""
    gallery.selected = key
    gallery.chosen += 1


def decoded(found: Any) -> np.ndarray:
    """An array of a plotly figure's JSON."""
    if isinstance(found, dict):
        values = np.frombuffer(base64.b64decode(found["bdata"]), np.dtype(found["dtype"]))
        return values.reshape([int(n) for n in str(found.get("shape", len(values))).split(",")])
    return np.array([math.nan if value is None else value for value in found])


def pixels(url: str) -> np.ndarray:
    assert url.startswith("data:image/")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))))


def image_plot(screen: Explorer) -> Plot:
    assert screen.image.plot is not None
    return screen.image.plot


def panels(screen: Explorer) -> dict[str, list[np.ndarray]]:
    """Title -> the pictures of its panel, bottom first."""
    figure = json.loads(image_plot(screen).figure)
    titles = [unescape(note["text"]) for note in figure["layout"]["annotations"]]
    found: dict[str, list[np.ndarray]] = {title: [] for title in titles}
    for trace in figure["data"]:
        if trace["type"] == "image":
            found[titles[int(trace["xaxis"][1:] or 1) - 1]].append(pixels(trace["source"]))
    return found


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, [name for name, _ in attrs]))


def html_traits(widget: Any) -> Iterator[str]:
    """Values of all HTML widgets below, which a browser reads as HTML."""
    if isinstance(widget, W.HTML):
        yield widget.value
    for child in getattr(widget, "children", ()):
        yield from html_traits(child)


def require_harmless(screen: Explorer) -> str:
    """No tag or attribute but ours in any HTML; returns all of it."""
    text = "\n".join(html_traits(screen))
    for tag, attrs in Tags(text).seen:
        assert tag in {"a", "b", "br", "details", "div", "i", "img", "p", "span", "summary", "table", "td", "tr"}, tag
        assert set(attrs) <= {"style", "class", "width", "src", "alt", "download", "href"}, (tag, attrs)
    return text


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
            config = base.config.replace(setting=name)
            border = config.border_cells if config.border == "replicate" else 0
            found = explain_cell(model, features, cell_at(*pixel, 64, grid, border), config)
            at = np.load(f"{category.results[name].place}.maps.npy")[i][pixel] if name != "position" else None
            if at is None:  # the run kept no map: the model's
                variant = {name: config}
                image = category.image(i)[None]
                at = model.predict_variants(image, variant)[name].maps[0][pixel]
            limit = math.nan if name == "position" else facts(tiny_store, TWO, name)["i_threshold"]
            answer = screen.image.answer.value
            words = re.search(r'<p class="pni-sentence"[^>]*>(.*?)</p>', answer)
            assert words is not None and unescape(words[1]) == sentence(found, float(at), limit)
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
    screen.compare.ours.value, screen.compare.base.value = "PNI", "E"
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
    samples.high.value = "much"
    assert "is not a number" in screen.state.message.value and len(samples.shown) == 7
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


# -- one image -------------------------------------------------------------------------------------


def test_a_click_on_a_card_opens_its_image(screen: Explorer, tiny_store: Path) -> None:
    gallery = screen.samples.gallery
    for item in gallery.items[:2]:
        screen.tabs.selected_index = 0
        choose(gallery, item["key"])
        assert screen.tabs.selected_index == 1 and item["full"] in text_of(screen.image.title.value)
    screen.tabs.selected_index = 0
    choose(gallery, gallery.selected)  # the same again
    assert screen.tabs.selected_index == 1
    before = screen.image.title.value
    for wrong, why in ((f"{ONE}:8", "has no test image 8"), ("mvtec/three:0", "choose one of"), ("", "choose one of"),
                       (f"{ONE}:-1", "has no test image -1"), (f"{ONE}:<b>", "has no test image")):  # fmt: skip
        choose(gallery, wrong)
        assert why in screen.state.message.value and screen.image.title.value == before
    category = open_exploration(tiny_store).categories[ONE]
    screen.category.value = ONE
    for i in range(8):
        kind, blob = "image/jpeg", thumbnail(category, i)
        assert gallery.pictures[f"{ONE}:{i}"] == f"data:{kind};base64,{base64.b64encode(blob).decode()}"


def test_the_panels_are_the_runs_maps(screen: Explorer, tiny_store: Path) -> None:
    category = open_exploration(tiny_store).categories[ONE]
    screen.show(ONE, 1)
    found = panels(screen)
    names = ["input, true outline", "PNI over the input", "A", "B", "position", "E", "PNI"]
    assert [title for title in found if not title.startswith("PNI minus E")] == names
    image = rgb(category.image(1))
    assert np.array_equal(found["input, true outline"][0], image)
    below, over = found["PNI over the input"]
    assert np.array_equal(below, image) and over.shape == (64, 64, 4) and over[..., 3].min() == 0
    # the refinement's change: each map on its category's scale
    kept = {label: np.load(f"{category.results[label].place}.maps.npy")[1] for label in ("PNI", "E")}
    levels = {}
    for label, one in kept.items():
        low, high = (np.float32(at) for at in scale(category, label))
        levels[label] = (one - low) / (high - low)
    change = levels["PNI"] - levels["E"]
    most = np.abs(change).max()
    (title,) = (title for title in found if title.startswith("PNI minus E"))
    assert title == f"PNI minus E (±{most:.2g} of scale)"
    shown = found[title][0].astype(int)
    assert np.abs(shown - change_colours(change, float(most)).astype(int)).max() <= 1
    down, up = np.unravel_index(change.argmin(), change.shape), np.unravel_index(change.argmax(), change.shape)
    if change.min() < -0.1 * most:
        assert shown[down][2] > shown[down][0]  # blue: less
    if change.max() > 0.1 * most:
        assert shown[up][0] > shown[up][2]  # red: more
    # all panels zoom together
    layout = json.loads(image_plot(screen).figure)["layout"]
    for axis in "xy":
        assert all(layout[f"{axis}axis{k}"]["matches"] == axis for k in range(2, len(found) + 1))
    outline = json.loads(image_plot(screen).figure)["data"][1]
    mask = category.mask(1)
    assert mask is not None
    rows, columns = (np.flatnonzero(mask.numpy().any(axis)) for axis in (1, 0))
    x, y = decoded(outline["x"]), decoded(outline["y"])
    assert [np.nanmin(x), np.nanmax(x)] == [columns[0] - 0.5, columns[-1] + 0.5]
    assert [np.nanmin(y), np.nanmax(y)] == [rows[0] - 0.5, rows[-1] + 0.5]
    screen.result.value = "E"  # another result over the input
    assert "E over the input" in panels(screen) and "; E: score" in text_of(screen.image.title.value)


def test_opacity_and_the_cross_change_nothing_else(screen: Explorer) -> None:
    screen.show(ONE, 0)
    plot = image_plot(screen)
    figure = plot.figure
    assert [update.get("opacity") == 0.6 for update, _ in json.loads(plot.on_top)] == [True, False]
    screen.image.opacity.value = 0.25
    (overlay, traces), cross = json.loads(plot.on_top)
    assert overlay == {"opacity": 0.25} and plot.figure == figure
    traces_of = [json.loads(figure)["data"][k] for k in traces]
    assert [trace["type"] for trace in traces_of] == ["image"] and pixels(traces_of[0]["source"]).shape[2] == 4
    assert all(x == [] for x in cross[0]["x"])
    screen.image.ask(7, 9)
    overlay_now, cross = json.loads(plot.on_top)
    assert overlay_now == [{"opacity": 0.25}, traces] and plot.figure == figure
    assert cross[0] == {"x": [[9]] * len(panels(screen)), "y": [[7]] * len(panels(screen))}
    screen.show(ONE, 1)
    overlay_now, cross = json.loads(plot.on_top)
    assert overlay_now[0] == {"opacity": 0.25} and cross[0]["x"][0] == []  # kept; and gone


def test_compare(screen: Explorer, tiny_store: Path) -> None:
    screen.tabs.selected_index = 2
    compare = screen.compare
    compare.ours.value, compare.base.value = "PNI", "A"
    wrong: dict[str, dict[str, bool]] = {}
    for label in ("PNI", "A"):
        for key in (ONE, TWO):
            table, at = scores(tiny_store, key, label), facts(tiny_store, key, label)["i_threshold"]
            missed = (table["score"] >= at) != (table["label"] == 1)
            wrong.setdefault(label, {}).update({f"{key}:{i}": bool(was) for i, was in enumerate(missed)})
    right = {key for key, was in wrong["A"].items() if was and not wrong["PNI"][key]}
    worse = {key for key, was in wrong["A"].items() if not was and wrong["PNI"][key]}
    assert text_of(compare.sides.value) == (
        f"PNI against A: {len(right)} images are right now that were wrong, {len(worse)} are wrong now that were "
        "right, of 16."
    )
    cards = {item["key"]: item for item in compare.gallery.items}
    assert set(cards) == right | worse and set(compare.gallery.pictures) == set(cards)
    assert compare.plot is not None
    figure = json.loads(compare.plot.figure)
    points = {trace["name"]: len(decoded(trace["x"])) for trace in figure["data"]}
    assert points == {"same side": 16 - len(right | worse), "now right": len(right), "now wrong": len(worse)}
    compare.plot.clicked = {"n": 1, "trace": 0, "point": 0, "x": 0.0, "y": 0.0}
    key, i = compare.plot._keys[0][0]
    assert screen.image.chosen == (screen.state.opened.categories[key], i) and screen.tabs.selected_index == 1
    compare.base.value = "PNI"
    assert text_of(compare.sides.value).startswith("PNI against PNI: 0 images are right") and not compare.gallery.items


def test_the_plots_hold_the_scores(screen: Explorer, tiny_store: Path) -> None:
    screen.category.value, screen.result.value = ONE, "E"
    table, said = scores(tiny_store, ONE, "E"), facts(tiny_store, ONE, "E")
    figure = json.loads(screen.samples.plot.figure)
    bars = {trace["name"]: trace for trace in figure["data"] if trace["type"] == "bar"}
    for name, label in (("normal", 0), ("defective", 1)):
        heights, middles = decoded(bars[name]["y"]), decoded(bars[name]["x"])
        assert heights.sum() == 4
        own = table["score"][table["label"] == label]
        width = decoded(bars[name]["width"])[0]
        assert np.repeat(middles, heights.astype(int)) == pytest.approx(np.sort(own), abs=0.51 * width)
    lines = [trace for trace in figure["data"] if trace.get("mode") == "lines" and "x" in trace]
    fpr, tpr = decoded(lines[0]["x"]), decoded(lines[0]["y"])
    assert np.trapezoid(tpr, fpr) == pytest.approx(said["i_auroc"])
    marks = {shape["x0"] for shape in figure["layout"]["shapes"]}
    assert marks == {said["i_threshold"], said["normal_threshold"]}
    assert {note["text"] for note in figure["layout"]["annotations"]} == set(NAMED)


# -- notes -----------------------------------------------------------------------------------------


def write_note(screen: Explorer, text: str, label: str = "") -> None:
    screen.image.text.value, screen.image.label.value = text, label
    screen.image.save.click()


def test_notes_are_kept_and_found_again(screen: Explorer, tiny_store: Path, tmp_path: Path) -> None:
    screen.image.save.click()
    assert "choose an image first" in screen.state.message.value
    screen.show(TWO, 3)
    write_note(screen, "a <b>scratch</b>,\n'ü' $x$", "normal")
    assert "saved to notes.csv" in screen.state.message.value
    choose(screen.samples.gallery, f"{ONE}:0")
    assert (screen.image.text.value, screen.image.label.value) == ("", "")
    assert "saved" not in screen.state.message.value  # it was of another image
    again = show(tiny_store, tmp_path)
    again.show(TWO, 3)
    assert (again.image.text.value, again.image.label.value) == ("a <b>scratch</b>,\n'ü' $x$", "normal")
    rows = pd.read_csv(tmp_path / "notes.csv", keep_default_na=False).to_dict("records")
    assert [(row["category"], row["image"], row["label"]) for row in rows] == [
        (TWO, f"two parts/test/bad/{ODD}", "normal")
    ]
    write_note(again, "")
    assert Notes(tmp_path / "notes.csv").all() == {}


def test_two_explorers_lose_nothing(screen: Explorer, tiny_store: Path, tmp_path: Path) -> None:
    second = show(tiny_store, tmp_path)
    for one in (screen, second):
        one.show(ONE, 0)
    write_note(screen, "first <i>", "unsure")
    write_note(second, "second")
    said = second.state.message.value
    assert "another explorer saved &#x27;first &lt;i&gt;&#x27; and label unsure meanwhile" in said
    assert second.image.text.value == "second"  # what was typed is still there
    notes = Notes(tmp_path / "notes.csv")
    assert notes.of(ONE, screen.state.opened.categories[ONE].names[0]).text == "first <i>"
    second.image.save.click()
    assert "saved to notes.csv" in second.state.message.value
    assert notes.of(ONE, screen.state.opened.categories[ONE].names[0]).text == "second"
    second.show(ONE, 1)  # other images do not get in each other's way
    write_note(second, "of image 1")
    screen.show(ONE, 2)
    write_note(screen, "of image 2")
    assert {note.text for note in notes.all().values()} == {"second", "of image 1", "of image 2"}


def test_a_damaged_file_of_notes_is_told_and_left_alone(screen: Explorer, tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("my shopping list\n")
    screen.show(ONE, 1)
    assert "is no file of notes" in screen.state.message.value
    assert "one/test/bad" in screen.image.title.value and len(panels(screen)) > 4  # the image shows all the same
    write_note(screen, "x")
    assert "is no file of notes" in screen.state.message.value and "one/test/bad" in screen.image.title.value
    assert (tmp_path / "notes.csv").read_text() == "my shopping list\n"


def test_notes_lie_beside_the_run(store: Path, tmp_path: Path) -> None:
    screen = explore(store)
    assert screen.state.notes.file == store.resolve() / "notes.csv" and not screen.state.notes.file.exists()
    assert explore(store, notes=tmp_path / "x.csv").state.notes.file == tmp_path / "x.csv"


# -- a data set that is elsewhere --------------------------------------------------------------------


@pytest.fixture
def lost(store: Path, tmp_path: Path) -> Path:
    """A run whose data set is not where it was."""
    for file in store.rglob("unit.json"):
        edit(file, source=json.loads(file.read_text())["source"] | {"root": str(tmp_path / "<gone>")})
    return store


def test_the_numbers_stay_when_the_data_set_moved(lost: Path, tiny_store: Path, tmp_path: Path) -> None:
    screen = show(lost, tmp_path)
    assert escape(str(tmp_path / "<gone>")) in screen.state.message.value
    assert "the data set of mvtec/" in screen.state.message.value and "is not there" in screen.state.message.value
    assert screen.image.pointing.layout.display == "" and len(on_cards(screen)) == 16
    assert not any(screen.samples.gallery.pictures.values())
    both = [facts(tiny_store, key, "PNI") for key in (ONE, TWO)]
    assert numbers(screen)["FP"] == sum(one["fp"] for one in both)
    screen.show(ONE, 0)
    found = panels(screen)
    assert [title for title in found if "minus" not in title] == ["A", "B", "E", "PNI"]  # the maps that were kept
    screen.image.ask(3, 4)
    assert "is not there" in screen.state.message.value
    screen._export_selection(None)
    assert "selection.html" in screen.taken.value
    require_harmless(screen)


def test_nobody_points_on_a_page_of_its_own(lost: Path, tmp_path: Path) -> None:
    screen = show(lost, tmp_path, may_point=False)
    screen.show(ONE, 0)
    assert "is not there" in screen.state.message.value and screen.image.pointing.layout.display == "none"


def test_the_reader_points_to_the_data_set(lost: Path, tiny_store: Path, tmp_path: Path) -> None:
    screen = show(lost, tmp_path)
    screen.show(TWO, 3)
    wrong = tmp_path / "<i>wrong"
    wrong.mkdir()
    other = write_data(tmp_path / "other")
    (other / "one/test/bad/009.png").unlink()
    for folder, why in ((wrong, "holds no category"), (other, "it lacks one/test/bad/009.png"),
                        (tmp_path / "nowhere", "is not there"), ("", "is not there")):  # fmt: skip
        screen.image.root.value = f" {folder} " if folder else ""
        screen.image.use.click()
        said = screen.state.message.value
        assert why in said and screen.image.pointing.layout.display == ""
        assert escape(str(folder or tmp_path / "<gone>")) in said  # where it looked
        assert not any(screen.samples.gallery.pictures.values()) and "input, true outline" not in panels(screen)
    screen.image.root.value = str(tiny_store.parent / "data")
    screen.image.use.click()
    assert "found" in screen.state.message.value and screen.image.pointing.layout.display == "none"
    assert all(screen.samples.gallery.pictures.values()) and "input, true outline" in panels(screen)
    screen.image.ask(30, 40)
    assert "pni-sentence" in screen.image.answer.value and "training crop" in screen.image.answer.value


def test_pictures_come_when_the_data_set_does(lost: Path, tiny_store: Path, tmp_path: Path) -> None:
    """Found again without a word, by whatever is done next; also on the tab that compares."""
    screen = show(lost, tmp_path)
    screen.tabs.selected_index = 2
    assert screen.compare.gallery.items and not any(screen.compare.gallery.pictures.values())
    screen.image.root.value = str(tiny_store.parent / "data")
    screen.image.use.click()
    assert all(screen.compare.gallery.pictures.get(item["key"]) for item in screen.compare.gallery.items)
    screen = show(lost, tmp_path)
    shutil.copytree(tiny_store.parent / "data", tmp_path / "<gone>")
    screen.samples.turn(0)
    assert len(screen.samples.gallery.pictures) == 16 and all(screen.samples.gallery.pictures.values())


# -- other runs ------------------------------------------------------------------------------------


def test_without_masks(store: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path)
    for name in CATEGORIES:
        shutil.rmtree(data / name / "ground_truth")
    screen = show(store, tmp_path, data=data)
    screen.show(ONE, 1)
    assert screen.image.title.value.endswith("; no true mask") and screen.state.message.value == ""
    outline = json.loads(image_plot(screen).figure)["data"][1]
    assert len(decoded(outline["x"])) == 0
    screen.image.ask(3, 4)
    assert "pni-sentence" in screen.image.answer.value
    screen.show(ONE, 4)  # normal: there is none to know
    assert not screen.image.title.value.endswith("; no true mask")


@pytest.mark.parametrize(
    ("label", "rates"),
    [(0, ("undefined", "20.00 %", "undefined")), (1, ("33.33 %", "undefined", "80.00 %")), (-1, ("undefined",) * 3)],
)
def test_one_class(tmp_path: Path, label: int, rates: tuple[str, ...]) -> None:
    """Nothing to be optimal on: the threshold is the highest score."""
    run = write_unit(tmp_path / "fit-a-1", [1.0, 2.0, 3.0, 4.0, 5.0], [label] * 5)
    screen = show(run, tmp_path)
    assert screen.samples.slider.value == 5.0 and all(button.disabled for button in screen.samples.jumps.values())
    found = numbers(screen)
    assert tuple(found[name] for name in ("F1", "FPR", "FNR")) == rates
    assert ("5 of unknown label" in text_of(screen.samples.counts.value)) == (label == -1)
    assert {mark for _, mark in on_cards(screen)} == {0: {"FP", "TN"}, 1: {"TP", "FN"}, -1: {"?"}}[label]
    screen.samples.slider.value = 2.5
    assert sum(numbers(screen)[name] for name in ("TP", "FP")) == (0 if label < 0 else 3)
    ((update, _),) = json.loads(screen.samples.plot.on_top)
    assert update["x"] == [[2.5, 2.5], [0.6 if label == 0 else None], [0.6 if label == 1 else None]]
    screen.tabs.selected_index = 2
    assert "0 are wrong now" in screen.compare.sides.value
    for k in (0, 2):
        screen.tabs.selected_index = k
        screen._export_view(None)
        assert "view.png" in screen.taken.value, screen.state.message.value
    screen._export_selection(None)
    assert "selection.html" in screen.taken.value


def test_unknown_labels_are_not_counted(tmp_path: Path) -> None:
    run = write_unit(tmp_path / "u", [1.0, 2.0, 3.0, 4.0], [0, -1, 1, -1], metrics={"i_threshold": 2.5}, maps=True)
    screen = show(run, tmp_path)
    assert numbers(screen) == {"TP": 1, "FP": 0, "FN": 0, "TN": 1, "F1": "100.00 %", "FPR": "0.00 %", "FNR": "0.00 %"}
    assert "2 of unknown label" in text_of(screen.samples.counts.value)
    screen.samples.outcomes.value = ("unknown",)
    assert on_cards(screen) == [("mvtec/part:3", "?"), ("mvtec/part:1", "?")]
    screen.show("mvtec/part", 3)
    assert "of unknown label" in screen.image.title.value and "<b>unknown</b>" in screen.image.title.value


def test_a_single_category_has_no_choice_of_all(tmp_path: Path) -> None:
    run = write_unit(tmp_path / "u", [7.0], [0])  # one image: no range of scores at all
    screen = show(run, tmp_path)
    assert screen.category.options == ("mvtec/part",) and not screen.samples.slider.disabled
    assert screen.samples.slider.min < 7 < screen.samples.slider.max and len(on_cards(screen)) == 1
    screen.show("mvtec/part", 0)  # neither image nor map: the numbers and notes remain
    assert "/nowhere/data: the data set of mvtec/part is not there" in screen.state.message.value
    assert "score <b>7</b>" in screen.image.title.value and screen.image.plot_box.children == ()
    screen.image.ask(3, 3)
    assert "the fitted model of E is not there" in screen.state.message.value
    write_note(screen, "all the same")
    assert "saved" in screen.state.message.value and screen.tabs.selected_index == 1


def test_no_maps_kept(store: Path, tmp_path: Path) -> None:
    """The model makes those of A, B, position and E; nothing makes that of PNI."""
    kept = np.load(f"{place_of(store, ONE, 'E')}.maps.npy")[1]
    for file in store.rglob("*.maps.npy"):
        file.unlink()
    screen = show(store, tmp_path)
    screen.show(ONE, 1)
    assert list(screen.image.maps) == ["A", "B", "position", "E"]
    assert np.array_equal(screen.image.maps["E"], kept)
    screen.image.ask(30, 40)
    assert "pni-sentence" in screen.image.answer.value and screen.state.message.value == ""
    screen._export_view(None)
    assert "view.png" in screen.taken.value, screen.state.message.value


def test_no_model_kept(store: Path, tmp_path: Path) -> None:
    for folder in store.rglob("fit-*/model"):
        shutil.rmtree(folder)
    screen = show(store, tmp_path)
    screen.show(ONE, 1)
    assert list(screen.image.maps) == ["A", "B", "E", "PNI"]
    screen.image.ask(30, 40)
    assert "the fitted model of E is not there: run again to have it" in screen.state.message.value
    for file in store.rglob("*.maps.npy"):
        file.unlink()
    screen = show(store, tmp_path)
    screen.show(ONE, 1)
    assert list(panels(screen)) == ["input, true outline"]
    screen.image.ask(30, 40)
    assert "the fitted model of E is not there: run again to have it" in screen.state.message.value
    screen._export_view(None)
    assert "view.png" in screen.taken.value, screen.state.message.value


def test_models_cleaned_away(store: Path, tmp_path: Path) -> None:
    """`pni runs --clean models`: the fit is unfinished again; what the network found is still a run."""
    clean_store(store, "models")
    screen = show(store, tmp_path)
    assert screen.result.options == ("PNI",) and "2 units not finished" in require_harmless(screen)
    assert numbers(screen)["FP"] == sum(facts(store, key, "PNI")["fp"] for key in (ONE, TWO))
    screen.show(ONE, 1)
    assert list(screen.image.maps) == ["PNI"] and "input, true outline" in panels(screen)
    screen.image.ask(30, 40)
    assert "the run has no finished setting A or E, which explain a pixel" in screen.state.message.value


def test_a_result_that_a_category_lacks(store: Path, tmp_path: Path) -> None:
    """Half of a run: what is there shows, and nothing of another result stays on the screen."""
    (next(store.glob("mvtec/one/*/seed0/network-PNI-*")) / "unit.json").unlink()
    screen = show(store, tmp_path)
    assert "1 units not finished, left out" in "".join(html_traits(screen))
    assert screen.result.value == "PNI" and {key for key, _ in on_cards(screen)} == {f"{TWO}:{i}" for i in range(8)}
    screen.category.value = ONE
    assert "has no result &#x27;PNI&#x27;: choose one of E" in screen.state.message.value
    samples = screen.samples
    assert on_cards(screen) == [] and numbers(screen) == {} and samples.slider.disabled
    for widget, value in ((samples.outcomes, ("false positive",)), (samples.text, "x"), (samples.slider, 0.5)):
        widget.value = value  # nothing to move, and no fault
    samples.turn(1)
    screen._export_selection(None)
    samples.clear.click()
    screen.tabs.selected_index = 2
    screen.compare.ours.value, screen.compare.base.value = "E", "A"
    choose(screen.compare.gallery, f"{ONE}:0")
    assert "has no result" in screen.state.message.value and screen.image.chosen is None
    screen.result.value = "E"
    assert len(on_cards(screen)) == 8 and not samples.slider.disabled and screen.state.message.value == ""
    assert numbers(screen)["FP"] == facts(store, ONE, "E")["fp"]


def test_a_damaged_category_does_not_hide_the_others(store: Path, tmp_path: Path) -> None:
    for file in store.glob("mvtec/one/*/*/*/*.scores.csv"):
        file.write_text("")
    screen = show(store, tmp_path)
    assert "scores.csv: is missing or damaged: delete" in screen.state.message.value
    screen.category.value = TWO
    assert screen.state.message.value == "" and numbers(screen)["FP"] == facts(store, TWO, "PNI")["fp"]


# -- nothing hostile reaches the page ----------------------------------------------------------------


def test_names_are_text_everywhere(store: Path, tmp_path: Path) -> None:
    second = store.rename(tmp_path / f"of {HOSTILE}".replace("/", ""))
    failed = next(second.glob("mvtec/one/*/seed0")) / "fit-x-1"
    failed.mkdir()
    edit(next(second.glob("mvtec/one/*/seed0/fit-settings-*")) / "unit.json")
    (failed / "failed.json").write_text(json.dumps({"error": f"no {HOSTILE}"}))
    for file in second.glob("mvtec/two*/*/*/*/*.scores.csv"):
        table = pd.read_csv(file, keep_default_na=False)
        table["defect_type"] = [HOSTILE] * len(table)
        table.to_csv(file, index=False)
    screen = show(second, tmp_path)
    hostile = escape(HOSTILE)
    name = f"two parts/test/bad/{ODD}"
    assert escape(f"no {HOSTILE}") in require_harmless(screen) and escape(f"of {HOSTILE}") in require_harmless(screen)
    screen.show(TWO, 3)
    assert escape(name) in screen.image.title.value and f"defective ({hostile})" in screen.image.title.value
    screen.image.ask(30, 40)
    write_note(screen, HOSTILE)
    require_harmless(screen)
    screen.tabs.selected_index = 0
    screen.samples.outcomes.value = tuple({"true positive", "false negative"})
    screen.samples.defects.value = (HOSTILE,)
    screen._export_selection(None)
    page = pixels_free(base64.b64decode(screen.taken.value.split("base64,")[1].split("'")[0]).decode())
    assert escape(name) in page and name not in page and page.count(hostile) > 4 and HOSTILE not in page
    assert all(tag != "script" and not any(a.startswith("on") for a in attrs) for tag, attrs in Tags(page).seen)
    for k in range(3):
        screen.tabs.selected_index = k
        screen._export_view(None)
        assert "view.png" in screen.taken.value, screen.state.message.value
    text = require_harmless(screen)
    assert HOSTILE not in text and ODD not in text
    choose(screen.samples.gallery, f"{HOSTILE}:0")
    assert escape(repr(HOSTILE)) in screen.state.message.value
    require_harmless(screen)


def pixels_free(page: str) -> str:
    return re.sub(r"base64,[\w+/=]*", "", page)


def test_a_second_runs_name_is_text(tiny_store: Path, store: Path, tmp_path: Path) -> None:
    second = store.rename(tmp_path / "b <b>&$x`ü")
    screen = show(tiny_store, tmp_path, other=second)
    label = "E of b <b>&$x`ü"
    screen.result.value = label
    screen.show(ONE, 1)
    assert f"; {escape(label)}: score" in screen.image.title.value
    notes = [note["text"] for note in json.loads(image_plot(screen).figure)["layout"]["annotations"]]
    assert "E of b &lt;b&gt;&amp;&#36;x`ü over the input" in notes  # plotly reads a few tags and entities
    screen.image.ask(30, 40)
    assert f"{escape(label)}<br>" in screen.image.answer.value
    screen.tabs.selected_index = 2
    screen.compare.ours.value, screen.compare.base.value = label, "E"
    assert text_of(screen.compare.sides.value).startswith(f"{label} against E: 0 images")
    assert screen.compare.plot is not None
    layout = json.loads(screen.compare.plot.figure)["layout"]
    assert layout["yaxis"]["title"]["text"].startswith("E of b &lt;b&gt;&amp;&#36;x`ü: score")
    require_harmless(screen)


# -- taken along -----------------------------------------------------------------------------------


def taken(screen: Explorer) -> tuple[str, bytes]:
    """Name and content of what is offered."""
    found = re.fullmatch(
        r"<a download='([\w.]+)' href='data:([\w/]+);base64,([\w+/=]+)'>save ([\w.]+) \(([\d.]+) MB\)</a>",
        screen.taken.value,
    )
    assert found is not None and found[1] == found[4]
    assert found[2] == {"png": "image/png", "html": "text/html"}[found[1].split(".")[1]]
    blob = base64.b64decode(found[3])
    assert float(found[5]) == round(len(blob) / 1e6, 1)
    return found[1], blob


def test_each_tab_as_png(screen: Explorer) -> None:
    screen.tabs.selected_index = 1
    screen.export.click()
    assert "choose an image first" in screen.state.message.value and screen.taken.value == ""
    screen.show(ONE, 1)
    heights = []
    for asked in (False, True):
        if asked:
            screen.image.ask(30, 40)
        screen.export.click()
        name, blob = taken(screen)
        with Image.open(io.BytesIO(blob)) as picture:
            picture.load()
            assert name == "view.png" and picture.format == "PNG" and picture.width > 600
            heights.append(picture.height)
    assert heights[1] > heights[0] + 200  # the pixel's answer below the image
    for k in (0, 2):
        screen.tabs.selected_index = k
        screen.export.click()
        with Image.open(io.BytesIO(taken(screen)[1])) as picture:
            picture.load()
            assert picture.format == "PNG" and min(picture.size) > 200
    screen.tabs.selected_index = 0
    screen.samples.text.value = "nothing has this name"
    before = screen.taken.value
    screen.export.click()  # a view without a sample is a view
    assert screen.taken.value != before, screen.state.message.value


def test_the_selection_as_a_page(screen: Explorer, tiny_store: Path) -> None:
    screen.result.value, screen.category.value = "E", TWO
    screen.show(TWO, 3)
    write_note(screen, "look <here>", "normal")
    screen.tabs.selected_index = 0
    screen.samples.slider.value = screen.samples.slider.max
    screen.samples.outcomes.value = ("false negative",)
    screen.samples.export.click()
    name, blob = taken(screen)
    page = blob.decode()
    assert name == "selection.html" and page.startswith("<!doctype html>")
    table = scores(tiny_store, TWO, "E").iloc[:4].sort_values("score", ascending=False)
    assert [unescape(title) for title in re.findall(r"<h2>(.*?)</h2>", page)] == table["image"].tolist()
    at = screen.samples.slider.max
    shown = [unescape(line) for line in re.findall(r"</b>: score (.*?); mvtec", page)]
    assert shown == [f"{value:.4g} < threshold {at:.4g}" for value in table["score"]]
    assert 'class="note">look &lt;here&gt;</p>' in page and "label corrected to <b>normal</b>" in page
    assert str(tiny_store) not in page and "0 false positives, 4 false negatives" in page


def test_a_note_seen_by_the_page_is_the_one_on_disk(screen: Explorer, tmp_path: Path) -> None:
    """The selection tells what anybody saved meanwhile."""
    category = screen.state.opened.categories[ONE]
    Notes(tmp_path / "notes.csv").save(ONE, category.names[0], "unsure", "from elsewhere", Note())
    screen._export_selection(None)
    assert "from elsewhere" in taken(screen)[1].decode()
    (tmp_path / "notes.csv").write_text("x")
    screen._export_selection(None)
    assert "is no file of notes" in screen.state.message.value


def test_explore_says_what_is_wrong_with_a_run(tmp_path: Path) -> None:
    with pytest.raises(PNIError, match="is not a folder"):
        explore(tmp_path / "absent")
    with pytest.raises(PNIError, match="holds no finished run"):
        explore(tmp_path)
