"""The explorer's image and comparison tabs, notes and exports, without a browser."""

import io
import re
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from explorer_screen import (
    ONE,
    TWO,
    choose,
    facts,
    gesture,
    in_panel,
    keys,
    no_pictures,
    panels,
    scores,
    screen,
    show,
    store,
    taken,
    tiny_store,
    write_note,
)
from PIL import Image
from tiny_run import ODD

from pnilib.apps.explore.figures import draw_image, draw_pixel
from pnilib.apps.explore.notes import Notes
from pnilib.apps.explore.view import stacked
from pnilib.apps.explore.widgets import Explorer, explore
from pnilib.errors import PNIError

__all__ = ["no_pictures", "screen", "store", "tiny_store"]


# -- one image -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_pictures")
def test_a_click_on_a_card_opens_its_image(screen: Explorer, tiny_store: Path) -> None:
    sheet = screen.samples.sheet
    for key in (*keys(sheet)[:2], keys(sheet)[1]):  # the same again too
        screen.tabs.selected_index = 0
        choose(sheet, key)
        category, _, i = key.rpartition(":")
        assert screen.tabs.selected_index == 1
        assert screen.state.opened.categories[category].names[int(i)] in screen.image.panels.words
    screen.tabs.selected_index = 0
    gesture(sheet, "click", 0.999, 0.999)  # beside them all
    assert screen.tabs.selected_index == 0
    for key, i in ((ONE, 8), (ONE, -1), ("mvtec/three", 0)):
        with pytest.raises(PNIError):
            screen.show(key, i)


def test_the_page_shows_the_view_of_the_image(screen: Explorer) -> None:
    """What is chosen first, beside it all other maps; its thresholds, the overlay, the pixel and the zoom are the
    reader's."""
    screen.category.value, screen.result.value = ONE, "E"
    screen.samples.set_threshold(1.5)
    screen.show(ONE, 1)
    image, opened = screen.image, screen.state.opened
    labels = ["E", "A", "B", "position", "PNI"]
    assert [title.split(":")[0] for title in panels(screen)] == ["image, true defect", *labels, "PNI minus E"]
    plain = draw_image(opened, ONE, 1, labels, {"E": 1.5})
    assert image.panels.picture == plain.picture and image.panels.words == plain.words
    image.opacity.value = 0.25
    gesture(image.panels, "click", *in_panel(panels(screen)["A: called normal"], 7, 9))
    assert image.pixel == (7, 9)
    changed = draw_image(opened, ONE, 1, labels, {"E": 1.5}, opacity=0.25, pixel=(7, 9))
    assert image.panels.picture == changed.picture != plain.picture and image.panels.words == plain.words
    answer = draw_pixel(opened, ONE, 1, "E", 7, 9, 1.5)
    assert (image.answer.words, image.answer.picture) == (answer.words, answer.picture)
    screen.show(ONE, 2)
    assert image.pixel is None and image.opacity.value == 0.25


@pytest.mark.usefixtures("no_pictures")
def test_wheel_and_drag_move_all_panels(screen: Explorer) -> None:
    screen.show(ONE, 1)
    image = screen.image
    place = in_panel(panels(screen)["image, true defect"], 16, 48)
    gesture(image.panels, "wheel", *place, factor=0.5)
    assert image.window == pytest.approx((0.375, 0.125, 0.5), abs=0.01)
    assert {ax.get_xlim() for ax in panels(screen).values()} == {(23.5, 55.5)}
    assert image.panels.view is not None and image.panels.view.pixel_at(*place) == (16, 48), "zoomed around the pointer"
    width, height = panels(screen)["image, true defect"].get_position().size
    gesture(image.panels, "drag", *place, dx=width / 4, dy=-height / 4)
    assert image.window == pytest.approx((0.25, 0.25, 0.5), abs=0.01)
    for _ in range(9):
        gesture(image.panels, "wheel", *place, factor=2.0)
    assert image.window == (0.0, 0.0, 1.0), "never beyond the image"
    gesture(image.panels, "wheel", *place, factor=0.5)
    image.whole.click()
    assert image.window == (0.0, 0.0, 1.0)


@pytest.mark.usefixtures("no_pictures")
def test_compare(screen: Explorer, tiny_store: Path) -> None:
    screen.tabs.selected_index = 2
    compare = screen.compare
    screen.result.value, compare.base.value = "PNI", "A"
    wrong: dict[str, dict[str, bool]] = {}
    for label in ("PNI", "A"):
        for key in (ONE, TWO):
            table, at = scores(tiny_store, key, label), facts(tiny_store, key, label)["i_threshold"]
            missed = (table["score"] >= at) != (table["label"] == 1)
            wrong.setdefault(label, {}).update({f"{key}:{i}": bool(was) for i, was in enumerate(missed)})
    right = {key for key, was in wrong["A"].items() if was and not wrong["PNI"][key]}
    worse = {key for key, was in wrong["A"].items() if not was and wrong["PNI"][key]}
    assert compare.sides.words == (
        f"PNI against A: {len(right)} now right that were wrong, {len(worse)} now wrong that were right, of 16 images"
    )
    assert set(keys(compare.sides)) == right | worse
    view = compare.sides.view
    assert view is not None
    ax, points, images = view.points[0]
    x, y = view.figure.transFigure.inverted().transform(ax.transData.transform(points[0]))
    gesture(compare.sides, "click", float(x), 1 - float(y))
    assert screen.image.chosen is not None and screen.tabs.selected_index == 1
    category, i = screen.image.chosen
    clicked = [points[k].tolist() for k, image in enumerate(images) if image == (category.key, i)]
    assert clicked == [points[0].tolist()]
    compare.base.value = "PNI"
    assert compare.sides.words.startswith("PNI against PNI: 0 now right") and not keys(compare.sides)


# -- notes -----------------------------------------------------------------------------------------


def noted(screen: Explorer) -> tuple[str, str]:
    return screen.image.note.text.value, screen.image.note.label.value


@pytest.mark.usefixtures("no_pictures")
def test_notes_are_kept_as_they_are_typed_and_found_again(screen: Explorer, tiny_store: Path, tmp_path: Path) -> None:
    box = screen.image.note
    assert box.text.disabled and box.label.disabled and box.save.disabled  # there is no image yet
    screen.show(TWO, 3)
    assert not (tmp_path / "notes.csv").exists()  # looking writes nothing
    for part in ("a", "a <b>scratch</b>,\n'ü' $x$"):
        box.text.value = part
        assert Notes(tmp_path / "notes.csv").of(TWO, f"two parts/test/bad/{ODD}").text == part
    box.label.value = "normal"
    assert "saved to notes.csv" in box.said.value
    choose(screen.samples.sheet, f"{ONE}:0")  # no button was pressed
    assert noted(screen) == ("", "") and box.said.value == ""
    again = show(tiny_store, tmp_path)
    again.show(TWO, 3)
    assert noted(again) == ("a <b>scratch</b>,\n'ü' $x$", "normal")
    rows = pd.read_csv(tmp_path / "notes.csv", keep_default_na=False).to_dict("records")
    assert [(row["category"], row["image"], row["label"]) for row in rows] == [
        (TWO, f"two parts/test/bad/{ODD}", "normal")
    ]
    write_note(again, "")
    assert Notes(tmp_path / "notes.csv").all() == {}


@pytest.mark.usefixtures("no_pictures")
def test_two_explorers_lose_nothing(screen: Explorer, tiny_store: Path, tmp_path: Path) -> None:
    second, notes = show(tiny_store, tmp_path), Notes(tmp_path / "notes.csv")
    image = screen.state.opened.categories[ONE].names[0]
    for one in (screen, second):
        one.show(ONE, 0)
    write_note(screen, "first <i>", "unsure")
    for typed in ("s", "second"):  # goes on typing: what the other one saved is not overwritten by that
        second.image.note.text.value = typed
        said = second.image.note.said.value
        assert "another explorer saved &#x27;first &lt;i&gt;&#x27; and label unsure meanwhile" in said
        assert notes.of(ONE, image).text == "first <i>"
    second.show(ONE, 1)  # other images do not get in each other's way
    assert f"not saved: the note on {image}" in second.image.note.said.value
    write_note(second, "of image 1")
    screen.show(ONE, 2)
    write_note(screen, "of image 2")
    second.show(ONE, 0)
    assert noted(second) == ("second", "")  # what was typed is still there
    second.image.note.save.click()
    assert "saved to notes.csv" in second.image.note.said.value
    assert {note.text for note in notes.all().values()} == {"second", "of image 1", "of image 2"}
    screen.show(ONE, 0)
    assert noted(screen) == ("second", "")


@pytest.mark.usefixtures("no_pictures")
def test_a_note_that_cannot_be_saved_stays(screen: Explorer, tmp_path: Path) -> None:
    file, note = tmp_path / "notes.csv", screen.image.note
    file.write_text("my shopping list\n")
    screen.show(ONE, 1)
    assert "is no file of notes" in note.said.value
    assert "one/test/bad" in screen.image.panels.words and len(panels(screen)) > 4  # the image shows all the same
    write_note(screen, "x")
    assert "is no file of notes" in note.said.value and file.read_text() == "my shopping list\n"
    screen.show(ONE, 2)
    file.unlink()
    screen.show(ONE, 1)
    assert noted(screen) == ("x", "")
    note.save.click()
    assert "saved to notes.csv" in note.said.value and Notes(file).of(ONE, note.place[1]).text == "x"


@pytest.mark.usefixtures("no_pictures")
def test_notes_lie_beside_the_run(store: Path, tmp_path: Path) -> None:
    screen = explore(store)
    assert screen.state.notes.file == store.resolve() / "notes.csv" and not screen.state.notes.file.exists()
    assert explore(store, notes=tmp_path / "x.csv").state.notes.file == tmp_path / "x.csv"


# -- taken along -----------------------------------------------------------------------------------


def test_each_tab_as_png_is_what_it_shows(screen: Explorer) -> None:
    screen.tabs.selected_index = 1
    screen.export.click()
    assert "choose an image first" in screen.state.message.value and screen.taken.value == ""
    screen.show(ONE, 1)
    screen.image.ask(30, 40)
    write_note(screen, "look again", "unsure")
    samples, image = screen.samples, screen.image
    for k, figures in enumerate(([samples.plot, samples.sheet], [image.panels, image.answer], [screen.compare.sides])):
        screen.tabs.selected_index = k
        screen.export.click()
        name, blob = taken(screen)
        sheet = np.asarray(Image.open(io.BytesIO(blob)))
        assert name == "view.png" and (k == 1 or blob == stacked([figure.view for figure in figures]))
        for figure in figures:  # its very pixels, somewhere below its words
            shown = np.asarray(Image.open(io.BytesIO(figure.picture)))
            height, width = shown.shape[:2]
            tops = range(len(sheet) - height + 1)
            assert any(np.array_equal(sheet[top : top + height, :width], shown) for top in tops)
    words = screen.image.views[0].words
    assert words == f"{screen.image.panels.words}\nlabel corrected to unsure; note: look again"


@pytest.mark.usefixtures("no_pictures")
def test_the_selection_as_a_page(screen: Explorer, tiny_store: Path, tmp_path: Path) -> None:
    screen.result.value, screen.category.value = "E", TWO
    screen.show(TWO, 3)
    write_note(screen, "look <here>", "normal")
    screen.tabs.selected_index = 0
    screen.samples.slider.value = screen.samples.slider.max
    screen.samples.outcomes.value = ("false negative",)
    screen.samples.export.click()
    name, blob = taken(screen)
    page, at = unescape(blob.decode()), screen.samples.slider.max
    assert name == "selection.html" and page.startswith("<!doctype html>")
    table = scores(tiny_store, TWO, "E").iloc[:4].sort_values("score", ascending=False)
    shown = re.findall(r"mvtec/two parts: (.*), defective \(bad\)\nE: score (.*), false negative", page)
    assert shown == [(row.image, f"{row.score:.5g} < threshold {at:.5g}") for row in table.itertuples()]
    assert "label corrected to normal; note: look <here>" in page and "look <here>" not in blob.decode()
    assert str(tiny_store) not in page and "0 false positives and 4 false negatives" in page
    (tmp_path / "notes.csv").write_text("x")
    screen.samples.export.click()
    assert "is no file of notes" in screen.state.message.value


def test_explore_says_what_is_wrong_with_a_run(tmp_path: Path) -> None:
    with pytest.raises(PNIError, match="is not a folder"):
        explore(tmp_path / "absent")
    with pytest.raises(PNIError, match="holds no finished run"):
        explore(tmp_path)
