"""All test images of a run under a threshold: who is called defective, who rightly; sorted, filtered, counted.

An image is called defective where its score is at or above the threshold (`pnilib.metrics`).  A threshold belongs to
one category and one result; over several categories each image is judged by its own category's, as in the paper's
"7 false-positive errors and 12 false-negative errors" (supplement S5.1).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray

from pnilib.apps.explore.run import Category, Exploration, SettingResult
from pnilib.errors import PNIError

__all__ = [
    "OUTCOMES",
    "PAPER_ERRORS",
    "Counts",
    "Filter",
    "category_counts",
    "changed_sides",
    "counts",
    "default_threshold",
    "is_mvtec",
    "sample",
    "samples",
]

OUTCOMES = ("false positive", "false negative", "true positive", "true negative", "unknown")
"""`unknown`: the image has no label."""

PAPER_ERRORS = {"fp": 7, "fn": 12, "n_normal": 467, "n_defective": 1258}
"""PNI (ensemble) on MVTec AD at thresholds of I-F1-max a category (supplement S5.1)."""


@dataclass(frozen=True)
class Counts:
    """Confusion of some images at their thresholds; images of unknown label are not counted.

    Rates are NaN where their class is empty, F1 where there is no defective image.
    """

    tp: int
    fp: int
    tn: int
    fn: int

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN)."""
        return 2 * self.tp / (2 * self.tp + self.fp + self.fn) if self.tp + self.fn else math.nan

    @property
    def fpr(self) -> float:
        """FP / normal images."""
        return self.fp / (self.fp + self.tn) if self.fp + self.tn else math.nan

    @property
    def fnr(self) -> float:
        """FN / defective images."""
        return self.fn / (self.fn + self.tp) if self.fn + self.tp else math.nan

    @property
    def precision(self) -> float:
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else math.nan


@dataclass(frozen=True)
class Filter:
    """Which samples to show.  Empty: all.  text: part of the file name, upper and lower case alike."""

    outcomes: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    defect_types: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    text: str = ""

    def __post_init__(self) -> None:
        for outcome in self.outcomes:
            if outcome not in OUTCOMES:
                raise PNIError(f"outcome {outcome!r}: choose from {', '.join(OUTCOMES)}")

    def rows(self, table: pd.DataFrame) -> pd.DataFrame:
        """Those of a table of `samples` that pass."""
        keep = (table["score"] >= self.low) & (table["score"] <= self.high)
        for column, wanted in (
            ("outcome", self.outcomes), ("category", self.categories), ("defect_type", self.defect_types)
        ):  # fmt: skip
            if wanted:
                keep &= table[column].isin(wanted)
        if self.text:
            keep &= table["image"].str.contains(self.text, case=False, regex=False)
        return table[keep]


def default_threshold(result: SettingResult) -> float:
    """Of I-F1-max on the test images; without both classes the normal-only one; else the highest score."""
    for name in ("i_threshold", "normal_threshold"):
        if math.isfinite(value := result.metric(name)):
            return value
    return float(result.table["score"].max())


def samples(opened: Exploration, label: str, thresholds: dict[str, float] | None = None) -> pd.DataFrame:
    """One row an image, highest score first: category, index, image, label, defect_type, score, threshold, outcome.

    `index`: of the image among the test images of its category.  With several categories, whose scores have scales of
    their own, the order is that of score minus threshold in units of the category's standard deviation (`margin`).
    `thresholds`: by key of the category; `default_threshold` where it has none.  Categories without this result are
    left out; raises PNIError when none has it.
    """
    parts = []
    for key, category in opened.categories.items():
        if label not in category.results:
            continue
        result = category.results[label]
        threshold = (thresholds or {}).get(key, default_threshold(result))
        table = result.table
        scores, labels = table["score"].to_numpy(), table["label"].to_numpy()
        spread = float(scores.std()) or 1.0
        parts.append(
            table.assign(
                category=key, index=np.arange(len(table)), threshold=threshold, margin=(scores - threshold) / spread,
                outcome=_outcomes(scores, labels, threshold),
            )
        )  # fmt: skip
    if not parts:
        raise PNIError(f"{opened.folder}: has no result {label!r}: choose one of {', '.join(opened.labels)}")
    columns = ["category", "index", "image", "label", "defect_type", "score", "threshold", "margin", "outcome"]
    return pd.concat(parts, ignore_index=True)[columns].sort_values("margin", ascending=False, kind="stable")


def sample(category: Category, i: int, label: str, threshold: float | None = None) -> dict[str, Any]:
    """One image's row of `samples`.  Raises PNIError for a result that the category lacks."""
    chosen = {} if threshold is None else {category.key: threshold}
    table = samples(Exploration(Path(category.name), {category.key: category}), label, chosen)
    return {str(name): value for name, value in table[table["index"] == i].iloc[0].items()}


def _outcomes(scores: Float[ndarray, " n"], labels: ndarray, threshold: float) -> ndarray:
    called = scores >= threshold
    return np.select(
        [labels < 0, called & (labels == 0), ~called & (labels == 1), called], ["unknown", *OUTCOMES[:3]], OUTCOMES[3]
    )


def counts(table: pd.DataFrame) -> Counts:
    """Of a table of `samples`."""
    outcome = table["outcome"].to_numpy()
    tp, fp, tn, fn = (
        int((outcome == f"{word}").sum())
        for word in ("true positive", "false positive", "true negative", "false negative")
    )
    return Counts(tp, fp, tn, fn)


def changed_sides(
    opened: Exploration, ours: str, base: str, thresholds: Sequence[dict[str, float]] = ({}, {})
) -> pd.DataFrame:
    """Both results of each image: category, index, image, label, defect_type, and score_base, score_ours, outcome_base,
    outcome_ours, changed ("now right", "now wrong", "" for no change); those that changed first.

    `thresholds`: of `ours` and of `base`.  Categories that lack either are left out; raises PNIError when all do.
    """
    on = ["category", "index", "image", "label", "defect_type"]
    first, second = (samples(opened, label, at) for label, at in zip((base, ours), thresholds[::-1], strict=True))
    keep = ["score", "threshold", "outcome"]
    both = first[[*on, *keep]].merge(second[[*on, *keep]], on=on, suffixes=("_base", "_ours"))
    if both.empty:
        raise PNIError(f"{opened.folder}: no category has both {base!r} and {ours!r}")
    wrong = [both[f"outcome_{which}"].str.startswith("false") for which in ("base", "ours")]
    changed = np.select([wrong[0] & ~wrong[1], ~wrong[0] & wrong[1]], ["now right", "now wrong"], "")
    order = {"now wrong": 0, "now right": 1, "": 2}
    return both.assign(changed=changed).sort_values("changed", key=lambda c: c.map(order), kind="stable")


def category_counts(opened: Exploration, table: pd.DataFrame) -> pd.DataFrame:
    """One row a category of a table of `samples`: threshold, tp, fp, tn, fn."""
    rows = []
    for key, part in table.groupby("category", sort=False):
        found = counts(part)
        rows.append(
            dict(category=key, threshold=float(part["threshold"].iloc[0]), tp=found.tp, fp=found.fp, tn=found.tn,
                 fn=found.fn)
        )  # fmt: skip
    return pd.DataFrame(rows)


def is_mvtec(category: Category) -> bool:
    """Whether its test images are those of the paper's numbers."""
    return category.dataset == "mvtec" and category.images is None
