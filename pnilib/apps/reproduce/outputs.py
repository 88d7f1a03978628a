"""What a reproduction leaves: tables, figures, a manifest of each, an index with thumbnails, one report to send around.

results.csv                     every metric of every run, tidy
tables/table-3.{csv,md,tex}     figures/figure-5.{png,pdf}     manifests/<either>.json
index.html                      thumbnails and links            report.html: everything in one file
"""

import base64
import difflib
import html
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image
from tqdm.auto import tqdm

from pnilib.apps.reproduce.figures import FIGURES, FigureSpec
from pnilib.apps.reproduce.plan import Plan, Unit
from pnilib.apps.reproduce.request import Request, fingerprint
from pnilib.apps.reproduce.results import Results
from pnilib.apps.reproduce.tables import TABLES, Table, TableSpec, make_table
from pnilib.apps.reproduce.units import environment
from pnilib.config import PNIConfig
from pnilib.errors import PNIError
from pnilib.store.artefacts import atomic_write, exclusive, write_json
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
WIDEST = 320  # px, of a thumbnail


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
    with exclusive(out):
        with atomic_write(out / "results.csv") as handle:
            results.tidy().to_csv(handle, index=False, lineterminator="\n")
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
    for suffix, facts in (
        ("png", {"Software": None}),
        ("pdf", {"CreationDate": None, "Creator": None, "Producer": None}),
    ):
        with atomic_write(stem.with_suffix(f".{suffix}"), "wb") as handle:
            figure.savefig(handle, format=suffix, dpi=DPI, metadata=facts, bbox_inches="tight", pad_inches=0.08)
        written.files.append(stem.with_suffix(f".{suffix}"))


_STYLE = """
body{font-family:system-ui,sans-serif;max-width:80rem;margin:2rem auto;padding:0 1rem;color:#222;line-height:1.45}
table{border-collapse:collapse;font-size:.85rem}
td,th{padding:.2rem .6rem;border-bottom:1px solid #ccc;text-align:right;white-space:nowrap}
td:first-child,th:first-child{text-align:left}div.wide{overflow-x:auto}img{max-width:100%}
ul.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(20rem,1fr));gap:1rem;list-style:none;padding:0}
ul.grid li{border:1px solid #ddd;border-radius:.4rem;padding:.7rem}
ul.grid img{max-height:11rem;display:block;margin:auto}
.note{background:#fff4d6;padding:.5rem .8rem;border-radius:.3rem}footer{color:#666;margin-top:3rem}
"""


def _write_pages(out: Path, results: Results, outdated: Sequence[str]) -> None:
    request = results.plan.request
    title = f"PNI: tables and figures of the paper, {request.main[0].dataset}"
    cards, sections = [], []
    for item in ITEMS.values():
        heading = html.escape(f"{item.number}: {item.title}")
        if item.id in outdated:
            continue
        if isinstance(item, TableSpec) and (out / "tables" / f"{item.id}.md").exists():
            body = _tables_of(make_table(item, results))
            links = " ".join(f'<a href="tables/{item.id}.{s}">{s}</a>' for s in ("md", "csv", "tex"))
            link = f'<a href="report.html#{item.id}"><b>{heading}</b></a>'
            cards.append(f"<li>{link}<br>{links} {_manifest_link(item)}</li>")
        elif isinstance(item, FigureSpec) and (picture := out / "figures" / f"{item.id}.png").exists():
            body = f'<p><img alt="{heading}" src="{_data_uri(picture.read_bytes())}"></p>'
            links = " ".join(f'<a href="figures/{item.id}.{s}">{s}</a>' for s in ("png", "pdf"))
            thumbnail = f'<img alt="{heading}" src="{_data_uri(_thumbnail(picture))}">'
            link = f'<a href="figures/{item.id}.png">{thumbnail}<b>{heading}</b></a>'
            cards.append(f"<li>{link}<br>{links} {_manifest_link(item)}</li>")
        else:
            continue
        sections.append(f'<section id="{item.id}"><h2>{heading}</h2>{body}</section>')
    notebooks = sorted((out / "notebooks").glob("*.html"))
    links = "".join(f'<li><a href="notebooks/{p.name}">{html.escape(p.stem)}</a></li>' for p in notebooks)
    executed = f"<h2>Notebooks, executed</h2><ul>{links}</ul>" if links else ""
    facts = html.escape(json.dumps(environment() | {"profile": request.profile, "seeds": request.seeds}, indent=1))
    foot = f"<footer><pre>{facts}</pre></footer>"
    warning = ""
    if request.stands_in("mvtec"):
        name = html.escape(request.main[0].dataset)
        warning = f"The data are {name}, not MVTec AD: nothing here can be compared with the paper's numbers."
        warning = f'<p class="note">{warning}</p>'
    pages = {
        "index.html": f'{warning}<p><a href="report.html">Everything on one page</a>, '
        f'<a href="results.csv">every number</a></p>'
        f'<ul class="grid">{"".join(cards)}</ul>{executed}{foot}',
        "report.html": f"{warning}{''.join(sections)}{foot}",
    }
    for name, body in pages.items():
        with atomic_write(out / name) as handle:
            handle.write(
                f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
                f"<style>{_STYLE}</style><body><h1>{html.escape(title)}</h1>{body}</body></html>\n"
            )


def _manifest_link(item: TableSpec | FigureSpec) -> str:
    return f'<a href="manifests/{item.id}.json">manifest</a>'


def _tables_of(table: Table) -> str:
    parts = [f'<p class="note">{html.escape(note).replace("**", "")}</p>' for note in table.notes]
    for title, frame in table.parts():
        parts.append(f"<h3>{html.escape(title)}</h3><div class='wide'>{_html(frame)}</div>")
    return "".join(parts)


def _html(frame: pd.DataFrame) -> str:
    def cell(text: str) -> str:
        if text.startswith("**"):
            return f"<td><b>{html.escape(text.strip('*'))}</b></td>"
        if text.startswith("_") and text.endswith("_"):
            return f"<td><u>{html.escape(text.strip('_'))}</u></td>"
        return f"<td>{html.escape(text)}</td>"

    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in ("", *frame.columns))
    rows = "".join(
        f"<tr><td>{html.escape(str(name))}</td>{''.join(cell(str(text)) for text in row)}</tr>"
        for name, row in zip(frame.index, frame.to_numpy(), strict=True)
    )
    return f"<table><tr>{head}</tr>{rows}</table>"


def _data_uri(blob: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(blob).decode()}"


def _thumbnail(picture: Path) -> bytes:
    with Image.open(picture) as file:
        image = file.convert("RGB")
        image.thumbnail((WIDEST, WIDEST))
        buffer = io.BytesIO()
        image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def read_request(out: Path | str) -> Request:
    """What an earlier reproduction was asked for.  Raises PNIError when there is none."""
    file = Path(out) / "request.json"
    try:
        return Request.from_dict(read_json(file))
    except (OSError, ValueError):
        raise PNIError(f"{file}: is missing or damaged: run `pni reproduce` first") from None
