"""Both scores of every image, in units of the category: who changed sides."""

from collections.abc import Callable

import pandas as pd
import plotly.graph_objects as go

from pnilib.apps.explore.widgets.plot import Plot, plain

__all__ = ["ScatterPlot"]

_KINDS = {"": ("same side", "#bbbbbb", "circle"), "now right": ("now right", "#0072b2", "triangle-up"),
          "now wrong": ("now wrong", "#d55e00", "x")}  # fmt: skip


class ScatterPlot(Plot):
    """`on_image(category, index)` is called for a click on a point."""

    def __init__(self, on_image: Callable[[str, int], None]) -> None:
        super().__init__()
        self._keys: list[list[tuple[str, int]]] = []
        self.observe(lambda change: on_image(*self._keys[change["new"]["trace"]][change["new"]["point"]]), "clicked")

    def show(self, table: pd.DataFrame, ours: str, base: str) -> None:
        """`table` as of `changed_sides`.  Axes: score minus threshold, sd of the category's scores."""
        spread = {which: table.groupby("category")[f"score_{which}"].transform("std", ddof=0).replace(0, 1.0)
                  for which in ("ours", "base")}  # fmt: skip
        margin = {which: (table[f"score_{which}"] - table[f"threshold_{which}"]) / spread[which] for which in spread}
        figure, self._keys = go.Figure(), []
        for kind, (name, colour, symbol) in _KINDS.items():
            mine = (table["changed"] == kind).to_numpy()
            figure.add_scatter(
                x=margin["base"][mine].to_numpy(), y=margin["ours"][mine].to_numpy(), name=name, mode="markers",
                marker=dict(color=colour, symbol=symbol, size=8),
            )  # fmt: skip
            self._keys.append(list(zip(table["category"][mine], table["index"][mine].astype(int), strict=True)))
        lines = dict(zeroline=True, zerolinecolor="black", zerolinewidth=1)
        figure.update_xaxes(title_text=f"{plain(base)}: score minus threshold, sd", **lines)
        figure.update_yaxes(title_text=f"{plain(ours)}: score minus threshold, sd", **lines)
        figure.update_layout(
            height=420, width=720, template="plotly_white", margin=dict(l=60, r=10, t=30, b=50), hovermode="closest"
        )
        self.draw(figure)
