"""What a reproduction leaves: tables, figures, a manifest of each, an index with thumbnails, one report to send around.

results.csv                     every metric of every run, tidy
tables/table-3.{csv,md,tex}     figures/figure-5.{png,pdf}     manifests/<either>.json
index.html                      thumbnails and links            report.html: everything in one file
"""

import difflib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
from matplotlib.figure import Figure
from PIL import Image
from tqdm.auto import tqdm

from pnilib.apps.pages import write_page
from pnilib.apps.reproduce.figures import FIGURES, FigureSpec
from pnilib.apps.reproduce.plan import Plan, Unit
from pnilib.apps.reproduce.request import Request, fingerprint
from pnilib.apps.reproduce.results import Results
from pnilib.apps.reproduce.tables import TABLES, Table, TableSpec, make_table
from pnilib.apps.reproduce.units import environment
from pnilib.config import PNIConfig
from pnilib.errors import PNIError
from pnilib.store.files import atomic_write, write_csv, write_json
from pnilib.store.locks import lock_folder
from pnilib.store.text import read_json

__all__ = [
    "ITEMS",
    "Written",
    "chosen_items",
    "manifest",
    "needed_settings",
    "read_request",
    "shown_units",
    "write_outputs",
]

ITEMS: dict[str, TableSpec | FigureSpec] = {**TABLES, **FIGURES}
"""Everything that can be reproduced, by the name used on the command line."""

DPI = 110


@dataclass
class Written:
    """files; partial: tables with empty cells; missing: item -> why it could not be made; no_data: figures of data that
    are not there; outdated: items in the folder that are of other data or settings, and on no page."""

    files: list[Path] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    no_data: list[str] = field(default_factory=list)
    outdated: list[str] = field(default_factory=list)


def chosen_items(names: Sequence[str] | None) -> list[TableSpec | FigureSpec]:
    """Items by name, default all.  Raises PNIError for an unknown name, with the nearest."""
    for name in names or ():
        if name not in ITEMS:
            near = difflib.get_close_matches(name, ITEMS, n=3, cutoff=0.4)
            raise PNIError(f"{name}: no such table or figure: did you mean {' or '.join(near) or 'one of --list'}?")
    return [ITEMS[name] for name in names or ITEMS]


def needed_settings(items: Sequence[TableSpec | FigureSpec]) -> list[str]:
    """Settings that must have run for some items."""
    return list(dict.fromkeys(setting for item in items for setting in item.settings))


def write_outputs(
    items: Sequence[TableSpec | FigureSpec], results: Results, out: Path | str, *, progress: bool = False
) -> Written:
    """Write some items, and the pages anew from all that lies in `out` and is of the same data and settings.

    A figure whose runs are missing is left out, a table with missing runs is marked as partial.  Raises PNIError when
    another run writes to `out`, or it cannot be written.
    """
    out, written = Path(out), Written()
    with lock_folder(out):
        write_csv(out / "results.csv", results.tidy())
        write_json(out / "request.json", results.plan.request.to_dict())
        for item in tqdm(items, desc="tables and figures", unit="item", disable=not progress):
            if isinstance(item, FigureSpec) and item.settings and not results.plan.request.sources[item.role]:
                written.no_data.append(item.id)
                continue
            try:
                if isinstance(item, TableSpec):
                    table = make_table(item, results)
                    _write_table(table, out / "tables", written)
                    if table.partial:
                        written.partial.append(item.id)
                else:
                    with matplotlib.style.context("default"), matplotlib.rc_context({"font.size": 9}):
                        _write_figure(item.draw(results), out / "figures" / item.id, written)
            except PNIError as fault:
                written.missing[item.id] = str(fault)
                continue
            write_json(out / "manifests" / f"{item.id}.json", manifest(item, results))
        written.outdated = [item.id for item in ITEMS.values() if _outdated(item, results, out)]
        _write_pages(out, results, written.outdated)
    return written


def shown_settings(item: TableSpec | FigureSpec, plan: Plan) -> set[str]:
    """Whose runs a table or figure shows; of Table X2 those of the switches."""
    switches = {name for unit in plan.units for name in unit.variants if "/" in name}
    return switches if item.id == "table-x2" else set(item.settings)


def shown_units(item: TableSpec | FigureSpec, plan: Plan) -> list[Unit]:
    """The units that made these runs."""
    mine, sources = shown_settings(item, plan), plan.request.sources[item.role]
    return [unit for unit in plan.units if plan.shows(unit) and mine & set(unit.variants) and unit.source in sources]


def manifest(item: TableSpec | FigureSpec, results: Results) -> dict[str, Any]:
    """Where an output comes from: commit, configuration, seeds, versions, device, data, seconds and memory of its runs.

    `seconds` adds up the units that its settings needed, whenever they ran; `peak_memory`, bytes, is that of the
    process that did them.
    """
    request = results.plan.request
    mine = shown_settings(item, results.plan)
    units = dict.fromkeys(added := shown_units(item, results.plan))
    while added := [need for unit in added for need in unit.needs]:
        units |= dict.fromkeys(added)
    files = [results.store / unit.id / "unit.json" for unit in units]
    records = [read_json(file) for file in files if file.exists()]
    return {
        "output": f"{item.number}: {item.title}",
        "made_by": environment(),
        "runs_by": sorted({record["commit"] for record in records}),
        "profile": request.profile,
        "config": request.base.to_dict(),
        "backbones": list(request.members),
        "seeds": {"detector and PNI": list(request.seeds), "other networks": list(request.network_seeds)},
        "settings": sorted(mine),
        "devices": sorted({record["device"] for record in records}),
        "threads": sorted({record["threads"] for record in records}),
        "data": {f"{s.dataset}/{s.category}": fingerprint(s) for s in request.sources[item.role]} if mine else {},
        "units": len(units),
        "finished": len(records),
        "seconds": round(sum(record["seconds"] for record in records), 1),
        "peak_memory": max((record["peak_memory"] for record in records), default=0),
    }


def _outdated(item: TableSpec | FigureSpec, results: Results, out: Path) -> bool:
    """Whether `out` holds this item of an earlier call with other data or settings."""
    try:
        made = read_json(out / "manifests" / f"{item.id}.json")
        made["config"] = PNIConfig().to_dict() | made["config"]  # a setting that came later had its default
        today = json.loads(json.dumps(manifest(item, results)))
        return any(made[key] != today[key] for key in ("profile", "config", "backbones", "seeds", "data"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        return True


def _write_table(table: Table, folder: Path, written: Written) -> None:
    name = table.spec.id
    columns = ["method", "category", "metric", "dataset", "paper", "ours", "sd", "seeds", "low", "high", "difference"]
    columns.append("note")
    cells = table.cells.reindex(columns=columns)
    for suffix, text in (
        ("csv", cells.to_csv(index=False, lineterminator="\n", float_format="%.6g")),
        ("md", table.markdown()),
        ("tex", table.latex()),
    ):
        with atomic_write(folder / f"{name}.{suffix}") as handle:
            handle.write(text)
        written.files.append(folder / f"{name}.{suffix}")


def _write_figure(figure: Figure, stem: Path, written: Written) -> None:
    """PNG of 256 colours, a sixth of the whole; PDF with every one."""
    png, pdf = stem.with_suffix(".png"), stem.with_suffix(".pdf")
    look: dict[str, Any] = dict(dpi=DPI, bbox_inches="tight", pad_inches=0.08)
    whole = io.BytesIO()
    figure.savefig(whole, format="png", **look)
    with atomic_write(png, "wb") as handle:
        few = Image.open(whole).convert("RGB").quantize(method=Image.Quantize.FASTOCTREE)
        few.save(handle, format="PNG", optimize=True)
    with atomic_write(pdf, "wb") as handle:
        facts = {"CreationDate": None, "Creator": None, "Producer": None}
        figure.savefig(handle, format="pdf", metadata=facts, **look)
    written.files += [png, pdf]


def _write_pages(out: Path, results: Results, outdated: Sequence[str]) -> None:
    request = results.plan.request
    items: list[dict[str, Any]] = []
    for item in ITEMS.values():
        picture = out / "figures" / f"{item.id}.png"
        shown: dict[str, Any] = {"id": item.id, "heading": f"{item.number}: {item.title}", "picture": None}
        if isinstance(item, FigureSpec) and picture.exists():
            shown["picture"] = picture
        elif isinstance(item, TableSpec) and (out / "tables" / f"{item.id}.md").exists():
            shown["table"] = make_table(item, results)
        else:
            continue
        items += [shown] if item.id not in outdated else []
    for name in ("index.html", "report.html"):
        write_page(
            out / name,
            f"{name}.j2",
            title=f"PNI: tables and figures of the paper, {request.main[0].dataset}",
            items=items,
            stands_in=request.main[0].dataset if request.stands_in("mvtec") else "",
            notebooks=sorted((out / "notebooks").glob("*.html")),
            facts=json.dumps(environment() | {"profile": request.profile, "seeds": request.seeds}, indent=1),
        )


def read_request(out: Path | str) -> Request:
    """What an earlier reproduction was asked for.  Raises PNIError when there is none."""
    file = Path(out) / "request.json"
    try:
        return Request.from_dict(read_json(file))
    except (OSError, ValueError):
        raise PNIError(f"{file}: is missing or damaged: run `pni reproduce` first") from None
