"""The explorer on runs that lack something, on data sets that moved, and on hostile names."""

import base64
import json
import shutil
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from explorer_screen import (
    HOSTILE,
    ONE,
    TWO,
    Tags,
    choose,
    decoded,
    edit,
    facts,
    html_traits,
    image_plot,
    numbers,
    on_cards,
    panels,
    pixels_free,
    place_of,
    require_harmless,
    show,
    store,
    text_of,
    tiny_store,
    write_note,
)
from tiny_run import CATEGORIES, ODD, write_data, write_unit

from pnilib.apps.reproduce.store import clean_store

__all__ = ["store", "tiny_store"]


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
    said = text_of(screen.samples.counts.value)
    assert ("5 of unknown label, 1 of them called defective" in said) == (label == -1)
    bars = [trace for trace in json.loads(screen.samples.plot.figure)["data"] if trace["type"] == "bar"]
    heights = {trace["name"]: decoded(trace["y"]).sum() for trace in bars}  # every image is drawn
    assert heights == {"normal": 5 * (label == 0), "defective": 5 * (label == 1)} | (
        {"unknown": 5} if label < 0 else {}
    )
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
    assert "2 of unknown label, 1 of them called defective" in text_of(screen.samples.counts.value)
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
    assert "saved" in screen.image.note.said.value and screen.tabs.selected_index == 1


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
    assert screen.result.options == ("PNI",) and "not finished, left out: 2" in require_harmless(screen)
    assert numbers(screen)["FP"] == sum(facts(store, key, "PNI")["fp"] for key in (ONE, TWO))
    screen.show(ONE, 1)
    assert list(screen.image.maps) == ["PNI"] and "input, true outline" in panels(screen)
    screen.image.ask(30, 40)
    assert "the run has no finished setting A or E, which explain a pixel" in screen.state.message.value


def test_a_result_that_a_category_lacks(store: Path, tmp_path: Path) -> None:
    """Half of a run: what is there shows, and nothing of another result stays on the screen."""
    (next(store.glob("mvtec/one/*/seed0/network-PNI-*")) / "unit.json").unlink()
    screen = show(store, tmp_path)
    assert "not finished, left out: 1" in "".join(html_traits(screen))
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
    screen.compare.base.value = "A"
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
    screen.compare.base.value = "E"
    assert text_of(screen.compare.sides.value).startswith(f"{label} against E: 0 images")
    assert screen.compare.plot is not None
    layout = json.loads(screen.compare.plot.figure)["layout"]
    assert layout["yaxis"]["title"]["text"].startswith("E of b &lt;b&gt;&amp;&#36;x`ü: score")
    require_harmless(screen)
