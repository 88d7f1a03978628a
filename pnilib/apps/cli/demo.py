"""`pni demo` does the whole main job; `pni notebooks` runs notebooks alone."""

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from pnilib.apps.cli.options import Categories, Device, Out, Profile, Progress, Seed, Set, build_config, device_name
from pnilib.config import PNIConfig
from pnilib.errors import PNIError
from pnilib.store.text import many

__all__ = ["chosen_notebooks", "demo", "notebooks", "processes_that_end"]

Notebooks = Annotated[Path, typer.Option("--notebooks", help="Folder of the notebooks.")]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds that one notebook may take.")]


def chosen_notebooks(folder: Path, names: list[str] | None) -> list[Path]:
    found = {path.stem: path for path in sorted(folder.glob("[0-9]*.ipynb"))}
    if not found:
        raise PNIError(f"{folder}: holds no notebooks: `pni notebooks --copy {folder}` brings them")
    chosen = []
    for name in names or []:
        fits = [path for stem, path in found.items() if stem == name or stem.startswith(f"{name}_")]
        if not fits:
            raise PNIError(f"{name}: no such notebook: choose from {', '.join(found)}")
        chosen += fits
    return chosen or list(found.values())


LESSONS = ["07", "00", "01", "02", "03", "04", "05", "06", "08"]
"""Notebooks that `pni demo` runs, the longest first, since side by side it would end last.  The others show what
`pni reproduce` computes, and run there."""

SHOWN_RULES = {
    "A": dict(setting="A"),
    "E, prob": dict(setting="E", combine="prob"),
    "E, score": dict(setting="E", combine="score"),
    "soft veto": dict(setting="position", gate="soft"),
}
"""What `pni demo` shows side by side: nearest neighbor, the paper's eq. (6), the release's mean of scores, and the soft
veto of the place, which the run of each category keeps; the pictures show the first and the last."""


def _places(data: Path, out: Path) -> dict[str, str]:
    """The notebooks' folders: data, models shared between notebooks, pictures."""
    from pnilib.store.files import os_errors

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
    copy: Annotated[Path | None, typer.Option("--copy", help="Only copy the notebooks to this folder.")] = None,
    progress: Progress = True,
) -> None:
    """Run notebooks headlessly: executed copies, pages and figures under OUT.

    Every one runs even when another fails; the summary names notebook and cell, and the status is 1.
    """
    if copy is not None:
        from pnilib.apps.notebooks.copying import copy_notebooks

        typer.echo("\n".join(str(path) for path in copy_notebooks(copy)))
        return
    paths = chosen_notebooks(folder, names)
    from pnilib.apps.notebooks.files import parameter_names, parse_parameters
    from pnilib.apps.notebooks.runner import run_all, summary_text

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
    workers: Annotated[
        int | None, typer.Option(help="Processes side by side. Default: one a GPU, or one a core, at most 4.")
    ] = None,
    progress: Progress = True,
) -> None:
    """The main job on embedded data: make it, fit, score, evaluate, run the notebooks, write a page of results.

    Interrupted, the same command goes on with the models that are there.
    """
    import pandas as pd

    from pnilib.apps.notebooks.runner import run_all, summary_text
    from pnilib.apps.report import rules_table, write_page
    from pnilib.apps.reproduce.schedule import default_workers
    from pnilib.data import load_dataset
    from pnilib.demo import CATEGORIES, make_demo
    from pnilib.store.files import write_csv

    began = time.perf_counter()
    settings, place = build_config(profile, set_, seed).replace(setting="E", gate="hard"), device_name(device)
    side_by_side = workers if workers is not None else default_workers(place)
    if side_by_side < 1:
        raise PNIError("--workers: give 1 or more")
    lessons = chosen_notebooks(notebooks, LESSONS)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # small work: more threads wait more
    make_demo(data, progress=progress)
    names = category or list(CATEGORIES)
    for name in names:
        load_dataset("demo", data, name)  # an unknown one is refused before anything is fitted
    parameters = {"profile": profile} | _places(data, out / "notebooks")
    rows: dict[str, list[dict[str, Any]]] = {}
    facts: dict[str, Any] = {}
    with processes_that_end(side_by_side) as pool:
        bars = progress and side_by_side == 1
        shared = pool.submit(_fit_for_notebooks, data, Path(parameters["model_dir"]), profile)
        jobs = [pool.submit(_category, name, data, out, settings, place, bars) for name in names]
        for job in as_completed(jobs):
            name, rows[name], facts, text = job.result()
            typer.echo(f"{len(rows)} of {len(names)}, {name}: {text}", err=True)
        shared.result()
    table = rules_table([row for name in names for row in rows[name]], list(SHOWN_RULES))
    write_csv(out / "metrics.csv", pd.DataFrame([row for name in names for row in rows[name]]))
    typer.echo(table.to_string(index=False))
    results = run_all(lessons, out / "notebooks", parameters, timeout, progress, side_by_side)
    results.sort(key=lambda result: result.name)
    typer.echo(summary_text(results))
    facts |= {
        "seconds": round(time.perf_counter() - began, 1),
        "notebooks": json.loads(json.dumps([vars(r) for r in results])),
    }
    page = write_page(out, "PNI on the demo data", table, names, facts)
    typer.echo(f"page: {page} ({facts['seconds']:.0f} s)")
    raise typer.Exit(0 if all(result.ok for result in results) else 1)


@contextmanager
def processes_that_end(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that Ctrl-C or an error in this one ends."""
    context = multiprocessing.get_context("spawn")  # torch does not survive a fork
    with ProcessPoolExecutor(workers, context, _await_the_end) as pool:
        try:
            yield pool
        except BaseException as fault:
            pool.shutdown(wait=False, cancel_futures=True)
            while children := multiprocessing.active_children():  # one may have been about to start
                for process in children:
                    process.terminate()
                    process.join(5)
            if isinstance(fault, BrokenProcessPool):
                raise PNIError("a process of the demo died (out of memory?): try --workers 1") from None
            raise


def _await_the_end() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what is half written goes


def _fit_for_notebooks(data: Path, models: Path, profile: str) -> None:
    """The model that most notebooks load, before they do it side by side: of their own default parameters."""
    from pnilib.data import load_dataset
    from pnilib.detector.runs import fit_or_load

    train = load_dataset("demo", data, "cable").train
    fit_or_load(train, PNIConfig.profile(profile), models / f"{profile}-cable-0")


def _category(
    name: str, data: Path, out: Path, settings: PNIConfig, device: str, progress: bool
) -> tuple[str, list[dict[str, Any]], dict[str, Any], str]:
    """Fit, score, evaluate and draw one: its name, rows of metrics, the facts of the run, and a line about it."""
    from pnilib.apps.report import write_evaluation
    from pnilib.data import load_dataset
    from pnilib.detector.runs import fit_or_load, manifest
    from pnilib.evaluation import evaluate as evaluate_prediction

    dataset = load_dataset("demo", data, name)
    source = {"dataset": "demo", "root": str(data.resolve()), "category": name, "options": {}}
    gated = settings.replace(calibration_images=0)
    every = fit_or_load(dataset.train, gated, out / "models" / name, device=device, progress=progress)
    *others, last = SHOWN_RULES
    own = settings.replace(**SHOWN_RULES[last])
    model = fit_or_load(dataset.train, own, out / name, device=device, progress=progress, source=source)
    variants = {rule: gated.replace(**SHOWN_RULES[rule]) for rule in others}
    predictions = every.predict_variants(dataset.test, variants, progress=progress)
    predictions[last] = model.predict(dataset.test, progress=progress)
    rows = []
    for rule, prediction in predictions.items():
        result = evaluate_prediction(prediction, dataset.test)
        rows.append({"category": name, "rule": rule} | result.metrics)
    first = others[0]
    write_evaluation(out / name / "evaluation", predictions[last], dataset.test, result, {first: predictions[first]})
    facts = manifest(own, dataset.train, device)
    text = f"fitted on {many(len(dataset.train), 'normal image')}, {len(dataset.test)} scored"
    return name, rows, {key: facts[key] for key in ("config", "device", "versions")}, text
