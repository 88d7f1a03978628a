"""The explorer on the screen: samples under a threshold, one image and its pixels, two results compared.

Thin: its views are those of `pnilib.apps.explore.figures`, and every name from a run is escaped or shown as plain text.
"""

import gc
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as W
from IPython.display import display

from pnilib.apps.explore.export import page_html
from pnilib.apps.explore.notes import Notes
from pnilib.apps.explore.prepare import prepare
from pnilib.apps.explore.run import Exploration, open_exploration
from pnilib.apps.explore.view import ImageRef, stacked
from pnilib.apps.explore.widgets.compare_tab import CompareTab
from pnilib.apps.explore.widgets.image_tab import ImageTab
from pnilib.apps.explore.widgets.samples_tab import SamplesTab
from pnilib.apps.explore.widgets.state import ALL, State, show_errors
from pnilib.apps.pages import data_url
from pnilib.errors import PNIError

__all__ = ["Explorer", "explore", "page"]

SAMPLES, IMAGE, COMPARE = range(3)
"""tabs."""


def explore(
    run: Path | str, *, data: Path | str | None = None, other: Path | str | None = None, notes: Path | str | None = None
) -> "Explorer":
    """The explorer of a run, for a notebook's cell.

    run, other: the --store of `pni reproduce`, or the --out of `pni fit` or `pni score`, opened by `open_exploration`.
    notes: the CSV of the reader's notes; default notes.csv in the run.  Raises PNIError as `open_exploration` does.
    """
    for folder in (run, other):
        if folder is not None:
            prepare(folder, data=data, progress=True)
    return _explorer(run, data, other, notes, may_point=True)


def page(
    run: Path | str, *, data: Path | str | None = None, other: Path | str | None = None, notes: Path | str | None = None
) -> None:
    """The explorer as what `pni explore` serves: without the field that points to another folder."""
    try:
        display(_explorer(run, data, other, notes, may_point=False))
    except PNIError as fault:
        display(W.HTML(f"<span style='color:#b00020'>{escape(str(fault))}</span>"))


def _explorer(
    run: Path | str, data: Path | str | None, other: Path | str | None, notes: Path | str | None, *, may_point: bool
) -> "Explorer":
    opened = open_exploration(run, data=data, other=other)
    explorer = Explorer(opened, Notes(opened.home / "notes.csv" if notes is None else notes), may_point=may_point)
    gc.freeze()  # figures are many small objects: the collector need not look through torch for each hundred
    return explorer


class Explorer(W.VBox):  # type: ignore[misc]
    """Three tabs over one `State`; the tabs' own attributes are their widgets."""

    def __init__(self, opened: Exploration, notes: Notes, *, may_point: bool = True) -> None:
        self.state = State(opened, notes, self._open)
        keys = list(opened.categories)
        title = W.HTML(f"<b style='font-size:18px'>{escape(opened.folder.resolve().name)}</b>")
        if opened.unfinished:
            lines = "<br>".join(escape(line) for line in opened.unfinished)
            title.value += (
                f"<details><summary>not finished, left out: {len(opened.unfinished)}</summary>{lines}</details>"
            )
        self.result = W.Dropdown(options=opened.labels, description="result").add_class("pni-result")
        choices = ([ALL] if len(keys) > 1 else []) + keys
        self.category = W.Dropdown(options=choices, description="category").add_class("pni-category")
        self.export = W.Button(description="view as PNG", icon="download").add_class("pni-export-view")
        self.taken = W.HTML().add_class("pni-taken")
        self.samples = SamplesTab(self.state)
        self.image = ImageTab(self.state, may_point=may_point)
        self.compare = CompareTab(self.state)
        self.tabs = W.Tab([self.samples, self.image, self.compare], layout=W.Layout(width="100%"))
        for k, name in enumerate(("Samples", "Image and pixel", "Compare")):
            self.tabs.set_title(k, name)
        head = W.HBox([self.result, self.category, self.export, self.taken])
        super().__init__([title, head, self.state.message, self.image.pointing, self.tabs])
        self.add_class("pni-explorer")
        self.image.moved = self._moved
        for widget in (self.result, self.category):
            widget.observe(self._chosen, "value")
        self.tabs.observe(self._turned, "selected_index")
        self.samples.export.on_click(self._export_selection)
        self.export.on_click(self._export_view)
        self._chosen()

    @show_errors
    def _chosen(self, *_: Any) -> None:
        self.state.say("")
        self.state.label, self.state.key = self.result.value, self.category.value
        try:
            self.samples.refresh()
        except PNIError:
            self.samples.empty()
            raise
        self.compare.follow()
        if self.tabs.selected_index == IMAGE:
            self.image.refresh()
        elif self.tabs.selected_index == COMPARE:
            self.compare.refresh()

    @show_errors
    def _turned(self, change: dict[str, Any]) -> None:
        if change["new"] == IMAGE:
            self.image.refresh()
        elif change["new"] == COMPARE:
            self.compare.refresh()

    @show_errors
    def _open(self, image: ImageRef) -> None:
        self.state.say("")
        self.show(*image)

    def show(self, key: str, i: int) -> None:
        """Show test image i of a category.  Raises PNIError for one that the run has not."""
        self.tabs.unobserve(self._turned, "selected_index")
        self.tabs.selected_index = IMAGE  # first, so that the reader sees the pictures come
        self.tabs.observe(self._turned, "selected_index")
        self.image.show(key, i)

    def _moved(self) -> None:
        self.samples.forget_pictures()
        if self.image.chosen is not None:
            self.image.refresh()
        if self.compare.views:
            self.compare.refresh()

    # -- take away -----------------------------------------------------------------------------

    @show_errors
    def _export_selection(self, _: Any) -> None:
        html = page_html(self.state.part, self.samples.shown, self.state.label, self.state.notes)
        self._offer(html.encode(), "selection.html", "text/html")

    @show_errors
    def _export_view(self, _: Any) -> None:
        self._offer(stacked(self.tabs.children[self.tabs.selected_index].views), "view.png", "image/png")

    def _offer(self, blob: bytes, name: str, kind: str) -> None:
        """A link that saves it: nothing is written on this side."""
        url = data_url(blob, kind)
        self.taken.value = f"<a download='{name}' href='{url}'>save {name} ({len(blob) / 1e6:.1f} MB)</a>"
