"""Where a threshold lies: histogram of the scores, and its point on the ROC and the precision-recall curve."""

import math
import warnings

import numpy as np
import pandas as pd
from plotly.subplots import make_subplots

from pnilib.explore.samples import Counts
from pnilib.explore.widgets.plot import Plot
from pnilib.metrics import UndefinedMetricWarning, precision_recall_curve, roc_curve

__all__ = ["ThresholdPlot"]

NORMAL, DEFECTIVE, LINE = "#009e73", "#d55e00", "#000000"
BINS = 60


class ThresholdPlot(Plot):
    """Scores of one result; `show` gives the images, `move` the threshold."""

    def __init__(self) -> None:
        layout = make_subplots(1, 3, column_widths=[0.5, 0.25, 0.25], horizontal_spacing=0.08)
        super().__init__(layout)
        point = dict(mode="markers", marker=dict(color=LINE, size=11, symbol="x"), showlegend=False)
        line = dict(mode="lines", line=dict(color="#0072b2"), showlegend=False)
        with self.changes():
            self.add_bar(name="normal", marker_color=NORMAL, opacity=0.65, row=1, col=1)
            self.add_bar(name="defective", marker_color=DEFECTIVE, opacity=0.65, row=1, col=1)
            for column in (2, 3):
                self.add_scatter(name="curve", **line, row=1, col=column)
                self.add_scatter(name="threshold", **point, row=1, col=column)
            self.update_layout(
                height=250, margin=dict(l=50, r=10, t=10, b=45), barmode="overlay", bargap=0, template="plotly_white",
                legend=dict(x=0.3, y=1, bgcolor="rgba(255,255,255,0.6)"), hovermode="closest",
            )  # fmt: skip
            self.update_xaxes(title_text="image score", row=1, col=1)
            self.update_yaxes(title_text="images", row=1, col=1)
            self.update_xaxes(title_text="false positive rate", range=[-0.03, 1.03], row=1, col=2)
            self.update_yaxes(title_text="true positive rate", range=[-0.03, 1.03], row=1, col=2)
            self.update_xaxes(title_text="recall", range=[-0.03, 1.03], row=1, col=3)
            self.update_yaxes(title_text="precision", range=[-0.03, 1.03], row=1, col=3)

    def show(self, table: pd.DataFrame, column: str, marks: dict[str, float]) -> None:
        """`table` as of `samples`; `column`: score, or margin for several categories.  marks: name -> where a dotted
        line stands."""
        values, labels = table[column].to_numpy(), table["label"].to_numpy()
        edges = np.histogram_bin_edges(values, BINS)
        known = labels >= 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)  # one class: empty curves say so
            roc = roc_curve(values[known], labels[known])
            curve = precision_recall_curve(values[known], labels[known])
        with self.changes():
            for bars, wanted in zip(self.data[:2], (0, 1), strict=True):
                bars.x, bars.width = (edges[:-1] + edges[1:]) / 2, np.diff(edges)
                bars.y = np.histogram(values[labels == wanted], edges)[0]
            self.data[2].x, self.data[2].y = roc.fpr, roc.tpr
            self.data[4].x, self.data[4].y = curve.recall, curve.precision
            self.layout.xaxis.title.text = {
                "score": "image score", "margin": "score minus threshold, sd of the category's scores"
            }[column]  # fmt: skip
            whole = dict(type="line", xref="x", yref="y domain", y0=0, y1=1)
            self.layout.shapes = [
                dict(whole, x0=0, x1=0, line=dict(color=LINE, width=2)),
                *(dict(whole, x0=at, x1=at, line=dict(color="#666666", width=1, dash="dot")) for at in marks.values()),
            ]
            self.layout.annotations = [
                dict(x=at, y=1, xref="x", yref="y domain", text=name, showarrow=False, textangle=-90, xanchor="right",
                     yanchor="top", font=dict(size=10, color="#444444"))
                for name, at in marks.items()
            ]  # fmt: skip

    def move(self, threshold: float, found: Counts) -> None:
        """The line and the two points; a point whose rate is undefined disappears."""
        with self.changes():
            self.layout.shapes[0].x0 = self.layout.shapes[0].x1 = threshold
            recall = math.nan if math.isnan(found.fnr) else 1 - found.fnr
            self.data[3].x, self.data[3].y = [found.fpr], [recall]
            self.data[5].x, self.data[5].y = [recall], [found.precision]
