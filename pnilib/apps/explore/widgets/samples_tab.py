"""First tab: all test images under a threshold that moves, with filters."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ipywidgets as W
import pandas as pd

from pnilib.apps.explore.figures import NAMED_THRESHOLDS, draw_samples, draw_threshold
from pnilib.apps.explore.samples import OUTCOMES, Filter
from pnilib.apps.explore.view import View
from pnilib.apps.explore.widgets.figure import FigureView
from pnilib.apps.explore.widgets.state import ALL, PAGE, State, show_errors
from pnilib.apps.explore.words import threshold_words
from pnilib.errors import PNIError

__all__ = ["SamplesTab"]

_NONE = pd.DataFrame(columns=["category", "index", "image", "label", "defect_type", "score", "threshold", "outcome"])


class SamplesTab(W.VBox):  # type: ignore[misc]
    """table: `samples` of what is looked at.  shown: the rows that pass the filters.  A clicked thumbnail opens."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.page, self._quiet = 0, False
        self._on_sheet: object = None
        """what the thumbnails on the screen were drawn for."""
        self.table = self.shown = _NONE
        wide = W.Layout(width="560px")
        self.slider = W.FloatSlider(description="threshold", readout=False, layout=wide).add_class("pni-threshold")
        # a slider's own readout takes "0,5" for 0 and moves to its end
        self.exact = W.Text(continuous_update=False, layout=W.Layout(width="110px")).add_class("pni-exact")
        self.jumps = {name: W.Button(description=name) for name in NAMED_THRESHOLDS}
        self.plot = FigureView().add_class("pni-counts")
        self.outcomes = W.SelectMultiple(options=OUTCOMES, rows=5, description="outcome").add_class("pni-outcomes")
        self.defects = W.SelectMultiple(options=[], rows=5, description="defect").add_class("pni-defects")
        self.text = W.Text(description="file name", placeholder="part of it").add_class("pni-text")
        from_, to = (
            dict(placeholder="any", continuous_update=False, layout=W.Layout(width=w)) for w in ("190px", "110px")
        )
        self.low = W.Text(description="score from", **from_).add_class("pni-low")
        self.high = W.Text(description="to", style={"description_width": "20px"}, **to).add_class("pni-high")
        self.clear = W.Button(description="show all")
        narrow = W.Layout(width="48px")
        self.back, self.forward = (W.Button(description=sign, layout=narrow) for sign in "\u25c0\u25b6")
        self.sheet = FigureView(lambda gesture: state.open_clicked(self.sheet, gesture)).add_class("pni-sheet")
        self.export = W.Button(description="selection as HTML", icon="download", layout=W.Layout(width="auto"))
        self.export.add_class("pni-export-page")
        filters = W.HBox([self.outcomes, self.defects, W.VBox([self.text, W.HBox([self.low, self.high]), self.clear])])
        turning = W.HBox([self.back, self.forward, self.export])
        head = W.HBox([self.slider, self.exact, *self.jumps.values()])
        super().__init__([head, self.plot, filters, turning, self.sheet])
        self.add_class("pni-samples")

        self.slider.observe(self._slid, "value")
        self.exact.observe(self._typed, "value")
        for name, button in self.jumps.items():
            button.on_click(lambda _, metric=NAMED_THRESHOLDS[name]: self._jump(metric))
        for widget in (self.outcomes, self.defects, self.text, self.low, self.high):
            widget.observe(self._filtered, "value")
        self.clear.on_click(self._show_all)
        self.back.on_click(lambda _: self.turn(-1))
        self.forward.on_click(lambda _: self.turn(1))

    @contextmanager
    def _silent(self) -> Iterator[None]:
        """Changes of widgets in here are ours, not the reader's."""
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False

    def refresh(self) -> None:
        """Another result or other categories."""
        state, table = self.state, self.state.table()
        single = state.key != ALL
        marks: dict[str, float] = {}
        with self._silent():
            self.slider.disabled = self.exact.disabled = not single
            self.exact.value = ""
            self.slider.description = "threshold" if single else "each its own"
            self.slider.tooltip = "" if single else "over several categories, each has its own: choose a category"
            self.defects.options = sorted(set(table["defect_type"]))
            if single:
                result = state.opened.categories[state.key].results[state.label]
                marks = {
                    name: at for name, metric in NAMED_THRESHOLDS.items() if math.isfinite(at := result.metric(metric))
                }
                at = state.threshold(state.label, state.key)
                values = [*table["score"], *marks.values(), at]
                room = 0.02 * (max(values) - min(values)) or 1.0
                _rescale(self.slider, min(values) - room, max(values) + room, at)
                self.exact.value = f"{at:.6g}"
            self.low.value = self.high.value = ""  # another result's scores are on another scale
        for name, button in self.jumps.items():
            button.disabled = name not in marks
        self.page, self._on_sheet = 0, None
        self._update(table)

    def empty(self) -> None:
        """The category lacks the result: no number of another one stays on the screen."""
        with self._silent():
            self.slider.disabled = self.exact.disabled = True
            self.exact.value, self.defects.options = "", []
        for button in self.jumps.values():
            button.disabled = True
        self.table = self.shown = _NONE
        self.plot.show(None)
        self.sheet.show(None)

    def set_threshold(self, threshold: float) -> None:
        """Of the shown result in the shown category."""
        state, slider = self.state, self.slider
        state.thresholds.setdefault(state.label, {})[state.key] = threshold
        with self._silent():
            if slider.min <= threshold <= slider.max:
                slider.value = threshold
            else:
                _rescale(slider, min(slider.min, threshold), max(slider.max, threshold), threshold)
            self.exact.value = f"{threshold:.6g}"
        self._update(state.table())

    @show_errors
    def _slid(self, change: dict[str, Any]) -> None:
        """The browser rounds a value to the slider's steps and sends it back: that is no move of the reader's, and the
        threshold that is exactly a score must stay so."""
        if self._quiet or self.slider.disabled:
            return
        at = self.state.threshold(self.state.label, self.state.key)
        if abs(change["new"] - at) > 0.5001 * self.slider.step:
            self.set_threshold(change["new"])

    @show_errors
    def _typed(self, change: dict[str, Any]) -> None:
        if self._quiet or self.exact.disabled:
            return
        try:
            self.set_threshold(_number(change["new"]))
        except PNIError:
            with self._silent():
                self.exact.value = f"{self.state.threshold(self.state.label, self.state.key):.6g}"
            raise
        self.state.say("")

    @show_errors
    def _jump(self, metric: str) -> None:
        self.set_threshold(self.state.opened.categories[self.state.key].results[self.state.label].metric(metric))

    def _update(self, table: pd.DataFrame) -> None:
        """Everything that follows the threshold."""
        state, self.table = self.state, table
        self.plot.words = threshold_words(state.part, state.label, table)  # the picture takes longer to draw
        state.show(draw_threshold(state.part, state.label, state.thresholds.get(state.label)), self.plot)
        self._filtered()

    @show_errors
    def _filtered(self, change: Any = None) -> None:
        if self._quiet:
            return
        self.page = 0 if change is not None else self.page
        wanted = Filter(
            outcomes=self.outcomes.value, defect_types=self.defects.value, text=self.text.value.strip(),
            low=_number(self.low.value, -math.inf), high=_number(self.high.value, math.inf),
        )  # fmt: skip
        if change is not None:
            self.state.say("")
        self.shown = wanted.rows(self.table)
        self.turn(0)

    def _show_all(self, _: Any) -> None:
        with self._silent():
            self.outcomes.value, self.defects.value, self.text.value = (), (), ""
            self.low.value = self.high.value = ""
        self._filtered({})

    def turn(self, step: int) -> None:
        """Pages of thumbnails; those on the screen are drawn anew where what they say has changed."""
        last = max(0, (len(self.shown) - 1) // PAGE)
        self.page = min(max(self.page + step, 0), last)
        self.back.disabled, self.forward.disabled = self.page == 0, self.page == last
        first = self.page * PAGE
        rows = self.shown.iloc[first : first + PAGE]
        said = ["category", "index", "outcome"] + ([] if self.state.key != ALL else ["threshold"])
        on_sheet = (len(self.shown), first, rows[said].to_numpy().tolist())
        if on_sheet != self._on_sheet and len(self.table):
            view = draw_samples(self.state.opened, self.shown, most=PAGE, first=first)
            self.state.show(view, self.sheet)
            self._on_sheet = None if view.fault else on_sheet

    def forget_pictures(self) -> None:
        """The data set was found elsewhere: draw the thumbnails anew."""
        self._on_sheet = None
        self.turn(0)

    @property
    def views(self) -> list[View]:
        """What is shown."""
        return [figure.view for figure in (self.plot, self.sheet) if figure.view is not None]


def _rescale(slider: W.FloatSlider, low: float, high: float, value: float) -> None:
    """Another range and value, in one message: a browser that saw them one by one would clip the value and send that
    back."""
    high = high if high > low else low + 1.0
    with slider.hold_sync():
        slider.min, slider.max = min(low, slider.min), max(high, slider.max)
        slider.value = value
        slider.min, slider.max, slider.step = low, high, (high - low) / 2000


def _number(text: str, otherwise: float | None = None) -> float:
    """What is typed, with a point or a comma; `otherwise` for nothing.  Raises PNIError for anything else."""
    if otherwise is not None and not text.strip():
        return otherwise
    one_comma = text.count(",") == 1 and "." not in text
    with suppress(ValueError):
        if math.isfinite(value := float(text.replace(",", ".") if one_comma else text)):
            return value
    raise PNIError(f"{text!r}: is not a number: write for instance 0.5")
