"""An explorer of the tiny run for tests, and what its widgets show, as numbers and text.

The widgets are moved by their traits; `test_explore_browser` drives the same in Chromium.
"""

import base64
import io
import json
import math
import re
import shutil
from collections.abc import Iterator
from functools import cache
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import ipywidgets as W
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pnilib.apps.explore.widgets.plot import Plot
from tiny_run import CATEGORIES, tiny_store

from pnilib.apps.explore import open_exploration
from pnilib.apps.explore.notes import Notes
from pnilib.apps.explore.widgets import Explorer

__all__ = [
    "HOSTILE",
    "NAMED",
    "ONE",
    "TWO",
    "Tags",
    "choose",
    "decoded",
    "edit",
    "facts",
    "html_traits",
    "image_plot",
    "numbers",
    "on_cards",
    "panels",
    "pixels",
    "pixels_free",
    "place_of",
    "require_harmless",
    "scores",
    "screen",
    "show",
    "store",
    "text_of",
    "tiny_store",
    "write_note",
]

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


def write_note(screen: Explorer, text: str, label: str = "") -> None:
    screen.image.note.text.value, screen.image.note.label.value = text, label


def pixels_free(page: str) -> str:
    return re.sub(r"base64,[\w+/=]*", "", page)
