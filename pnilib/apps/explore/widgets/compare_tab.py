"""Third tab: two results of the same images, and which images changed sides."""

from collections.abc import Callable
from html import escape
from typing import Any

import ipywidgets as W

from pnilib.apps.explore.samples import changed_sides
from pnilib.apps.explore.widgets.gallery import Gallery
from pnilib.apps.explore.widgets.scatter import ScatterPlot
from pnilib.apps.explore.widgets.state import PAGE, State, told

__all__ = ["CompareTab"]


class CompareTab(W.VBox):  # type: ignore[misc]
    """The result that is looked at (`State.label`) against another one.

    `on_image(category, index)` is called for a clicked point or thumbnail.
    """

    def __init__(self, state: State, on_image: Callable[[str, int], None]) -> None:
        self.state, self._on_image = state, on_image
        self.base = W.Dropdown(options=state.opened.labels, description="against").add_class("pni-base")
        self.base.value = self._fitting()
        self.plot: ScatterPlot | None = None
        self.plot_box = W.VBox()
        self.sides = W.HTML().add_class("pni-sides")
        self.gallery = Gallery()
        super().__init__([self.base, self.sides, self.plot_box, self.gallery])
        self.add_class("pni-compare")
        self.base.observe(self.refresh, "value")
        self.gallery.observe(lambda _: on_image(*self.gallery.place), "chosen")

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

    @told
    def refresh(self, *_: Any) -> None:
        """Draw both results as they are now."""
        ours, base = self.state.label, self.base.value
        table = changed_sides(self.state.opened, ours, base, self.thresholds)
        changed = table[table["changed"] != ""]
        n = changed["changed"].value_counts()
        more = f"; the first {2 * PAGE} of them below" if len(changed) > 2 * PAGE else ""
        self.sides.value = (
            f"{escape(ours)} against {escape(base)}: {n.get('now right', 0)} images are right now that were wrong, "
            f"{n.get('now wrong', 0)} are wrong now that were right, of {len(table):,}{more}."
        )
        if self.plot is None:
            self.plot = ScatterPlot(self._on_image)
            self.plot_box.children = (self.plot,)
        self.plot.show(table, ours, base)
        self.state.fill(self.gallery, changed.head(2 * PAGE), "score_ours", "outcome_ours")
