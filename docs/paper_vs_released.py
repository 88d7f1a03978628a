"""Writes the table of docs/PAPER_VS_RELEASED.md: the differences from `pnilib.released.differences`, what each was
measured to do from Table X2 of results/paper.

    python docs/paper_vs_released.py
"""

import re
from pathlib import Path

import pandas as pd

from pnilib.released.differences import markdown

PAGE = Path(__file__).with_name("PAPER_VS_RELEASED.md")
TABLE = Path(__file__).parents[1] / "results" / "paper" / "tables" / "table-x2.csv"
RULES = {"prob": "eq. (6)", "score": "mean of scores", "A": "setting A"}


def effects() -> dict[str, str]:
    """Number -> change of I-AUROC / AUPRO, percentage points, under each rule that it was switched on under."""
    found = pd.read_csv(TABLE)
    values = found.set_index(["method", "category", "metric"])["ours"]
    told: dict[str, list[str]] = {}
    for method, rule in dict.fromkeys(zip(found["method"], found["category"], strict=True)):
        number, variant = re.match(r"(B\d+)(?: (\w+))?:", method).groups()  # type: ignore[union-attr]
        pair = " / ".join(f"{values[method, rule, metric]:+.2f}" for metric in ("i_auroc", "aupro_30"))
        told.setdefault(number, []).append(f"{variant + ', ' if variant else ''}{RULES[rule]}: {pair}")
    return {
        number: "; ".join(parts).replace("-0.00", "0.00").replace("+0.00", "0.00") for number, parts in told.items()
    }


def page(text: str) -> str:
    """The page with its table made anew."""
    start, end = "<!-- made by docs/paper_vs_released.py -->\n", "<!-- end of the table -->"
    return text[: text.index(start) + len(start)] + markdown(effects()) + "\n" + text[text.index(end) :]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
