"""Drawn tables hold the printed text in its place, the marks follow the rule, misprints are framed."""

import re
from collections.abc import Iterator

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from pnilib.errors import PNIError
from pnilib.plots.published import draw_averages, draw_gains, draw_pairs, draw_printed, style_printed
from pnilib.published import averages, load_published


@pytest.fixture
def ax() -> Iterator[Axes]:
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def frames(ax: Axes) -> list[Rectangle]:
    return [patch for patch in ax.patches if isinstance(patch, Rectangle)]


def test_a_table_of_categories(ax: Axes) -> None:
    table = load_published("Table S5")
    assert draw_printed(table, ax, rows="category", columns="method", limits=(75, 100)) is ax
    texts = {text.get_position(): text for text in ax.texts}
    assert len(texts) == 18 * 15
    assert [texts[x, 8].get_text() for x in range(3)] == ["87.4", "84.5", "91.6"]  # transistor: the ninth row
    assert [x for x in range(15) if texts[x, 8].get_weight() == "bold"] == [13]  # PNI 96.24
    assert [x for x in range(15) if texts[x, 0].get_weight() == "bold"] == [10]  # bottle: CDO 97.17
    underlined = {(round(sum(line.get_xdata()) / 2), int(line.get_ydata()[0])) for line in ax.lines}
    assert (14, 8) in underlined and (14, 0) in underlined  # the ensemble: 95.35, and 96.84 (not CFLOW's 96.80)
    assert [(round(p.get_x()), round(p.get_y())) for p in frames(ax)] == [(2, 16), (2, 17)]  # SOMAD's averages
    assert [label.get_text() for label in ax.get_xticklabels()][:2] == ["SPADE", "PaDiM"]


def test_a_summary_ranks_down_its_columns_and_shows_no_error(ax: Axes) -> None:
    draw_printed(
        load_published("Table 4"), ax, rows="method", columns="metric,category", limits=(90, 100), rank="columns"
    )
    bold = {text.get_position(): text.get_text() for text in ax.texts if text.get_weight() == "bold"}
    assert bold == {(0, 2): "99.63", (1, 2): "99.06", (2, 2): "96.83", (3, 1): "96.11", (4, 2): "96.55"}
    table = load_published("NSA Table 8")
    draw_printed(table[table["metric"] == "aupro_30"], ax, rows="category", columns="method", limits=(50, 100))
    assert not any("±" in text.get_text() for text in ax.texts)
    assert [patch.get_linestyle() for patch in frames(ax)] == ["-", ":", ":"]  # PaDiM; the lost cell and its neighbor


def test_two_cells_in_one_place_are_refused(ax: Axes) -> None:
    with pytest.raises(PNIError, match="two cells in one place of category x method: choose one table and one metric"):
        draw_printed(load_published("Table 1"), ax, rows="category", columns="method", limits=(80, 100))


def test_the_same_table_as_text() -> None:
    page = style_printed(load_published("Table 5"), rows="category", columns="method", name="Table 5").to_html()
    assert page.count("<td") == 20 and "97.4" in page and "T_table_5" in page
    rules = dict(reversed(one) for one in re.findall(r"([^{}]*)\{\s*([^{}]*);\s*\}", page))
    assert set(re.findall(r"row0_col\d", rules["font-weight: bold"])) == {"row0_col4"}  # 97.4
    assert set(re.findall(r"row0_col\d", rules["text-decoration: underline"])) == {"row0_col3"}  # 97.3
    words = style_printed(load_published("Table S7"), rows="method", columns="metric", rank="none").to_html()
    ticks = [0, 1, 2, 2, 2, 2, 5, 5, 6, 5, 5, 7, 8, 9]  # A to L, PNI, ensemble
    assert "bold" not in words and words.count("✓") == sum(ticks)
    framed = style_printed(load_published("Table S9"), rows="category", columns="method").to_html()
    assert framed.count("2px solid red") >= 1 and "2px dotted" in framed and "grid cells (98.58, 98.41)" in framed


def test_averages_in_units_of_the_last_digit(ax: Axes) -> None:
    checked = averages(load_published("Table S5"))
    draw_averages(checked, ax)
    right, wrong = (line for line in ax.lines if line.get_marker() in ".D")
    assert (len(right.get_ydata()), len(wrong.get_ydata())) == (43, 2)
    assert sorted(wrong.get_ydata()) == pytest.approx([42.4, 78.0])  # 97.5 - 93.26 and 99.4 - 91.60, in tenths


def test_pairs_and_gains(ax: Axes) -> None:
    draw_pairs({"one": {"said: 7": 7, "tables: 5": 5}, "two": {"both: 3": 3}}, ax, unit="count")
    assert [(text.get_text(), text.get_ha()) for text in ax.texts] == [
        ("said: 7", "left"), ("tables: 5", "right"), ("both: 3", "right"),
    ]  # fmt: skip
    assert ax.get_ylim() == (1.5, -0.5)
    ax.clear()
    draw_gains(
        pd.DataFrame({"A to B": [22.88, -1.74], "B to E": [0.0, 2.19]}, index=["carpet", "transistor"]), ax, limit=25
    )
    assert [text.get_text() for text in ax.texts] == ["+22.88", "+0.00", "-1.74", "+2.19"]
    norm = ax.collections[0].norm
    assert float(norm(0.0)) == pytest.approx(0.5) and float(norm(1.0)) == pytest.approx(1 - float(norm(-1.0)))
