"""Every image where it belongs, on the caller's scale, with contours at the caller's threshold."""

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from pnilib.errors import PNIError
from pnilib.plots.images import OUTLINE
from pnilib.plots.qualitative import PREDICTED, Sample, draw_comparison, draw_errors, draw_localization

matplotlib.use("Agg")


def sample(k=0, *, limits=(0.0, 2.0), threshold=1.0, mask=True, size=(6, 8), **more):
    """A grey image; its map is 2 on a block of 2 x 3 px, 0.5 elsewhere; the truth is one px to the right of it."""
    h, w = size
    truth = torch.zeros(h, w, dtype=torch.bool)
    truth[1:3, 2:5] = True
    found = np.full((h, w), 0.5, np.float32)
    found[1:3, 1:4] = 2
    return Sample(
        torch.full((3, h, w), 0.1 * (k % 10)), truth if mask else None, {"A": found / 4, "PNI": found}, f"no. {k}",
        {"A": threshold, "PNI": threshold}, {"A": limits, "PNI": limits}, **more,
    )  # fmt: skip


def panels(figure: Figure):
    """Axes with a picture that are no colour bars, in order of creation: band, row, column."""
    return [ax for ax in figure.axes if ax.images]


def bars(figure: Figure):
    return [ax for ax in figure.axes if ax.get_label() == "<colorbar>" or "anomaly score" in ax.get_ylabel()]


def contours(ax):
    return [to_hex(one.get_edgecolor()[0]) for one in ax.collections]


def labels(figure: Figure):
    return [text.get_text() for text in figure.texts]


def test_comparison_has_a_row_a_method_and_a_column_a_sample():
    figure = draw_comparison([sample(1), sample(2), sample(3)], ["A", "PNI"])
    grid = panels(figure)
    assert len(grid) == 9 and labels(figure) == ["image, truth", "A", "PNI"] and len(bars(figure)) == 2
    assert [ax.get_title() for ax in grid] == ["no. 1", "no. 2", "no. 3"] + [""] * 6
    assert [contours(ax) for ax in grid] == [[OUTLINE]] * 3 + [[]] * 3 + [[PREDICTED]] * 3, "A stays below 1"
    assert np.allclose(grid[1].images[0].get_array(), 0.2) and grid[6].images[0].get_array().max() == 2
    assert {(ax.images[0].norm.vmin, ax.images[0].norm.vmax) for ax in grid[3:]} == {(0, 2)}
    middles = [(ax.get_position().x0, ax.get_position().y0) for ax in grid]
    assert middles[0][0] == middles[3][0] < middles[1][0] and middles[0][1] > middles[3][1] > middles[6][1]


def test_a_contour_runs_where_the_map_reaches_the_threshold():
    at = draw_comparison([sample(threshold=2.0)], ["PNI"])  # equal is reached
    points = np.concatenate([path.vertices for path in panels(at)[1].collections[0].get_paths()])
    assert points.min(0) == pytest.approx([0.5, 0.5]) and points.max(0) == pytest.approx([3.5, 2.5])
    for none in (2.1, float("nan")):
        assert contours(panels(draw_comparison([sample(threshold=none)], ["PNI"]))[1]) == []


def test_localization_shows_truth_prediction_map():
    figure = draw_localization([sample(5)], "PNI")
    image, predicted, one = panels(figure)
    assert labels(figure) == ["image, truth", "predicted mask", "anomaly map"]
    assert [contours(ax) for ax in (image, predicted, one)] == [[OUTLINE], [PREDICTED], [PREDICTED]]
    shown = np.asarray(predicted.images[0].get_array())
    assert np.allclose(shown[0, 0], 0.5) and np.allclose(shown[4:, :], 0.5)
    assert np.allclose(shown[1, 1], 0.55 * 0.5 + 0.45 * np.array([1.0, 0.25, 0.1]))
    assert np.allclose(image.images[0].get_array(), 0.5), "the truth is outlined, not painted"


def test_nothing_called_is_not_painted():
    (_, predicted, _) = panels(draw_localization([sample(5, threshold=float("nan"))], "PNI"))
    assert np.allclose(predicted.images[0].get_array(), 0.5) and contours(predicted) == []


@pytest.mark.parametrize(("kind", "first", "outline"), [
    ("false positive", "image", []), ("false negative", "image, truth", [OUTLINE]),
])  # fmt: skip
def test_errors_show_image_and_map(kind, first, outline):
    figure = draw_errors([sample(1), sample(2)], "PNI", kind)
    assert labels(figure) == [first, "anomaly map"]
    assert [contours(ax) for ax in panels(figure)] == [outline] * 2 + [[PREDICTED]] * 2


def test_no_error_is_a_result():
    for kind in ("false positive", "false negative"):
        figure = draw_errors([], "PNI", kind)
        assert labels(figure) == [f"no {kind}s at this threshold"] and not panels(figure)
    assert labels(draw_comparison([], ["PNI"])) == labels(draw_localization([], "PNI")) == ["no images to show"]


def test_many_samples_go_on_in_even_bands():
    figure = draw_localization([sample(k) for k in range(9)], "PNI", columns=8)
    grid = panels(figure)
    assert len(grid) == 27 and len(bars(figure)) == 2 and len(labels(figure)) == 6
    tops = [ax.get_position().y0 for ax in grid]
    assert len({round(y, 6) for y in tops[:5]}) == 1, "5 and 4 rather than 8 and 1"
    titles = [ax.get_title() for ax in grid if ax.get_title()]
    assert titles == [f"no. {k}" for k in range(9)]
    assert grid[15].get_title() == "no. 5" and tops[15] < tops[10], "below the maps of the band above"
    assert 110 * draw_localization([sample(k) for k in range(40)], "PNI").get_figwidth() < 2000


def test_panels_and_bars_do_not_overlap_and_stay_inside():
    figure = draw_comparison([sample(k) for k in range(7)], ["A", "PNI"], columns=3)
    boxes = [ax.get_position() for ax in figure.axes]
    assert len(boxes) == 21 + 6
    for k, a in enumerate(boxes):
        assert a.x0 >= 0 and a.y0 >= 0 and a.x1 <= 1 and a.y1 <= 1
        for b in boxes[k + 1 :]:
            assert a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0


def test_a_bar_has_numbers_only_where_all_share_a_scale():
    same = draw_comparison([sample(limits=(0.0, 2.0)), sample(limits=(0, 2))], ["PNI"])
    (bar,) = bars(same)
    assert bar.get_ylabel() == "anomaly score" and bar.get_ylim() == (0, 2)
    other = draw_comparison([sample(), sample(limits=(0.0, 5.0))], ["PNI"])
    (bar,) = bars(other)
    assert [text.get_text() for text in bar.get_yticklabels()] == ["low", "high"]
    assert bar.get_ylim() == (0, 1)
    assert bar.get_ylabel() == "anomaly score,\nscale of its category"
    assert [ax.images[0].norm.vmax for ax in panels(other)[2:]] == [2, 5]


def test_a_normal_image_heads_the_column_that_has_one():
    figure = draw_comparison([sample(1, normal=torch.full((3, 4, 4), 0.9)), sample(2)], ["PNI"])
    assert labels(figure) == ["normal", "image, truth", "PNI"]
    empty = [ax for ax in figure.axes if not ax.images and not ax.axison]
    assert len(panels(figure)) == 5 and len(empty) == 1
    assert np.allclose(panels(figure)[0].images[0].get_array(), 0.9) and empty[0].get_title() == "no. 2"


def test_unknown_truth_and_odd_shapes():
    figure = draw_localization([sample(1, mask=False, size=(4, 20)), sample(2, size=(40, 5)), sample(3)], "PNI")
    first, tall = panels(figure)[:2]
    assert [text.get_text() for text in first.texts] == ["no true mask"] and contours(first) == []
    assert contours(tall) == [OUTLINE] and tall.get_xlim() == (-0.5, 4.5) and tall.get_ylim() == (39.5, -0.5)
    assert all(ax.get_anchor() == "N" for ax in panels(figure))
    assert figure.get_figheight() < 3 * 1.5 * 1.75 + 1
    figure.draw_without_rendering()


def test_a_normal_image_has_an_empty_mask_and_no_outline():
    one = sample()
    normal = Sample(
        one.image, torch.zeros(6, 8, dtype=torch.bool), one.maps, "good\nline two", one.thresholds, one.limits
    )
    (ax, _) = panels(draw_comparison([normal], ["PNI"]))
    assert contours(ax) == [] and not ax.texts and ax.get_title() == "good\nline two"


def test_nothing_that_is_given_changes():
    one = sample(3)
    image, mask, found = one.image.clone(), one.mask.clone(), one.maps["PNI"].copy()
    draw_localization([one], "PNI")
    draw_comparison([one], ["PNI"])
    draw_errors([one], "PNI", "false negative")
    assert torch.equal(one.image, image) and torch.equal(one.mask, mask) and np.array_equal(one.maps["PNI"], found)


def test_bad_input():
    good = sample(1)
    with pytest.raises(PNIError, match=r"'no. 1': there is no map 'E': choose from A, PNI"):
        draw_comparison([good], ["E"])
    with pytest.raises(PNIError, match="kind='miss' is no error of a detector: choose one of false positive"):
        draw_errors([good], "PNI", "miss")
    with pytest.raises(PNIError, match="columns=0"):
        draw_localization([good], "PNI", columns=0)
    with pytest.raises(PNIError, match="needs a threshold"):
        Sample(good.image, good.mask, good.maps, "x", {"A": 1.0}, good.limits)
    with pytest.raises(PNIError, match=r"needs a threshold .* and limits"):
        Sample(good.image, good.mask, good.maps, "x", good.thresholds, {"PNI": (0.0, 1.0)})
    for limits in ((1.0, 1.0), (2.0, 1.0), (0.0, float("nan"))):
        with pytest.raises(PNIError, match="are no colour scale"):
            sample(limits=limits)
