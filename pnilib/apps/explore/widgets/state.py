"""What the tabs of the explorer share: the run, what is chosen of it, thresholds, and one line to the reader."""

from collections.abc import Callable
from functools import wraps
from html import escape
from typing import Any

import ipywidgets as W
import pandas as pd

from pnilib.apps.explore.notes import Notes
from pnilib.apps.explore.opened import Category, Exploration
from pnilib.apps.explore.pictures import data_url, thumbnail
from pnilib.apps.explore.samples import default_threshold, samples
from pnilib.apps.explore.widgets.gallery import Gallery
from pnilib.errors import PNIError

__all__ = ["ALL", "MARKS", "PAGE", "State", "told"]

ALL = "all categories"
PAGE = 24
"""thumbnails at a time."""
MARKS = {"false positive": "FP", "false negative": "FN", "true positive": "TP", "true negative": "TN", "unknown": "?"}


class State:
    """label: of the result.  key: of the category, or ALL.  thresholds: label -> category -> threshold that the reader
    chose.  lost: called when the data set is not where it was."""

    def __init__(self, opened: Exploration, notes: Notes) -> None:
        self.opened, self.notes = opened, notes
        self.label = opened.labels[0]
        self.key = ALL if len(opened.categories) > 1 else next(iter(opened.categories))
        self.thresholds: dict[str, dict[str, float]] = {}
        self.message = W.HTML().add_class("pni-message")
        self.lost: Callable[[], None] = lambda: None

    def say(self, text: str, *, bad: bool = False) -> None:
        """One line above the tabs."""
        colour = "#b00020" if bad else "#00695c"
        self.message.value = f"<span style='color:{colour}'>{escape(text)}</span>" if text else ""

    @property
    def part(self) -> Exploration:
        """The categories that are looked at."""
        chosen = self.opened.categories if self.key == ALL else {self.key: self.opened.categories[self.key]}
        return Exploration(self.opened.folder, dict(chosen))

    def threshold(self, label: str, key: str) -> float:
        found = self.thresholds.get(label, {}).get(key)
        return default_threshold(self.opened.categories[key].results[label]) if found is None else found

    def table(self) -> pd.DataFrame:
        """`samples` of what is looked at."""
        return samples(self.part, self.label, self.thresholds.get(self.label))

    def row(self, category: Category, i: int) -> dict[str, Any]:
        """Of one image."""
        part = Exploration(self.opened.folder, {category.key: category})
        table = samples(part, self.label, self.thresholds.get(self.label))
        return {str(name): value for name, value in table[table["index"] == i].iloc[0].items()}

    def fill(self, gallery: Gallery, rows: pd.DataFrame, score: str = "score", outcome: str = "outcome") -> None:
        """Show rows of `samples`, or of `changed_sides`, as thumbnails."""
        items, pictures = [], {}
        kept = gallery.pictures
        for row in rows.to_dict("records"):
            key = f"{row['category']}:{row['index']}"
            was = "" if outcome == "outcome" else f"{MARKS[row['outcome_base']]} \u2192 {MARKS[row[outcome]]}, "
            items.append(
                dict(
                    key=key, name="/".join(row["image"].split("/")[-2:]), full=f"{row['category']}: {row['image']}",
                    caption=f"{was}{row[score]:.4g} {row['defect_type']}", outcome=row[outcome],
                    mark=MARKS[row[outcome]],
                )
            )  # fmt: skip
            pictures[key] = kept[key] if kept.get(key) else self._picture(row["category"], row["index"])
        gallery.show(items, pictures)

    def _picture(self, key: str, i: int) -> str:
        try:
            return data_url(thumbnail(self.opened.categories[key], i), "jpeg")
        except PNIError as fault:  # the numbers can be explored without the pictures
            self.say(str(fault), bad=True)
            self.lost()
            return ""


def told(method: Callable[..., None]) -> Callable[..., None]:
    """Of an object with a `state`: a user's mistake, or a file that is not there, becomes a line on the screen."""

    @wraps(method)
    def run(self: Any, *args: Any) -> None:
        try:
            method(self, *args)
        except PNIError as fault:
            self.state.say(str(fault), bad=True)

    return run
