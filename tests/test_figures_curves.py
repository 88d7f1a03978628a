"""Curves and histograms show the numbers given: counted by hand, in percent, undefined where they are."""

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from pnilib.errors import PNIError
from pnilib.metrics import PixelStatistics, error_counts
from pnilib.plots.curves import SETTING_STYLES, draw_pixel_histogram, draw_pr_curves, histogram_edges

matplotlib.use("Agg")

EDGES = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
NORMAL = np.array([60, 20, 15, 5])
DEFECTIVE = np.array([1, 2, 4, 1])


@pytest.fixture
def ax():
    return Figure().subplots()


def named(ax, name):
    """The curve whose legend entry starts so, drawn before its dot."""
    return next(line for line in ax.lines if line.get_label().startswith(name + "   "))


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


# -- precision-recall ------------------------------------------------------------------------------


def test_the_legend_gives_f1_in_percent_and_the_dot_lies_at_the_best_point(ax):
    recall, precision = np.array([0.25, 0.5, 1.0]), np.array([1.0, 0.8, 0.4])  # F1 0.4, 0.615.., 0.571..
    curves = {"PNI": (recall, precision, 8 / 13), "A": (np.array([1.0]), np.array([0.5]), 2 / 3)}
    assert draw_pr_curves(curves, ax, title="t") is ax and ax.get_title() == "t"
    assert legend(ax) == ["PNI   61.54", "A   66.67"]
    assert ax.get_legend().get_title().get_text() == "F1-max, %"
    curve = named(ax, "PNI")
    assert curve.get_xdata().tolist() == [0.25, 0.5, 1] and curve.get_ydata().tolist() == [1, 0.8, 0.4]
    assert curve.get_drawstyle() == "steps-pre", "the area below is the average precision"
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [(dot.get_xdata()[0], dot.get_ydata()[0]) for dot in dots] == [(0.5, 0.8), (1, 0.5)]
    assert recall.tolist() == [0.25, 0.5, 1] and precision.tolist() == [1, 0.8, 0.4]


def test_what_is_undefined_says_so(ax):
    gone, none = np.full(2, np.nan), np.empty(0)
    point = np.array([1.0])
    draw_pr_curves({"A": (gone, gone, np.nan), "B": (none, none, 0.5), "E": (point, point, np.nan)}, ax)
    assert legend(ax) == ["A   undefined", "B   undefined", "E   undefined"]
    assert not [line for line in ax.lines if line.get_marker() == "o"]
    assert len(named(ax, "E").get_xdata()) == 1, "a curve without an F1 is still drawn"
    draw_pr_curves({}, Figure().subplots())


def test_lines_of_equal_f1_have_equal_f1(ax):
    draw_pr_curves({}, ax)
    assert [text.get_text() for text in ax.texts] == ["F1 20", "F1 40", "F1 60", "F1 80", "F1 90"]
    for line, f1 in zip(ax.lines, (0.2, 0.4, 0.6, 0.8, 0.9), strict=True):
        r, p = line.get_xdata(), line.get_ydata()
        assert 2 * r * p / (r + p) == pytest.approx(f1) and p.max() == pytest.approx(1) and r.max() == 1


def test_a_setting_has_its_colour_whatever_stands_beside_it(ax):
    point = np.array([1.0])
    draw_pr_curves({name: (point, point, 1.0) for name in ["K", *reversed(SETTING_STYLES), "D"]}, ax)
    for name, (color, style) in SETTING_STYLES.items():
        assert to_hex(named(ax, name).get_color()) == color and named(ax, name).get_linestyle() == style
    colors = [to_hex(named(ax, name).get_color()) for name in [*SETTING_STYLES, "K", "D"]]
    assert len(set(colors)) == 8
    assert set(SETTING_STYLES) == {"A", "B", "E", "PNI", "PNI (ensemble)", "released"}


def test_a_curve_of_two_lengths_is_refused(ax):
    with pytest.raises(PNIError, match="curve 'PNI': 2 recalls, 1 precisions"):
        draw_pr_curves({"PNI": (np.array([0.5, 1.0]), np.array([1.0]), 1.0)}, ax)


def test_a_curve_of_real_statistics(ax):
    rng = np.random.default_rng(0)
    masks = rng.random((3, 8, 8)) < 0.2
    statistics = PixelStatistics.from_maps((masks + rng.normal(0, 0.8, masks.shape)).astype(np.float32), masks)
    curve, best = statistics.pr_curve(), statistics.f1_max()
    draw_pr_curves({"E": (curve.recall, curve.precision, best.f1)}, ax)
    (dot,) = [line for line in ax.lines if line.get_marker() == "o"]
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (best.recall, best.precision)
    assert legend(ax) == [f"E   {100 * best.f1:.2f}"]


# -- histograms ------------------------------------------------------------------------------------


def test_rates_are_those_counted_by_hand(ax):
    edges, normal, defective = EDGES.copy(), NORMAL.copy(), DEFECTIVE.copy()
    assert draw_pixel_histogram(edges, normal, defective, 2.0, ax, title="nut, A") is ax
    assert ax.get_title() == "nut, A\nFPR 20.00 %, FNR 37.50 %"  # (15 + 5) of 100; (1 + 2) of 8
    assert legend(ax) == [
        "normal: 100 px", "false positives", "anomalous: 8 px", "false negatives", "threshold 2",
    ]  # fmt: skip
    assert np.array_equal(edges, EDGES) and np.array_equal(normal, NORMAL) and np.array_equal(defective, DEFECTIVE)
    (line,) = ax.lines
    assert set(line.get_xdata()) == {2.0} and to_hex(line.get_color()) == SETTING_STYLES["PNI (ensemble)"][0]


def test_hatched_areas_are_the_rates(ax):
    draw_pixel_histogram(EDGES, NORMAL, DEFECTIVE, 2.0, ax)
    areas = {p.get_label(): float((p.get_data().values * np.diff(p.get_data().edges)).sum()) for p in ax.patches}
    assert areas["normal: 100 px"] == pytest.approx(1) and areas["anomalous: 8 px"] == pytest.approx(1)
    assert areas["false positives"] == pytest.approx(0.2) and areas["false negatives"] == pytest.approx(0.375)
    hatched = {p.get_label(): p for p in ax.patches if p.get_hatch()}
    assert hatched["false positives"].get_data().values.tolist() == [0, 0, 0.15, 0.05]
    assert hatched["false negatives"].get_data().values.tolist() == [0.125, 0.25, 0, 0]
    assert ax.get_title() == "FPR 20.00 %, FNR 37.50 %"


def test_bins_of_unequal_width_are_densities(ax):
    draw_pixel_histogram(np.array([0.0, 1.0, 3.0]), np.array([1, 1]), np.array([0, 4]), 1.0, ax)
    drawn = {p.get_label(): p.get_data().values.tolist() for p in ax.patches}
    assert drawn["normal: 2 px"] == [0.5, 0.25] and drawn["anomalous: 4 px"] == [0, 0.5]


def test_a_peak_too_high_is_cut_and_its_height_written(ax):
    draw_pixel_histogram(np.arange(11.0), np.array([91, *[1] * 9]), np.full(10, 3), 1.0, ax)
    drawn = {p.get_label(): p.get_data().values for p in ax.patches}
    assert drawn["normal: 100 px"].max() == pytest.approx(0.4)  # four times 0.1
    assert [text.get_text() for text in ax.texts] == ["↑ 0.91"]
    assert ax.get_title() == "FPR 9.00 %, FNR 10.00 %", "counts are not cut"


def test_a_class_without_pixels_and_a_threshold_without_value(ax):
    draw_pixel_histogram(EDGES, NORMAL, 0 * DEFECTIVE, 3.0, ax)
    assert ax.get_title() == "FPR 5.00 %, FNR undefined" and "no anomalous pixel" in legend(ax)
    nothing = Figure().subplots()
    draw_pixel_histogram(EDGES, 0 * NORMAL, 0 * DEFECTIVE, float("nan"), nothing, title="t")
    assert nothing.get_title() == "t\nno threshold" and not nothing.lines[0].get_xdata().size


@pytest.mark.parametrize(
    ("edges", "normal", "threshold", "said"),
    [
        (EDGES, NORMAL, 2.5, "threshold 2.5 is not the lower edge of a bin"),
        (EDGES, NORMAL, 4.0, "threshold 4 is not the lower edge of a bin"),
        (EDGES[::-1], NORMAL, 2.0, "do not rise"),
        (EDGES, NORMAL[:3], 2.0, "normal: 3 counts for 4 bins"),
        (EDGES, -NORMAL, 2.0, "or negative"),
    ],
)
def test_bins_that_do_not_fit_are_refused(edges, normal, threshold, said, ax):
    with pytest.raises(PNIError, match=said):
        draw_pixel_histogram(edges, normal, DEFECTIVE[: len(normal)], threshold, ax)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("where", ["low", "middle", "high", "none"])
def test_edges_count_every_score_once_and_split_at_the_threshold(dtype, where, ax):
    rng = np.random.default_rng(1)
    normal, defective = rng.gamma(2, 1, 500).astype(dtype), rng.gamma(5, 1.3, 60).astype(dtype)
    scores = np.concatenate([normal, defective])
    threshold = float(dict(low=scores.min(), middle=defective[7], high=scores.max(), none=np.nan)[where])
    edges = histogram_edges(float(scores.min()), float(scores.max()), threshold, 20)
    assert len(edges) - 1 in (20, 21) and np.allclose(np.diff(edges), np.diff(edges)[0])
    counts = [np.histogram(part, edges)[0] for part in (normal, defective)]
    assert [c.sum() for c in counts] == [500, 60]
    draw_pixel_histogram(edges, *counts, threshold, ax)
    if where != "none":
        errors = error_counts(scores, np.repeat([0, 1], [500, 60]), threshold)
        assert ax.get_title() == f"FPR {100 * errors.fpr:.2f} %, FNR {100 * errors.fnr:.2f} %"


def test_edges_of_one_value_and_bad_bounds():
    for value in (0.0, 5.0, -1e6):
        edges = histogram_edges(value, value, value)
        assert (np.diff(edges) > 0).all() and edges[0] <= value < edges[-1] and value in edges[:-1]
    assert histogram_edges(0.0, 1.0, 0.0, 10)[-1] > 1, "1.0 // 0.1 is 9"
    for low, high, bins in ((1.0, 0.0, 5), (0.0, np.inf, 5), (np.nan, 1.0, 5), (0.0, 1.0, 0)):
        with pytest.raises(PNIError, match="finite bounds in order"):
            histogram_edges(low, high, 0.5, bins)
