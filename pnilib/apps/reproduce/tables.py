"""The paper's tables with our numbers in their cells.

A table is a list of cells (method, category, metric), each with the number as printed, ours, and their difference where
the data are the paper's.  Where another data set stands in, the shape stays, the first line says so, and no
difference is shown.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
import pandas as pd

from pnilib.apps.reproduce.render import Table
from pnilib.apps.reproduce.results import Cell, Results
from pnilib.apps.reproduce.settings import (
    DETECTOR,
    ENSEMBLES,
    OFFLINE,
    PAPER_DATA,
    RATIO,
    REFINED,
    SWITCHES,
    kinds,
)
from pnilib.apps.reproduce.specs import LETTERS, TABLES, TableSpec
from pnilib.config import PNIConfig
from pnilib.published import GROUPS, load_published
from pnilib.store.text import many

__all__ = ["TABLES", "Table", "TableSpec", "make_table"]

_KEYS = ["method", "category", "metric"]


def make_table(spec: TableSpec, results: Results) -> Table:
    """Fill a table.  Cells whose runs are missing stay empty, and the table says that it is partial."""
    request = results.plan.request
    sources = request.sources[spec.role]
    if spec.number == "Table X2":
        return _switch_table(spec, results)
    if spec.number == "Table X4":
        return _feature_table(spec, results)
    ours = spec.number in ("Table X1", "Table X3")  # nothing of them is printed
    published = load_published(None if ours else spec.number).iloc[: 0 if ours else None]
    if spec.number == "Table S1":
        return Table(spec, _text_cells(published, {}), ["Text of the paper; nothing of it is computed."], False)
    if spec.number == "Table S7":
        return Table(spec, _text_cells(published, _composition(request.base)), [], False)
    printed = published[published["metric"].isin(spec.metrics)].rename(columns={"value": "paper"})
    if not sources:
        note = f"No data: published numbers only.  Give them with --data {spec.role}=FOLDER."
        empty = dict.fromkeys(("ours", "sd", "seeds", "low", "high", "difference"), np.nan)
        return Table(spec, printed.assign(**empty).reset_index(drop=True), [note], False)
    alike = not request.stands_in(spec.role)
    by_name = {source.category: source for source in sources}
    groups = kinds(list(by_name))
    whole = {name for group in GROUPS[spec.role].values() for name in group}
    absent = sorted(whole - set(by_name)) if alike else []
    # an average over some categories does not stand beside a printed one over all of them
    names = [*(by_name if spec.every else ()), *(() if spec.every and absent else groups)]
    single = spec.number == "Table 4" and request.profile in OFFLINE
    own = _own_cells(
        (method, category, metric, results.cell(members, ENSEMBLES[setting] if single else setting, metric))
        for method, setting in spec.methods.items()
        for category in names
        for members in [[by_name[name] for name in groups.get(category, [category])]]
        for metric in spec.metrics
    )
    lacking = int(own["seeds"].isna().sum())
    printed = printed[[*_KEYS, "paper", "printed", "note", "dataset"]]
    if alike:
        cells = printed.merge(own, on=_KEYS, how="outer", sort=False)
    else:  # a demo category may bear the name of one of MVTec AD's
        cells = pd.concat([printed, own.assign(dataset=sources[0].dataset)], ignore_index=True)
    cells = _ordered(cells, printed, own)
    cells["printed"], cells["note"] = cells["printed"].fillna(""), cells["note"].fillna("")
    comparable = cells["category"].isin(by_name) if absent else pd.Series(True, cells.index)
    comparable &= alike and request.base.weights != "random"
    cells["difference"] = (cells["ours"] - cells["paper"]).where(comparable)
    return Table(spec, cells, _notes(spec, results, alike, lacking, absent), lacking > 0)


def _own_cells(found: Iterable[tuple[str, str, str, Cell | None]]) -> pd.DataFrame:
    """One row a cell of ours: (method, category, metric, its number); NaN where runs are missing."""
    rows = [[*keys, *(dataclasses.astuple(cell) if cell else [np.nan] * 5)] for *keys, cell in found]
    return pd.DataFrame(rows, columns=[*_KEYS, "ours", "sd", "seeds", "low", "high"])


def _unprinted(
    spec: TableSpec, results: Results, found: Iterable[tuple[str, str, str, Cell | None]], told: str
) -> Table:
    """A table of ours alone."""
    sources = results.plan.request.sources[spec.role]
    dataset = sources[0].dataset if sources else ""
    cells = _own_cells(found).assign(paper=np.nan, printed="", note="", difference=np.nan, dataset=dataset)
    lacking = int(cells["seeds"].isna().sum())
    notes = [*([_data_note(results, spec.role)] if sources else []), told]
    if lacking:
        notes.append(f"**PARTIAL: {lacking} of its numbers are missing: run `pni reproduce {spec.id}`.**")
    return Table(spec, cells, notes, lacking > 0)


def _switch_table(spec: TableSpec, results: Results) -> Table:
    """Each switch against the unswitched setting, E under either combining rule or A, on the same images and seed."""
    sources = results.plan.request.sources[spec.role]
    found = (
        (f"{name}: {meaning}", rule, metric, results.difference(sources, f"{name}/{rule}", f"paper/{rule}", metric))
        for name, (meaning, _, rules) in SWITCHES.items()
        for rule in rules
        for metric in spec.metrics
    )
    told = (
        "A setting with one switch thrown, minus that setting; prob: E by eq. (6); score: E by the mean of two scores; "
        "A: the baseline, whose image score alone can be reweighted (B23); points."
    )
    return _unprinted(spec, results, found, told)


def _feature_table(spec: TableSpec, results: Results) -> Table:
    """Each backbone under a few settings, mean over the categories; the others than the first on one seed."""
    request = results.plan.request
    found = (
        (member, shown, metric, results.cell(request.sources[spec.role], setting, metric, member))
        for member in request.members
        for shown, setting in spec.methods.items()
        for metric in spec.metrics
    )
    told = f"{request.base.image_crop} px, profile {request.profile}, E with combine={request.base.combine}."
    return _unprinted(spec, results, found, told)


def _ordered(cells: pd.DataFrame, printed: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """Methods, categories and metrics in the order in which paper and we name them."""
    rank = {key: {name: i for i, name in enumerate(dict.fromkeys([*own[key], *printed[key]]))} for key in _KEYS}
    rank["method"] = {name: i for i, name in enumerate(dict.fromkeys([*printed["method"], *own["method"]]))}
    order = pd.DataFrame({key: cells[key].map(rank[key]) for key in ("method", "metric", "category")})
    return cells.loc[order.sort_values(["method", "metric", "category"], kind="stable").index].reset_index(drop=True)


def _notes(spec: TableSpec, results: Results, alike: bool, lacking: int, absent: list[str]) -> list[str]:
    request = results.plan.request
    base = request.base
    notes = [] if alike else [_data_note(results, spec.role)]
    first = next(iter(request.members))
    what = f"Backbone {first}, {base.image_crop} px, profile {request.profile}, E with combine={base.combine}"
    if any(setting in (*REFINED, *ENSEMBLES) for setting in spec.settings):
        what += f", refinement {base.refine_iterations:,} iterations (the paper: 55,000)"
    if any(setting in ENSEMBLES for setting in spec.settings) and spec.number != "Table 4":
        what += f"; ensemble of {', '.join(request.members)}"
    notes.append(what + ".")
    if alike and base.weights == "random":
        notes.append("**The backbone's weights are random: a dry run, not a result.**")
    if absent:
        there = [source.category for source in request.sources[spec.role]]
        told = f"{len(there)} of {len(there) + len(absent)} categories ({', '.join(there)})"
        notes.append(f"The data are {told}: averages over them are not those of the paper, and not compared.")
    if lacking:
        names = sorted({unit.describe() for unit in results.missing})
        shown = "; ".join(names[:3]) + (f"; and {len(names) - 3} more" if len(names) > 3 else "")
        notes.append(f"**PARTIAL: {lacking} of its numbers are missing ({shown or 'their settings were not run'}).**")
    for source in request.sources[spec.role]:
        runs = [run for (of, setting, _), run in results.runs.items() if of == source and setting in spec.settings]
        undefined = [run for run in runs if any(run.facts["metrics"].get(metric) is None for metric in spec.metrics)]
        if why := sorted({note for run in undefined for note in run.facts["notes"] if "undefined" in note}):
            notes.append(f"{source.category}: {'; '.join(why)}.")
    return notes


def _data_note(results: Results, role: str) -> str:
    sources, paper = results.plan.request.sources[role], PAPER_DATA[role]
    if sources[0].dataset == role:
        return f"Data: {paper}, {many(len(sources), 'category', 'categories')}."
    return (
        f"**Data: {sources[0].dataset} ({many(len(sources), 'category', 'categories')}), not {paper}: our numbers keep "
        "the table's shape and cannot be compared with the paper's; no difference is shown.**"
    )


_GENERATORS = {"cutpaste": "cutpaste", "cutpaste_scar": "scar", "draem": "draem", "manual": "manual"}


def _composition(base: PNIConfig) -> dict[str, dict[str, str]]:
    """Table S7 out of the configurations: setting -> column -> text, marks as the paper's."""
    tick = {True: "✓", False: "-"}
    rows: dict[str, dict[str, str]] = {}
    for name in LETTERS:
        refined = name not in DETECTOR
        change = REFINED[ENSEMBLES.get(name, name)] if refined else DETECTOR[name][1]
        config = base.replace(**({"setting": "E"} | change))
        defects = config.defects.split(",") if refined else []
        rows[name] = {
            "neighborhood": tick[config.setting in ("B", "E")],
            "position": tick[config.setting in ("position", "E")],
            "refinement": tick[refined],
            "subsampling_ratio": f"{0.01 * RATIO.get(name, 1.0):g}",
            **{column: tick[generator in defects] for column, generator in _GENERATORS.items()},
            "loss_grad": tick[refined and config.refine_grad == "on"],
            "ensemble": tick[name in ENSEMBLES],
        }
    return rows


def _text_cells(published: pd.DataFrame, own: dict[str, dict[str, str]]) -> pd.DataFrame:
    cells = published[[*_KEYS, "printed", "note"]].rename(columns={"printed": "paper"})
    cells["ours"] = [own.get(m, {}).get(c) for m, c in zip(cells["method"], cells["metric"], strict=True)]
    return cells.reset_index(drop=True)
