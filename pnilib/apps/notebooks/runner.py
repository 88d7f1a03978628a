"""Notebooks run from the command line, by the tests and in CI through this one runner.

It is papermill with three promises that papermill does not make: a parameter name that the
notebook does not know is an error (papermill only warns), a time limit ends the notebook with its
kernel and all their children, and the kernel is this interpreter whatever kernels are installed.
Every notebook runs even when one fails; the summary names the notebook, the cell and the error.

Nothing here is from the paper.
"""

import base64
import dataclasses
import importlib.util
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]

from pnilib.apps.notebooks.files import (
    notebook_text,
    parameter_names,
    parse_parameters,
    read_notebook,
    refuse_unknown,
    strip_solutions,
)
from pnilib.apps.notebooks.html_report import notebook_html
from pnilib.apps.notebooks.process import NotebookResult, run_worker
from pnilib.errors import PNIError
from pnilib.store.files import atomic_write, os_errors, write_json
from pnilib.store.locks import lock_folder

__all__ = [
    "NotebookResult",
    "parameter_names",
    "parse_parameters",
    "run_all",
    "run_notebook",
    "strip_solutions",
    "summary_text",
]


def run_notebook(
    path: Path | str,
    out_dir: Path | str,
    parameters: dict[str, Any] | None = None,
    timeout_s: float | None = 3600.0,
    progress: bool = True,
    stop: threading.Event | None = None,
) -> NotebookResult:
    """Run one notebook in the present folder; write the executed copy, its page and its figures.

    Under `out_dir`: NAME.ipynb, NAME.html and figures/NAME-01.png ..., also of a notebook that
    failed, up to the failing cell.  After `timeout_s` seconds (None: never) the notebook is ended
    and counts as failed.  `progress` shows a bar over the cells when standard error is a terminal.
    `stop`, once set, ends the notebook as Ctrl-C does: with KeyboardInterrupt, and nothing written.
    Raises PNIError for a file that is no notebook, an unknown parameter name, or a folder that
    cannot be written; an error inside the notebook is no exception but a result with ok=False.
    """
    path, out_dir, parameters = Path(path), Path(out_dir), parameters or {}
    source = read_notebook(path)
    refuse_unknown(parameters, {path: parameter_names(path)})
    if importlib.util.find_spec("ipykernel") is None:
        raise PNIError(f"{sys.executable}: has no ipykernel, which runs notebooks: pip install jupyterlab")
    with os_errors(out_dir):
        out_dir.mkdir(parents=True, exist_ok=True)
        if path.resolve().parent == out_dir.resolve():
            raise PNIError(f"{out_dir}: holds the notebook itself: choose another folder for the executed copy")
    partial = out_dir.resolve() / f".{path.stem}.partial.ipynb"
    with tempfile.TemporaryDirectory(prefix="pnilib-notebook-") as name:
        work = Path(name)
        try:
            bar = tqdm(
                total=len(source.cells), desc=path.stem, unit="cell", leave=False, disable=None if progress else True
            )
            with bar:
                result = run_worker(work, path, partial, parameters, timeout_s, bar, stop)
            _publish(partial, out_dir, path)
        finally:
            with suppress(OSError):
                partial.unlink()
    return result


def run_all(
    notebooks: Sequence[Path | str],
    out_dir: Path | str,
    parameters: dict[str, Any] | None = None,
    timeout_s: float | None = 3600.0,
    progress: bool = True,
    workers: int = 1,
) -> list[NotebookResult]:
    """Run every notebook, whatever becomes of the others; the caller checks `ok` of each result.

    Each gets those of `parameters` that its own parameters cell declares; a name that no notebook
    declares is refused before anything runs.  `workers` of them run side by side, started in the
    order given: a model that several of them use must be there already.  `out_dir`/summary.json is
    up to date after each notebook; `progress` says so in a line, too.  `timeout_s` is for each
    notebook.  Raises PNIError as `run_notebook` does, for no or equally named notebooks, and when
    another run is writing into `out_dir`.
    """
    paths, parameters = [Path(path) for path in notebooks], parameters or {}
    if not paths:
        raise PNIError("there is no notebook to run: name one")
    stems = [path.stem for path in paths]
    if twice := [stem for stem in stems if stems.count(stem) > 1]:
        raise PNIError(f"two notebooks are called {twice[0]}: run them into separate folders")
    known = {path: parameter_names(path) for path in paths}
    refuse_unknown(parameters, known)
    found: dict[str, NotebookResult] = {}
    stop = threading.Event()

    def run(path: Path) -> NotebookResult:
        own = {name: value for name, value in parameters.items() if name in known[path]}
        return run_notebook(path, out_dir, own, timeout_s, progress, stop)

    with lock_folder(out_dir), ThreadPoolExecutor(workers) as pool:
        try:
            for future in as_completed([pool.submit(run, path) for path in paths]):
                result = future.result()
                found[result.name] = result
                if progress:
                    state = "ok" if result.ok else "FAILED"
                    line = f"{len(found)} of {len(paths)}, {result.name}: {state}, {result.seconds:.0f} s"
                    tqdm.write(line, file=sys.stderr)
                results = [found[stem] for stem in stems if stem in found]
                write_json(
                    Path(out_dir) / "summary.json",
                    {
                        "ok": len(results) == len(paths) and all(result.ok for result in results),
                        "n_notebooks": len(paths),
                        "notebooks": [dataclasses.asdict(result) for result in results],
                    },
                )
        finally:  # an error or Ctrl-C, which reaches this thread alone: the others end too
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
    return results


def summary_text(results: Sequence[NotebookResult]) -> str:
    """One line a notebook; a failed one names its cell and error; the last line counts them."""
    width = max((len(result.name) for result in results), default=0)
    lines = []
    for result in results:
        word = "ok    " if result.ok else "FAILED"
        lines.append(f"{word} {result.name:<{width}} {result.seconds:7.1f} s {result.peak_mb:7.0f} MB")
        if not result.ok:
            lines.append(f"       {result.failing_cell or 'before its first cell'}")
            lines.append(f"       {result.error}")
    failed = [result.name for result in results if not result.ok]
    counts = f"{len(results) - len(failed)} of {len(results)} notebooks ran to the end"
    return "\n".join([*lines, counts + (f"; failed: {', '.join(failed)}" if failed else "")])


def _publish(partial: Path, out_dir: Path, path: Path) -> None:
    """Turn the worker's file into the executed copy, its page and its figures."""
    figures = out_dir / "figures"
    with os_errors(out_dir):
        for stale in [
            out_dir / path.name,
            out_dir / f"{path.stem}.html",
            *figures.glob(f"{path.stem}-[0-9][0-9].png"),
        ]:
            stale.unlink(missing_ok=True)
        if not partial.exists():
            return
    try:
        notebook = read_notebook(partial)
    except PNIError:  # ended in the middle of writing it
        return
    if "papermill" in notebook.metadata:  # these name folders of this machine
        notebook.metadata.papermill.update(input_path=path.name, output_path=path.name)
    with atomic_write(out_dir / path.name) as handle:
        handle.write(notebook_text(notebook))
    with atomic_write(out_dir / f"{path.stem}.html") as handle:
        handle.write(notebook_html(notebook, path.stem, path.resolve().parent))
    n_figures = 0
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if png := output.get("data", {}).get("image/png"):
                n_figures += 1
                with atomic_write(figures / f"{path.stem}-{n_figures:02d}.png", "wb") as handle:
                    handle.write(base64.b64decode(png))
