"""Where a threshold lies: histogram of the scores, and its point on the ROC and the precision-recall curve."""

import math
import warnings

import numpy as np
import pandas as pd
from plotly.subplots import make_subplots

from pnilib.apps.explore.samples import Counts
from pnilib.apps.explore.widgets.plot import Plot
from pnilib.metrics import UndefinedMetricWarning, precision_recall_curve, roc_curve
from pnilib.plots.distributions import COLORS

__all__ = ["ThresholdPlot"]

BINS = 60
_WHOLE = dict(type="line", xref="x", yref="y domain", y0=0, y1=1)


class ThresholdPlot(Plot):
    """Scores of one result; `show` gives the images, `move` the threshold."""

    def show(self, table: pd.DataFrame, column: str, marks: dict[str, float]) -> None:
        """`table` as of `samples`; `column`: score, or margin for several categories.  marks: name -> where a dotted
        line stands."""
        values, labels = table[column].to_numpy(), table["label"].to_numpy()
        edges, known = np.histogram_bin_edges(values, BINS), labels >= 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)  # one class: empty curves say so
            roc = roc_curve(values[known], labels[known])
            curve = precision_recall_curve(values[known], labels[known])
        figure = make_subplots(1, 3, column_widths=[0.5, 0.25, 0.25], horizontal_spacing=0.08)
        tallest = 1
        for name, wanted, colour in (("normal", 0, COLORS[2]), ("defective", 1, COLORS[4]), ("unknown", -1, "#888888")):
            if wanted < 0 and known.all():
                continue
            height = np.histogram(values[labels == wanted], edges)[0]
            tallest = max(tallest, int(height.max()))
            figure.add_bar(
                x=(edges[:-1] + edges[1:]) / 2, width=np.diff(edges), y=height, name=name, marker_color=colour,
                opacity=0.65, row=1, col=1,
            )  # fmt: skip
        for k, (x, y) in enumerate(((roc.fpr, roc.tpr), (curve.recall, curve.precision)), 2):
            figure.add_scatter(x=x, y=y, mode="lines", line=dict(color=COLORS[0]), showlegend=False, row=1, col=k)
        titles = {"score": "image score", "margin": "score minus threshold, sd of the category's scores"}
        axes = ((titles[column], "images"), ("false positive rate", "true positive rate"), ("recall", "precision"))
        for k, (x_title, y_title) in enumerate(axes, 1):
            unit = dict(range=[-0.03, 1.03]) if k > 1 else {}
            figure.update_xaxes(title_text=x_title, row=1, col=k, **unit)
            figure.update_yaxes(title_text=y_title, row=1, col=k, **unit)
        figure.update_layout(
            height=250, margin=dict(l=50, r=10, t=30, b=45), barmode="overlay", bargap=0, template="plotly_white",
            legend=dict(x=0.3, y=1, bgcolor="rgba(255,255,255,0.6)"), hovermode="closest",
        )  # fmt: skip
        for name, at in marks.items():
            figure.add_shape(x0=at, x1=at, line=dict(color="#666666", width=1, dash="dot"), **_WHOLE)
            figure.add_annotation(
                x=at, y=1, xref="x", yref="y domain", text=name, showarrow=False, textangle=-90, xanchor="right",
                yanchor="top", font=dict(size=10, color="#444444"),
            )  # fmt: skip
        first = len(figure.data)
        line, point = dict(color="black", width=2), dict(color="black", size=11, symbol="x")
        figure.add_scatter(mode="lines", line=line, showlegend=False, hoverinfo="skip", row=1, col=1)
        for k in (2, 3):
            figure.add_scatter(mode="markers", marker=point, showlegend=False, row=1, col=k)
        self._moving, self._height = [first, first + 1, first + 2], [0, 1.05 * tallest]
        self.draw(figure)

    def move(self, threshold: float, found: Counts) -> None:
        """The line and the two points; a point whose rate is undefined disappears."""
        recall = None if math.isnan(found.fnr) else 1 - found.fnr
        fpr, precision = (None if math.isnan(rate) else rate for rate in (found.fpr, found.precision))
        xs = [[threshold, threshold], [fpr], [recall]]
        self.restyle([({"x": xs, "y": [self._height, [recall], [precision]]}, self._moving)])
