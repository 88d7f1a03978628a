"""A selection of samples as one HTML page, to be sent to somebody who has neither the run nor the images.

Pictures are those of `draw_image` and lie in the page; names and notes are escaped; it holds no script and no path of
the machine.
"""

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from pnilib.apps.explore.figures import OUTCOME_STYLES, draw_image
from pnilib.apps.explore.notes import Note, Notes
from pnilib.apps.explore.run import Exploration
from pnilib.apps.explore.words import note_words, threshold_words
from pnilib.apps.pages import picture_url, render
from pnilib.store.files import atomic_write
from pnilib.store.text import many

__all__ = ["export_page", "page_html"]


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
    reader's note and label.  About 40 kB and a fifth of a second a sample.

    Raises PNIError when the file of notes is damaged.
    """
    said = {} if notes is None else notes.all()
    items = []
    for row in table.head(max(0, most)).to_dict("records"):
        key, at = row["category"], {label: row["threshold"]}
        view = draw_image(opened, key, int(row["index"]), [label], at)
        note, color = note_words(said.get((key, row["image"]), Note())), OUTCOME_STYLES[row["outcome"]][1]
        shown = {"words": view.words, "missing": bool(view.fault), "picture": picture_url(view.picture)}
        items.append(shown | {"note": note, "color": color})
        view.free()
    name = opened.folder.resolve().name
    more = f", the first {len(items):,} below" if len(items) < len(table) else ""
    words = threshold_words(opened, label, table) if len(table) else f"{label}: no samples"
    words += f"\n{many(len(table), 'sample')}{more}; written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return render("samples.html.j2", title=f"{name}: {label}", words=words, items=items)
