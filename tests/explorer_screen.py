"""An explorer of the tiny run for tests, and what its widgets show, as numbers and text.

The widgets are moved by their traits; `test_explore_browser` drives the same in Chromium.
"""

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import ipywidgets as W
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from PIL import Image
from tiny_run import CATEGORIES, tiny_store

from pnilib.apps.explore import open_exploration
from pnilib.apps.explore.figures import OUTCOME_STYLES
from pnilib.apps.explore.notes import Notes
from pnilib.apps.explore.view import View
from pnilib.apps.explore.widgets import Explorer
from pnilib.apps.explore.widgets.figure import FigureView

__all__ = [
    "HOSTILE",
    "NAMED",
    "ONE",
    "TWO",
    "Tags",
    "choose",
    "edit",
    "facts",
    "gesture",
    "html_traits",
    "in_panel",
    "keys",
    "no_pictures",
    "numbers",
    "on_cards",
    "panels",
    "place_of",
    "require_harmless",
    "scores",
    "screen",
    "show",
    "store",
    "taken",
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


_DOT = io.BytesIO()
Image.new("RGB", (1, 1)).save(_DOT, format="PNG")


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made but not rendered, which takes most of a view's time; what is taken along still is."""
    monkeypatch.setattr(View, "picture", _DOT.getvalue())


def show(run: Path, place: Path, *, may_point: bool = True, **options: Any) -> Explorer:
    """The explorer of a run, with notes.csv in `place`."""
    return Explorer(open_exploration(run, **options), Notes(place / "notes.csv"), may_point=may_point)


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@cache
def place_of(run: Path, key: str, label: str) -> Path:
    """Of a result's files."""
    return open_exploration(run).categories[key].results[label].artefact


def facts(run: Path, key: str, label: str) -> dict[str, Any]:
    """Metrics as the run's file has them."""
    found: dict[str, Any] = json.loads((place_of(run, key, label) / "meta.json").read_text())["metrics"]
    return found


def scores(run: Path, key: str, label: str) -> pd.DataFrame:
    """The run's file, row by row."""
    table = pd.read_csv(f"{place_of(run, key, label)}.scores.csv", keep_default_na=False)
    return table.assign(score=table["score"].astype(np.float32).astype(float))


def numbers(screen: Explorer) -> dict[str, Any]:
    """What the words say over the histogram: TP, FP, FN, TN as numbers, rates as text."""
    line = next((line for line in screen.samples.plot.words.splitlines() if line.startswith("TP ")), "")
    found: dict[str, Any] = {name: int(n) for name, n in re.findall(r"(TP|FP|FN|TN) (\d+)", line)}
    return found | {name: value for name, value in re.findall(r"(F1|FPR|FNR) (undefined|[\d.]+ %)", line)}


def keys(figure: FigureView) -> list[str]:
    """category:index of the cards of a view, in their order."""
    return [] if figure.view is None else [f"{card.image.category}:{card.image.i}" for card in figure.view.cards]


def on_cards(screen: Explorer) -> list[tuple[str, str]]:
    """(key, mark) of the thumbnails that show."""
    outcomes = [card["name"].splitlines()[1] for card in screen.samples.sheet.cards]
    return list(zip(keys(screen.samples.sheet), (OUTCOME_STYLES[one][0] for one in outcomes), strict=True))


def gesture(figure: FigureView, kind: str, x: float, y: float, **more: float) -> None:
    """What the browser sends."""
    figure.gesture = {"n": figure.gesture.get("n", 0) + 1, "kind": kind, "x": x, "y": y, **more}


def choose(figure: FigureView, key: str) -> None:
    """A click on a card."""
    left, top, width, height = figure.cards[keys(figure).index(key)]["box"]
    gesture(figure, "click", left + width / 2, top + height / 2)


def panels(screen: Explorer) -> dict[str, Axes]:
    """Title -> panel of the image that shows."""
    view = screen.image.panels.view
    return {} if view is None else {ax.get_title(): ax for ax in view.pixels}


def in_panel(ax: Axes, row: float, column: float) -> tuple[float, float]:
    """A pixel of a panel in parts of the picture."""
    x, y = ax.figure.transFigure.inverted().transform(ax.transData.transform((column, row)))
    return float(x), 1 - float(y)


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


def taken(screen: Explorer) -> tuple[str, bytes]:
    """Name and content of what is offered."""
    found = re.fullmatch(r"<a download='([\w.]+)' href='data:[\w/]+;base64,([\w+/=]+)'>save .*</a>", screen.taken.value)
    assert found is not None, screen.state.message.value
    return found[1], base64.b64decode(found[2])
