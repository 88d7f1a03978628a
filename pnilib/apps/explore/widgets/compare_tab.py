"""Third tab: two results of the same images, and which images changed sides."""

from typing import Any

import ipywidgets as W

from pnilib.apps.explore.figures import draw_changes
from pnilib.apps.explore.view import View
from pnilib.apps.explore.widgets.figure import FigureView
from pnilib.apps.explore.widgets.state import PAGE, State, show_errors
from pnilib.errors import PNIError

__all__ = ["CompareTab"]


class CompareTab(W.VBox):  # type: ignore[misc]
    """The result that is looked at (`State.label`) against another one; a click on a point or thumbnail opens it."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.base = W.Dropdown(options=state.opened.labels, description="against").add_class("pni-base")
        self.base.value = self._fitting()
        self.sides = FigureView(lambda gesture: state.open_clicked(self.sides, gesture)).add_class("pni-sides")
        super().__init__([self.base, self.sides])
        self.add_class("pni-compare")
        self.base.observe(self.refresh, "value")

    def _fitting(self) -> str:
        """What the shown result is best compared with: its counterpart of the second run; else the baseline."""
        ours, opened = self.state.label, self.state.opened
        labels = opened.labels
        return opened.counterpart(ours) or next((n for n in ("A", "E") if n in labels and n != ours), labels[-1])

    def follow(self) -> None:
        """Another result is looked at: of two runs, like is compared with like."""
        if self.state.opened.second or self.base.value == self.state.label:
            self.base.unobserve(self.refresh, "value")
            self.base.value = self._fitting()
            self.base.observe(self.refresh, "value")

    @property
    def thresholds(self) -> list[dict[str, float]]:
        """Of ours and of base, as the reader moved them."""
        return [self.state.thresholds.get(label, {}) for label in (self.state.label, self.base.value)]

    @property
    def views(self) -> list[View]:
        """What is shown."""
        return [] if self.sides.view is None else [self.sides.view]

    @show_errors
    def refresh(self, *_: Any) -> None:
        """Draw both results as they are now."""
        state = self.state
        try:
            view = draw_changes(state.opened, state.label, self.base.value, self.thresholds, most=2 * PAGE)
        except PNIError:
            self.sides.show(None)
            raise
        state.show(view, self.sides)
