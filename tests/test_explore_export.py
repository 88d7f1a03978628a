"""The page holds everything and nothing else: no script, no path of this machine, whatever a file or a note says."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from tiny_run import ODD, tiny_store, write_unit

from pnilib.apps.explore import Exploration, open_exploration
from pnilib.apps.explore.export import export_page, figure_png, page_html
from pnilib.apps.explore.notes import Note, Notes
from pnilib.apps.explore.pictures import rgb
from pnilib.apps.explore.samples import Filter, counts, samples
from pnilib.errors import PNIError
from pnilib.plots.images import OUTLINE

__all__ = ["tiny_store"]


class Page(HTMLParser):
    """Tags with their attributes, and the text of the page as a browser would have it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return "\n".join(self.words)

    def pictures(self) -> list[np.ndarray]:
        found = [attrs["src"] or "" for tag, attrs in self.tags if tag == "img"]
        assert all(url.startswith("data:image/png;base64,") for url in found)
        return [np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))) for url in found]


@pytest.fixture
def opened(tiny_store: Path) -> Exploration:
    return open_exploration(tiny_store)


def test_page_shows_each_sample_in_order(opened: Exploration, tmp_path: Path) -> None:
    table = Filter(outcomes=("false positive", "false negative")).rows(samples(opened, "E"))
    page = Page(export_page(opened, table, "E", tmp_path / "new" / "page.html").read_text())
    assert sum(tag == "li" for tag, _ in page.tags) == len(table) == 4
    names = [word for word in page.words if word.endswith(".png")]
    assert names == table["image"].tolist()
    found = counts(table)
    assert f"{found.fp} false positives, {found.fn} false negatives" in page.text and found.fp == found.fn == 2
    assert page.words.index("false positive") < page.words.index("false negative"), "highest margin first"
    for row in table.to_dict("records"):
        sign = "≥" if row["score"] >= row["threshold"] else "<"
        said = re.sub(r"\s+", " ", page.text)
        assert f"score {row['score']:.4g} {sign} threshold {row['threshold']:.4g}" in said
    first = opened.categories[table.iloc[0]["category"]]
    assert np.array_equal(page.pictures()[0], rgb(first.image(int(table.iloc[0]["index"]))))
    assert len(page.pictures()) == 8 and [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]


def test_outline_marks_the_rim_of_the_truth(opened: Exploration) -> None:
    table = samples(opened, "E")
    row = table[(table["outcome"] == "true positive")].iloc[:1]
    category, i = opened.categories[row["category"].iloc[0]], int(row["index"].iloc[0])
    image, overlay = Page(page_html(opened, row, "E")).pictures()
    mask, plain = category.mask(i), rgb(category.image(i))
    assert mask is not None and mask.any()
    marked = (image == [int(OUTLINE[k : k + 2], 16) for k in (1, 3, 5)]).all(2)
    assert marked.any() and not (marked & ~mask.numpy()).any() and np.array_equal(image[~marked], plain[~marked])
    inner = np.array([[mask.numpy()[y - 2 : y + 3, x - 2 : x + 3].all() for x in range(2, 62)] for y in range(2, 62)])
    assert inner.any() and not marked[2:-2, 2:-2][inner].any() and overlay.shape == image.shape


def test_nothing_in_names_or_notes_becomes_markup(opened: Exploration, tmp_path: Path) -> None:
    notes = Notes(tmp_path / "notes.csv")
    table = samples(opened, "E")
    odd = table[table["image"].str.endswith(ODD)]
    assert len(odd) == 1
    evil = "<script>alert(1)</script> & \"'\n<img src=x onerror=alert(2)>"
    row = odd.iloc[0]
    notes.save(row["category"], row["image"], "unsure", evil, Note())
    text = page_html(opened, odd, "E", notes)
    page = Page(text)
    ours = {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "h1",
        "table",
        "tr",
        "th",
        "td",
        "ol",
        "li",
        "h2",
        "p",
        "b",
    }
    assert {tag for tag, _ in page.tags} <= ours | {"figure", "img", "figcaption"}
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert row["image"] in page.words and evil in page.words and "unsure" in page.words
    assert "default-src 'none'" in text and "http" not in re.sub(r"http-equiv", "", text)


def test_no_path_of_the_machine(opened: Exploration, tiny_store: Path, tmp_path: Path) -> None:
    moved = open_exploration(tiny_store, data=tmp_path / "gone")
    for run in (opened, moved):
        text = page_html(run, samples(run, "E").head(2), "E")
        assert str(tiny_store) not in text and str(tiny_store.parent) not in text and str(tmp_path) not in text
        assert tiny_store.name in Page(text).text


def test_pictures_that_cannot_be_made(tiny_store: Path, tmp_path: Path) -> None:
    moved = open_exploration(tiny_store, data=tmp_path / "gone")
    page = Page(page_html(moved, samples(moved, "E").head(3), "E"))
    assert page.words.count("The image cannot be read.") == 3 and page.words.count("anomaly map") == 3
    assert "The run kept no map." in page_html(moved, samples(moved, "C").head(1), "C")
    write_unit(tmp_path / "run/fit-settings-0", [1.0, 2.0, 3.0], [-1, 0, 0])
    bare = open_exploration(tmp_path / "run")
    text = page_html(bare, samples(bare, "E"), "E")
    assert "1 of unknown label" in text and "<img" not in text and "by the data set unknown" in text


def test_page_is_cut_at_most(opened: Exploration, tmp_path: Path) -> None:
    table = samples(opened, "E")
    page = Page(page_html(opened, table, "E", most=3))
    assert sum(tag == "li" for tag, _ in page.tags) == 3 and "16, the first 3 of them below" in page.words
    assert sum(tag == "li" for tag, _ in Page(page_html(opened, table[:0], "E")).tags) == 0
    (tmp_path / "notes.csv").write_text("no notes")
    with pytest.raises(PNIError, match="notes"):
        page_html(opened, table, "E", Notes(tmp_path / "notes.csv"))
    (tmp_path / "file").write_text("")
    with pytest.raises(PNIError):
        export_page(opened, table.head(1), "E", tmp_path / "file" / "page.html")


def test_views_stand_below_one_another() -> None:
    def figure(width: float, height: float, colour: str) -> Figure:
        return Figure(figsize=(width, height), facecolor=colour)

    sheet = np.asarray(Image.open(io.BytesIO(figure_png([figure(2, 1, "red"), figure(1, 2, "blue")]))))
    assert sheet.shape == (300, 200, 3)
    assert sheet[50, 150].tolist() == [255, 0, 0] and sheet[200, 50].tolist() == [0, 0, 255]
    assert sheet[200, 150].tolist() == [255, 255, 255]
    alone = np.asarray(Image.open(io.BytesIO(figure_png(figure(1, 1, "red")))).convert("RGB"))
    assert alone.shape == (100, 100, 3)
    with pytest.raises(PNIError, match="without figures"):
        figure_png([])
