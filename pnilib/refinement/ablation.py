"""What each generator and each loss term of the refinement is worth: settings G-L, PNI, the losses (Tables 4, S7, S8).

Every row trains its own network on the same fitted model, setting E; rows with the same generators share a pool.  Each
network is judged at several fusion weights, the paper's 0.1 among them.  Each finished (seed, row) is kept as a CSV,
so a killed table resumes; networks are not kept.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pnilib.ablation import mean_text, whole_mean
from pnilib.artefacts import atomic_write
from pnilib.config import REFINED_SETTINGS, PNIConfig
from pnilib.data import Dataset
from pnilib.errors import PNIError
from pnilib.evaluation import checked_test, evaluate
from pnilib.pni import PNI
from pnilib.refinement.refine import checkpoint_folder, refine
from pnilib.runs import fit_or_load

__all__ = [
    "ROWS",
    "WEIGHTS",
    "ablate_refinement",
    "against",
    "by_category",
    "by_weight",
    "summarise",
    "to_markdown",
]

WEIGHTS = (0.1, 0.3, 0.5, 1.0)
"""Fusion weights that every network is judged at."""

_NAMES = {
    "G": "CutPaste",
    "H": "CutPaste-scar",
    "I": "CutPaste and scar",
    "J": "DRAEM",
    "K": "manual drawing",
    "L": "without gradient loss",
}

ROWS: dict[str, dict[str, Any]] = {
    **{f"{letter}: {_NAMES[letter]}": REFINED_SETTINGS[letter] for letter in _NAMES},
    "PNI": REFINED_SETTINGS["PNI"],
    "PNI, squared error (released)": dict(refine_loss="mse"),
    "PNI, cross-entropy": dict(refine_loss="ce"),
    "PNI, focal loss": dict(refine_loss="focal"),
    "PNI, residual output (released)": dict(refine_out="residual"),
    "PNI, network without skips": dict(refine_skips="none"),
    "PNI, pool scored by the fitted model": dict(pool_maps="fitted"),
    "PNI and natural (ours)": dict(defects="cutpaste,scar,draem,manual,natural"),
}
"""What differs from PNI: the paper's four generators, l2 and gradient loss."""

BASE = "E"
"""The row without refinement."""

_PNI = {name: getattr(PNIConfig(), name) for name in ("defects", "refine_loss", "refine_grad", "refine_out")}
"""What the paper says of the refinement, whatever the profile."""

SHOWN = {"i_auroc": "I-AUROC", "p_auroc": "P-AUROC", "aupro_30": "AUPRO", "p_f1_max": "P-F1-max"}


def ablate_refinement(
    load: Callable[[int], Dataset],
    config: PNIConfig,
    folder: Path | str,
    seeds: Sequence[int],
    rows: Sequence[str] | None = None,
    *,
    device: str = "cpu",
    progress: bool = False,
) -> pd.DataFrame:
    """Tidy results: dataset, category, seed, row, weight, metric, value; the row E has weight 0.

    `load(seed)` gives the data set; `rows`: names in ROWS, default all.  Raises PNIError for an unknown row.
    """
    folder = Path(folder)
    for row in rows or ():
        if row not in ROWS:
            raise PNIError(f"row {row!r} is unknown: choose from {', '.join(ROWS)}")
    tables = []
    for seed in seeds:
        dataset = load(seed)
        checked_test(dataset, config.geometry)
        base = config.replace(seed=seed, setting="E", calibration_images=0, **_PNI)
        work = folder / f"seed{seed}"
        model: PNI | None = None
        for row in (BASE, *(rows or ROWS)):
            unit = base.replace(**ROWS.get(row, {}))
            identity = json.dumps([row, unit.to_dict(), dataset.train.fingerprint(), dataset.test.fingerprint()])
            file = work / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.csv"
            if not file.exists():
                if model is None:
                    key = base.stage_key("maps")
                    model = fit_or_load(dataset.train, base, work / f"model-{key}", device=device, progress=progress)
                table = _unit(dataset, model.with_config(**unit.to_dict()), row, work / "refinement", progress)
                with atomic_write(file) as handle:
                    table.to_csv(handle, index=False, lineterminator="\n")
            tables.append(pd.read_csv(file))
    return pd.concat(tables, ignore_index=True)


def _unit(dataset: Dataset, model: PNI, row: str, work: Path, progress: bool) -> pd.DataFrame:
    if row == BASE:
        predictions = {0.0: model.predict(dataset.test, progress=progress)}
    else:
        pair = {dataset.category: (model, dataset.train)}
        refined = refine(pair, work, keep_folds=True, progress=progress)[dataset.category]
        variants = {f"{weight}": refined.config.replace(refine_weight=weight) for weight in WEIGHTS}
        found = refined.predict_variants(dataset.test, variants, refined=True, progress=progress)
        predictions = {float(weight): prediction for weight, prediction in found.items()}
        for checkpoint in checkpoint_folder(work, [dataset.category]).glob("network-*"):
            shutil.rmtree(checkpoint)
    return pd.DataFrame(
        [
            dict(dataset=dataset.name, category=dataset.category, seed=model.config.seed, row=row, weight=weight,
                 metric=metric, value=value)
            for weight, prediction in predictions.items()
            for metric, value in evaluate(prediction, dataset.test).metrics.items()
        ]
    )  # fmt: skip


def summarise(results: pd.DataFrame, weight: float = 0.1) -> pd.DataFrame:
    """Tidy: row, metric, and mean, sd, n over seeds of the mean over categories, percent; networks at one weight.

    sd has n - 1 in its denominator: NaN for one seed.  A mean is NaN where a category has no value.
    """
    part = results[results["metric"].isin(list(SHOWN)) & results["weight"].isin([0.0, weight])]
    per_seed = part.groupby(["row", "metric", "seed"], sort=False)["value"].agg(whole_mean).mul(100).reset_index()
    grouped = per_seed.groupby(["row", "metric"], sort=False)["value"]
    return grouped.agg(mean=whole_mean, sd="std", n="size").reset_index()


def to_markdown(summary: pd.DataFrame) -> str:
    """The summary as a Markdown table: mean ± sd, percent, two decimals; – for no value."""
    lines = ["| setting | " + " | ".join(SHOWN.values()) + " |", "|---|" + "---|" * len(SHOWN)]
    records = {(r["row"], r["metric"]): r for r in summary.to_dict("records")}
    for row in dict.fromkeys(summary["row"]):
        cells = []
        for metric in SHOWN:
            found = records[row, metric]
            cells.append(mean_text(found["mean"], found["sd"]))
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def by_category(results: pd.DataFrame, row: str = "PNI", weight: float = 0.1) -> str:
    """Markdown: P-F1-max and AUPRO of setting E, of `row` and their difference, category by category and on average.

    Percent, mean ± sd over seeds; the difference is taken seed by seed.
    """
    metrics = ["p_f1_max", "aupro_30"]
    part = results[results["metric"].isin(metrics) & results["weight"].isin([0.0, weight])]
    wide = part[part["row"].isin([BASE, row])].pivot(
        index=["category", "seed"], columns=["metric", "row"], values="value"
    )
    wide = 100 * wide
    mean = wide.groupby("seed").agg(whole_mean)
    mean.index = pd.MultiIndex.from_product([["mean"], mean.index])
    head = "".join(f" {SHOWN[metric]} {name} |" for metric in metrics for name in (BASE, row, "difference"))
    lines = [f"| category |{head}", "|---|" + "---|" * 6]
    for category, found in pd.concat([wide, mean]).groupby(level=0, sort=False):
        cells = []
        for metric in metrics:
            before, after = found[metric, BASE], found[metric, row]
            for value, form in ((before, ".2f"), (after, ".2f"), (after - before, "+.2f")):
                cells.append(mean_text(whole_mean(value), value.std(), form))
        lines.append(f"| {category} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def by_weight(results: pd.DataFrame, row: str = "PNI") -> str:
    """Markdown: the metrics of `row` at every fusion weight; weight 0 is setting E.  Percent, mean over categories.

    Each category counts once, however many seeds it has.
    """
    part = results[results["row"].isin([BASE, row]) & results["metric"].isin(list(SHOWN))]
    each = part.groupby(["weight", "category", "metric"])["value"].agg(whole_mean)
    mean = each.groupby(["weight", "metric"]).agg(whole_mean).mul(100).unstack()
    lines = ["| weight | " + " | ".join(SHOWN.values()) + " |", "|---|" + "---|" * len(SHOWN)]
    for weight, values in mean[list(SHOWN)].iterrows():
        lines.append(f"| {weight:g} | " + " | ".join(mean_text(value, math.nan) for value in values) + " |")
    return "\n".join(lines) + "\n"


def against(results: pd.DataFrame, base: str = "PNI", weight: float = 0.1) -> str:
    """Markdown: every other row minus `base`, mean over the (category, seed) that both have, and which these are.

    Points, networks at one fusion weight.  Where rows were not trained on the same units, their own means would compare
    categories.
    """
    part = results[results["metric"].isin(list(SHOWN)) & results["weight"].isin([0.0, weight])]
    wide = 100 * part.pivot_table(index=["category", "seed"], columns=["row", "metric"], values="value", sort=False)
    lines = [f"| minus {base} | units | " + " | ".join(SHOWN.values()) + " |", "|---|---|" + "---|" * len(SHOWN)]
    for row in dict.fromkeys(part["row"]):
        if row == base:
            continue
        change = (wide[row] - wide[base]).dropna(how="all")
        seeds = change.reset_index()["category"].value_counts(sort=False)
        units = ", ".join(f"{category} ({n})" for category, n in seeds.items())
        cells = [f"{value:+.2f}" for value in change[list(SHOWN)].mean()]
        lines.append(f"| {row} | {len(change)}: {units} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
