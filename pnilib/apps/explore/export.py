"""A selection of samples as one HTML page, to be sent to somebody who has neither the run nor the images.

Pictures are those of `draw_image` and lie in the page; names and notes are escaped; it holds no script and no path of
the machine.
"""

import html
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from pnilib.apps.explore.figures import OUTCOME_STYLES, draw_image
from pnilib.apps.explore.notes import Note, Notes
from pnilib.apps.explore.pictures import data_url
from pnilib.apps.explore.run import Exploration
from pnilib.apps.explore.view import View
from pnilib.apps.explore.words import note_words, threshold_words
from pnilib.store.artefacts import atomic_write

__all__ = ["export_page", "page_html"]

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;color:#222}
ol{list-style:none;padding:0}li{border:1px solid #ccc;border-left:.5rem solid #aaa;margin:1rem 0;padding:.8rem 1rem}
p{margin:.2rem 0;overflow-wrap:anywhere;white-space:pre-wrap}.note{background:#fff6d6;padding:.3rem .6rem}
img{max-width:100%;height:auto}.missing{color:#a00}
"""


def export_page(
    opened: Exploration,
    table: pd.DataFrame,
    label: str,
    file: Path | str,
    notes: Notes | None = None,
    most: int = 500,
) -> Path:
    """Write `page_html` to `file` and return it.  Raises PNIError when it cannot be written."""
    text = page_html(opened, table, label, notes, most)
    with atomic_write(file) as handle:
        handle.write(text)
    return Path(file)


def page_html(opened: Exploration, table: pd.DataFrame, label: str, notes: Notes | None = None, most: int = 500) -> str:
    """The first `most` rows of a table of `samples` of result `label`, in its order: the view of each image, and the
    reader's note and label.  About 150 kB and a fifth of a second a sample.

    Raises PNIError when the file of notes is damaged.
    """
    said = {} if notes is None else notes.all()
    items = []
    for row in table.head(max(0, most)).to_dict("records"):
        key, at = row["category"], {label: row["threshold"]}
        view = draw_image(opened, key, int(row["index"]), [label], at)
        items.append(_item(view, row["outcome"], said.get((key, row["image"]), Note())))
        view.free()
    name = opened.folder.resolve().name
    title = html.escape(f"{name}: {label}")
    more = f", the first {len(items):,} below" if len(items) < len(table) else ""
    words = threshold_words(opened, label, table) if len(table) else f"{label}: no samples"
    words += f"\n{len(table):,} samples{more}; written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; style-src '
        "'unsafe-inline'\">"
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body><h1>{title}</h1>\n<p>{html.escape(words)}</p>\n"
        f"<ol>\n{''.join(items)}</ol>\n</body></html>\n"
    )


def _item(view: View, outcome: str, note: Note) -> str:
    """One sample: the words of its view, the reader's note, the picture."""
    lines = [f"<p>{html.escape(view.words)}</p>"]
    if said := note_words(note):
        lines.append(f'<p class="note">{html.escape(said)}</p>')
    if view.fault:  # which names a folder of this machine
        lines.append('<p class="missing">The image cannot be read.</p>')
    lines.append(f'<img src="{data_url(view.picture)}" alt="">')
    color = OUTCOME_STYLES[outcome][1]
    return f'<li style="border-left-color:{color}">{"".join(lines)}</li>\n'
