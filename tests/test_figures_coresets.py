"""Coreset pictures: the radius drawn is the true one, counts lie where the vectors come from."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from pnilib.k_center import greedy_k_center
from pnilib.plots.coresets import draw_coverage, draw_curves, draw_origins, draw_picks, origin_counts


@pytest.fixture
def ax():
    return Figure().subplots()


def test_the_circle_has_the_coverage_radius(ax):
    points = np.random.default_rng(0).normal(size=(40, 2))
    picks, radii = greedy_k_center(points, 5, return_radii=True)
    draw_picks(points, picks[:3], ax, limit=4.0)
    assert ax.patches[0].radius == pytest.approx(radii[2])
    farthest = ax.collections[2].get_offsets()[0]
    assert farthest.tolist() == pytest.approx(points[picks[3]].tolist())  # the red one is picked next
    assert ax.collections[0].norm.vmax == 4.0


def test_origins_are_counted_row_by_row(ax):
    counts = origin_counts(np.array([0, 5, 5]), (2, 3))
    assert counts.tolist() == [[1, 0, 0], [0, 0, 2]]
    draw_origins(counts, ax, label="vectors")
    assert (ax.images[0].norm.vmin, ax.images[0].norm.vmax) == (0, 2)


def test_no_vectors_at_all_still_have_a_scale(ax):
    draw_origins(origin_counts(np.array([], dtype=np.int64), (1, 2)), ax, label="vectors")
    assert ax.images[0].norm.vmax == 1


def test_coverage_ends_at_the_radius(ax):
    draw_coverage({"greedy": np.array([2.0, 0.0, 1.0, 3.0])}, ax)
    curve, end = ax.lines
    assert curve.get_xdata().tolist() == [0, 1, 2, 3] and curve.get_ydata().tolist() == [1, 0.75, 0.5, 0.25]
    assert (end.get_xdata()[0], end.get_ydata()[0]) == (3, 0.25)


def test_curves_name_their_axes_and_mark_a_size(ax):
    draw_curves({"a": ([1.0, 10.0], [3.0, 2.0])}, ax, x_label="size", y_label="radius", mark=(5.0, "C_dist"))
    assert (ax.get_xscale(), ax.get_xlabel(), ax.get_ylabel()) == ("log", "size", "radius")
    assert ax.lines[1].get_xdata()[0] == 5.0 and ax.texts[0].get_text() == "C_dist"
