"""Pictures of SegAD's reasons: what is drawn where, on one scale."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from pnilib.errors import PNIError
from pnilib.plots.segad import Why, draw_labels, draw_learning_curve, draw_reasons, draw_segment_values, why_figure
from pnilib.segad.statistics import WHOLE

HALVES = np.repeat([0, 1], 4)[:, None] * np.ones((1, 8), int)
NAMES = ("table", "part")


def reasons(scale: float = 1.0) -> pd.DataFrame:
    """By hand: the part speaks for bad (+3), the table for good (-1), the maximum belongs to no segment."""
    rows = [("A", "part", "mean", 2.0, 2.0), ("A", WHOLE, "maximum", 9.0, 1.5), ("A", "part", "kurtosis", np.nan, 1.0),
            ("A", "table", "mean", 0.1, -1.0)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["base", "segment", "statistic", "value", "shap"])
    return table.assign(shap=scale * table["shap"])


def test_bars_are_signed_and_named():
    ax = Figure().subplots()
    draw_reasons(reasons(), ax, most=3)
    assert [bar.get_width() for bar in ax.patches] == [2.0, 1.5, 1.0]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [
        "mean of A in part = 2", "maximum of A = 9", "kurtosis of A in part = –",
    ]  # fmt: skip
    assert ax.get_xlim() == pytest.approx((-2.1, 2.1))


def test_segments_are_tinted_by_their_sum():
    ax = Figure().subplots()
    draw_segment_values(torch.zeros(3, 8, 8), HALVES, NAMES, reasons(), ax, limit=3.0)
    pixels = ax.images[0].get_array()
    red, blue = pixels[6, 0], pixels[0, 0]
    assert red[0] > red[2] and blue[2] > blue[0]  # part +3, table -1
    assert (pixels[:4] == pixels[0, 0]).all() and (pixels[4:] == red).all()


def test_labels_have_a_legend():
    ax = Figure().subplots()
    draw_labels(torch.rand(3, 8, 8), HALVES, NAMES, ax)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(NAMES)


def test_why_on_one_scale():
    parts = [Why(torch.rand(3, 8, 8), k * np.ones((8, 8)), HALVES, NAMES, reasons(k), f"part {k}") for k in (1.0, 4.0)]
    figure = why_figure(parts, "A")
    bars = [ax for ax in figure.axes if ax.patches]
    assert len({ax.get_xlim() for ax in bars}) == 1 and bars[0].get_xlim()[1] == pytest.approx(1.05 * 8)
    shown = [ax.images[0].get_clim() for ax in figure.axes if ax.images and ax.images[0].get_array().ndim == 2]
    assert set(shown[:2]) == {(1.0, 4.0)}
    with pytest.raises(PNIError, match="no image"):
        why_figure([], "A")


def test_learning_curve_draws_means():
    table = pd.DataFrame(
        {"method": ["SegAD", "SegAD", "A", "A", "A"], "n_bad": [2, 2, 0, 2, 2], "cl_auroc": [0.8, 0.9, 0.7, 0.7, 0.75]}
    )
    ax = Figure().subplots()
    draw_learning_curve(table, ax)
    lines = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert lines["SegAD"] == [[2.0, pytest.approx(85)]]
    assert lines["A"] == [[0.0, pytest.approx(70)], [2.0, pytest.approx(72.5)]]
