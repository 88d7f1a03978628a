"""What an evaluation leaves on disk: tidy tables, pictures, and a page to look at.

scores.csv     one row an image: score, decision at both thresholds
metrics.csv    one row a metric
evaluation.json the same with notes, settings, and what was evaluated
pictures.png   every kind of defect, the normal images with the highest scores; one colour scale
scores.png     histogram of image scores with both thresholds
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pnilib.apps import pages
from pnilib.data import Split
from pnilib.detector.prediction import Scored
from pnilib.evaluation import METRICS, SHORT_NAMES, Evaluation
from pnilib.plots.images import color_bar, show_image, show_map
from pnilib.store.files import atomic_write, os_errors, write_csv, write_json
from pnilib.store.locks import mark_output
from pnilib.store.text import read_json, shown

__all__ = [
    "draw_examples",
    "draw_scores",
    "metrics_table",
    "outdated_evaluations",
    "outdated_tables",
    "rules_table",
    "save_figure",
    "write_evaluation",
    "write_page",
]


@runtime_checkable
class Identified(Protocol):
    """A fitted model of any kind."""

    def fingerprint(self, *, refined: bool = False) -> str: ...


_FILES = ("scores.csv", "metrics.csv", "evaluation.json", "pictures.png", "scores.png")


def save_figure(figure: Figure, path: Path) -> None:
    """PNG written completely or not at all; without a date inside, so that equal pictures are equal files."""
    with atomic_write(path, "wb") as handle:
        figure.savefig(handle, format="png", dpi=110, metadata={"Software": None})


def draw_scores(scores: np.ndarray, labels: np.ndarray, thresholds: dict[str, float], ax: Axes) -> Axes:
    """Histogram of image scores by label (0, 1, or -1: unknown) where there are any, with named thresholds."""
    bins = np.linspace(float(scores.min()), float(scores.max()) + 1e-6, 31).tolist()
    for label, name, color in ((0, "normal", "#4477aa"), (1, "defective", "#ee6677"), (-1, "label unknown", "#999999")):
        if label >= 0 or (labels == label).any():
            sns.histplot(x=scores[labels == label], bins=bins, color=color, alpha=0.7, label=name, ax=ax)
    for (name, value), style in zip(thresholds.items(), ("-", "--", ":"), strict=False):
        if np.isfinite(value):
            ax.axvline(value, color="black", linestyle=style, label=f"{name}: {value:.2f}")
    ax.set_xlabel("image score (higher = more anomalous)")
    ax.set_ylabel("images")
    ax.legend(fontsize=8, loc="upper right")
    return ax


def draw_examples(predictions: dict[str, Scored], test: Split, n_normal: int = 2, most: int = 10) -> Figure:
    """Columns: the highest-scored normal images, then for each kind of defect its median image by the last one.

    Rows: the image with the true outline, then each prediction's map over it.  One scale for all: from the smallest
    median to the largest 99.9 % quantile of the predictions' maps.
    """
    last = list(predictions.values())[-1]
    labels, defects = test.samples["label"].to_numpy(), test.samples["defect_type"].to_numpy()
    order = np.argsort(-last.image_scores, kind="stable")
    chosen = [int(i) for i in order if labels[i] == 0][:n_normal]
    for defect in sorted(set(defects[labels == 1])):
        of_kind = [int(i) for i in order if labels[i] == 1 and defects[i] == defect]
        chosen.append(of_kind[len(of_kind) // 2])
    chosen = (chosen or [int(i) for i in order])[:most]
    quantiles = np.array([np.quantile(p.maps, [0.5, 0.999]) for p in predictions.values()])
    limits = (float(quantiles[:, 0].min()), float(quantiles[:, 1].max()))
    n_rows = 1 + len(predictions)
    figure = Figure(figsize=(1.9 * len(chosen) + 1.2, 2.1 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, len(chosen), squeeze=False)
    geometry = last.config.geometry
    for column, i in enumerate(chosen):
        image, mask = test.image(i, geometry), test.mask(i, geometry) if labels[i] >= 0 else None
        name = "normal" if labels[i] == 0 else str(defects[i]).replace("_", " ")
        show_image(image, axes[0, column], mask=mask, title=name)
        for row, prediction in enumerate(predictions.values(), start=1):
            title = f"score {prediction.image_scores[i]:.2f}"
            show_map(prediction.maps[i], axes[row, column], limits=limits, image=image, mask=mask, title=title)
    for row, name in enumerate(predictions, start=1):
        axes[row, 0].set_ylabel(name)
    color_bar([ax for line in axes[1:] for ax in line], limits, "anomaly score")
    return figure


def write_evaluation(
    folder: Path,
    prediction: Scored,
    test: Split,
    evaluation: Evaluation,
    beside: dict[str, Scored] | None = None,
    *,
    model: Identified | None = None,
) -> None:
    """All files named above, each complete or not there; those of an earlier evaluation go first.

    `beside`: other predictions to draw above this one.  `model`: whose prediction it is, for `outdated_evaluations`.
    """
    mark_output(folder)
    with os_errors(folder):
        for name in _FILES:
            (folder / name).unlink(missing_ok=True)
    samples, metrics = test.samples, evaluation.metrics
    table = pd.DataFrame(
        {
            "image": samples["image_path"].map(shown),
            "label": samples["label"],
            "defect_type": samples["defect_type"],
            "score": prediction.image_scores,
            "defect_by_test_optimal_threshold": prediction.image_scores >= metrics["i_threshold"],
            "defect_by_normal_threshold": prediction.image_scores >= metrics["normal_threshold"],
        }
    )
    for column, threshold in (("test_optimal", "i_threshold"), ("normal", "normal_threshold")):
        if np.isnan(metrics[threshold]):
            table[f"defect_by_{column}_threshold"] = None
    rows = pd.DataFrame([dict(metric=key, value=value, meaning=METRICS[key]) for key, value in metrics.items()])
    for name, frame in (("scores.csv", table), ("metrics.csv", rows)):
        write_csv(folder / name, frame)
    write_json(
        folder / "evaluation.json",
        {
            "metrics": {key: None if np.isnan(value) else value for key, value in metrics.items()},
            "i_auroc_95": [None if np.isnan(bound) else bound for bound in evaluation.interval[:2]],
            "notes": evaluation.notes,
            "n_normal": evaluation.n_normal,
            "n_defective": evaluation.n_defective,
            "config": prediction.config.to_dict(),
            "refined": prediction.refined,
            "model": None if model is None else model.fingerprint(refined=prediction.refined),
            "test_images": test.fingerprint(),
        },
    )
    with matplotlib.rc_context({"font.size": 9}):
        rows_shown = (beside or {}) | {prediction.name: prediction}
        save_figure(draw_examples(rows_shown, test), folder / "pictures.png")
        figure = Figure(figsize=(6, 3), layout="constrained")
        thresholds = {"test-optimal": metrics["i_threshold"], "normal images only": metrics["normal_threshold"]}
        draw_scores(prediction.image_scores, samples["label"].to_numpy(), thresholds, figure.subplots())
        save_figure(figure, folder / "scores.png")


def outdated_evaluations(folder: Path, model: Identified, test: Split) -> list[str]:
    """Evaluations in a category's folder that are of another model or of other test images, one line each."""
    found, images = [], test.fingerprint()
    for place in sorted(folder.glob("evaluation*")):
        try:
            record = read_json(place / "evaluation.json")
            same = record["test_images"] == images and record["model"] in (
                None, model.fingerprint(refined=record["refined"])
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError):
            same = False
        if not same:
            found.append(f"{place.name}/ is of another model or other test images: evaluate so again, or delete it")
    return found


def outdated_tables(run: Path, categories: Sequence[str]) -> list[str]:
    """Tables at the top of a run that name categories which it does not hold (any more), one line each."""
    found = []
    for file in sorted(run.glob("metrics*.csv")):
        try:
            gone = sorted(set(pd.read_csv(file, dtype={"category": str})["category"]) - set(categories))
        except (OSError, ValueError, KeyError):
            continue
        if gone:
            found.append(
                f"{file}: names {', '.join(gone)}, which the run does not hold: evaluate so again, or delete it"
            )
    return found


def metrics_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Percent to two decimals; FP and FN as `at the test-optimal / at the normal-only threshold`; – for no value.

    The mean is over all categories, so it has a value where each of them has one.
    """

    def text(value: float, form: str = ".2f") -> str:
        return "–" if math.isnan(value) else f"{value:{form}}"

    keys = ["i_auroc", "p_auroc", "aupro_30", "aupro_05", "p_f1_max"]
    table = [
        {"category": row["category"]}
        | {METRICS[key]: text(100 * row[key]) for key in keys}
        | {
            f"{name} (optimal / normal-only)": f"{text(row[key], '.0f')} / {text(row[f'normal_{key}'], '.0f')}"
            for name, key in (("FP", "fp"), ("FN", "fn"))
        }
        for row in rows
    ]
    if len(rows) > 1:
        means = {METRICS[key]: text(100 * float(np.mean([row[key] for row in rows]))) for key in keys}
        table.append({"category": "mean"} | means | {name: "" for name in table[0] if name.startswith(("FP", "FN"))})
    return pd.DataFrame(table)


def write_page(folder: Path, title: str, table: pd.DataFrame, categories: list[str], facts: dict[str, Any]) -> Path:
    """One self-contained HTML page: the table, each category's pictures, links to executed notebooks, the facts."""
    names = {"images and anomaly maps": "pictures.png", "histogram of image scores": "scores.png"}
    return pages.write_page(
        folder / "index.html",
        "demo.html.j2",
        title=title,
        table=Markup(table.to_html(index=False, border=0, escape=True, na_rep="–")),
        notebooks=sorted((folder / "notebooks").glob("*.html")),
        categories={c: {text: folder / c / "evaluation" / name for text, name in names.items()} for c in categories},
        facts=json.dumps(facts, indent=2),
    )


def rules_table(rows: list[dict[str, Any]], rules: Sequence[str]) -> pd.DataFrame:
    """One line a category and a mean, percent: I-AUROC and AUPRO under each of the rules."""
    frame = pd.DataFrame(rows)
    wide = frame.pivot(index="category", columns="rule", values=["i_auroc", "aupro_30"]).mul(100)
    wide = wide.reindex(index=list(dict.fromkeys(frame["category"])))
    wide.loc["mean"] = wide.mean()
    columns = [(metric, rule) for metric in ("i_auroc", "aupro_30") for rule in rules]
    shown = wide[columns].map(lambda value: f"{value:.2f}")
    shown.columns = pd.Index([f"{SHORT_NAMES[metric]} {rule}" for metric, rule in columns])
    return shown.rename_axis("category").reset_index()
