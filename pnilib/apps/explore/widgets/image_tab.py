"""Second tab: one image under all settings, the answer to a click on a pixel, and the reader's note."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import ipywidgets as W
from numpy import ndarray
from torch import Tensor

from pnilib.apps.explore.category import Category
from pnilib.apps.explore.figures import answer_pixel, draw_answer, draw_image
from pnilib.apps.explore.maps import COMPUTED, explained_by, features_of, maps_of
from pnilib.apps.explore.results import SettingResult
from pnilib.apps.explore.run import open_exploration
from pnilib.apps.explore.samples import sample
from pnilib.apps.explore.view import View
from pnilib.apps.explore.widgets.figure import FigureView
from pnilib.apps.explore.widgets.note import NoteBox
from pnilib.apps.explore.widgets.state import State, show_errors
from pnilib.apps.explore.words import note_words
from pnilib.errors import PNIError

__all__ = ["ImageTab"]

_ASK = "click on a pixel to ask why it scores as it does; turn the wheel to zoom, drag to move"
_WHOLE = (0.0, 0.0, 1.0)


class ImageTab(W.VBox):  # type: ignore[misc]
    """chosen: category and index of the image.  pixel: (row, column) that was asked about.  window: what the panels
    show, left, top and side in parts of the image.  moved: called when the data set was found elsewhere.

    `may_point`: whether the reader may name another data folder here (not on a page that others may open).
    """

    def __init__(self, state: State, *, may_point: bool) -> None:
        self.state = state
        self.chosen: tuple[Category, int] | None = None
        self.pixel: tuple[int, int] | None = None
        self.window = _WHOLE
        self.maps: dict[str, ndarray] = {}
        self.moved: Callable[[], None] = lambda: None
        self._worker = ThreadPoolExecutor(1)
        self._features: tuple[tuple[str, int, Path], Future[Tensor]] | None = None
        self._shown: tuple[str, int, str] | None = None
        """category, image and result that are on the screen."""
        self.opacity = W.FloatSlider(0.6, min=0, max=1, step=0.05, description="overlay", readout=False)
        self.opacity.add_class("pni-opacity")
        self.setting = W.Dropdown(options=[], description="explain under", style={"description_width": "90px"})
        self.setting.add_class("pni-setting")
        self.whole = W.Button(description="whole image").add_class("pni-whole")
        self.panels = FigureView(self._gesture, zooms=True).add_class("pni-panels")
        self.answer = FigureView().add_class("pni-answer")
        self.note = NoteBox(state.notes)
        self.root = W.Text(placeholder="/where/the/data/set/is", description="data folder").add_class("pni-root")
        self.use = W.Button(description="use").add_class("pni-use-root")
        self.pointing = W.HBox([self.root, self.use])
        self.pointing.layout.display = "none"
        if may_point:
            state.lost = self._offer
        tools = W.HBox([self.opacity, self.setting, self.whole])
        super().__init__([tools, self.panels, self.answer, self.note])
        self.add_class("pni-image")
        self.panels.show(None, "choose an image among the samples")
        self.opacity.observe(lambda _: self._draw(), "value")
        self.setting.observe(lambda _: self._explain(), "value")
        self.whole.on_click(lambda _: self._show_window(*_WHOLE))
        self.use.on_click(self._point)

    def show(self, key: str, i: int) -> None:
        """Show test image i of a category.  Raises PNIError for one that the run has not."""
        category = self.state.opened.category(key)
        if not 0 <= i < len(category.names):
            raise PNIError(f"{key}: has no test image {i}")
        sample(category, i, self.state.label)  # raises before anything changes
        self.chosen, self.pixel, self.window = (category, i), None, _WHOLE
        self.answer.show(None, _ASK)
        self.note.show(category.key, category.names[i])
        self.refresh()

    def refresh(self) -> None:
        """The same image under another result or threshold."""
        if self.chosen is None:
            return
        category, i = self.chosen
        sample(category, i, self.state.label)  # raises for a result that the category lacks
        self.maps = maps_of(category, i, (self.state.label,))
        self._draw()
        self.state.tell_fault(self.panels.view)
        self._offer_settings(category, i, self.state.label)

    def _draw(self) -> None:
        """The looked-at result first, beside it every map that is kept or can be made."""
        if self.chosen is None:
            return
        (category, i), state = self.chosen, self.state
        labels = list(dict.fromkeys([state.label, *self.maps]))
        thresholds = {label: state.threshold(label, category.key) for label in labels if label in category.results}
        view = draw_image(
            state.opened, category.key, i, labels, thresholds, maps=self.maps, opacity=self.opacity.value,
            pixel=self.pixel, window=self.window,
        )  # fmt: skip
        self.panels.show(view)

    def _offer_settings(self, category: Category, i: int, label: str) -> None:
        """A pixel is explained by the result that is looked at, and beside it by the plain settings of its fit; for
        another image or result the choice starts anew."""
        result, before = category.results[label], self._shown
        own = [] if result.refined else [label]
        beside = [name + result.suffix for name in ("E", *COMPUTED)]
        beside = [name for name in beside if name in self.maps or name in category.results]
        names = list(dict.fromkeys(own + beside))
        self._shown = None  # what changes now is not the reader's doing
        kept = self.setting.value if before == (category.key, i, label) else None
        self.setting.options = names
        self.setting.value = kept if kept in names else next(iter(names), None)
        self._shown = category.key, i, label
        if names:
            with suppress(PNIError):  # a click will say why
                self._coming(category, i, explained_by(category, names[0])[0])
        if before is not None and before[:2] == (category.key, i) and before != self._shown:
            self._explain()

    @show_errors
    def _gesture(self, gesture: dict[str, Any]) -> None:
        """A click asks about a pixel, the wheel zooms around its point, a drag moves the window."""
        view, (left, top, side) = self.panels.view, self.window
        if view is None or (pixel := view.pixel_at(gesture["x"], gesture["y"])) is None:
            return
        if gesture["kind"] == "click":
            self.ask(*pixel)
            return
        width, height = view.pixels[0].get_position().size  # every panel's
        if gesture["kind"] == "drag":
            self._show_window(left - side * gesture["dx"] / width, top - side * gesture["dy"] / height, side)
        else:
            size = self._size()
            smaller = min(max(side * gesture["factor"], 0.05), 1.0)
            row, column = pixel
            x, y = column / size, row / size
            self._show_window(x - (x - left) * smaller / side, y - (y - top) * smaller / side, smaller)

    def _size(self) -> int:
        assert self.chosen is not None
        return int(self.chosen[0].results[self.state.label].config.image_crop)

    def _show_window(self, left: float, top: float, side: float) -> None:
        """Within the image."""
        self.window = min(max(left, 0.0), 1 - side), min(max(top, 0.0), 1 - side), side
        self._draw()

    def _coming(self, category: Category, i: int, result: SettingResult) -> Future[Tensor]:
        """The shown image's features, on their way since it was opened, so that the first click need not wait."""
        key = (category.key, i, category.model_folder(result))
        if self._features is None or self._features[0] != key or _failed(self._features[1]):
            self._features = (key, self._worker.submit(lambda: features_of(category.model(result), category, i)))
        return self._features[1]

    def ask(self, row: int, column: int) -> None:
        """Explain one pixel of the shown image."""
        self.pixel = (row, column)
        self._explain()
        self._draw()

    @show_errors
    def _explain(self) -> None:
        if self.pixel is None or self.chosen is None or self._shown is None:
            return
        (category, i), name = self.chosen, self.setting.value
        self.answer.show(None)  # no answer of another result stays on the screen
        if name is None:
            raise PNIError(f"{category.key}: the run has no finished setting A or E, which explain a pixel")
        result = explained_by(category, name)[0]
        threshold = self.state.threshold(name, category.key) if name in category.results else None
        answer = answer_pixel(
            category, i, name, self.pixel, self.maps, threshold,
            features=lambda: self._coming(category, i, result).result(),
        )  # fmt: skip
        self.state.say("")
        self.answer.show(None, answer.words)  # at once; the crops are read from many files
        self.state.show(draw_answer(answer), self.answer)

    @property
    def views(self) -> list[View]:
        """What is shown, with the reader's note."""
        if self.chosen is None or self.panels.view is None:
            raise PNIError("choose an image first")
        category, i = self.chosen
        note = note_words(self.state.notes.of(category.key, category.names[i]))
        panels = self.panels.view
        panels = replace(panels, words=f"{panels.words}\n{note}") if note else panels
        return [panels] + ([] if self.answer.view is None else [self.answer.view])

    def _offer(self) -> None:
        self.pointing.layout.display = ""

    @show_errors
    def _point(self, _: Any) -> None:
        """Look for the data set elsewhere."""
        opened = self.state.opened
        moved = open_exploration(opened.folder, data=self.root.value.strip() or None)
        for key, category in opened.categories.items():
            there = moved.categories[key]
            category.move(there.root if there.images is None else there.images)
            for home in {id(r.home): r.home for r in category.results.values() if r.home}.values():
                if home is not category and not home.root.is_dir():  # a second run's
                    home.move(there.root if there.images is None else there.images)
        for category in opened.categories.values():
            category.image(0)  # says so when it is not there either
        self.pointing.layout.display = "none"
        self.state.say("found")
        self.moved()


def _failed(work: Future[Tensor]) -> bool:
    return work.done() and work.exception() is not None
