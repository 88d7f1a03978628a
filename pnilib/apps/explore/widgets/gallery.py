"""A page of thumbnails that can be clicked: the one widget that no library offers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

__all__ = ["Gallery"]

HERE = Path(__file__).parent


class Gallery(anywidget.AnyWidget):  # type: ignore[misc]
    """items: one dict a card with key, name, full (name), caption, outcome, mark; all are shown as
    text.
    pictures: key -> data URL.  selected: key of the card clicked last; chosen: how many clicks there were."""

    _esm = HERE / "gallery.js"
    _css = HERE / "gallery.css"
    items = traitlets.List(traitlets.Dict()).tag(sync=True)
    pictures = traitlets.Dict().tag(sync=True)
    selected = traitlets.Unicode("").tag(sync=True)
    chosen = traitlets.Int(0).tag(sync=True)

    @property
    def place(self) -> tuple[str, int]:
        """Category and index that the selected key, "category:index", stands for."""
        category, _, i = self.selected.rpartition(":")
        return category, int(i) if i.isdecimal() else -1

    def show(self, items: Sequence[dict[str, Any]], pictures: dict[str, str]) -> None:
        """A new page; pictures are sent only when they are others than those on the screen."""
        with self.hold_sync():
            self.items = list(items)
            if pictures != self.pictures:
                self.pictures = pictures
