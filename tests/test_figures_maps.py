"""Pictures of distributions and maps: what they draw is read back from the Axes, and compared with hand-made cases."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex

from pnilib.errors import PNIError
from pnilib.neighborhood import neighbor_offsets
from pnilib.plots import distributions, maps
from pnilib.released.neighborhood import leaked_offsets


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def line(ax, label):
    """x and y of the one line whose label starts with `label`."""
    (found,) = [drawn for drawn in ax.lines if str(drawn.get_label()).startswith(label)]
    return np.asarray(found.get_xdata()), np.asarray(found.get_ydata())


@pytest.mark.parametrize(("offsets", "white"), [(neighbor_offsets, 40), (leaked_offsets, 41)])
def test_the_window_leaves_out_one_numbered_element(ax, offsets, white):
    distributions.draw_neighbors(9, offsets(9), ax)
    left_out = [k for k, patch in enumerate(ax.patches) if to_hex(patch.get_facecolor()) == "#ffffff"]
    assert left_out == [white] and len(ax.patches) == 81
    framed = [k for k, patch in enumerate(ax.patches) if patch.get_linewidth() > 1]
    assert framed == [40]  # the middle, whatever is left out
    assert ax.texts[41].get_text() == "41" and ax.texts[41].get_position() == (1, 0)


def test_losses_lie_over_the_uniform_guess(ax):
    distributions.draw_losses({"net": [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 0.5}]}, 8, ax)
    assert [part.tolist() for part in line(ax, "net")] == [[1, 2], [2.0, 0.5]]
    assert line(ax, "uniform")[1].tolist() == pytest.approx([np.log(8)] * 2)
    assert ax.get_ylim()[0] == 0


def test_reliability_in_equal_bins_by_hand(ax):
    confidence = np.array([0.9, 0.1, 0.8, 0.2])
    correct = np.array([True, False, False, True])
    distributions.draw_reliability(confidence, correct, ax, label="net", color="black", n_bins=2)
    x, y = line(ax, "net")
    assert x.tolist() == pytest.approx([0.15, 0.85]) and y.tolist() == [0.5, 0.5]
    with pytest.raises(PNIError, match="fewer bins"):
        distributions.draw_reliability(confidence, correct, ax, label="net", color="black", n_bins=5)


def test_ranked_counts_what_the_gate_keeps(ax):
    distributions.draw_ranked({"p": np.array([0.0, 0.7, 0.1, 0.2])}, 0.1, ax)
    assert line(ax, "p: 2 above tau")[1].tolist() == pytest.approx([0.7, 0.2, 0.1, distributions.FLOOR])


def test_cdf_reaches_one_and_reads_the_refused_share(ax):
    distributions.draw_cdf({"p": np.array([0.4, 0.1, 0.2, 0.0])}, 0.15, ax, xlabel="p")
    x, y = line(ax, "p")
    assert y[x <= 0.15].max() == 0.5 and y[-1] == 1
    with pytest.raises(PNIError, match="'none' is empty"):
        distributions.draw_cdf({"none": np.zeros(0)}, 0.15, ax, xlabel="p")


def test_votes_stack_and_are_written_in(ax):
    distributions.draw_votes(np.array([[3.0, 1.0], [0.0, 4.0]]), ax)
    assert [bar.get_height() for bar in ax.patches] == [3, 0, 1, 4]
    assert [bar.get_y() for bar in ax.patches] == [0, 0, 3, 0]
    assert sorted(text.get_text() for text in ax.texts) == ["1", "3", "4"]  # nothing written for no vote


def test_cells_in_mask_touch_at_least_one_pixel():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[1, 1] = mask[1, 2] = True  # the last pixel of cell 0 in its row, the first of cell 1
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[0, :2] = True
    assert torch.equal(maps.cells_in_mask(mask, (4, 4)), expected)
    assert not maps.cells_in_mask(~mask & mask, (4, 4)).any()


def test_maps_share_one_scale():
    figure, axes = plt.subplots(1, 3)
    image, mask = torch.rand(3, 8, 8), torch.zeros(8, 8, dtype=torch.bool)
    mask[2:4, 2:4] = True
    weak, strong = np.full((8, 8), 0.1, np.float32), np.full((8, 8), 5.0, np.float32)
    maps.draw_maps(image, mask, {"weak": weak, "strong": strong}, list(axes), limits=(0.0, 5.0))
    assert [ax.images[0].get_clim() for ax in axes[1:]] == [(0.0, 5.0)] * 2
    assert [ax.get_title() for ax in axes] == ["image, true defect", "weak", "strong"]
    assert all(len(ax.collections) == 1 for ax in axes)  # the outline
    with pytest.raises(PNIError, match="give 2"):
        maps.draw_maps(image, mask, {"weak": weak}, list(axes), limits=(0.0, 5.0))
    plt.close(figure)


def test_patch_maps_carry_no_outline():
    figure, axes = plt.subplots(1, 2)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:4, 2:4] = True
    maps.draw_maps(torch.rand(3, 8, 8), mask, {"patches": np.zeros((4, 4), np.float32)}, list(axes), limits=(0.0, 1.0))
    assert len(axes[0].collections) == 1 and len(axes[1].collections) == 0
    plt.close(figure)


def test_bounds_are_sorted_by_the_upper_one(ax):
    low, high = np.array([[1.0, 0.0], [2.0, 3.0]]), np.array([[4.0, 1.0], [2.0, 3.0]])
    score = np.array([[2.0, 0.5], [2.0, 3.0]])
    maps.draw_bounds(score, low, high, ax)
    assert line(ax, "upper")[1].tolist() == [1, 2, 3, 4]
    assert line(ax, "lower")[1].tolist() == [0, 2, 3, 1]
    assert line(ax, "S(x)")[1].tolist() == [0.5, 2, 3, 2]


def test_gate_plane_shades_exactly_what_eq_6_refuses(ax):
    maps.draw_gate_plane(np.array([0.0, 0.5]), np.array([0.1, 0.02]), 0.1, ax)
    x, y = line(ax, "nearest vector")
    assert x.tolist() == pytest.approx([0.01, 5.0]) and y.tolist() == pytest.approx([1.0, 0.2])  # in units of tau
    (path,) = ax.collections[0].get_paths()
    for a, b in [(0.1, 0.1), (1.9, 0.05), (0.9, 0.9), (1.5, 0.6), (0.6, 1.5), (3.0, 0.02)]:
        assert path.contains_point((a, b)) == ((a + b) / 2 <= 1), (a, b)


def test_table_writes_rows_and_columns_in_order(ax):
    frame = pd.DataFrame({"bent": [50.0, 100.0], "cut": [75.25, 60.0]}, index=["A", "B"])
    maps.draw_table(frame, ax)
    assert [text.get_text() for text in ax.texts] == ["50.0", "75.2", "100.0", "60.0"]
    assert [text.get_position() for text in ax.texts] == [(0.5, 0.5), (1.5, 0.5), (0.5, 1.5), (1.5, 1.5)]
    assert ax.collections[0].get_clim() == (50.0, 100.0)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["A", "B"]


def test_scores_go_to_their_group_and_missing_thresholds_are_left_out(ax):
    scores, groups = np.array([1.0, 5.0, 2.0]), ["good", "cut", "good"]
    maps.draw_scores(scores, groups, {"optimal": 3.0, "none": float("nan")}, ax)
    dots = [drawn for drawn in ax.lines if drawn.get_marker() == "o"]
    assert [np.asarray(d.get_xdata()).tolist() for d in dots] == [[1.0, 2.0], [5.0]]
    assert [np.rint(np.asarray(d.get_ydata(), dtype=float)).tolist() for d in dots] == [[0, 0], [1]]
    assert [str(d.get_label()) for d in ax.lines if d not in dots] == ["optimal: 3"]
    with pytest.raises(PNIError, match="one group a score"):
        maps.draw_scores(scores, ["good"], {}, ax)
