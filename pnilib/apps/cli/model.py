"""`pni config | estimate | fit | evaluate`."""

import dataclasses
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
    Profile,
    Progress,
    Refined,
    Root,
    Seed,
    Set,
    build_config,
    chosen_categories,
    device_name,
    emit,
    parse_options,
)
from pnilib.config import PNIConfig
from pnilib.errors import PNIError
from pnilib.store.text import many

__all__ = ["config", "estimate", "evaluate", "fit"]


def config(profile: Profile = "small", set_: Set = None, as_json: AsJson = False) -> None:
    """List every setting: value in the profile, meaning, allowed values, source in the paper."""
    chosen = build_config(profile, set_, None).require_used(PNIConfig.parse_overrides(set_ or []))
    if as_json:
        emit(chosen.to_dict())
        return
    section = ""
    for row in PNIConfig.describe():
        if row["section"] != section:
            typer.secho(f"{chr(10) if section else ''}{row['section']}", bold=True)
            section = row["section"]
        value, default = (_plain(v) for v in (getattr(chosen, row["name"]), row["default"]))
        mark = "" if value == default else f"  (paper: {default})"
        typer.echo(f"{row['name']} = {value}{mark}")
        typer.echo(f"    {row['meaning']}")
        typer.echo(f"    allowed: {row['allowed']}; stage {row['stage']}; source: {row['source']}")


def _plain(value: Any) -> str:
    return (",".join(value) or "none") if isinstance(value, tuple) else str(value)


def estimate(
    profile: Annotated[
        str | None,
        typer.Option("--profile", "-p", help="Named configuration. Default: small, or paper with --grid."),
    ] = None,
    set_: Set = None,
    n_train: Annotated[int, typer.Option(help="Training images.")] = 209,
    n_test: Annotated[int, typer.Option(help="Images to score.")] = 100,
    grid: Annotated[
        bool, typer.Option("--grid", help="Instead: all of `pni reproduce` on MVTec AD, BTAD and VisA, by category.")
    ] = False,
    seeds: Annotated[int, typer.Option(help="With --grid: seeds, as in `pni reproduce`.")] = 3,
    network_seeds: Annotated[int | None, typer.Option(help="With --grid: as in `pni reproduce`.")] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where the fit would write: its disk is looked at.")
    ] = Path(),
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Memory, disk and time of a fit before it starts, stage by stage; status 2 with advice when it will not fit.

    With --grid: the whole reproduction, timed in pieces of some minutes on the CPU; no data are needed.
    """
    from pnilib.apps import estimate as estimates

    place = device_name(device)
    profile = profile or ("paper" if grid else "small")
    free = estimates.Free.now(place, out)
    if grid:
        rows, n_units = _estimate_grid(profile, set_, seeds, network_seeds, place)
    else:
        settings = build_config(profile, set_, None)
        rows = estimates.estimate(settings, n_train, n_test, estimates.Speeds(settings, n_train, place))
    if as_json:
        names = ("category", "kind") if grid else ("stage",)
        told = [dict(zip(names, (key if grid else (key,)), strict=True)) | cost._asdict() for key, cost in rows.items()]
        emit({"rows": told, "total": estimates.total(rows.values())._asdict(), "free": dataclasses.asdict(free)})
    else:
        typer.echo(estimates.table_text(rows, free))
        if grid:
            typer.echo(
                f"{many(n_units, 'unit')} one after another on {place}; features and pools go when a category is done"
            )
    if not grid:
        estimates.require(rows, free)


def _estimate_grid(
    profile: str, set_: list[str] | None, seeds: int, network_seeds: int | None, device: str
) -> tuple[Any, int]:
    """Rows by category and kind of work, and how many units these are."""
    from pnilib.apps.estimate import estimate_plan
    from pnilib.apps.reproduce.plan import Request, build_plan, paper_sources
    from pnilib.published import PAPER_COUNTS

    PNIConfig.profile(profile)
    overrides = PNIConfig.parse_overrides(set_ or [])
    n_networks = network_seeds if network_seeds is not None else seeds
    if not 1 <= n_networks <= seeds:
        raise PNIError(f"--network-seeds {n_networks}: give 1 to {seeds}, the number of --seeds")
    request = Request(profile, paper_sources(), tuple(range(seeds)), tuple(range(n_networks)), overrides)
    plan = build_plan(request)
    counts = {s: PAPER_COUNTS[role][s.category] for role, found in request.sources.items() for s in found}
    return estimate_plan(plan, counts, device), len(plan.units)


def fit(
    dataset: DatasetName,
    root: Root,
    out: Out,
    category: Categories = None,
    option: Options = None,
    profile: Profile = "small",
    set_: Set = None,
    seed: Seed = None,
    device: Device = "auto",
    progress: Progress = True,
    as_json: AsJson = False,
) -> None:
    """Learn from normal images: one model a category under OUT/<category>.  Killed, the same command resumes."""
    from pnilib.apps import estimate as estimates
    from pnilib.apps.cli.opening import open_dataset
    from pnilib.data.appearance import notes_on_images, notes_on_masks
    from pnilib.data.files import refuse_output_around
    from pnilib.detector.runs import category_folder, fit_or_load
    from pnilib.store.text import shown

    settings, place = build_config(profile, set_, seed), device_name(device)
    settings.require_used(PNIConfig.parse_overrides(set_ or []))
    done = []
    names = chosen_categories(dataset, root, category)
    for name in names:
        category_folder(out, name)
    for name in names:
        data = open_dataset(dataset, root, name, parse_options(option))
        folder = category_folder(out, data.category)
        refuse_output_around(data.samples["image_path"], folder)
        for note in [*notes_on_images(data.samples, settings.geometry), *notes_on_masks(data.samples)]:
            typer.echo(f"{shown(name)}: {note}", err=True)
        free = estimates.Free.now(place, folder, resumed=True)
        estimates.require(estimates.estimate(settings, len(data.train), 0), free)
        source = {"dataset": dataset, "root": str(root.resolve()), "category": name, "options": parse_options(option)}
        model = fit_or_load(data.train, settings, folder, device=place, progress=progress, source=source)
        row = {"category": data.category, "folder": str(folder), "n_train": len(data.train), "seconds": model.seconds}
        done.append(row)
        if not as_json:
            times = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in model.seconds.items())
            typer.echo(f"{data.category}: fitted on {many(len(data.train), 'image')} -> {folder} ({times})")
        if note := model.decision()[1]:
            typer.echo(f"{data.category}: {note}", err=True)
    if as_json:
        emit(done)


def evaluate(
    run: Annotated[Path, typer.Argument(help="OUT of `pni fit`, or OUT/<category>.")],
    category: Categories = None,
    root: Annotated[Path | None, typer.Option("--root", "-r", help="Where the data set is now, if it moved.")] = None,
    set_: Set = None,
    with_: Annotated[
        list[Path] | None,
        typer.Option("--with", help="Another fitted run of the same images: average the scaled maps (ensemble)."),
    ] = None,
    refined: Refined = False,
    device: Device = "auto",
    progress: Progress = True,
    as_json: AsJson = False,
) -> None:
    """Score the test images and compare with the ground truth: tables and pictures in <category>/evaluation.

    --set changes scoring and map settings only, as combine=product, and of every member of an ensemble; what was fitted
    stays, and so does the evaluation without it: this one goes to <category>/evaluation-combine=product.  A metric
    without a value (no labels, one class only, no masks) is "–", with the reason below.
    """
    import pandas as pd

    from pnilib.apps.report import metrics_table, outdated_evaluations, outdated_tables, write_evaluation
    from pnilib.data.appearance import notes_on_images
    from pnilib.data.duplicates import notes_on_repeats
    from pnilib.detector.ensembles import predict_members
    from pnilib.detector.pni import PNI
    from pnilib.detector.runs import open_data, open_members, read_record, run_categories
    from pnilib.evaluation import checked_test
    from pnilib.evaluation import evaluate as evaluate_prediction
    from pnilib.store.files import write_csv

    overrides, place = PNIConfig.parse_overrides(set_ or []), device_name(device)
    kind = ("-refined" if refined else "") + ("-ensemble" if with_ else "")
    kind += "".join(f"-{name}={value}" for name, value in overrides.items()).replace("/", "_")
    rows: list[dict[str, Any]] = []
    opened = {folder: open_data(folder, root) for folder in run_categories(run, category)}
    for folder, data in opened.items():  # all of them before the first is scored
        checked_test(data, PNIConfig.from_dict(read_record(folder)["config"]).geometry)
    for folder, data in opened.items():
        model = PNI.load(folder / "model", place)
        members = {str(folder): model} | open_members(
            folder, [_same_category(other, folder) for other in with_ or []], place
        )
        if overrides:
            members = {name: one.with_config(**overrides) for name, one in members.items()}
            members[str(folder)].config.require_used(overrides)
        prediction = predict_members(members, data, calibrate=bool(overrides), refined=refined, progress=progress)
        if with_:
            rule = prediction.config.ens_norm
            typer.echo(f"{data.category}: ensemble of {many(len(members), 'model')}, scaled by {rule}", err=True)
        result = evaluate_prediction(prediction, data.test)
        seen = [*notes_on_images(data.samples, model.config.geometry), *notes_on_repeats(data.samples)]
        result = dataclasses.replace(result, notes=[*data.notes, *seen, *result.notes])
        write_evaluation(folder / f"evaluation{kind}", prediction, data.test, result, model=model)
        notes = [*result.notes, *outdated_evaluations(folder, model, data.test)]
        rows.append({"category": data.category} | result.metrics | {"notes": notes})
    if run not in opened:
        write_csv(run / f"metrics{kind}.csv", pd.DataFrame(rows).drop(columns="notes"))
    if as_json:
        emit(rows)
    else:
        typer.echo(metrics_table(rows).to_string(index=False))
        if overrides:
            typer.echo(f"with {', '.join(set_ or [])}: kept in evaluation{kind}/ of each category")
        for row in rows:
            for note in row["notes"]:
                typer.echo(f"{row['category']}: {note}")
    for note in outdated_tables(run, [folder.name for folder in run_categories(run)]):
        typer.echo(note, err=as_json)


def _same_category(run: Path, folder: Path) -> Path:
    return run if (run / "run.json").exists() else run / folder.name
