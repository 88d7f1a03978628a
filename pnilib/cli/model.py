"""`pni config | estimate | fit | score | evaluate | ablation`."""

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
    parse_options,
)
from pnilib.config import PNIConfig
from pnilib.data import load_dataset
from pnilib.ensembles import ensemble_predictions
from pnilib.errors import PNIError
from pnilib.estimate import estimate as estimate_run
from pnilib.evaluation import METRICS
from pnilib.evaluation import evaluate as evaluate_prediction
from pnilib.pni import PNI
from pnilib.refinement import ablation as refinements
from pnilib.report import write_evaluation
from pnilib.runs import fit_or_load, open_run, run_categories
from pnilib.scored import score_folder

__all__ = ["ablation", "config", "estimate", "evaluate", "fit", "score"]


def config(profile: Profile = "paper", set_: Set = None, as_json: AsJson = False) -> None:
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
    profile: Profile = "paper",
    set_: Set = None,
    n_train: Annotated[int, typer.Option(help="Training images.")] = 209,
    n_test: Annotated[int, typer.Option(help="Images to score.")] = 100,
    grid: Annotated[
        bool, typer.Option("--grid", help="Instead: all of `pni reproduce` on MVTec AD, BTAD and VisA, by category.")
    ] = False,
    seeds: Annotated[int, typer.Option(help="With --grid: seeds, as in `pni reproduce`.")] = 3,
    network_seeds: Annotated[int | None, typer.Option(help="With --grid: as in `pni reproduce`.")] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Memory and time of a fit before it starts, stage by stage; status 2 with advice when memory will not suffice.

    With --grid: the whole reproduction, timed in pieces of some minutes on the CPU; no data are needed.
    """
    place = device_name(device)
    if grid:
        _estimate_grid(profile, set_, seeds, network_seeds, place, as_json)
        return
    plan = estimate_run(build_config(profile, set_, None), n_train, n_test, place)
    if as_json:
        total = {"seconds": plan.seconds, "memory": plan.memory, "disk": plan.disk}
        emit({"stages": [dataclasses.asdict(stage) for stage in plan.stages], "total": total})
    else:
        typer.echo(plan.format())
    plan.require_memory()


def _estimate_grid(
    profile: str, set_: list[str] | None, seeds: int, network_seeds: int | None, device: str, as_json: bool
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
    typer.echo(
        f"{len(plan.units)} units of work one after another on {device}; memory: of one unit; disk: if nothing is "
        "deleted (features and pools go when their category is done)"
    )


def fit(
    dataset: DatasetName,
    root: Root,
    out: Out,
    category: Categories = None,
    option: Options = None,
    profile: Profile = "paper",
    set_: Set = None,
    seed: Seed = None,
    device: Device = "auto",
    progress: Progress = True,
    as_json: AsJson = False,
) -> None:
    """Learn from normal images: one model a category under OUT/<category>.  Killed, the same command resumes."""
    settings, place = build_config(profile, set_, seed), device_name(device)
    done = []
    for name in chosen_categories(dataset, root, category):
        data = load_dataset(dataset, root, name, **parse_options(option))
        for note in data.notes:
            typer.echo(f"{name}: {note}", err=True)
        estimate_run(settings, len(data.train), 0, place, measure=False).require_memory()
        source = {"dataset": dataset, "root": str(root.resolve()), "category": name, "options": parse_options(option)}
        folder = out / data.category
        model = fit_or_load(data.train, settings, folder, device=place, progress=progress, source=source)
        row = {"category": data.category, "folder": str(folder), "n_train": len(data.train), "seconds": model.seconds}
        done.append(row)
        if not as_json:
            times = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in model.seconds.items())
            typer.echo(f"{data.category}: fitted on {len(data.train)} images -> {folder} ({times})")
    if as_json:
        emit(done)


def score(
    run: Annotated[Path, typer.Argument(help="OUT/<category> of `pni fit`.")],
    images: Annotated[Path, typer.Argument(help="Folder of new images (or one image).")],
    out: Out,
    refined: Refined = False,
    device: Device = "auto",
    progress: Progress = True,
    as_json: AsJson = False,
) -> None:
    """Score new images: OUT/scores.csv, and a heat map of each on one colour scale.  Resumes."""
    model = PNI.load(_model_folder(run), device_name(device))
    table = score_folder(model, images, out, refined=refined, progress=progress)
    if as_json:
        emit(table.to_dict("records"))
        return
    shown = table.sort_values("score", ascending=False, kind="stable").head(10)
    typer.echo(shown.to_string(index=False))
    typer.echo(f"{len(table)} images scored -> {out / 'scores.csv'}, heat maps in {out / 'heatmaps'}")


def _model_folder(run: Path) -> Path:
    if (run / "manifest.json").exists():
        return run
    if not (run / "model").exists():
        raise PNIError(f"{run}: holds no model: give the OUT/<category> folder that `pni fit` wrote")
    return run / "model"


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

    --set changes scoring and map settings only, as combine=product; what was fitted stays.
    """
    overrides = PNIConfig.parse_overrides(set_ or [])
    rows: list[dict[str, Any]] = []
    for folder in run_categories(run, category):
        model, data = open_run(folder, device_name(device), root)
        if overrides:
            model = model.with_config(**overrides)
            model.calibrate(data.train, progress=progress)
        prediction = model.predict(data.test, refined=refined, progress=progress)
        if with_:
            others = [open_run(_same_category(other, folder), device_name(device), root)[0] for other in with_]
            more = (other.predict(data.test, refined=refined, progress=progress) for other in others)
            predictions = [prediction, *more]
            members = [model, *others]
            calibrations = [one.refined_calibration if refined else one.calibration for one in members]
            rule = model.config.ens_norm
            typer.echo(f"{data.category}: ensemble of {len(predictions)} models, scaled by {rule}", err=True)
            prediction = ensemble_predictions(predictions, calibrations, ens_norm=rule)
        result = evaluate_prediction(prediction, data.test)
        place = folder / ("evaluation" + ("-refined" if refined else "") + ("-ensemble" if with_ else ""))
        write_evaluation(place, prediction, data.test, result)
        rows.append({"category": data.category} | result.metrics | {"notes": result.notes})
    if as_json:
        emit(rows)
        return
    table = metrics_table(rows)
    typer.echo(table.to_string(index=False))
    for row in rows:
        for note in row["notes"]:
            typer.echo(f"{row['category']}: {note}")
    if len(rows) > 1 or run != folder:
        with atomic_write(run / ("metrics-refined.csv" if refined else "metrics.csv")) as handle:
            pd.DataFrame(rows).drop(columns="notes").to_csv(handle, index=False, lineterminator="\n")


def _same_category(run: Path, folder: Path) -> Path:
    return run if (run / "run.json").exists() else run / folder.name


def metrics_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Percent to two decimals; FP and FN as `at the test-optimal / at the normal-only threshold`."""
    keys = ["i_auroc", "p_auroc", "aupro_30", "aupro_05", "p_f1_max"]
    table = [
        {"category": row["category"]}
        | {METRICS[key]: f"{100 * row[key]:.2f}" for key in keys}
        | {
            "FP (optimal / normal-only)": f"{row['fp']:.0f} / {row['normal_fp']:.0f}",
            "FN (optimal / normal-only)": f"{row['fn']:.0f} / {row['normal_fn']:.0f}",
        }
        for row in rows
    ]
    if len(rows) > 1:
        means = {METRICS[key]: f"{100 * pd.Series([row[key] for row in rows]).mean():.2f}" for key in keys}
        table.append({"category": "mean"} | means | {name: "" for name in table[0] if name.startswith(("FP", "FN"))})
    return pd.DataFrame(table)


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
    tables = []
    with exclusive(out):
        for name in tqdm(chosen_categories(dataset, root, category), unit="category", disable=not progress):

            def load(seed: int, name: str = name) -> Any:
                return load_dataset(dataset, root, name, **options, **({"seed": seed} if by_seed else {}))

            folder, every = out / "units" / name, list(range(seeds))
            if refined:
                table = refinements.ablate_refinement(
                    load, settings, folder, every, row, device=place, progress=progress
                )
            else:
                table = ablations.ablate(load, settings, folder, every, device=place, progress=progress)
            tables.append(table)
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
