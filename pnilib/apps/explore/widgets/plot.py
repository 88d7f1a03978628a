"""A plotly figure that keeps its whole state on this side, with clicks.

plotly's own FigureWidget sends changes as messages; a view that is still being made (a tab, a page that loads) may miss
them and stays as it was.  Here a change is a new state, which every view draws when it can.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import anywidget
import plotly.graph_objects as go
import traitlets
from plotly.offline import get_plotlyjs

__all__ = ["Plot", "plain"]


@cache
def _library() -> str:
    """One text for all plots."""
    return str(get_plotlyjs())


def plain(text: str) -> str:
    """For titles and the like, in which plotly reads a few tags, entities and formulas."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("$", "&#36;")


class Plot(anywidget.AnyWidget):  # type: ignore[misc]
    """figure: JSON of a plotly figure.  on_top: JSON list of [update, traces], applied on top with Plotly.restyle, for
    small changes of large figures.  clicked: trace, point, x, y of the last click, and its number n.  library: the text
    of plotly.js."""

    _esm = Path(__file__).parent / "plot.js"
    library = traitlets.Unicode().tag(sync=True)
    figure = traitlets.Unicode('{"data": [], "layout": {}}').tag(sync=True)
    on_top = traitlets.Unicode("[]").tag(sync=True)
    clicked = traitlets.Dict().tag(sync=True)

    def __init__(self) -> None:
        super().__init__(library=_library())

    def draw(self, figure: go.Figure, style: Sequence[tuple[dict[str, Any], list[int]]] = ()) -> None:
        with self.hold_sync():
            self.figure = figure.to_json()
            self.restyle(style)

    def restyle(self, style: Sequence[tuple[dict[str, Any], list[int]]]) -> None:
        """Replaces what was applied before."""
        self.on_top = json.dumps(list(style))
