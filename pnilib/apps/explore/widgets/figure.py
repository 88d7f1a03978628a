"""A view on the screen: its words as text, its picture, and what the reader does in the picture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from pnilib.apps.explore.view import View

__all__ = ["FigureView"]

HERE = Path(__file__).parent


class FigureView(anywidget.AnyWidget):  # type: ignore[misc]
    """view: what is shown, None for nothing.  picture: its PNG.  cards: name and box of its thumbnails.

    gesture: what the reader did last, its number n, kind and point x, y in parts of the picture: a click, and with
    `zooms` a turn of the wheel (factor) or a drag (dx, dy); `on_gesture` is called with it.
    """

    _esm = HERE / "figure.js"
    _css = HERE / "figure.css"
    words = traitlets.Unicode().tag(sync=True)
    picture = traitlets.Bytes().tag(sync=True)
    cards = traitlets.List(traitlets.Dict()).tag(sync=True)
    zooms = traitlets.Bool(False).tag(sync=True)
    gesture = traitlets.Dict().tag(sync=True)

    def __init__(self, on_gesture: Callable[[dict[str, Any]], None] = lambda _: None, *, zooms: bool = False) -> None:
        super().__init__(zooms=zooms)
        self.view: View | None = None
        self.observe(lambda change: on_gesture(change["new"]), "gesture")

    def show(self, view: View | None, words: str = "") -> None:
        """A view, or only words; the words at once, as pictures take longer to draw."""
        if self.view is not None and self.view is not view:
            self.view.free()
        self.view = view
        self.words = words if view is None else view.words
        with self.hold_sync():
            self.picture = b"" if view is None else view.picture
            self.cards = [] if view is None else [{"name": card.name, "box": card.box} for card in view.cards]
