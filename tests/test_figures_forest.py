"""Forest plots: what is drawn is what was given."""

import math

import matplotlib.pyplot as plt
import pytest
from matplotlib.axes import Axes

from pnilib.errors import PNIError
from pnilib.plots.forest import draw_forest, excludes

NAN = math.nan


@pytest.fixture
def ax() -> Axes:
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def dots(ax: Axes) -> list[tuple[float, float, bool]]:
    """(x, y, filled) of each dot, in the order of drawing."""
    found = [line for line in ax.lines if line.get_marker() not in ("None", "") and len(line.get_xdata()) == 1]
    return [(line.get_xdata()[0], line.get_ydata()[0], line.get_markerfacecolor() != "white") for line in found]


def bars(ax: Axes) -> list[tuple[float, float]]:
    found = [line for line in ax.lines if line.get_linewidth() == 1.8 and len(line.get_xdata()) == 2]
    return [tuple(line.get_xdata()) for line in found]


def test_dots_and_bars_are_the_estimates(ax: Axes) -> None:
    draw_forest({"one": {"a": (1.0, 0.5, 2.0), "b": (-0.1, -0.4, 0.3), "c": (0.2, NAN, NAN)}}, ax, unit="pt", zero=0)
    assert dots(ax) == [(1.0, 0.0, True), (-0.1, 1.0, False), (0.2, 2.0, False)]  # only a's interval excludes 0
    assert bars(ax) == [(0.5, 2.0), (-0.4, 0.3)]  # c has none
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b", "c"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first on top
    assert ax.get_xlabel() == "pt" and ax.get_legend() is None


def test_without_a_rule_every_dot_is_full(ax: Axes) -> None:
    draw_forest({"one": {"a": (0.0, -1.0, 1.0)}}, ax, unit="%")
    assert dots(ax) == [(0.0, 0.0, True)]


def test_two_series_stand_below_one_another(ax: Axes) -> None:
    draw_forest({"one": {"a": (1.0, 0.0, 2.0)}, "two": {"b": (3.0, 3.0, 3.0), "a": (2.0, 1.0, 4.0)}}, ax, unit="pt")
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"]
    (_, first, _), (_, lower, _), (_, second, _) = dots(ax)
    assert first < second and round(first + second, 9) == 0  # around line 0
    assert abs(lower - 1) < 0.5  # on its own line
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "two"]


def test_what_is_missing_is_written(ax: Axes) -> None:
    draw_forest({"one": {"a": None, "b": (NAN, NAN, NAN)}}, ax, unit="pt", zero=0)
    assert [text.get_text() for text in ax.texts] == ["run missing", "undefined"]
    assert dots(ax) == [] and bars(ax) == []


def test_band_lies_around_the_rule(ax: Axes) -> None:
    draw_forest({"one": {"a": (1.0, 0.5, 2.0)}}, ax, unit="pt", zero=1.0, band=0.25)
    box = ax.patches[0].get_extents().transformed(ax.transData.inverted())
    assert (round(box.x0, 6), round(box.x1, 6)) == (0.75, 1.25)
    draw_forest({"one": {"a": (1.0, 0.5, 2.0)}}, ax, unit="pt", band=NAN)
    assert len(ax.patches) == 1


def test_excludes() -> None:
    assert excludes((1.0, 0.5, 2.0), 0) and excludes((-1.0, -2.0, -0.5), 0)
    assert not excludes((1.0, 0.0, 2.0), 0) and not excludes((0.0, 0.0, 0.0), 0) and not excludes((5.0, NAN, NAN), 0)


def test_bad_input(ax: Axes) -> None:
    with pytest.raises(PNIError, match="without lines"):
        draw_forest({"one": {}}, ax, unit="pt")
    for bad in ((1.0, 2.0, 0.5), (math.inf, NAN, NAN)):
        with pytest.raises(PNIError, match="low <= high"):
            draw_forest({"one": {"a": bad}}, ax, unit="pt")
