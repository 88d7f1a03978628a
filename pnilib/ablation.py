"""What each source of information is worth: settings x combinations x centre, in one table (PNI Table 3, S7).

For every seed the model is fitted twice, the MLP's centre excluded (eq. 7) and leaked (the release, B1); features and
coreset are shared.  Each finished (seed, centre) is kept as a CSV, so a killed table resumes.
"""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from pnilib.artefacts import atomic_write
from pnilib.config import PNIConfig
from pnilib.data import Dataset
from pnilib.errors import PNIError
from pnilib.evaluation import checked_test, evaluate
from pnilib.metrics import image_auroc
from pnilib.pni import PNI

__all__ = ["ROWS", "ablate", "by_kind", "mean_text", "summarise", "to_markdown", "whole_mean"]

ROWS: dict[str, dict[str, str]] = {
    "A: nearest neighbor": dict(setting="A"),
    "B: neighborhood gate": dict(setting="B"),
    "position gate": dict(setting="position"),
    "E: combine=prob, eq. (6)": dict(setting="E", combine="prob"),
    "E: combine=score (released)": dict(setting="E", combine="score"),
    "E: combine=product (ours)": dict(setting="E", combine="product"),
}
"""Rows of the table; those with a neighborhood gate exist for both centres."""

TEXTURES = {"carpet", "grid", "leather", "tile", "wood", "weave", "grain", "tiles", "mtd"}
"""Texture categories of MVTec AD (the paper's Table 1), of the demo data, and MTD; all others are objects."""

SHOWN = {"i_auroc": "I-AUROC", "p_auroc": "P-AUROC", "aupro_30": "AUPRO"}


def _uses_neighborhood(choice: dict[str, str]) -> bool:
    return choice["setting"] in ("B", "E")


def ablate(
    load: Callable[[int], Dataset],
    config: PNIConfig,
    folder: Path | str,
    seeds: list[int],
    *,
    device: str = "cpu",
    progress: bool = False,
) -> pd.DataFrame:
    """Tidy results: one row for each (dataset, category, seed, nb_centre, row, metric), metrics as in METRICS, and
    `i_auroc[<defect type>]` for each defect against all normal test images.

    `load(seed)` gives the data set, whose split may depend on the seed.  `folder` keeps finished units.
    """
    folder = Path(folder)
    tables = []
    for seed in seeds:
        dataset = load(seed)
        checked_test(dataset, config.geometry)
        base = config.replace(seed=seed, setting="E", calibration_images=0)
        for centre in ("excluded", "leaked"):
            unit = base.replace(nb_centre=centre)
            identity = json.dumps([unit.to_dict(), dataset.train.fingerprint(), dataset.test.fingerprint()])
            file = folder / f"seed{seed}-{centre}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}.csv"
            if not file.exists():
                table = _unit(dataset, unit, folder / "work", device, progress)
                with atomic_write(file) as handle:
                    table.to_csv(handle, index=False, lineterminator="\n")
            tables.append(pd.read_csv(file, keep_default_na=False, na_values=[""]))
    return pd.concat(tables, ignore_index=True)


def _unit(dataset: Dataset, config: PNIConfig, work: Path, device: str, progress: bool) -> pd.DataFrame:
    model = PNI(config, device).fit(dataset.train, workdir=work, progress=progress)
    centre = config.nb_centre
    chosen = {name: row for name, row in ROWS.items() if centre == "excluded" or _uses_neighborhood(row)}
    variants = {name: config.replace(**row) for name, row in chosen.items()}
    test = dataset.test
    labels, defects = test.samples["label"].to_numpy(), test.samples["defect_type"].to_numpy()
    rows = []
    for name, prediction in model.predict_variants(test, variants, progress=progress).items():
        values = dict(evaluate(prediction, test).metrics)
        for defect in sorted(set(defects[labels == 1])) if (labels == 0).any() else ():
            part = (labels == 0) | (defects == defect)
            values[f"i_auroc[{defect}]"] = image_auroc(prediction.image_scores[part], labels[part])
        rows += [
            dict(dataset=dataset.name, category=dataset.category, seed=config.seed, nb_centre=centre, row=name,
                 metric=metric, value=value)
            for metric, value in values.items()
        ]  # fmt: skip
    return pd.DataFrame(rows)


def summarise(results: pd.DataFrame, metrics: list[str] | None = None) -> pd.DataFrame:
    """Tidy: row, nb_centre, metric, and mean, sd, n over seeds of the mean over categories, in percent.

    sd has n - 1 in its denominator: NaN for one seed.  A mean is NaN where a category has no value.
    """
    if results.empty:
        raise PNIError("there are no results to summarise")
    part = results[results["metric"].isin(list(SHOWN) if metrics is None else metrics)]
    per_seed = part.groupby(["row", "nb_centre", "metric", "seed"], sort=False)["value"].agg(whole_mean).mul(100)
    grouped = per_seed.reset_index().groupby(["row", "nb_centre", "metric"], sort=False)["value"]
    return grouped.agg(mean=whole_mean, sd="std", n="size").reset_index()


def whole_mean(values: "pd.Series[float]") -> float:
    """The mean, NaN where one of them is: over the others it would be another number."""
    return float(values.mean(skipna=False))


def mean_text(mean: float, sd: float, form: str = ".2f") -> str:
    """`12.30 ± 0.45`, without a spread where it is NaN; – where the mean is."""
    if math.isnan(mean):
        return "–"
    return f"{mean:{form}}" if math.isnan(sd) else f"{mean:{form}} ± {sd:.2f}"


def by_kind(results: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The results of all categories and, where there are both, of objects and of textures apart."""
    parts = {"all categories": results}
    texture = results["category"].isin(TEXTURES)
    if texture.any() and not texture.all():
        parts |= {"objects": results[~texture], "textures": results[texture]}
    return parts


def to_markdown(summary: pd.DataFrame) -> str:
    """The summary as a Markdown table: mean ± sd, percent, two decimals; – for no value."""
    metrics = list(dict.fromkeys(summary["metric"]))
    lines = [
        "| setting | centre of the MLP's window | " + " | ".join(SHOWN.get(m, m) for m in metrics) + " |",
        "|---|---|" + "---|" * len(metrics),
    ]
    records = {(r["row"], r["nb_centre"], r["metric"]): r for r in summary.to_dict("records")}
    for name, choice in ROWS.items():
        for centre in ("excluded", "leaked"):
            if (name, centre, metrics[0]) not in records:
                continue
            cells = []
            for metric in metrics:
                found = records[name, centre, metric]
                cells.append(mean_text(found["mean"], found["sd"]))
            shown = centre if _uses_neighborhood(choice) else "–"
            lines.append(f"| {name} | {shown} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
