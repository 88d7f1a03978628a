"""Pictures of synthetic defects show what they are given, on scales that they do not choose."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from pnilib.errors import PNIError
from pnilib.plots.synthesis import draw_changes, draw_measure, draw_opacity, draw_patches, show_area

matplotlib.use("Agg")


@pytest.fixture
def ax():
    return Figure().subplots()


def test_the_area_keeps_its_brightness_and_the_rest_is_dimmed(ax):
    mask = torch.zeros(6, 8, dtype=torch.bool)
    mask[2:4, 3:6] = True
    assert show_area(torch.full((3, 6, 8), 0.8), mask, ax, title="t", dim=0.25) is ax
    shown = np.asarray(ax.images[0].get_array())
    assert np.allclose(shown[mask.numpy()], 0.8) and np.allclose(shown[~mask.numpy()], 0.2)
    assert ax.collections and ax.get_title() == "t"
    assert ax.get_xlim() == (-0.5, 7.5) and ax.get_ylim() == (5.5, -0.5)


def test_opacity_is_drawn_from_zero_to_one_whatever_it_holds(ax):
    draw_opacity(np.full((3, 3), 0.3, np.float32), ax)
    assert (ax.images[0].norm.vmin, ax.images[0].norm.vmax) == (0, 1)


def test_changes_are_drawn_on_the_given_limit(ax):
    change = np.arange(12.0).reshape(3, 4)
    draw_changes(change, torch.zeros(3, 4, dtype=torch.bool), ax, limit=64, title="t")
    assert (ax.images[0].norm.vmin, ax.images[0].norm.vmax) == (0, 64)
    assert np.array_equal(np.asarray(ax.images[0].get_array()), change) and not ax.collections


def test_patches_lie_in_cells_row_by_row(ax):
    shapes = [(10, 20), (200, 50), (4, 4), (7, 7), (9, 9)]
    draw_patches([np.ones(shape, np.float32) for shape in shapes], ax, columns=2, cell=100, title="five")
    assert len(ax.images) == 5 and ax.get_title() == "five"
    assert ax.get_xlim() == (0, 200) and ax.get_ylim() == (300, 0)
    left, right, bottom, top = ax.images[0].get_extent()
    assert (left, right, top, bottom) == (40, 60, 45, 55), "its own size, in the middle of its cell"
    left, right, bottom, top = ax.images[1].get_extent()
    assert bottom - top == pytest.approx(92) and right - left == pytest.approx(23), "reduced to its cell"
    left, right, bottom, top = ax.images[4].get_extent()
    assert (left + right) / 2 == 50 and (top + bottom) / 2 == 250
    with pytest.raises(PNIError, match="no patches"):
        draw_patches([], ax)


def test_measures_by_generator(ax):
    frame = pd.DataFrame({"generator": ["b", "a", "b", "a", "a"], "area": [1.0, 2.0, 3.0, 0.0, 8.0]})
    draw_measure(frame, "area", "area, %", ax, title="t")
    assert [text.get_text() for text in ax.get_yticklabels()] == ["b", "a"]
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    bars = [line for line in ax.lines if line.get_marker() == "None"]
    assert [sorted(line.get_xdata()) for line in dots] == [[1, 3], [2, 8]], "a logarithm has no place for 0"
    assert [line.get_xdata()[0] for line in bars] == [2, 5]
    assert ax.get_xscale() == "log" and ax.get_xlabel() == "area, %" and ax.get_ylim() == (1.5, -0.5)
    linear = Figure().subplots()
    draw_measure(frame, "area", "", linear, logarithmic=False)
    assert sorted(linear.lines[2].get_xdata()) == [0, 2, 8]
    with pytest.raises(PNIError, match="'rim' is not measured: choose from area"):
        draw_measure(frame, "rim", "", ax)
