"""What the views say in words: counts at a threshold, one image, two results, and what made a pixel score as it did."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from pnilib.apps.explore.category import Category
from pnilib.apps.explore.notes import Note
from pnilib.apps.explore.run import Exploration
from pnilib.apps.explore.samples import PAPER_ERRORS, category_counts, counts, is_mvtec
from pnilib.detector.explain import Explanation
from pnilib.store.text import many

__all__ = [
    "image_words",
    "note_words",
    "pixel_words",
    "samples_words",
    "sentence",
    "sides_words",
    "threshold_words",
    "truth_words",
]


def threshold_words(opened: Exploration, label: str, table: pd.DataFrame) -> str:
    """What a table of `samples` holds: errors, confusion and rates, each category's errors, the paper's where they
    compare."""
    total = counts(table)
    categories = [opened.categories[key] for key in dict.fromkeys(table["category"])]
    several = len(categories) > 1
    who = f"{len(categories)} categories" if several else categories[0].name
    at = "each at its own threshold" if several else f"threshold {table['threshold'].iloc[0]:.4g}"
    lines = [
        f"{label}, {who}: {many(total.fp, 'false positive')} and {many(total.fn, 'false negative')} in "
        f"{many(len(table), 'image')}, {at}",
        f"TP {total.tp}  FP {total.fp}  FN {total.fn}  TN {total.tn};  F1 {_percent(total.f1)}, "
        f"FPR {_percent(total.fpr)}, FNR {_percent(total.fnr)}",
    ]
    unknown = table[table["outcome"] == "unknown"]
    if len(unknown):
        called = int((unknown["score"] >= unknown["threshold"]).sum())
        lines.append(f"{len(unknown):,} of unknown label, not counted, {called:,} of them called defective")
    if several:
        rows = category_counts(opened, table).to_dict("records")
        errors = (f"{c.name} {row['fp']} FP {row['fn']} FN" for c, row in zip(categories, rows, strict=True))
        lines.append(f"by category: {', '.join(errors)}")
    if all(is_mvtec(c) and c.results[label].setting in ("PNI", "PNI (ensemble)") for c in categories):
        paper = PAPER_ERRORS
        lines.append(
            f"here {total.fp} FP of {total.fp + total.tn:,}, {total.fn} FN of {total.fn + total.tp:,}; paper, PNI "
            f"(ensemble), all of MVTec AD: {paper['fp']} FP of {paper['n_normal']:,}, {paper['fn']} FN of "
            f"{paper['n_defective']:,}"
        )
    return "\n".join(lines)


def samples_words(table: pd.DataFrame, first: int, n: int) -> str:
    """Which of the rows of a table of `samples` are shown: `n` from number `first` on."""
    order = ", highest first" if len(table) and table["margin"].is_monotonic_decreasing else ""
    return f"{first + 1 if n else 0} to {first + n} of {many(len(table), 'sample')}{order}"


def sides_words(table: pd.DataFrame, ours: str, base: str, n: int) -> str:
    """How many images of a table of `changed_sides` changed sides; `n`: how many of them are shown."""
    right, wrong = ((table["changed"] == change).sum() for change in ("now right", "now wrong"))
    changed = right + wrong
    below = f"; the first {n} of these {changed} below" if n < changed else ""
    return (
        f"{ours} against {base}: {right} now right that were wrong, {wrong} now wrong that were right, of "
        f"{many(len(table), 'image')}{below}"
    )


def truth_words(category: Category, i: int) -> str:
    """What the data set says of an image."""
    label = {0: "normal", 1: "defective"}.get(int(category.labels[i]), "label unknown")
    kind = str(category.first.table["defect_type"].iloc[i])
    return f"{label} ({kind})" if label == "defective" and kind else label


def image_words(category: Category, i: int, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Truth, score, threshold and outcome of an image.  rows: label -> its row of `samples`."""
    judged = [
        f"{label}: score {row['score']:.5g} {'≥' if row['score'] >= row['threshold'] else '<'} threshold "
        f"{row['threshold']:.5g}, {row['outcome']}"
        for label, row in rows.items()
    ]
    return "\n".join([f"{category.key}: {category.names[i]}, {truth_words(category, i)}", "; ".join(judged)])


def pixel_words(
    category: Category,
    i: int,
    label: str,
    pixel: tuple[int, int],
    explanation: Explanation | None,
    values: Mapping[str, float],
    scores: Mapping[str, float],
    threshold: float,
    level: float = math.nan,
) -> str:
    """The sentence of an explained pixel, and what each map and setting says there.  values: label -> map value there.
    scores: setting -> score of the patch.  threshold, level: as in `sentence`."""
    image, (row, column) = f"{category.key}: {category.names[i]}, {truth_words(category, i)}", pixel
    lines = [f"{image}; pixel in row {row}, column {column}, {label}"]
    if explanation is not None:
        lines.append(sentence(explanation, values.get(label, math.nan), threshold, level))
    for what, numbers in (("map here", values), ("score of this patch by setting", scores)):
        if numbers:
            lines.append(f"{what}: {', '.join(f'{name} {value:.4g}' for name, value in numbers.items())}")
    return "\n".join(lines)


def note_words(note: Note) -> str:
    """What the reader said of an image."""
    label = [f"label corrected to {note.label}"] if note.label else []
    return "; ".join(label + ([f"note: {note.text}"] if note.text else []))


def sentence(explanation: Explanation, value: float, threshold: float, level: float = math.nan) -> str:
    """What made this pixel score as it did, in words.  value: of the map, NaN where the run kept none.  threshold: of
    the image, left out where it is not one of the map (image_score other than max).  level: how far a normal patch is
    (`normal_level`), NaN where nobody knows."""
    at = f"The map is {value:.3g} here" if math.isfinite(value) else "The run kept no map of this result"
    if math.isfinite(value) and math.isfinite(threshold) and explanation.config.image_score == "max":
        at += f", {'at or above' if value >= threshold else 'below'} the image threshold {threshold:.3g}"
    free = [name for name, match in explanation.matches.items() if explanation.n_shut[name] == 0 and match.added == 0]
    parts = []
    if free:
        gates = "" if free == ["none"] else f" and allowed by the {' and the '.join(_gate_name(name) for name in free)}"
        parts.append(
            f"the nearest patch of the coreset (training image {explanation.nearest.train_image}) is "
            f"{explanation.nearest.distance:.3g} away{gates}"
        )
    for name, match in explanation.matches.items():
        n_shut = explanation.n_shut[name]
        if name in explanation.none_allowed:
            parts.append(
                f"the {_gate_name(name)} shuts all {n_shut:,} training patches ({_reason(name, explanation)}), so the "
                f"farthest (training image {match.train_image}) counts, {match.distance:.3g} away instead of "
                f"{explanation.nearest.distance:.3g}"
            )
        elif name == "veto" and name not in free:
            passed = many(n_shut, "nearer training patch", "nearer training patches")
            parts.append(
                f"the place speaks against the nearest patch, {explanation.nearest.distance:.3g} away (adding "
                f"{explanation.nearest.added:.3g}); {passed} passed over, training image {match.train_image} counts: "
                f"{match.distance:.3g} away, and {match.added:.3g} for its place"
            )
        elif name not in free:
            parts.append(
                f"the {_gate_name(name)} shuts {many(n_shut, 'nearer training patch', 'nearer training patches')} "
                f"({_reason(name, explanation)}), and the nearest allowed one (training image {match.train_image}) is "
                f"{match.distance:.3g} away instead of {explanation.nearest.distance:.3g}"
            )
    verdict = _verdict(explanation, level)
    return f"{at}; this patch scores {explanation.score:.3g}: {'; '.join(parts)}. {verdict}"


def _gate_name(name: str) -> str:
    return {
        "eq. (6)": "gate of eq. (6)",
        "product": "product of both sources",
        "veto": "soft veto of the position",
    }.get(name, f"{name} gate")


def _reason(name: str, explanation: Explanation) -> str:
    """Why the nearest of all is shut, in probabilities."""
    match, limit = explanation.shut[name][0], f"{explanation.tau:.2g}"
    neighborhood = f"p = {match.p_neighborhood:.2g} from the neighborhood"
    position = (
        "never seen at this position" if match.p_position == 0 else f"p = {match.p_position:.2g} at this position"
    )
    if name == "neighborhood":
        return f"the nearest has {neighborhood}, not above τ = {limit}"
    if name == "position":
        return f"the nearest was {position}" if match.p_position == 0 else (
            f"the nearest has {position}, not above τ = {limit}"
        )  # fmt: skip
    return f"the nearest: {neighborhood}, {position}; together not above τ = {limit}"


def _verdict(explanation: Explanation, level: float) -> str:
    """Looks, or place: what of the distance beyond a normal patch's is there without gates, and what the gates add.

    Of the distance that counts, `level` is what any normal patch has; the nearest patch's own excess over it is due to
    looks, the rest to the gates.
    """
    free = not any(explanation.n_shut.values()) and not any(match.added for match in explanation.matches.values())
    make = "the veto makes" if "veto" in explanation.matches else "the gates make"
    counted = sum(match.distance + match.added for match in explanation.matches.values()) / len(explanation.matches)
    if math.isnan(level):
        added = counted - explanation.nearest.distance
        made = "no gate stands between it and its nearest neighbor" if free else f"{make} {added:.3g} of it"
        return f"So it counts as {counted:.3g} away, and {made}; how far a normal patch is, the run does not say."
    beyond = counted - level
    if beyond <= 0.05 * level:
        return f"So nothing stands out here: a normal patch is {level:.3g} away."
    if free:
        none = "no gate stands between it and its nearest neighbor"
        return f"So only its looks count: {none}; a normal patch is {level:.3g} away."
    gates = counted - max(explanation.nearest.distance, level)
    which = "its place more than its looks" if gates > 0.5 * beyond else "its looks more than its place"
    if gates <= 0.05 * beyond:
        which = (
            f"how it looks, and {'the veto changes' if 'veto' in explanation.matches else 'the gates change'} little"
        )
    return (
        f"So it is {which}: of the {beyond:.3g} that it is farther than a normal patch ({level:.3g}), {make} "
        f"{gates:.3g}."
    )


def _percent(share: float) -> str:
    return "undefined" if math.isnan(share) else f"{100 * share:.2f} %"
