"""Second tab: one image under all settings, the answer to a click on a pixel, and the reader's note."""

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as W
from numpy import ndarray
from torch import Tensor

from pnilib.apps.explore.maps import COMPUTED, explained_by, features_of, maps_of, normal_level
from pnilib.apps.explore.opened import Category, Scored, open_exploration
from pnilib.apps.explore.pictures import rgb
from pnilib.apps.explore.widgets.image import ImagePlot, panels_of
from pnilib.apps.explore.widgets.note import NoteBox
from pnilib.apps.explore.widgets.pixel import pixel_html
from pnilib.apps.explore.widgets.state import State, told
from pnilib.detector.explain import cell_at
from pnilib.errors import PNIError

__all__ = ["ImageTab"]

_ASK = "click on a pixel to ask why it scores as it does"


class ImageTab(W.VBox):  # type: ignore[misc]
    """chosen: category and index of the image.  pixel: (row, column) that was asked about.  moved: called when the
    data set was found elsewhere.

    `may_point`: whether the reader may name another data folder here (not on a page that others may open).
    """

    def __init__(self, state: State, *, may_point: bool) -> None:
        self.state = state
        self.chosen: tuple[Category, int] | None = None
        self.pixel: tuple[int, int] | None = None
        self.maps: dict[str, ndarray] = {}
        self.moved: Callable[[], None] = lambda: None
        self._worker = ThreadPoolExecutor(1)
        self._features: tuple[tuple[str, int, Path], Future[Tensor]] | None = None
        self._shown: tuple[str, int, str] | None = None
        """category, image and result that are on the screen."""
        self.title = W.HTML("choose an image among the samples").add_class("pni-title")
        self.opacity = W.FloatSlider(0.6, min=0, max=1, step=0.05, description="overlay", readout=False)
        self.opacity.add_class("pni-opacity")
        self.plot: ImagePlot | None = None
        self.plot_box = W.VBox()
        self.setting = W.Dropdown(options=[], description="explain under", style={"description_width": "90px"})
        self.setting.add_class("pni-setting")
        self.answer = W.HTML(_ASK).add_class("pni-answer")
        self.note = NoteBox(state.notes)
        self.root = W.Text(placeholder="/where/the/data/set/is", description="data folder").add_class("pni-root")
        self.use = W.Button(description="use").add_class("pni-use-root")
        self.pointing = W.HBox([self.root, self.use])
        self.pointing.layout.display = "none"
        if may_point:
            state.lost = self._offer
        tools = W.HBox([self.opacity, self.setting])
        super().__init__([self.title, tools, self.plot_box, self.answer, self.note])
        self.add_class("pni-image")
        self.opacity.observe(self._faded, "value")
        self.setting.observe(lambda _: self._explain(), "value")
        self.use.on_click(self._point)

    def show(self, key: str, i: int) -> None:
        """Show test image i of a category.  Raises PNIError for one that the run has not."""
        category = self.state.opened.category(key)
        if not 0 <= i < len(category.names):
            raise PNIError(f"{key}: has no test image {i}")
        self.state.row(category, i)  # raises before anything changes
        self.chosen, self.pixel = (category, i), None
        self.answer.value = _ASK
        self.note.show(category.key, category.names[i])
        self.refresh()

    def refresh(self) -> None:
        """The same image under another result or threshold."""
        if self.chosen is None:
            return
        category, i = self.chosen
        label, row = self.state.label, self.state.row(category, i)
        geometry = category.results[label].config.geometry
        truth = {0: "normal", 1: f"defective ({row['defect_type']})", -1: "of unknown label"}[row["label"]]
        self.title.value = (
            f"<b>{escape(category.key)}: {escape(row['image'])}</b>, {escape(truth)}; {escape(label)}: score "
            f"<b>{row['score']:.5g}</b>, threshold {row['threshold']:.5g}: <b>{row['outcome']}</b>"
        )
        image = mask = None
        try:
            image = rgb(category.image(i, geometry))
            found = category.mask(i, geometry)
            mask = None if found is None else found.numpy()
            self.title.value += "; no true mask" if found is None else ""
        except PNIError as fault:
            self.state.say(str(fault), bad=True)
            self.state.lost()
        self.maps = maps_of(category, i, (label,))
        panels = panels_of(category, label, self.maps, image)
        if panels:
            if self.plot is None:  # made when needed: each plot brings its library along
                self.plot = ImagePlot(self._clicked)
            self.plot_box.children = (self.plot,)
            self.plot.show(panels, mask, self.opacity.value)
            if self.pixel is not None:
                self.plot.mark(*self.pixel)
        else:  # neither the image nor any map is at hand: the numbers and the note remain
            self.plot_box.children = ()
        self._offer_settings(category, i, label)

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

    def _faded(self, change: dict[str, Any]) -> None:
        if self.plot is not None:
            self.plot.set_opacity(change["new"])

    @told
    def _clicked(self, row: int, column: int) -> None:
        self.ask(row, column)

    def _coming(self, category: Category, i: int, result: Scored) -> Future[Tensor]:
        """The shown image's features, on their way since it was opened, so that the first click need not wait."""
        key = (category.key, i, category.model_folder(result))
        if self._features is None or self._features[0] != key or _failed(self._features[1]):
            self._features = (key, self._worker.submit(lambda: features_of(category.model(result), category, i)))
        return self._features[1]

    def ask(self, row: int, column: int) -> None:
        """Explain one pixel of the shown image."""
        self.pixel = (row, column)
        if self.plot is not None:
            self.plot.mark(row, column)
        self._explain()

    @told
    def _explain(self) -> None:
        if self.pixel is None or self.chosen is None or self._shown is None:
            return
        (category, i), name = self.chosen, self.setting.value
        self.answer.value = ""  # no answer of another result stays on the screen
        if name is None:
            raise PNIError(f"{category.key}: the run has no finished setting A or E, which explain a pixel")
        result, config = explained_by(category, name)
        (row, column), model = self.pixel, category.model(result)
        features = self._coming(category, i, result).result()
        border = config.border_cells if config.border == "replicate" else 0
        grid = (features.shape[0], features.shape[1])
        found = model.explain_cell(features, cell_at(row, column, config.image_crop, grid, border), config)
        values = {label: float(one[row, column]) for label, one in self.maps.items()}
        threshold = self.state.threshold(name, category.key) if name in category.results else math.nan
        told = (
            result.home or category, found, grid, self.pixel, values, values.get(name, math.nan), threshold,
            normal_level(category, name),
        )  # fmt: skip
        self.answer.value = pixel_html(*told, pictures=False)  # the words at once
        self.answer.value = pixel_html(*told)
        self.state.say("")

    def _offer(self) -> None:
        self.pointing.layout.display = ""

    @told
    def _point(self, _: Any) -> None:
        """Look for the data set elsewhere."""
        opened = self.state.opened
        moved = open_exploration(opened.folder, data=self.root.value.strip() or None)
        for key, category in opened.categories.items():
            found = moved.categories[key]
            place = found.root if found.images is None else found.images
            category.move(place)
            for home in {id(r.home): r.home for r in category.results.values() if r.home}.values():
                if home is not category and not home.root.is_dir():  # a second run's
                    home.move(place)
        for category in opened.categories.values():
            category.image(0)  # says so when it is not there either
        self.pointing.layout.display = "none"
        self.state.say("found")
        self.moved()


def _failed(work: Future[Tensor]) -> bool:
    return work.done() and work.exception() is not None
