"""The paper's tables with our numbers in their cells: tidy CSV, Markdown, LaTeX.

A table is a list of cells (method, category, metric), each with the number as printed, ours, and their difference where
the data are the paper's.  Where another data set stands in, the shape stays, the first line says so, and no
difference is shown.  Best and second best are marked by rule: equal printed digits are equal.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pnilib.apps.reproduce.render import (
    NAMES,
    head,
    latex_table,
    markdown_table,
    marked,
    range_text,
    signed_text,
    value_text,
)
from pnilib.apps.reproduce.results import Results
from pnilib.apps.reproduce.settings import (
    BACKBONES,
    DETECTOR,
    ENSEMBLE,
    ENSEMBLES,
    OFFLINE,
    RATIO,
    REFINED,
    RELEASED,
    RULES,
    SOFT,
    SWITCHES,
    kinds,
)
from pnilib.config import PNIConfig
from pnilib.published import GROUPS, load_published

__all__ = ["NAMES", "TABLES", "Table", "TableSpec", "make_table"]

_LETTERS = {name: name for name in (*DETECTOR, *(name for name in REFINED if len(name) == 1), "PNI", ENSEMBLE)}
_OURS = {"PNI": "PNI", ENSEMBLE: ENSEMBLE}
_DETECTION, _LOCALISATION, _REGIONS, _PIXELS = "i_auroc", "p_auroc", "aupro_30", "p_f1_max"
_BOTH = (_DETECTION, _LOCALISATION)
_THREE = (*_BOTH, _REGIONS)
_EACH = dict(every=True, across=True)


@dataclass(frozen=True)
class TableSpec:
    """One table of the paper.  methods: as printed -> our setting; printed methods beyond them are shown as published.
    role: whose categories.  every: each category, not only the averages.  across: methods as columns."""

    number: str
    title: str
    metrics: tuple[str, ...] = _THREE
    methods: tuple[tuple[str, str], ...] = ()
    role: str = "mvtec"
    every: bool = False
    across: bool = False

    @property
    def id(self) -> str:
        return self.number.lower().replace(" ", "-")

    @property
    def settings(self) -> list[str]:
        return [setting for _, setting in self.methods] + ([BACKBONES] if self.number == "Table X4" else [])


def _spec(number: str, title: str, methods: dict[str, str], **more: object) -> TableSpec:
    return TableSpec(number, title, methods=tuple(methods.items()), **more)  # type: ignore[arg-type]


_LOSSES = {
    "Trained by l_CE": "cross-entropy (ensemble)",
    "Trained by l_focal": "focal (ensemble)",
    ENSEMBLE: ENSEMBLE,
}
_MAIN = {name: name for name in ("A", "B", "E", "PNI")}
TABLES: dict[str, TableSpec] = {
    spec.id: spec
    for spec in (
        _spec(
            "Table 1", "detection and localization, category by category", {"PNI": "PNI"},
            metrics=_BOTH, **_EACH,
        ),
        _spec("Table 2", "summary against other methods", _OURS),
        _spec(
            "Table 3", "neighborhood (B), position (E) and refinement (PNI), one after the other", _MAIN,
            metrics=(_DETECTION, _LOCALISATION, _PIXELS),
        ),
        _spec("Table 4", "losses of the refinement network, ensembles", _LOSSES),
        _spec("Table 5", "localization on BTAD", {"PNI": "PNI"}, metrics=(_LOCALISATION,), role="btad", **_EACH),
        _spec("Table 6", "detection and localization on VisA", {"PNI": "PNI"}, metrics=_BOTH, role="visa"),
        TableSpec("Table S1", "which model of each method is compared"),
        _spec("Table S2", "summary against other methods, all of them", _OURS),
        _spec("Table S3", "I-AUROC, category by category", _OURS, metrics=(_DETECTION,), **_EACH),
        _spec("Table S4", "P-AUROC, category by category", _OURS, metrics=(_LOCALISATION,), **_EACH),
        _spec("Table S5", "AUPRO, category by category", _OURS, metrics=(_REGIONS,), **_EACH),
        _spec("Table S6", "VisA, category by category", {"PNI": "PNI"}, metrics=_BOTH, role="visa", **_EACH),
        TableSpec("Table S7", "what the settings are made of"),
        _spec("Table S8", "ablation, summary", _LETTERS),
        _spec("Table S9", "ablation, I-AUROC, category by category", _LETTERS, metrics=(_DETECTION,), **_EACH),
        _spec("Table S10", "ablation, P-AUROC, category by category", _LETTERS, metrics=(_LOCALISATION,), **_EACH),
        _spec("Table S11", "ablation, AUPRO, category by category", _LETTERS, metrics=(_REGIONS,), **_EACH),
        _spec(
            "Table X1", "ours: the released code beside the paper's settings", _MAIN | {RELEASED: RELEASED},
            metrics=(*_THREE, _PIXELS),
        ),
        TableSpec("Table X2", "ours: what each difference of the released code is worth", (*_THREE, _PIXELS)),
        _spec(
            "Table X3", "ours: every way to use the two sources",
            {
                "A: neither": "A",
                "B: neighborhood gate": "B",
                "position gate": "position",
                "E: eq. (6)": "E prob",
                "E: mean of two scores (the release)": "E score",
                "E: product (ours)": "E product",
                "soft veto of the place (ours)": SOFT,
            },
            metrics=(*_THREE, _PIXELS),
        ),
        _spec("Table X4", "ours: what the features are worth", {"A": "A", "position gate": "position", "E": "E"}),
    )
}  # fmt: skip
"""id -> specification; S1 has text alone, S7 is made of the configurations themselves; X1 to X4 are ours."""


@dataclass(frozen=True)
class Table:
    """A filled table.  cells: one row a cell: method, category, metric, dataset, paper, printed, ours, sd,
    seeds, low, high, difference, note.  notes: lines to read first.  partial: whether runs are missing."""

    spec: TableSpec
    cells: pd.DataFrame
    notes: list[str]
    partial: bool

    def markdown(self) -> str:
        lines = [f"# {self.spec.number}: {self.spec.title}", "", *(f"{note}  " for note in self.notes), ""]
        for title, frame in self.parts():
            lines += [f"## {title}", "", markdown_table(frame), ""]
        return "\n".join(lines)

    def latex(self) -> str:
        """Each part as a `tabular` within a `table`; needs booktabs."""
        parts = [f"% {self.spec.number}: {self.spec.title}", *(f"% {note}" for note in self.notes)]
        parts += [latex_table(f"{self.spec.number}, {title}", frame) for title, frame in self.parts()]
        return "\n".join(parts) + "\n"

    def parts(self) -> list[tuple[str, pd.DataFrame]]:
        """Wide tables of finished text: marks are `**best**` and `_second_`."""
        if self.spec.number in ("Table S1", "Table S7"):
            return [
                (title, self._texts(column))
                for title, column in (("As printed", "paper"), ("From the configurations here", "ours"))
                if self.cells[column].notna().any()
            ]
        own = self.cells[self.cells["seeds"].notna()]
        parts = []
        if self.spec.number == "Table X2":
            for rule, values in RULES.items():
                some = own[own["category"] == rule]
                if len(some):
                    shown = some.assign(
                        text=[f"{signed_text(r['ours'])} ({range_text(r)})" for r in some.to_dict("records")]
                    )
                    under = ", ".join(f"{name}={value}" for name, value in values.items())
                    parts.append((f"Change under {under}, points (95 % interval)", self._wide(shown, "text")))
            return parts
        if len(own):
            shown = own.assign(text=[value_text(r) for r in own.to_dict("records")])
            parts.append(("Ours: mean ± sd over seeds, %", self._wide(marked(shown, "ours"), "text")))
            ranges = own.assign(text=[range_text(r) for r in own.to_dict("records")])
            parts.append(("Ours: 95 % interval over test images (bootstrap)", self._wide(ranges, "text")))
        if own["difference"].notna().any():
            change = own.assign(text=[signed_text(value) for value in own["difference"]])
            parts.append(("Ours minus the paper's, points", self._wide(change, "text")))
        printed = self.cells[self.cells["printed"] != ""]
        if len(printed):
            text = marked(printed.assign(text=printed["printed"]), "paper")
            parts.append(("As published", self._wide(text, "text")))
        return parts

    def _wide(self, cells: pd.DataFrame, column: str) -> pd.DataFrame:
        rows, columns = ("category", ["method", "metric"]) if self.spec.across else ("method", ["metric", "category"])
        order = cells.drop_duplicates([rows])[rows]
        heads = cells.drop_duplicates(columns)[columns]
        wide = cells.pivot(index=rows, columns=columns, values=column)
        wide = wide.reindex(index=order, columns=pd.MultiIndex.from_frame(heads)).fillna("–")
        wide.columns = pd.Index([head(self.spec.across, len(self.spec.metrics) == 1, *pair) for pair in wide.columns])
        if self.spec.across:
            wide.index = wide.index.str.replace("_", " ")
        return wide.rename_axis(index="" if self.spec.across else "method")

    def _texts(self, column: str) -> pd.DataFrame:
        cells = self.cells.drop_duplicates(["method", "metric"])
        wide = cells.pivot(index="method", columns="metric", values=column).fillna("–")
        return wide.reindex(index=list(dict.fromkeys(cells["method"])), columns=list(dict.fromkeys(cells["metric"])))


def make_table(spec: TableSpec, results: Results) -> Table:
    """Fill a table.  Cells whose runs are missing stay empty, and the table says that it is partial."""
    if spec.number == "Table X2":
        return _switch_table(spec, results)
    if spec.number == "Table X4":
        return _feature_table(spec, results)
    ours = spec.number in ("Table X1", "Table X3")  # nothing of them is printed
    published = load_published(None if ours else spec.number)
    if ours:
        published = published[:0]
    if spec.number == "Table S1":
        return Table(spec, _text_cells(published, {}), ["Text of the paper; nothing of it is computed."], False)
    request = results.plan.request
    if spec.number == "Table S7":
        return Table(spec, _text_cells(published, _composition(request.base)), [], False)
    alike = not request.stands_in(spec.role)
    sources = request.sources[spec.role]
    if not sources:
        printed = published[published["metric"].isin(spec.metrics)].rename(columns={"value": "paper"})
        empty = dict.fromkeys(("ours", "sd", "seeds", "low", "high", "difference"), np.nan)
        note = f"No data: published numbers only.  Give them with --data {spec.role}=FOLDER."
        return Table(spec, printed.assign(**empty).reset_index(drop=True), [note], False)
    by_name = {source.category: source for source in sources}
    groups = kinds(list(by_name))
    whole = {name for group in GROUPS[spec.role].values() for name in group}
    absent = sorted(whole - set(by_name)) if alike else []
    # an average over some categories does not stand beside a printed one over all of them
    names = [*(by_name if spec.every else ()), *(() if spec.every and absent else groups)]
    rows: list[dict[str, object]] = []
    lacking = 0
    single = spec.number == "Table 4" and request.profile in OFFLINE
    for method, setting in spec.methods:
        setting = ENSEMBLES[setting] if single else setting
        for category in names:
            members = [by_name[name] for name in groups.get(category, [category])]
            for metric in spec.metrics:
                cell = results.cell(members, setting, metric)
                lacking += cell is None
                rows.append(
                    dict(method=method, category=category, metric=metric)
                    | (dict(ours=cell.mean, sd=cell.sd, seeds=cell.n, low=cell.low, high=cell.high) if cell else {})
                )
    own = pd.DataFrame(rows, columns=["method", "category", "metric", "ours", "sd", "seeds", "low", "high"])
    printed = published[published["metric"].isin(spec.metrics)].rename(columns={"value": "paper"})
    keys = ["method", "category", "metric"]
    printed = printed[[*keys, "paper", "printed", "note", "dataset"]]
    if alike:
        cells = printed.merge(own, on=keys, how="outer", sort=False)
    else:  # a demo category may bear the name of one of MVTec AD's
        cells = pd.concat([printed, own.assign(dataset=sources[0].dataset)], ignore_index=True)
    cells = _ordered(cells, printed, own, keys)
    cells["printed"], cells["note"] = cells["printed"].fillna(""), cells["note"].fillna("")
    comparable = cells["category"].isin(by_name) if absent else pd.Series(True, cells.index)
    comparable &= alike and request.base.weights != "random"
    cells["difference"] = (cells["ours"] - cells["paper"]).where(comparable)
    notes = _notes(spec, results, alike, lacking, absent)
    return Table(spec, cells, notes, lacking > 0)


def _switch_table(spec: TableSpec, results: Results) -> Table:
    """Each switch against the unswitched setting, E under either combining rule or A, on the same images and seed."""
    sources = results.plan.request.sources["mvtec"]
    rows: list[dict[str, object]] = []
    lacking = 0
    for name, (meaning, _, rules) in SWITCHES.items():
        for rule in rules:
            for metric in spec.metrics:
                row: dict[str, object] = dict(method=f"{name}: {meaning}", category=rule, metric=metric)
                cell = results.difference(sources, f"{name}/{rule}", f"paper/{rule}", metric)
                lacking += cell is None
                values = dict(ours=cell.mean, sd=cell.sd, seeds=cell.n, low=cell.low, high=cell.high) if cell else {}
                rows.append(row | values)
    columns = ["method", "category", "metric", "ours", "sd", "seeds", "low", "high"]
    cells = pd.DataFrame(rows, columns=columns).assign(paper=np.nan, printed="", note="", difference=np.nan)
    notes = [] if not sources else [_data_note(results, "mvtec", len(sources))]
    notes.append(
        "A setting with one switch thrown, minus that setting; prob: E by eq. (6); score: E by the mean of two scores; "
        "A: the baseline, whose image score alone can be reweighted (B23); points."
    )
    if lacking:
        notes.append(f"**PARTIAL: {lacking} of its numbers are missing: run `pni reproduce` without names.**")
    return Table(spec, cells.assign(dataset=sources[0].dataset if sources else ""), notes, lacking > 0)


def _feature_table(spec: TableSpec, results: Results) -> Table:
    """Each backbone under a few settings, mean over the categories; the others than the first on one seed."""
    request = results.plan.request
    sources = request.sources["mvtec"]
    rows: list[dict[str, object]] = []
    lacking = 0
    for member in request.members:
        for shown, setting in spec.methods:
            for metric in spec.metrics:
                cell = results.cell(sources, setting, metric, member)
                lacking += cell is None
                row: dict[str, object] = dict(method=member, category=shown, metric=metric)
                values = dict(ours=cell.mean, sd=cell.sd, seeds=cell.n, low=cell.low, high=cell.high) if cell else {}
                rows.append(row | values)
    columns = ["method", "category", "metric", "ours", "sd", "seeds", "low", "high"]
    cells = pd.DataFrame(rows, columns=columns).assign(paper=np.nan, printed="", note="", difference=np.nan)
    notes = [_data_note(results, "mvtec", len(sources))] if sources else []
    notes.append(f"{request.base.image_crop} px, profile {request.profile}, E with combine={request.base.combine}.")
    if lacking:
        notes.append(f"**PARTIAL: {lacking} of its numbers are missing: run `pni reproduce table-x4`.**")
    return Table(spec, cells.assign(dataset=sources[0].dataset if sources else ""), notes, lacking > 0)


def _ordered(cells: pd.DataFrame, printed: pd.DataFrame, own: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Methods, categories and metrics in the order in which paper and we name them."""
    rank = {key: {name: i for i, name in enumerate(dict.fromkeys([*own[key], *printed[key]]))} for key in keys}
    rank["method"] = {name: i for i, name in enumerate(dict.fromkeys([*printed["method"], *own["method"]]))}
    order = pd.DataFrame({key: cells[key].map(rank[key]) for key in ("method", "metric", "category")})
    return cells.loc[order.sort_values(["method", "metric", "category"], kind="stable").index].reset_index(drop=True)


def _notes(spec: TableSpec, results: Results, alike: bool, lacking: int, absent: list[str]) -> list[str]:
    request = results.plan.request
    base = request.base
    notes = [] if alike else [_data_note(results, spec.role, len(request.sources[spec.role]))]
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


def _data_note(results: Results, role: str, n: int) -> str:
    data = results.plan.request.sources[role][0].dataset
    paper = {"mvtec": "MVTec AD", "btad": "BTAD", "visa": "VisA"}[role]
    if data == role:
        return f"Data: {paper}, {n} {'category' if n == 1 else 'categories'}."
    return (
        f"**Data: {data} ({n} {'category' if n == 1 else 'categories'}), not {paper}: our numbers keep the table's "
        "shape and cannot be compared with the paper's; no difference is shown.**"
    )


def _composition(base: PNIConfig) -> dict[str, dict[str, str]]:
    """Table S7 out of the configurations: setting -> column -> text, marks as the paper's."""
    tick = {True: "✓", False: "-"}
    rows: dict[str, dict[str, str]] = {}
    for name in _LETTERS:
        refined = name not in DETECTOR
        change = REFINED[ENSEMBLES.get(name, name)] if refined else DETECTOR[name][1]
        config = base.replace(**({"setting": "E"} | change))
        drawn = config.defects.split(",") if refined else []
        ratio = 0.01 * RATIO.get(name, 1.0)
        rows[name] = {
            "neighborhood": tick[config.setting in ("B", "E")],
            "position": tick[config.setting in ("position", "E")],
            "refinement": tick[refined],
            "subsampling_ratio": f"{ratio:g}",
            **{column: tick[generator in drawn] for column, generator in _GENERATORS.items()},
            "loss_grad": tick[refined and config.refine_grad == "on"],
            "ensemble": tick[name in ENSEMBLES],
        }
    return rows


_GENERATORS = {"cutpaste": "cutpaste", "cutpaste_scar": "scar", "draem": "draem", "manual": "manual"}


def _text_cells(published: pd.DataFrame, own: dict[str, dict[str, str]]) -> pd.DataFrame:
    cells = published[["method", "category", "metric", "printed", "note"]].rename(columns={"printed": "paper"})
    cells["ours"] = [own.get(m, {}).get(c) for m, c in zip(cells["method"], cells["metric"], strict=True)]
    return cells.reset_index(drop=True)
