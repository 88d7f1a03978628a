"""The explorer on runs that lack something, on data sets that moved, and on hostile names."""

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
    edit,
    facts,
    html_traits,
    keys,
    no_pictures,
    numbers,
    on_cards,
    panels,
    place_of,
    require_harmless,
    show,
    store,
    taken,
    tiny_store,
    write_note,
)
from markupsafe import escape as markup
from matplotlib.text import Text
from tiny_run import CATEGORIES, ODD, write_data, write_unit

from pnilib.apps.explore.widgets import Explorer
from pnilib.apps.explore.widgets.figure import FigureView
from pnilib.apps.reproduce.store import clean_store
from pnilib.errors import PNIError

__all__ = ["no_pictures", "store", "tiny_store"]
pytestmark = pytest.mark.usefixtures("no_pictures")


def text(figure: FigureView) -> str:
    """What stands in the figure of a view."""
    return "" if figure.view is None else "\n".join(one.get_text() for one in figure.view.figure.findobj(Text))


def export_all(screen: Explorer) -> None:
    """Every tab can be taken along, and the selection."""
    for k in range(3):
        screen.tabs.selected_index = k
        screen.export.click()
        assert taken(screen)[0] == "view.png"
    screen.samples.export.click()
    assert taken(screen)[0] == "selection.html"


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
    assert text(screen.samples.sheet).count("cannot\nbe read") == 16
    both = [facts(tiny_store, key, "PNI") for key in (ONE, TWO)]
    assert numbers(screen)["FP"] == sum(one["fp"] for one in both)
    screen.show(ONE, 0)
    assert list(screen.image.maps) == ["A", "B", "E", "PNI"]  # the maps that were kept
    assert "the image cannot be read" in text(screen.image.panels)
    screen.image.ask(3, 4)
    assert "is not there" in screen.state.message.value
    screen.samples.export.click()
    assert taken(screen)[0] == "selection.html"
    require_harmless(screen)


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
        assert "cannot" in text(screen.samples.sheet) and "cannot" in text(screen.image.panels)
    screen.image.root.value = str(tiny_store.parent / "data")
    screen.image.use.click()
    assert "found" in screen.state.message.value and screen.image.pointing.layout.display == "none"
    assert "cannot" not in text(screen.samples.sheet) + text(screen.image.panels)
    screen.image.ask(30, 40)
    assert "this patch scores" in screen.image.answer.words and "cannot" not in text(screen.image.answer)


def test_pictures_come_when_the_data_set_does(lost: Path, tiny_store: Path, tmp_path: Path) -> None:
    """Found again without a word, by whatever is done next; also on the tab that compares."""
    screen = show(lost, tmp_path)
    screen.tabs.selected_index = 2
    assert "cannot" in text(screen.compare.sides)
    screen.image.root.value = str(tiny_store.parent / "data")
    screen.image.use.click()
    assert keys(screen.compare.sides) and "cannot" not in text(screen.compare.sides)
    screen = show(lost, tmp_path)
    shutil.copytree(tiny_store.parent / "data", tmp_path / "<gone>")
    screen.samples.turn(0)
    assert len(on_cards(screen)) == 16 and "cannot" not in text(screen.samples.sheet)


# -- other runs ------------------------------------------------------------------------------------


def test_without_masks(store: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path)
    for name in CATEGORIES:
        shutil.rmtree(data / name / "ground_truth")
    screen = show(store, tmp_path, data=data)
    screen.show(ONE, 1)
    assert "its true defect is not known" in text(screen.image.panels) and screen.state.message.value == ""
    screen.image.ask(3, 4)
    assert "this patch scores" in screen.image.answer.words
    screen.show(ONE, 4)  # normal: there is none to know
    assert "not known" not in text(screen.image.panels)


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
    assert ("5 of unknown label, not counted, 1 of them" in screen.samples.plot.words) == (label == -1)
    assert {mark for _, mark in on_cards(screen)} == {0: {"FP", "TN"}, 1: {"TP", "FN"}, -1: {"?"}}[label]
    screen.samples.slider.value = 2.5
    assert sum(numbers(screen)[name] for name in ("TP", "FP")) == (0 if label < 0 else 3)
    screen.tabs.selected_index = 2
    assert "0 now wrong" in screen.compare.sides.words
    for k in (0, 2):
        screen.tabs.selected_index = k
        screen.export.click()
        assert taken(screen)[0] == "view.png"


def test_unknown_labels_are_not_counted(tmp_path: Path) -> None:
    run = write_unit(tmp_path / "u", [1.0, 2.0, 3.0, 4.0], [0, -1, 1, -1], metrics={"i_threshold": 2.5}, maps=True)
    screen = show(run, tmp_path)
    assert numbers(screen) == {"TP": 1, "FP": 0, "FN": 0, "TN": 1, "F1": "100.00 %", "FPR": "0.00 %", "FNR": "0.00 %"}
    assert "2 of unknown label, not counted, 1 of them called defective" in screen.samples.plot.words
    screen.samples.outcomes.value = ("unknown",)
    assert on_cards(screen) == [("mvtec/part:3", "?"), ("mvtec/part:1", "?")]
    screen.show("mvtec/part", 3)
    assert "part/test/003.png, label unknown\nE: score 4 ≥ threshold 2.5, unknown" in screen.image.panels.words


def test_a_single_category_has_no_choice_of_all(tmp_path: Path) -> None:
    run = write_unit(tmp_path / "u", [7.0], [0])  # one image: no range of scores at all
    screen = show(run, tmp_path)
    assert screen.category.options == ("mvtec/part",) and not screen.samples.slider.disabled
    assert screen.samples.slider.min < 7 < screen.samples.slider.max and len(on_cards(screen)) == 1
    screen.show("mvtec/part", 0)  # neither image nor map: the numbers and notes remain
    assert "/nowhere/data: the data set of mvtec/part is not there" in screen.state.message.value
    assert "score 7 ≥ threshold 7" in screen.image.panels.words and "no map" in text(screen.image.panels)
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
    assert "this patch scores" in screen.image.answer.words and screen.state.message.value == ""


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
    assert list(panels(screen)) == ["image, true defect", "PNI: called normal"] and "no map" in text(
        screen.image.panels
    )
    screen.image.ask(30, 40)
    assert "the fitted model of E is not there: run again to have it" in screen.state.message.value
    export_all(screen)


def test_models_cleaned_away(store: Path, tmp_path: Path) -> None:
    """`pni runs --clean models`: the fit is unfinished again; what the network found is still a run."""
    clean_store(store, "models")
    screen = show(store, tmp_path)
    assert screen.result.options == ("PNI",) and "not finished, left out: 2" in require_harmless(screen)
    assert numbers(screen)["FP"] == sum(facts(store, key, "PNI")["fp"] for key in (ONE, TWO))
    screen.show(ONE, 1)
    assert list(screen.image.maps) == ["PNI"] and "cannot" not in text(screen.image.panels)
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
    samples.export.click()
    samples.clear.click()
    screen.tabs.selected_index = 2
    screen.compare.base.value = "A"
    assert all(key.startswith(TWO) for key in keys(screen.compare.sides)) and screen.image.chosen is None
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
    name = f"two parts/test/bad/{ODD}"
    assert escape(f"no {HOSTILE}") in require_harmless(screen) and escape(f"of {HOSTILE}") in require_harmless(screen)
    screen.show(TWO, 3)  # words are sent as text
    assert name in screen.image.panels.words and f"defective ({HOSTILE})" in screen.image.panels.words
    screen.image.ask(30, 40)
    write_note(screen, HOSTILE)
    screen.tabs.selected_index = 0
    screen.samples.outcomes.value = ("true positive", "false negative")
    screen.samples.defects.value = (HOSTILE,)
    export_all(screen)
    page = taken(screen)[1].decode()
    assert markup(name) in page and name not in page and page.count(markup(HOSTILE)) > 4 and HOSTILE not in page
    assert all(tag != "script" and not any(a.startswith("on") for a in attrs) for tag, attrs in Tags(page).seen)
    with pytest.raises(PNIError):
        screen.show(HOSTILE, 0)
    found = require_harmless(screen)
    assert HOSTILE not in found and ODD not in found


def test_a_second_runs_name_is_text(tiny_store: Path, store: Path, tmp_path: Path) -> None:
    second = store.rename(tmp_path / "b <b>&$x`ü")
    screen = show(tiny_store, tmp_path, other=second)
    label = "E of b <b>&$x`ü"
    screen.result.value = label
    screen.show(ONE, 1)
    assert f"\n{label}: score" in screen.image.panels.words and f"{label}: called normal" in text(screen.image.panels)
    screen.image.ask(30, 40)
    assert f"column 40, {label}\n" in screen.image.answer.words
    screen.tabs.selected_index = 2
    screen.compare.base.value = "E"
    assert screen.compare.sides.words.startswith(f"{label} against E: 0 now right")
    assert label in text(screen.compare.sides)
    export_all(screen)
    require_harmless(screen)
