"""`pni nsa fit | score | evaluate`."""

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from pnilib.apps.cli.options import (
    AsJson,
    Categories,
    DatasetName,
    Device,
    Options,
    Out,
    Progress,
    Root,
    chosen_categories,
    device_name,
    emit,
    parse_options,
)
from pnilib.apps.cli.score import model_folder, report_scores
from pnilib.errors import PNIError

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    help="""NSA: a detector learnt from scratch, without any pretrained weights, from natural synthetic anomalies.

pni nsa fit --dataset mvtec --root FOLDER --category screw --out runs/nsa   the published run: hours

pni nsa fit --dataset demo --root data/demo --out runs/nsa --epochs 20 --size 128   a first look: minutes

pni nsa evaluate runs/nsa;  pni nsa score runs/nsa/screw NEW_IMAGES --out scored

Its tasks are those of CutPaste, FPI, PII and NSA, one sampler with other values: --task.""",
)

Run = Annotated[Path, typer.Argument(help="OUT of `pni nsa fit`, or OUT/<category>.")]


@app.command()
def fit(
    dataset: DatasetName,
    root: Root,
    out: Out,
    category: Categories = None,
    option: Options = None,
    task: Annotated[
        str,
        typer.Option(help="cutpaste, fpi, pii, nsa-binary, nsa-continuous, nsa-logistic, or nsa-logistic-A ... -D."),
    ] = "nsa-logistic",
    rules: Annotated[
        str, typer.Option(help="Row of Table 4, as mvtec/screw; auto: the category's own, else measured on its images.")
    ] = "auto",
    epochs: Annotated[int, typer.Option(help="Passes over the training images; 0: as published, 320 or 560.")] = 0,
    size: Annotated[int, typer.Option(help="px; images are resized to this square.")] = 256,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 64,
    lr: Annotated[float, typer.Option(help="Learning rate at the start.")] = 1e-3,
    precision: Annotated[str, typer.Option(help="fp32, or bf16: twice as fast on many processors.")] = "fp32",
    released: Annotated[
        bool, typer.Option("--released", help="Patch sizes and mask bookkeeping of the authors' code.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes that make samples; 0: none beside this one.")] = 0,
    device: Device = "auto",
    progress: Progress = True,
    as_json: AsJson = False,
) -> None:
    """Learn from normal images: one network a category under OUT/<category>.  Killed, the same command resumes.

    OUT/<category>/training holds the loss by epoch, and pictures of what the network draws while it learns.
    """
    from pnilib.apps.cli.opening import open_dataset
    from pnilib.apps.nsa_pictures import draw_progress
    from pnilib.data.appearance import notes_on_images
    from pnilib.detector.runs import category_folder
    from pnilib.nsa.config import NSAConfig
    from pnilib.nsa.runs import fit_or_load
    from pnilib.store.text import shown

    config = NSAConfig(
        task=task, rules=rules, released=released, size=size, epochs=epochs, batch=batch, lr=lr, last_lr=min(1e-6, lr),
        precision=precision, seed=seed,
    )  # fmt: skip
    place = device_name(device)
    most = 4 * (os.cpu_count() or 1)
    if not 0 <= workers <= most:
        raise PNIError(f"--workers {workers}: give 0 to {most}")
    done: list[dict[str, Any]] = []
    names = chosen_categories(dataset, root, category)
    for name in names:
        category_folder(out, name)
    for name in names:
        data = open_dataset(dataset, root, name, parse_options(option))
        folder = category_folder(out, data.category)
        for note in notes_on_images(data.samples, config.geometry):
            typer.echo(f"{shown(name)}: {note}", err=True)
        if len(data.train) == 1:
            typer.echo(f"{shown(name)}: one training image: patches come from itself", err=True)
        source = {"dataset": dataset, "root": str(root.resolve()), "category": name, "options": parse_options(option)}
        model = fit_or_load(
            data, config, folder, device=place, workers=workers, progress=progress, source=source, draw=draw_progress
        )
        row = _row(data.category, folder, model, len(data.train))
        done.append(row)
        if not as_json:
            typer.echo(_text(row))
    if as_json:
        emit(done)


def _row(category: str, folder: Path, model: Any, n_train: int) -> dict[str, Any]:
    return {
        "category": category,
        "folder": str(folder),
        "n_train": n_train,
        "rules": model.rules_name,
        "epochs": len(model.history),
        "first_loss": model.history[0]["loss"],
        "last_loss": model.history[-1]["loss"],
        "lost_patches": int(sum(row["lost"] for row in model.history)),
        "seconds": model.seconds,
    }


def _text(row: dict[str, Any]) -> str:
    samples = row["epochs"] * row["n_train"]
    lost = f", patches without a place: {row['lost_patches']}" if row["lost_patches"] else ""
    rules = "measured rules" if row["rules"] == "measured" else f"rules of {row['rules']}"
    return (
        f"{row['category']}: {rules}; epochs: {row['epochs']}, samples: {samples} in "
        f"{row['seconds']:.0f} s, loss {row['first_loss']:.3g} -> {row['last_loss']:.3g}{lost} -> {row['folder']}"
    )


@app.command()
def evaluate(
    run: Run,
    category: Categories = None,
    root: Annotated[Path | None, typer.Option("--root", "-r", help="Where the data set is now, if it moved.")] = None,
    image_score: Annotated[str, typer.Option(help="Of the map: mean (published) or max.")] = "mean",
    device: Device = "auto",
    progress: Progress = True,
    as_json: AsJson = False,
) -> None:
    """Score the test images and compare with the ground truth: tables and pictures in <category>/evaluation."""
    import pandas as pd

    from pnilib.apps.report import metrics_table, write_evaluation
    from pnilib.data.appearance import notes_on_images
    from pnilib.data.duplicates import notes_on_repeats
    from pnilib.detector.runs import run_categories
    from pnilib.evaluation import checked_test
    from pnilib.evaluation import evaluate as evaluate_prediction
    from pnilib.nsa.runs import open_run
    from pnilib.store.files import write_csv

    kind = "" if image_score == "mean" else f"-image_score={image_score}"
    rows: list[dict[str, Any]] = []
    opened = {
        folder: open_run(folder, device_name(device), root) for folder in run_categories(run, category, kind="nsa")
    }
    for model, data in opened.values():
        model.config = model.config.replace(image_score=image_score)
        checked_test(data, model.config.geometry)
    for folder, (model, data) in opened.items():
        prediction = model.predict(data.test, progress=progress)
        result = evaluate_prediction(prediction, data.test)
        seen = [*notes_on_images(data.samples, model.config.geometry), *notes_on_repeats(data.samples)]
        result = dataclasses.replace(result, notes=[*data.notes, *seen, *result.notes])
        write_evaluation(folder / f"evaluation{kind}", prediction, data.test, result, model=model)
        rows.append({"category": data.category} | result.metrics | {"notes": result.notes})
    if run not in opened:
        write_csv(run / f"metrics{kind}.csv", pd.DataFrame(rows).drop(columns="notes"))
    if as_json:
        emit(rows)
        return
    typer.echo(metrics_table(rows).to_string(index=False))
    for row in rows:
        for note in row["notes"]:
            typer.echo(f"{row['category']}: {note}")


@app.command()
def score(
    run: Run,
    images: Annotated[list[Path], typer.Argument(help="Folders of new images, or images.")],
    out: Out,
    device: Device = "auto",
    progress: Progress = True,
    as_json: AsJson = False,
) -> None:
    """Score new images: OUT/scores.csv, and a heat map of each on one colour scale.  Resumes.

    There is no decision: the network has learnt from every normal image, so none is left to set a threshold on.
    """
    from pnilib.apps.batch import score_images
    from pnilib.nsa.detector import NSA

    model = NSA.load(model_folder(run, "nsa"), device_name(device))
    report_scores(score_images(model, images, out, progress=progress), out, as_json)
