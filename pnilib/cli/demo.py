"""`pni demo` does the whole main job; `pni notebooks` runs notebooks alone."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import psutil
import typer

from pnilib.artefacts import atomic_write, os_errors
from pnilib.cli.options import Categories, Device, Out, Profile, Progress, Seed, Set, build_config, device_name
from pnilib.data import load_dataset
from pnilib.data.files import refuse_output_around
from pnilib.demo import CATEGORIES, make_demo
from pnilib.errors import PNIError
from pnilib.evaluation import evaluate as evaluate_prediction
from pnilib.report import write_evaluation, write_page
from pnilib.runs import fit_or_load, manifest

__all__ = ["chosen_notebooks", "demo", "notebooks"]

Notebooks = Annotated[Path, typer.Option("--notebooks", help="Folder of the notebooks.")]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds that one notebook may take.")]


def chosen_notebooks(folder: Path, names: list[str] | None) -> list[Path]:
    found = {path.stem: path for path in sorted(folder.glob("[0-9]*.ipynb"))}
    if not found:
        raise PNIError(f"{folder}: holds no notebooks: run from the repository, or say where they are")
    chosen = []
    for name in names or []:
        fits = [path for stem, path in found.items() if stem == name or stem.startswith(f"{name}_")]
        if not fits:
            raise PNIError(f"{name}: no such notebook: choose from {', '.join(found)}")
        chosen += fits
    return chosen or list(found.values())


LESSONS = ["00", "01", "02", "03", "04", "05", "06", "07", "08"]
"""Notebooks that `pni demo` runs; the others show what `pni reproduce` computes, and run there."""

SHOWN_RULES = {
    "A": dict(setting="A"),
    "E, prob": dict(setting="E", combine="prob"),
    "E, product": dict(setting="E", combine="product"),
    "E, score": dict(setting="E", combine="score"),
}
"""What `pni demo` shows side by side: nearest neighbor, the paper's eq. (6), our product, the release's mean of scores;
the pictures show the first and the last."""


def rules_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """One line a category and a mean, percent: I-AUROC and AUPRO under each of SHOWN_RULES."""
    frame = pd.DataFrame(rows)
    wide = frame.pivot(index="category", columns="rule", values=["i_auroc", "aupro_30"]).mul(100)
    wide = wide.reindex(index=list(dict.fromkeys(frame["category"])))
    wide.loc["mean"] = wide.mean()
    columns = [(metric, rule) for metric in ("i_auroc", "aupro_30") for rule in SHOWN_RULES]
    shown = wide[columns].map(lambda value: f"{value:.2f}")
    names = {"i_auroc": "I-AUROC", "aupro_30": "AUPRO"}
    shown.columns = pd.Index([f"{names[metric]} {rule}" for metric, rule in columns])
    return shown.rename_axis("category").reset_index()


def _places(data: Path, out: Path) -> dict[str, str]:
    """The notebooks' folders: data, models shared between notebooks, pictures."""
    pictures = out / "pictures"
    with os_errors(pictures):
        pictures.mkdir(parents=True, exist_ok=True)
    return {
        "data_dir": str(data.resolve()),
        "model_dir": str((out / "models").resolve()),
        "out_dir": str(pictures.resolve()),
    }


def notebooks(
    names: Annotated[list[str] | None, typer.Argument(help="Notebooks, as 02 or 02_coresets. Default: all.")] = None,
    out: Out = Path("results/notebooks"),
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-P", help="NAME=VALUE of the parameters cell; unknown names are refused."),
    ] = None,
    folder: Annotated[Path, typer.Option("--folder", help="Where the notebooks are.")] = Path("notebooks"),
    timeout: Timeout = 3600.0,
    list_: Annotated[bool, typer.Option("--list", help="Only list the notebooks.")] = False,
    progress: Progress = True,
) -> None:
    """Run notebooks headlessly: executed copies, pages and figures under OUT.

    Every one runs even when another fails; the summary names notebook and cell, and the status is 1.
    """
    from pnilib.runner import (
        parameter_names,
        parse_parameters,
        run_all,
        summary_text,
    )  # seconds to import: not for `pni --help`

    paths = chosen_notebooks(folder, names)
    if list_:
        typer.echo("\n".join(path.stem for path in paths))
        return
    declared = {name for path in paths for name in parameter_names(path)}
    shared = {name: place for name, place in _places(Path("data/demo"), out).items() if name in declared}
    results = run_all(paths, out, shared | parse_parameters(parameter or []), timeout, progress)
    typer.echo(summary_text(results))
    raise typer.Exit(0 if all(result.ok for result in results) else 1)


def demo(
    out: Out = Path("results/demo"),
    data: Annotated[Path, typer.Option("--data", help="Folder of the demo data.")] = Path("data/demo"),
    category: Categories = None,
    profile: Profile = "demo",
    set_: Set = None,
    seed: Seed = None,
    device: Device = "auto",
    notebooks: Notebooks = Path("notebooks"),
    timeout: Timeout = 900.0,
    progress: Progress = True,
) -> None:
    """The main job on embedded data: make it, fit, score, evaluate, run the notebooks, write a page of results."""
    from pnilib.runner import run_all, summary_text  # seconds to import: not for `pni --help`

    began = time.perf_counter()
    first, *_, last = SHOWN_RULES
    settings, place = build_config(profile, set_, seed).replace(**SHOWN_RULES[last]), device_name(device)
    make_demo(data, progress=progress)
    rows: list[dict[str, Any]] = []
    facts: dict[str, Any] = {}
    for name in category or list(CATEGORIES):
        dataset = load_dataset("demo", data, name)
        source = {"dataset": "demo", "root": str(data.resolve()), "category": name, "options": {}}
        refuse_output_around(dataset.samples["image_path"], out / name)
        typer.echo(f"{name}: fitting on {len(dataset.train)} normal images, scoring {len(dataset.test)}", err=True)
        model = fit_or_load(dataset.train, settings, out / name, device=place, progress=progress, source=source)
        variants = {name: settings.replace(**choice) for name, choice in SHOWN_RULES.items()}
        predictions = model.predict_variants(dataset.test, variants, progress=progress)
        for rule, prediction in predictions.items():
            result = evaluate_prediction(prediction, dataset.test)
            rows.append({"category": name, "rule": rule} | result.metrics)
        beside = {first: predictions[first]}
        write_evaluation(out / name / "evaluation", predictions[last], dataset.test, result, beside)
        facts = manifest(settings, dataset.train, place)
    table = rules_table(rows)
    with atomic_write(out / "metrics.csv") as handle:
        pd.DataFrame(rows).to_csv(handle, index=False, lineterminator="\n")
    typer.echo(table.to_string(index=False))
    parameters = {"profile": profile} | _places(data, out / "notebooks")
    results = run_all(chosen_notebooks(notebooks, LESSONS), out / "notebooks", parameters, timeout, progress)
    typer.echo(summary_text(results))
    facts = {key: facts[key] for key in ("config", "device", "versions")}
    facts |= {
        "seconds": round(time.perf_counter() - began, 1),
        "notebooks": json.loads(json.dumps([vars(r) for r in results])),
    }
    page = write_page(out, "PNI on the demo data", table, list(dict.fromkeys(row["category"] for row in rows)), facts)
    memory = psutil.Process().memory_info().rss / 2**20
    typer.echo(f"page: {page} ({facts['seconds']:.0f} s, {memory:.0f} MB at the end)")
    raise typer.Exit(0 if all(result.ok for result in results) else 1)
