"""The page holds everything and nothing else: no script, no path of this machine, whatever a file or a note says."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tiny_run import ODD, tiny_store, write_unit

from pnilib.apps.explore import Exploration, open_exploration
from pnilib.apps.explore.export import export_page, page_html
from pnilib.apps.explore.figures import draw_image
from pnilib.apps.explore.notes import Note, Notes
from pnilib.apps.explore.samples import Filter, counts, samples
from pnilib.apps.pages import picture_url
from pnilib.errors import PNIError

__all__ = ["tiny_store"]


class Page(HTMLParser):
    """Tags with their attributes, and the text of the page as a browser would have it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def pictures(self) -> list[str]:
        return [attrs["src"] or "" for tag, attrs in self.tags if tag == "img"]


@pytest.fixture
def opened(tiny_store: Path) -> Exploration:
    return open_exploration(tiny_store)


def test_page_holds_the_view_of_each_sample_in_order(opened: Exploration, tmp_path: Path) -> None:
    table = Filter(outcomes=("false positive", "false negative")).rows(samples(opened, "E"))
    page = Page(export_page(opened, table, "E", tmp_path / "new" / "page.html").read_text())
    assert sum(tag == "li" for tag, _ in page.tags) == len(table) == 4
    found = counts(table)
    assert f"{found.fp} false positives and {found.fn} false negatives" in page.text and found.fp == found.fn == 2
    place = 0
    for row, picture in zip(table.to_dict("records"), page.pictures(), strict=True):
        view = draw_image(opened, row["category"], row["index"], ["E"])
        assert picture_url(view.picture) == picture
        place = page.text.index(view.words, place)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]


def test_nothing_in_names_or_notes_becomes_markup(opened: Exploration, tmp_path: Path) -> None:
    notes, table = Notes(tmp_path / "notes.csv"), samples(opened, "E")
    odd = table[table["image"].str.endswith(ODD)]
    (row,) = odd.to_dict("records")
    evil = "<script>alert(1)</script> & \"'\n<img src=x onerror=alert(2)>"
    notes.save(row["category"], row["image"], "unsure", evil, Note())
    page = Page(text := page_html(opened, odd, "E", notes))
    ours = {"html", "head", "meta", "title", "style", "body", "h1", "ol", "li", "p", "img"}
    assert {tag for tag, _ in page.tags} <= ours
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert row["image"] in page.text and f"label corrected to unsure; note: {evil}" in page.text
    assert "default-src 'none'" in text and "http" not in text.replace("http-equiv", "")


def test_no_path_of_the_machine_and_pictures_that_cannot_be_made(
    opened: Exploration, tiny_store: Path, tmp_path: Path
) -> None:
    moved = open_exploration(tiny_store, data=tmp_path / "gone")
    for run in (opened, moved):
        text = page_html(run, samples(run, "E").head(2), "E")
        assert str(tiny_store.parent) not in text and str(tmp_path) not in text and tiny_store.name in Page(text).text
        assert text.count("The image cannot be read.") == (0 if run is opened else 2)
        assert text.count("<img") == 2, "its map"
    write_unit(tmp_path / "run/fit-settings-0", [1.0, 2.0, 3.0], [-1, 0, 0])
    bare = open_exploration(tmp_path / "run")
    page = Page(page_html(bare, samples(bare, "E"), "E"))
    assert "1 of unknown label" in page.text and "label unknown" in page.text


def test_page_is_cut_at_most(opened: Exploration, tmp_path: Path) -> None:
    table = samples(opened, "E")
    page = Page(page_html(opened, table, "E", most=3))
    assert sum(tag == "li" for tag, _ in page.tags) == 3 and "16 samples, the first 3 below" in page.text
    assert not re.search("<li", page_html(opened, table[:0], "E"))
    (tmp_path / "notes.csv").write_text("no notes")
    with pytest.raises(PNIError, match="notes"):
        page_html(opened, table, "E", Notes(tmp_path / "notes.csv"))
    (tmp_path / "file").write_text("")
    with pytest.raises(PNIError):
        export_page(opened, table.head(1), "E", tmp_path / "file" / "page.html")
