"""What the names of folders and labels say: normal, a defect, a part of a data set, or something that could be either.

Names are compared by their words, in any case of letters: `Not-OK`, `not_ok` and `NotOK` are one.
"""

import re
import unicodedata

__all__ = ["DATASETS", "composed", "is_defect", "is_normal", "is_part", "names_a_fault", "sounds_normal"]

DATASETS = ("mvtec", "demo", "btad", "visa", "mtd", "folder")
"""Layouts on disk that are known."""

_NORMAL = {"good", "ok", "okay", "normal", "normals", "nominal", "pass", "passed"}
_DEFECT = {
    "ng", "nok", "ko", "bad", "defect", "defects", "defective", "anomaly", "anomalies", "anomalous", "abnormal",
    "reject", "rejects", "rejected", "fail", "fails", "failed", "failure", "fault", "faults", "faulty", "scrap",
}  # fmt: skip
_NEGATED = (
    (r"\b(?:no|non|not|without) ?(?:defect|anomal|fault)\w*|\b(?:defect|anomaly|fault)s? ?free\b", "normal"),
    (r"\b(?:no|non|not) ?(?:good|ok|okay|normal|pass|passed)\b", "defect"),
)
_KINDS = (
    "scratch", "crack", "dent", "hole", "cut", "bent", "bend", "brok", "break", "contamin", "stain", "spot", "rust",
    "miss", "chip", "burr", "burn", "blister", "blowhole", "fray", "tear", "torn", "squeez", "poke", "fold", "damag",
    "flaw", "corros", "wrinkle", "pit", "void", "leak", "deform",
)  # fmt: skip
"""How names of defects begin that nobody takes for normal images."""

_PARTS = {
    "train", "training", "test", "testing", "val", "valid", "validation", "groundtruth", "gt", "mask", "masks",
    "labels", "annotations",
}  # fmt: skip
"""Folders that tell a whole data set, in one word."""


def is_normal(name: str) -> bool:
    """Whether a folder or a label of this name is normal beyond doubt."""
    words = _words(name)
    return bool(words) and all(word in _NORMAL for word in words)


def is_defect(name: str) -> bool:
    """Whether the name says that something is wrong, whatever it is: `NG`, `bad`, `defect_2`; not `scratch`."""
    return any(word in _DEFECT for word in _words(name)) and not sounds_normal(name)


def sounds_normal(name: str) -> bool:
    """`good_lowlight`, `OK2`: normal is in the name, but something else, too."""
    return not is_normal(name) and any(_is_like_normal(word) for word in _words(name))


def names_a_fault(name: str) -> bool:
    """Whether nobody would call normal images so: `is_defect`, and `scratch`, `missing_cable`, `cut`."""
    return is_defect(name) or any(word.startswith(_KINDS) for word in _words(name))


def is_part(name: str) -> bool:
    """`train`, `test`, `ground_truth`, `masks`: a part of a whole data set."""
    return "".join(_words(name)) in _PARTS


def composed(name: str) -> str:
    """macOS may store names decomposed."""
    return unicodedata.normalize("NFC", name)


def _words(name: str) -> list[str]:
    text = " ".join(re.findall(r"[^\W\d_]+|\d+", composed(name).casefold()))
    for pattern, meaning in _NEGATED:
        text = re.sub(pattern, meaning, text)
    return text.split()


def _is_like_normal(word: str) -> bool:
    return word in _NORMAL or (word not in _DEFECT and ("good" in word or "normal" in word))
