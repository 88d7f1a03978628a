"""The explorer's image and comparison tabs, notes and exports, without a browser."""

import base64
import io
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
    choose,
    decoded,
    facts,
    image_plot,
    panels,
    pixels,
    scores,
    screen,
    show,
    store,
    text_of,
    tiny_store,
    write_note,
)
from PIL import Image
from tiny_run import ODD

from pnilib.apps.explore import open_exploration
from pnilib.apps.explore.notes import Note, Notes
from pnilib.apps.explore.pictures import change_colours, rgb, scale, thumbnail
from pnilib.apps.explore.widgets import Explorer, explore
from pnilib.errors import PNIError

__all__ = ["screen", "store", "tiny_store"]


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
    screen.result.value, compare.base.value = "PNI", "A"
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


def noted(screen: Explorer) -> tuple[str, str]:
    return screen.image.note.text.value, screen.image.note.label.value


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
    choose(screen.samples.gallery, f"{ONE}:0")  # no button was pressed
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


def test_a_note_that_cannot_be_saved_stays(screen: Explorer, tmp_path: Path) -> None:
    file, note = tmp_path / "notes.csv", screen.image.note
    file.write_text("my shopping list\n")
    screen.show(ONE, 1)
    assert "is no file of notes" in note.said.value
    assert "one/test/bad" in screen.image.title.value and len(panels(screen)) > 4  # the image shows all the same
    write_note(screen, "x")
    assert "is no file of notes" in note.said.value and file.read_text() == "my shopping list\n"
    screen.show(ONE, 2)
    file.unlink()
    screen.show(ONE, 1)
    assert noted(screen) == ("x", "")
    note.save.click()
    assert "saved to notes.csv" in note.said.value and Notes(file).of(ONE, note.place[1]).text == "x"


def test_notes_lie_beside_the_run(store: Path, tmp_path: Path) -> None:
    screen = explore(store)
    assert screen.state.notes.file == store.resolve() / "notes.csv" and not screen.state.notes.file.exists()
    assert explore(store, notes=tmp_path / "x.csv").state.notes.file == tmp_path / "x.csv"


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
