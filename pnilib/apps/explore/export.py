"""What the reader takes along: the present view as PNG, a selection of samples as one HTML page.

The page needs nothing else, to be sent to somebody who has neither the run nor the images: pictures lie in it, names
and notes are escaped, it holds no script and no path of the machine.
"""

import html
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from jaxtyping import Bool, UInt8
from matplotlib.figure import Figure
from numpy import ndarray
from PIL import Image

from pnilib.apps.explore.notes import Note, Notes
from pnilib.apps.explore.opened import Category, Exploration
from pnilib.apps.explore.pictures import data_url, map_colours, rgb, scale
from pnilib.apps.explore.samples import counts
from pnilib.errors import PNIError
from pnilib.plots.images import OUTLINE
from pnilib.store.files import atomic_write

__all__ = ["export_page", "figure_png", "page_html"]

SIDE = 320
"""px, largest side of a picture."""
DPI = 100

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;color:#222}
table{border-collapse:collapse}td,th{padding:.1rem .9rem .1rem 0;text-align:left}
ol{list-style:none;padding:0}li{border:1px solid #ccc;border-left:.5rem solid #aaa;margin:1rem 0;padding:.8rem 1rem}
li.fp{border-left-color:#d55e00}li.fn{border-left-color:#0072b2}li.tp{border-left-color:#009e73}
h2{font-size:1.05rem;margin:0 0 .3rem;overflow-wrap:anywhere}p{margin:.2rem 0;overflow-wrap:anywhere}
.note{background:#fff6d6;padding:.3rem .6rem;white-space:pre-wrap}figure{display:inline-block;margin:.5rem 1rem 0 0}
figcaption{font-size:.85rem;color:#555}img{max-width:100%;height:auto}.missing{color:#a00}
"""
_CLASSES = {"false positive": "fp", "false negative": "fn", "true positive": "tp"}


def figure_png(figures: Figure | Sequence[Figure]) -> bytes:
    """One PNG of a view: its figures below one another on white.  Raises PNIError for none."""
    figures = [figures] if isinstance(figures, Figure) else list(figures)
    if not figures:
        raise PNIError("a view without figures: there is nothing to save")
    pictures = []
    for figure in figures:
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
        pictures.append(Image.open(out).convert("RGB"))
    if len(pictures) == 1:
        return out.getvalue()
    sheet = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    out = io.BytesIO()
    sheet.save(out, format="PNG")
    return out.getvalue()


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
    """The first `most` rows of a table of `samples` of result `label`, in its order: image with the true outline, map
    over it, name, score against threshold, outcome, the reader's note and label.  About 150 kB a sample.

    A picture that cannot be made is replaced by a line.  Raises PNIError when the file of notes is damaged.
    """
    said = {} if notes is None else notes.all()
    rows: list[dict[str, Any]] = [
        {str(name): value for name, value in row.items()} for row in table.head(max(0, most)).to_dict("records")
    ]
    items = [_item(opened.categories[row["category"]], row, label, said) for row in rows]
    name = opened.folder.resolve().name
    found = counts(table)
    more = f", the first {len(rows)} of them below" if len(rows) < len(table) else ""
    facts = {
        "run": name, "result": label, "thresholds": _thresholds(table),
        "samples": f"{len(table):,}{more}",
        "of these": f"{found.fp} false positives, {found.fn} false negatives, {found.tp} true positives, "
        f"{found.tn} true negatives, {int((table['outcome'] == 'unknown').sum())} of unknown label",
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }  # fmt: skip
    lines = "".join(f"<tr><th>{key}</th><td>{html.escape(value)}</td></tr>" for key, value in facts.items())
    title = html.escape(f"{name}: {label}")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; style-src '
        "'unsafe-inline'\">"
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body><h1>{title}</h1>\n<table>{lines}</table>\n"
        f"<ol>\n{''.join(items)}</ol>\n</body></html>\n"
    )


def _thresholds(table: pd.DataFrame) -> str:
    """Each category's, as "cable 1.32"."""
    of = table.groupby("category", sort=False)["threshold"].first()
    return ", ".join(f"{category} {value:.4g}" for category, value in of.items()) or "none"


def _item(category: Category, row: dict[str, Any], label: str, said: dict[tuple[str, str], Note]) -> str:
    """One sample."""
    sign = "≥" if row["score"] >= row["threshold"] else "&lt;"
    truth = {0: "normal", 1: "defective"}.get(int(row["label"]), "unknown")
    kind = f" ({row['defect_type']})" if row["label"] == 1 and row["defect_type"] else ""
    lines = [
        f"<h2>{html.escape(row['image'])}</h2>",
        f"<p><b>{html.escape(row['outcome'])}</b>: score {row['score']:.4g} {sign} threshold {row['threshold']:.4g}; "
        f"{html.escape(row['category'])}, by the data set {html.escape(truth + kind)}</p>",
    ]
    note = said.get((row["category"], row["image"]), Note())
    if note.label:
        lines.append(f"<p>label corrected to <b>{html.escape(note.label)}</b></p>")
    if note.text:
        lines.append(f'<p class="note">{html.escape(note.text)}</p>')
    lines += _pictures(category, int(row["index"]), label)
    return f'<li class="{_CLASSES.get(row["outcome"], "")}">{"".join(lines)}</li>\n'


def _pictures(category: Category, i: int, label: str) -> list[str]:
    """The image with its outline and the map over it, or lines in their place; without an image the map alone."""
    try:
        image = rgb(category.image(i))
    except PNIError:
        image = None
    try:
        mask = category.mask(i)
    except PNIError:
        mask = None
    result = category.results.get(label)
    found = None if result is None or result.maps is None else np.array(result.maps[i])
    lines = []
    if image is None:
        lines.append('<p class="missing">The image cannot be read.</p>')
    else:
        with_outline = image if mask is None else _outlined(image, mask.numpy())
        lines.append(_figure(with_outline, "image" if mask is None else "image, true defect outlined"))
    if found is None:
        lines.append('<p class="missing">The run kept no map.</p>')
    else:
        colours = map_colours(found, scale(category, label), clear=image is not None)
        if image is not None and image.shape[:2] == colours.shape[:2]:
            grey = np.repeat(image.mean(2, keepdims=True), 3, 2)
            share = 0.8 * colours[..., 3:] / 255
            over = (grey * (1 - share) + colours[..., :3] * share).round().astype(np.uint8)
            over = over if mask is None else _outlined(over, mask.numpy())
            lines.append(_figure(over, "anomaly map over it"))
        else:
            lines.append(_figure(np.ascontiguousarray(colours[..., :3]), "anomaly map"))
    return lines


def _outlined(pixels: UInt8[ndarray, "h w 3"], mask: Bool[ndarray, "h w"]) -> UInt8[ndarray, "h w 3"]:
    """The mask's rim, also along the image's edge, in the outline's colour; 1 px wide or more on the page."""
    width = -(-max(mask.shape) // SIDE)
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=width,
                      borderType=cv2.BORDER_CONSTANT, borderValue=0).astype(bool)  # fmt: skip
    colour = [int(OUTLINE[k : k + 2], 16) for k in (1, 3, 5)]
    return np.where((mask & ~inner)[..., None], np.array(colour, np.uint8), pixels)


def _figure(pixels: UInt8[ndarray, "h w 3"], caption: str) -> str:
    picture = Image.fromarray(pixels)
    picture.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    picture.save(out, format="PNG", optimize=True)
    url = data_url(out.getvalue())
    return f'<figure><img src="{url}" alt="" width="{picture.width}"><figcaption>{caption}</figcaption></figure>'
