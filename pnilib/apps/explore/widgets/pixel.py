"""The answer to a click: one sentence, the scores under each setting, and training crops, as HTML.

Everything from a run goes through `escape`.
"""

import math
from html import escape

from pnilib.apps.explore.category import Category
from pnilib.apps.explore.pictures import crop, data_url
from pnilib.apps.explore.words import sentence
from pnilib.detector.explain import Bin, Explanation, Match
from pnilib.errors import PNIError

__all__ = ["pixel_html"]

_STYLE = "display:inline-block;vertical-align:top;width:118px;margin:0 8px 8px 0;font-size:11px;line-height:1.25"


def pixel_html(
    category: Category, found: Explanation, grid: tuple[int, int], pixel: tuple[int, int],
    values: dict[str, float], value: float, threshold: float, level: float, *, pictures: bool = True,
) -> str:  # fmt: skip
    """category: whose training images are shown.  grid: of the model.  pixel: (row, column).  values: label -> map
    value there.  value, threshold, level: of what is explained, as in `sentence`.  pictures: whether the crops are
    read, each from another file, or only have their place."""
    context = max(1, found.config.patch // 2)

    def picture(image: int, cell: int, caption: str) -> str:
        if not pictures:
            return f'<div style="{_STYLE}"><div style="height:110px;background:#ddd"></div>{caption}</div>'
        try:
            inner = (
                f'<img width="110" src="{data_url(crop(category, image, cell, grid, context))}" alt="training crop">'
            )
        except PNIError as fault:
            inner = f"<i>{escape(str(fault))}</i>"
        return f'<div style="{_STYLE}">{inner}<br>{caption}</div>'

    def matched(match: Match, head: str) -> str:
        return picture(match.train_image, match.train_cell, f"<b>{escape(head)}</b><br>{_distance(match)}")

    def shut(match: Match, name: str) -> str:
        return picture(match.train_image, match.train_cell, f"{_distance(match)}<br>{_closed(match, name)}")

    def binned(one: Bin) -> str:
        votes = f"{one.votes:,} votes, " if one.votes else ""
        return picture(one.train_image, one.train_cell, f"{votes}p = {one.probability:.3g}")

    words = escape(sentence(found, value, threshold, level))
    parts = [f'<p class="pni-sentence" style="font-size:14px;line-height:1.4">{words}</p>']
    scores = "".join(
        f"<td style='padding:0 10px'>{escape(label)}<br><b>{at:.4g}</b></td>" for label, at in values.items()
    )
    parts.append(
        f'<table class="pni-values"><tr><td>map at row {pixel[0]}, column {pixel[1]}:</td>{scores}</tr></table>'
    )
    if set(found.matches) == {"none"}:
        parts.append(_row("Nearest training patch", [matched(found.nearest, "no gate")]))
    for name, match in found.matches.items():
        if name == "none":
            continue
        none = name in found.none_allowed
        head = f"{name}: allows none, so the farthest counts" if none else f"{name}: nearest allowed"
        if name == "veto":
            head = "soft veto: what counts"
        title = f"{head}, and {found.n_shut[name]:,} that are "
        title += "passed over" if name == "veto" else f"shut (\u03c4 = {found.tau:.2g})"
        cards = [matched(match, "farthest" if none else "allowed"), *(shut(m, name) for m in found.shut[name])]
        parts.append(_row(title, cards))
    if math.isfinite(found.nearest.p_position):
        title = f"Seen at this position in training ({found.n_seen:,} kinds of patch)"
        parts.append(_row(title, [binned(b) for b in found.seen]))
    if found.expected:
        parts.append(_row("Expected here from the neighbors", [binned(b) for b in found.expected]))
    return "".join(parts)


def _row(title: str, cards: list[str]) -> str:
    shown = "".join(cards) if cards else "<i>nothing</i>"
    return f'<div style="margin-top:6px"><b>{escape(title)}</b><br>{shown}</div>'


def _distance(match: Match) -> str:
    added = f" + {match.added:.3g} for its place" if match.added else ""
    return f"distance {match.distance:.3g}{added}, image {match.train_image}"


def _closed(match: Match, name: str) -> str:
    if name == "veto":
        return f"passed over: its place adds {match.added:.3g}"
    told = []
    if name != "position" and math.isfinite(match.p_neighborhood):
        told.append(f"neighborhood {match.p_neighborhood:.2g}")
    if name != "neighborhood":
        told.append(f"position {match.p_position:.2g}")
    return "shut: " + ", ".join(told)
