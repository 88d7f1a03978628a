"""Finished runs in notebooks: open them, show a table or a figure, put a difference into words.

Nothing here computes: `Results` does.  Whatever is missing is named in its place, and the notebook goes on.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from IPython.display import Markdown, display
from matplotlib.figure import Figure

from pnilib.apps.reproduce.figures import FigureSpec
from pnilib.apps.reproduce.outputs import chosen_items, read_request
from pnilib.apps.reproduce.plan import ROLES, Request, Source, build_plan, sources_of
from pnilib.apps.reproduce.results import Cell, Results
from pnilib.apps.reproduce.schedule import default_workers, execute
from pnilib.apps.reproduce.settings import PAPER_DATA
from pnilib.apps.reproduce.tables import make_table
from pnilib.demo import make_demo
from pnilib.errors import PNIError
from pnilib.plots.forest import Estimate
from pnilib.store.text import many

__all__ = [
    "data_text",
    "differences",
    "estimate",
    "figure_of",
    "in_words",
    "missing_text",
    "open_results",
    "show",
    "table_text",
    "whole_categories",
]

_NAMED = 6  # missing runs, before "and n more"


def open_results(
    results_dir: Path | str,
    store_dir: Path | str,
    *,
    profile: str = "demo",
    categories: Sequence[str] = (),
    n_seeds: int = 3,
    device: str = "cpu",
    data_dir: Path | str = "data/demo",
) -> Results:
    """The runs of the finished reproduction in `results_dir`, which are only read.

    With an empty `results_dir` those of the demo data are used, and computed first where `store_dir` lacks them:
    `categories` (none: all) at seeds 0 ... n_seeds - 1, further networks and ensembles at seed 0.  Raises PNIError when
    `results_dir` holds no reproduction, for an unknown category, and when another run writes to `store_dir`.
    """
    if results_dir:
        return Results.from_store(build_plan(read_request(results_dir)), store_dir)
    make_demo(data_dir, progress=False)
    sources = tuple(sources_of("demo", data_dir, list(categories)))
    request = Request(profile, {role: sources for role in ROLES}, tuple(range(n_seeds)), (0,))
    plan = build_plan(request)
    execute(plan, store_dir, device=device, workers=default_workers(device), progress=True)
    return Results.from_store(plan, store_dir)


def data_text(results: Results) -> str:
    """Whose data the numbers are of, and how they were made: what a reader must know first."""
    request = results.plan.request
    lines = []
    for data in dict.fromkeys(found[0].dataset for role in ROLES if (found := request.sources[role])):
        roles = [role for role in ROLES if (found := request.sources[role]) and found[0].dataset == data]
        n = len(dict.fromkeys(source for role in roles for source in request.sources[role]))
        places = ", ".join(PAPER_DATA[role] for role in roles if role != data)
        places = " and ".join(places.rsplit(", ", 1))
        if places:
            lines.append(
                f"**Data: {data} ({many(n, 'category', 'categories')}) in place of {places}. Our numbers "
                "keep the tables' shape and cannot be compared with the paper's; no difference is shown.**"
            )
        else:
            lines.append(f"Data: {PAPER_DATA[data]} ({many(n, 'category', 'categories')}).")
    lines += [f"{PAPER_DATA[role]} was not given." for role in ROLES if not request.sources[role]]
    base = request.base
    if request.profile == "smoke":
        lines.append("**Profile smoke: a test of the machinery, not a result.**")
    elif base.weights == "random":
        lines.append("**The backbone's weights are random: a dry run, not a result.**")
    lines.append(
        f"Profile {request.profile}, backbone {next(iter(request.members))}, {base.image_crop} px, "
        f"combine={base.combine}, refinement {base.refine_iterations:,} iterations (the paper: 55,000); seeds "
        f"{', '.join(map(str, request.seeds))}, further networks and ensembles "
        f"{', '.join(map(str, request.network_seeds))}."
    )
    return "  \n".join(lines)


def missing_text(results: Results) -> str:
    """One line for readers: how many runs there are, and which are missing."""
    names = [unit.describe() for unit in results.missing]
    n_runs = len(results.runs) + len(results.others)
    if not names:
        return f"{many(n_runs, 'run')}; none is missing."
    more = f"; and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        f"**{many(n_runs, 'run')}; {many(len(names), 'unit of work is', 'units of work are')} missing**, "
        f"and what needs them says so in its place: {'; '.join(names[:_NAMED])}{more}. "
        "Run `pni reproduce` again to fill the gaps."
    )


def whole_categories(results: Results, settings: Sequence[str]) -> tuple[list[Source], str]:
    """The main categories of which all of `settings` that the plan knows are finished, and one line about the others.

    Averages over them are over the same categories for every setting.  All categories when none is whole.
    """
    request = results.plan.request
    planned = {setting for unit in results.plan.units for setting in unit.variants}
    wanted = [setting for setting in settings if setting in planned]
    kept = [
        source for source in request.main
        if all(results.run(source, setting, request.network_seeds[0]) is not None for setting in wanted)
    ]  # fmt: skip
    left = [source.category for source in request.main if source not in kept]
    if not left:
        return kept, ""
    if not kept:
        return list(request.main), "**No category is finished: averages are missing.**"
    return kept, f"**Left out here, since some of their runs are missing: {', '.join(left)}.**"


def table_text(name: str, results: Results) -> str:
    """A table as Markdown, its headings as bold lines; `name` as in `pni reproduce --list`."""
    (spec,) = chosen_items([name])
    if isinstance(spec, FigureSpec):
        raise PNIError(f"{name}: is a figure: use figure_of")
    return re.sub(r"^#+ (.*)$", r"**\1**", make_table(spec, results).markdown(), flags=re.MULTILINE)


def figure_of(name: str, results: Results) -> Figure:
    """A figure; raises PNIError where a run or its data set is missing."""
    (spec,) = chosen_items([name])
    if not isinstance(spec, FigureSpec):
        raise PNIError(f"{name}: is a table: use table_text")
    if spec.settings and not results.plan.request.sources[spec.role]:
        raise PNIError(f"its data set, {spec.role}, was not given")
    return spec.draw(results)


def show(results: Results, *names: str) -> None:
    """Display tables and figures; for one that cannot be made, one line that says why."""
    for name in names:
        (spec,) = chosen_items([name])
        if not isinstance(spec, FigureSpec):
            display(Markdown(table_text(name, results)))  # type: ignore[no-untyped-call]
            continue
        found = results.plan.request.sources[spec.role] if spec.settings else ()
        data = f" (data: {found[0].dataset})" if found and results.plan.request.stands_in(spec.role) else ""
        display(Markdown(f"**{spec.number}: {spec.title}{data}**"))  # type: ignore[no-untyped-call]
        try:
            display(figure_of(name, results))  # type: ignore[no-untyped-call]
        except PNIError as fault:
            display(Markdown(f"*Not drawn: {fault}.*"))  # type: ignore[no-untyped-call]


def estimate(cell: Cell | None) -> Estimate | None:
    """(value, low, high) for `draw_forest`; None where the run is missing."""
    return None if cell is None else (cell.mean, cell.low, cell.high)


def differences(
    results: Results, pairs: Mapping[str, tuple[str, str]], metric: str, sources: Sequence[Source]
) -> dict[str, Estimate | None]:
    """Of each named pair (setting, base): setting minus base, points, on the same seeds and resampled images."""
    return {name: estimate(results.difference(sources, ours, base, metric)) for name, (ours, base) in pairs.items()}


def in_words(change: Cell | None) -> str:
    """A difference as the end of a sentence; true whatever the number is."""
    if change is None:
        return "is not known: its runs are missing"
    if math.isnan(change.mean):
        return "is undefined"
    if change.mean == change.low == change.high == 0:
        return "is nothing, to the last digit"
    text = f"is {change.mean:+.2f} points"
    if not math.isfinite(change.low):
        return f"{text} (no interval)"
    text += f" ({change.low:+.2f} to {change.high:+.2f})"
    if abs(change.mean) < 0.005 and max(abs(change.low), abs(change.high)) < 0.005:
        return f"{text}: less than the tables print"
    if change.low <= 0 <= change.high:
        return f"{text}: not told apart from nothing"
    return text
