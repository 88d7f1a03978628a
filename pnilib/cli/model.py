"""`pni config | estimate | fit | evaluate | ablation`."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from tqdm import tqdm

from pnilib import ablation as ablations
from pnilib.artefacts import atomic_write, exclusive, write_json
from pnilib.cli.options import (
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
    open_dataset,
    parse_options,
    say_what_materials_were_read,
)
from pnilib.config import PNIConfig
from pnilib.data import load_dataset
from pnilib.data.appearance import notes_on_images, notes_on_masks
from pnilib.data.duplicates import notes_on_repeats
from pnilib.data.files import refuse_output_around
from pnilib.ensembles import predict_members
from pnilib.errors import PNIError
from pnilib.estimate import Free
from pnilib.estimate import estimate as estimate_run
from pnilib.evaluation import checked_test, lacking
from pnilib.evaluation import evaluate as evaluate_prediction
from pnilib.pni import PNI
from pnilib.refinement import ablation as refinements
from pnilib.report import metrics_table, outdated_evaluations, outdated_tables, write_evaluation
from pnilib.runs import category_folder, fit_or_load, open_data, open_members, read_record, run_categories
from pnilib.text import shown

__all__ = ["ablation", "config", "estimate", "evaluate", "fit"]


def config(profile: Profile = "small", set_: Set = None, as_json: AsJson = False) -> None:
    """List every setting: value in the profile, meaning, allowed values, source in the paper."""
    chosen = build_config(profile, set_, None)
    if as_json:
        emit(chosen.to_dict())
        return
    for row in PNIConfig.describe():
        value = getattr(chosen, row["name"])
        mark = "" if value == row["default"] else f"  (paper: {row['default']})"
        typer.echo(f"{row['name']} = {value}{mark}")
        typer.echo(f"    {row['meaning']}")
        typer.echo(f"    allowed: {row['allowed']}; stage {row['stage']}; source: {row['source']}")


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
    place = device_name(device)
    profile = profile or ("paper" if grid else "small")
    free = Free.now(place, out)
    if grid:
        _estimate_grid(profile, set_, seeds, network_seeds, place, free, as_json)
        return
    plan = estimate_run(build_config(profile, set_, None), n_train, n_test, place)
    if as_json:
        total = {"seconds": plan.seconds, "memory": plan.memory, "disk": plan.disk}
        stages = [dataclasses.asdict(stage) for stage in plan.stages]
        emit({"stages": stages, "total": total, "free": dataclasses.asdict(free)})
    else:
        typer.echo(f"{plan.format()}\n{free.against(plan.memory, plan.disk)}")
    plan.require(free)


def _estimate_grid(
    profile: str, set_: list[str] | None, seeds: int, network_seeds: int | None, device: str, free: Free, as_json: bool
) -> None:
    from pnilib.estimate import PAPER_COUNTS, estimate_work  # plans and networks: seconds to import
    from pnilib.reproduction.cost import paper_sources, work_of
    from pnilib.reproduction.plan import Request, build_plan

    PNIConfig.profile(profile)
    overrides = PNIConfig.parse_overrides(set_ or [])
    n_networks = network_seeds if network_seeds is not None else seeds
    if not 1 <= n_networks <= seeds:
        raise PNIError(f"--network-seeds {n_networks}: give 1 to {seeds}, the number of --seeds")
    request = Request(profile, paper_sources(), tuple(range(seeds)), tuple(range(n_networks)), overrides)
    plan = build_plan(request)
    counts = {s: PAPER_COUNTS[role][s.category] for role, found in request.sources.items() for s in found}
    found = estimate_work(work_of(plan, counts), device=device)
    if as_json:
        emit(found.records())
        return
    typer.echo(found.format())
    whole = found.of()
    typer.echo(
        f"{len(plan.units)} units of work one after another on {device}; memory: of one unit; disk: if nothing is "
        f"deleted (features and pools go when their category is done)\n{free.against(whole.memory, whole.disk)}"
    )


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
        estimate_run(settings, len(data.train), 0, place, measure=False).require_memory()
        source = {"dataset": dataset, "root": str(root.resolve()), "category": name, "options": parse_options(option)}
        model = fit_or_load(data.train, settings, folder, device=place, progress=progress, source=source)
        row = {"category": data.category, "folder": str(folder), "n_train": len(data.train), "seconds": model.seconds}
        done.append(row)
        if not as_json:
            times = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in model.seconds.items())
            typer.echo(f"{data.category}: fitted on {len(data.train)} images -> {folder} ({times})")
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
    stays.  A metric without a value (no labels, one class only, no masks) is "–", with the reason below.
    """
    overrides, place = PNIConfig.parse_overrides(set_ or []), device_name(device)
    kind = ("-refined" if refined else "") + ("-ensemble" if with_ else "")
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
            typer.echo(f"{data.category}: ensemble of {len(members)} models, scaled by {rule}", err=True)
        result = evaluate_prediction(prediction, data.test)
        seen = [*notes_on_images(data.samples, model.config.geometry), *notes_on_repeats(data.samples)]
        result = dataclasses.replace(result, notes=[*data.notes, *seen, *result.notes])
        write_evaluation(folder / f"evaluation{kind}", prediction, data.test, result, model=model)
        notes = [*result.notes, *outdated_evaluations(folder, model, data.test)]
        rows.append({"category": data.category} | result.metrics | {"notes": notes})
    if run not in opened:
        with atomic_write(run / f"metrics{kind}.csv") as handle:
            pd.DataFrame(rows).drop(columns="notes").to_csv(handle, index=False, lineterminator="\n")
    if as_json:
        emit(rows)
    else:
        typer.echo(metrics_table(rows).to_string(index=False))
        for row in rows:
            for note in row["notes"]:
                typer.echo(f"{row['category']}: {note}")
    for note in outdated_tables(run, [folder.name for folder in run_categories(run)]):
        typer.echo(note, err=as_json)


def _same_category(run: Path, folder: Path) -> Path:
    return run if (run / "run.json").exists() else run / folder.name


def ablation(
    dataset: DatasetName,
    root: Root,
    out: Out,
    category: Categories = None,
    option: Options = None,
    profile: Profile = "demo",
    set_: Set = None,
    seeds: Annotated[
        int, typer.Option(help="How many seeds: 0, 1, ...; `mtd` with split=tile splits by the seed too.")
    ] = 3,
    refined: Annotated[
        bool, typer.Option("--refined", help="Instead: refinement settings G-L, PNI, the losses; one network a row.")
    ] = False,
    row: Annotated[list[str] | None, typer.Option("--row", help="With --refined: only this row; repeatable.")] = None,
    device: Device = "auto",
    progress: Progress = True,
    as_json: AsJson = False,
) -> None:
    """What neighborhood and position are worth: A, B, position, E x prob, score, product x centre excluded, leaked.

    With --refined: what the refinement's generators and losses are worth.
    """
    settings, options, place = build_config(profile, set_, None), parse_options(option), device_name(device)
    by_seed = dataset == "mtd" and options.get("split") == "tile" and "seed" not in options
    names = chosen_categories(dataset, root, category)
    for name in names:
        refuse_output_around(open_dataset(dataset, root, name, options).samples["image_path"], out)
    if refined:
        say_what_materials_were_read(settings)
    tables, notes = [], []
    with exclusive(out):
        for name in tqdm(names, unit="category", disable=not progress):

            def load(seed: int, name: str = name) -> Any:
                return load_dataset(dataset, root, name, **options | ({"seed": seed} if by_seed else {}))

            folder, every = out / "units" / name, list(range(seeds))
            if refined:
                table = refinements.ablate_refinement(
                    load, settings, folder, every, row, device=place, progress=progress
                )
            else:
                table = ablations.ablate(load, settings, folder, every, device=place, progress=progress)
            tables.append(table)
            notes += [f"{name}: {why}" for why in lacking(load(0).test)]
        results = pd.concat(tables, ignore_index=True)
        with atomic_write(out / "ablation.csv") as handle:
            results.to_csv(handle, index=False, lineterminator="\n")
        shown: Any = refinements if refined else ablations
        text = "\n".join(
            f"{kind}, mean ± sd over {seeds} seeds, %\n\n{shown.to_markdown(shown.summarise(part))}"
            for kind, part in ablations.by_kind(results).items()
        )
        if refined:
            for name in results["row"].unique()[1:]:
                text += f"\n{name} against setting E, fusion weight 0.1, %\n\n{refinements.by_category(results, name)}"
                text += f"\n{name} by fusion weight, %\n\n{refinements.by_weight(results, name)}"
        text += "".join(f"\n{note}\n" for note in notes)
        with atomic_write(out / "ablation.md") as handle:
            handle.write(text)
        write_json(
            out / "ablation.json",
            {"config": settings.to_dict(), "dataset": dataset, "options": options, "seeds": seeds},
        )
    if as_json:
        emit(json.loads(results.to_json(orient="records")))
    else:
        typer.echo(text + f"\nevery number: {out / 'ablation.csv'}")
