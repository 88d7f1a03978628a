"""`pni reproduce`: every table and figure of the paper; `pni ablation`: a view of it; `pni runs`: what is kept."""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pnilib.apps.cli.demo import Notebooks, Timeout, chosen_notebooks
from pnilib.apps.cli.options import (
    AsJson,
    Categories,
    DatasetName,
    Device,
    Options,
    Out,
    Profile,
    Progress,
    Root,
    Set,
    device_name,
    emit,
    parse_options,
)
from pnilib.config import PNIConfig
from pnilib.errors import PNIError
from pnilib.store.text import many

__all__ = ["ablation", "reproduce", "runs"]

Store = Annotated[Path, typer.Option("--store", help="Folder that keeps finished runs; shared by all workers.")]
RESULT_NOTEBOOKS = ["09", "10", "11"]


def reproduce(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Tables and figures, as table-3 figure-5. Default: all, and the notebooks."),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            "-d",
            help="LAYOUT=FOLDER; repeat for mvtec, btad and visa. Another data set stands in for them. "
            "Default: demo=data/demo, made where it is missing.",
        ),
    ] = None,
    category: Categories = None,
    option: Options = None,
    profile: Annotated[
        str | None,
        typer.Option("--profile", "-p", help="Named configuration. Default: demo for the demo data, else paper."),
    ] = None,
    set_: Set = None,
    seeds: Annotated[int, typer.Option(help="Seeds 0, 1, ... of the detectors and of PNI.")] = 3,
    network_seeds: Annotated[
        int | None,
        typer.Option(
            help="Seeds of the other networks and the ensembles. Default: 1 with embedded backbones, else all."
        ),
    ] = None,
    settings: Annotated[
        str | None,
        typer.Option("--settings", help="Only their fits and what shares these, as A,B,PNI; partial tables."),
    ] = None,
    switches: Annotated[
        bool | None,
        typer.Option(
            "--switches/--no-switches", help="The release's differences one by one. Default: when all is made."
        ),
    ] = None,
    out: Out = Path("results/paper"),
    store: Store = Path("runs/reproduce"),
    workers: Annotated[
        int | None, typer.Option(help="Processes side by side. Default: one a GPU, or one a core, at most 4.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            help="Address of a Dask scheduler, as tcp://host:8786, instead; its workers on CPUs: "
            "`dask worker --no-nanny`.",
        ),
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of a process; results depend on it in the last digits.")] = 1,
    device: Device = "auto",
    keep_work: Annotated[
        bool, typer.Option("--keep-work", help="Keep features and pools of finished categories.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="Only list what there is, and what is finished.")] = False,
    notebooks: Notebooks = Path("notebooks"),
    timeout: Timeout = 3600.0,
    progress: Progress = True,
) -> None:
    """Every table and figure of the paper, beside the paper's numbers: computed where not yet done, then drawn.

    On the demo data by default; with MVTec AD, BTAD and VisA at hand, the paper itself:
    `pni reproduce --data mvtec=data/mvtec --data btad=data/btad --data visa=data/visa`.
    Killed, the same command resumes; `pni estimate --grid` says beforehand how long it takes; status 1 when
    something failed or is partial.
    """
    from pnilib.apps.cli.opening import say_what_materials_were_read
    from pnilib.apps.notebooks.runner import run_all, summary_text
    from pnilib.apps.reproduce.outputs import chosen_items, needed_settings, write_outputs
    from pnilib.apps.reproduce.plan import Request, build_plan
    from pnilib.apps.reproduce.results import Results
    from pnilib.apps.reproduce.schedule import default_workers, execute, finished
    from pnilib.apps.reproduce.settings import OFFLINE
    from pnilib.data.files import refuse_output_around
    from pnilib.demo import make_demo
    from pnilib.evaluation import checked_test

    began = time.perf_counter()
    items = chosen_items(names)
    if seeds < 1 or threads < 1 or (workers is not None and workers < 1):
        raise PNIError("--seeds, --threads and --workers: give 1 or more")
    given = parse_data(data)
    if "demo" in given and not list_ and not any(given["demo"].glob("*")):
        typer.echo(f"{given['demo']}: drawing the demo data", err=True)
        make_demo(given["demo"], progress=progress)
    chosen = profile or ("demo" if set(given) == {"demo"} else "paper")
    PNIConfig.profile(chosen)
    n_networks = network_seeds if network_seeds is not None else (1 if chosen in OFFLINE else seeds)
    if not 1 <= n_networks <= seeds:
        raise PNIError(f"--network-seeds {n_networks}: give 1 to {seeds}, the number of --seeds")
    request = Request(
        chosen,
        roles(given, category, parse_options(option)),
        tuple(range(seeds)),
        tuple(range(n_networks)),
        PNIConfig.parse_overrides(set_ or []),
    )
    wanted = needed_settings(items) if names else None
    if settings:
        wanted = [name.strip() for name in settings.split(",")]
    thrown = switches if switches is not None else (not names and not settings) or "table-x2" in (names or [])
    plan = build_plan(request, wanted, thrown)
    if list_:
        typer.echo(listing(items, plan, store))
        return
    for source in dict.fromkeys(source for found in request.sources.values() for source in found):
        found = source.load()
        checked_test(found)
        for folder in (store, out):
            refuse_output_around(found.samples["image_path"], folder)
        for note in found.notes:
            typer.echo(f"{source.dataset}/{source.category}: {note}", err=True)
    say_what_materials_were_read(request.base)
    place = device_name(device)
    todo = plan.needed(finished(plan, store))
    typer.echo(
        f"{many(len(plan.units), 'unit')} of work, {len(todo)} to do; profile {chosen}, refinement "
        f"{request.base.refine_iterations:,} iterations, backbones {', '.join(request.members)}, "
        f"seeds {list(request.seeds)}, other networks {list(request.network_seeds)}",
        err=True,
    )
    failed = execute(
        plan, store, device=place, threads=threads, workers=workers or default_workers(place), scheduler=scheduler,
        progress=progress, keep_work=keep_work, say=lambda text: typer.echo(text, err=True),
    )  # fmt: skip
    written = write_outputs(items, Results.from_store(plan, store), out, progress=progress)
    ran = True
    if not names and not settings:
        paths = chosen_notebooks(notebooks, RESULT_NOTEBOOKS)
        here = (out / "notebooks").resolve()
        parameters = {"results_dir": str(out.resolve()), "store_dir": str(store.resolve()), "out_dir": str(here)}
        results = run_all(paths, out / "notebooks", parameters, timeout, progress)
        typer.echo(summary_text(results))
        ran = all(result.ok for result in results)
        write_outputs([], Results.from_store(plan, store), out)  # the index again, now with links to the notebooks
    for line in (
        *(f"failed: {unit.describe()}: {fault}" for unit, fault in failed.items()),
        *(f"partial: {name}" for name in written.partial),
        *(f"not made: {name}: {fault}" for name, fault in written.missing.items()),
        *(f"left out of the pages: {name}: {out} has it of other data or settings" for name in written.outdated),
        *(f"left out: {name}: its data set was not given" for name in written.no_data),
    ):
        typer.echo(line, err=True)
    typer.echo(f"{many(len(written.files), 'file')} -> {out / 'index.html'} ({time.perf_counter() - began:.0f} s)")
    raise typer.Exit(0 if ran and not (failed or written.partial or written.missing) else 1)


def ablation(
    dataset: DatasetName,
    root: Root,
    out: Out,
    category: Categories = None,
    option: Options = None,
    profile: Profile = "demo",
    set_: Set = None,
    seeds: Annotated[int, typer.Option(help="How many seeds: 0, 1, ...")] = 3,
    refined: Annotated[
        bool, typer.Option("--refined", help="Instead: refinement settings G-L, PNI, and the losses.")
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Processes side by side, as in `pni reproduce`.")] = None,
    device: Device = "auto",
    progress: Progress = True,
) -> None:
    """What neighborhood and position are worth on a data set: every way to use them, side by side (Table X3).

    With --refined: what the refinement's generators and losses are worth (Tables S8 and 4).  The same units, tables
    and pages as `pni reproduce table-x3 --data DATASET=ROOT`; killed, the same command resumes.
    """
    names = ["table-s8", "table-4"] if refined else ["table-x3"]
    try:
        reproduce(
            names, [f"{dataset}={root}"], category, option, profile, set_, seeds, out=out, store=out / "units",
            workers=workers, device=device, progress=progress,
        )  # fmt: skip
    except typer.Exit:
        for file in (out / "tables" / f"{name}.md" for name in names):
            typer.echo(file.read_text(encoding="utf-8") if file.exists() else f"{file.stem}: was not made")
        raise


def parse_data(pairs: Sequence[str] | None) -> dict[str, Path]:
    """`["mvtec=data/mvtec"]` -> {"mvtec": Path}; at most one data set beside the paper's three."""
    from pnilib.apps.reproduce.plan import ROLES
    from pnilib.data import DATASETS

    found: dict[str, Path] = {}
    for pair in pairs or ["demo=data/demo"]:
        name, equals, folder = pair.partition("=")
        if not equals or not folder:
            raise PNIError(f"--data {pair}: is not LAYOUT=FOLDER: write for instance mvtec=data/mvtec")
        if name not in DATASETS:
            raise PNIError(f"--data {pair}: layout {name!r} is unknown: choose one of {', '.join(DATASETS)}")
        if name in found:
            raise PNIError(f"--data {pair}: {name} is given twice")
        found[name] = Path(folder)
    if len(others := [name for name in found if name not in ROLES]) > 1:
        raise PNIError(f"--data: {' and '.join(others)} cannot both stand in for the paper's data: give one of them")
    return found


def roles(given: dict[str, Path], categories: Sequence[str] | None, options: dict[str, Any]) -> dict[str, Any]:
    """Role -> sources.  A data set that is not the paper's plays all roles that are left."""
    from pnilib.apps.reproduce.plan import ROLES, sources_of

    own = {name: tuple(sources_of(name, folder, categories, **options)) for name, folder in given.items()}
    stand_in = next((found for name, found in own.items() if name not in ROLES), ())
    return {role: own.get(role, stand_in) for role in ROLES}


def listing(items: Sequence[Any], plan: Any, store: Path) -> str:
    """One line an item: name, title, and how many of the runs that it shows are finished."""
    from pnilib.apps.reproduce.outputs import shown_units
    from pnilib.apps.reproduce.schedule import finished

    done = set(finished(plan, store))
    lines = []
    for item in items:
        mine = shown_units(item, plan)
        state = f"{sum(unit in done for unit in mine)} of {len(mine)} units done" if mine else "needs no runs"
        lines.append(f"{item.id:<11} {item.number + ': ' + item.title:<86} {state}")
    return "\n".join(lines)


def runs(
    store: Annotated[Path, typer.Argument(help="Folder of `pni reproduce --store`.")] = Path("runs/reproduce"),
    clean: Annotated[
        str | None,
        typer.Option(
            help="Delete work (features, pools), maps, models, failed, or all; what is needed again is made anew."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What finished and failed runs are kept, how large they are; --clean deletes some of it."""
    import pandas as pd

    from pnilib.apps.reproduce.store import CLEANERS, clean_store, list_units
    from pnilib.store.locks import lock_folder

    if clean is not None:
        if clean not in CLEANERS:
            raise PNIError(f"--clean {clean}: choose one of {', '.join(CLEANERS)}")
        with lock_folder(store):
            freed = clean_store(store, clean)
        typer.echo(f"{freed / 1e6:.1f} MB deleted below {store}")
        return
    table = list_units(store)
    if as_json:
        emit(json.loads(table.to_json(orient="records")))
        return
    if table.empty:
        typer.echo(f"{store}: holds no runs: `pni reproduce` makes them")
        return
    shown = table.assign(MB=(table["bytes"] / 1e6).round(1)).drop(columns=["bytes", "folder"])
    with pd.option_context("display.width", shutil.get_terminal_size().columns, "display.max_colwidth", 60):
        typer.echo(shown.to_string(index=False))
    work = sum(file.stat().st_size for file in store.glob("*/*/*/work/**/*") if file.is_file())
    typer.echo(
        f"{many(len(table), 'unit')}, {(table['status'] != 'done').sum()} not done, {table['bytes'].sum() / 1e6:.0f} "
        f"MB and {work / 1e6:.0f} MB of intermediate work; `pni runs --clean work|maps|models|failed|all` deletes"
    )
