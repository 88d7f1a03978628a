"""What the tabs of the explorer share: the run, what is chosen of it, thresholds, and one line to the reader."""

from collections.abc import Callable
from functools import wraps
from html import escape
from typing import Any

import ipywidgets as W
import pandas as pd

from pnilib.apps.explore.notes import Notes
from pnilib.apps.explore.run import Exploration
from pnilib.apps.explore.samples import default_threshold, samples
from pnilib.apps.explore.view import ImageRef, View
from pnilib.apps.explore.widgets.figure import FigureView
from pnilib.errors import PNIError

__all__ = ["ALL", "PAGE", "State", "show_errors"]

ALL = "all categories"
PAGE = 24
"""thumbnails at a time."""


class State:
    """label: of the result.  key: of the category, or ALL.  thresholds: label -> category -> threshold that the reader
    chose.  open_image: called to show one.  lost: called when the data set is not where it was."""

    def __init__(self, opened: Exploration, notes: Notes, open_image: Callable[[ImageRef], None]) -> None:
        self.opened, self.notes, self.open_image = opened, notes, open_image
        self.label = opened.labels[0]
        self.key = ALL if len(opened.categories) > 1 else next(iter(opened.categories))
        self.thresholds: dict[str, dict[str, float]] = {}
        self.message = W.HTML().add_class("pni-message")
        self.lost: Callable[[], None] = lambda: None

    def say(self, text: str, *, bad: bool = False) -> None:
        """One line above the tabs."""
        colour = "#b00020" if bad else "#00695c"
        self.message.value = f"<span style='color:{colour}'>{escape(text)}</span>" if text else ""

    def show(self, view: View, figure: FigureView) -> None:
        """A view, and what of it could not be shown."""
        figure.show(view)
        self.tell_fault(view)

    def tell_fault(self, view: View | None) -> None:
        """What of a view could not be shown."""
        if view is not None and view.fault:
            self.say(view.fault, bad=True)
            self.lost()

    @property
    def part(self) -> Exploration:
        """The categories that are looked at."""
        chosen = self.opened.categories if self.key == ALL else {self.key: self.opened.categories[self.key]}
        return Exploration(self.opened.folder, dict(chosen))

    def threshold(self, label: str, key: str) -> float:
        """The reader's, or else the default one."""
        chosen = self.thresholds.get(label, {}).get(key)
        return default_threshold(self.opened.categories[key].results[label]) if chosen is None else chosen

    def table(self) -> pd.DataFrame:
        """`samples` of what is looked at."""
        return samples(self.part, self.label, self.thresholds.get(self.label))

    def open_clicked(self, figure: FigureView, gesture: dict[str, Any]) -> None:
        """Show the image that a click in a view opens, if it opens one."""
        if gesture["kind"] == "click" and figure.view is not None:
            image = figure.view.image_at(gesture["x"], gesture["y"])
            if image is not None:
                self.open_image(image)


def show_errors(method: Callable[..., None]) -> Callable[..., None]:
    """Of an object with a `state`: a user's mistake, or a file that is not there, becomes a line on the screen."""

    @wraps(method)
    def run(self: Any, *args: Any) -> None:
        try:
            method(self, *args)
        except PNIError as fault:
            self.state.say(str(fault), bad=True)

    return run
