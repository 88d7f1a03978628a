"""The process that runs one notebook for `pnilib.apps.notebooks.runner`.

It is started as a script, so that a time limit can end it together with its kernel, and it
imports nothing of pnilib, so that the measured memory is the notebook's.  It reads
`request.json` from the folder named on the command line and appends one JSON line to
`events.jsonl` for every cell that starts, and one at the end.
"""

import contextlib
import json
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

import papermill
import psutil  # type: ignore[import-untyped]
from papermill.engines import NBClientEngine, papermill_engines

__all__ = ["KERNEL", "main"]

KERNEL = "pnilib"
"""Name of the kernel specification that the runner writes for its own interpreter."""


def main(folder: Path) -> None:
    """Run the notebook that `folder/request.json` asks for."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.getLogger("papermill").setLevel(logging.ERROR)
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    events = (folder / "events.jsonl").open("a", encoding="utf-8")

    def report(**event: Any) -> None:
        print(json.dumps(event), file=events, flush=True)

    papermill_engines.register("pnilib", _engine(report))
    error = None
    try:
        papermill.execute_notebook(
            request["notebook"],
            request["output"],
            parameters=request["parameters"],
            engine_name="pnilib",
            kernel_name=KERNEL,
            language="python",
            progress_bar=False,
            start_timeout=120,
        )
    except papermill.PapermillExecutionError as failure:
        error = _last_line(failure.ename, failure.evalue)
    except Exception as failure:
        error = _last_line(type(failure).__name__, str(failure))
    report(event="end", error=error)


def _engine(report: Any) -> type[NBClientEngine]:
    """Papermill's own engine, telling each cell's number in the notebook as its author knows it."""

    class ReportingEngine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> Any:
            cell_start = nb_man.cell_start
            number = 0

            def started(cell: Any, cell_index: int | None = None, **kwargs: Any) -> None:
                nonlocal number
                injected = "injected-parameters" in cell.metadata.get("tags", [])
                number += not injected
                lines = [line.strip() for line in cell.source.splitlines() if line.strip()]
                report(
                    event="cell",
                    number=None if injected else number,
                    line=lines[0] if lines else "",
                )
                cell_start(cell, cell_index, **kwargs)

            nb_man.cell_start = started
            return super().execute_managed_notebook(nb_man, kernel_name, **options)

    return ReportingEngine


def _last_line(name: str, text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1:
        return lines[-1]
    return f"{name}: {lines[0]}" if lines else name


def _end_with_parent() -> None:
    """Standard input closes when the runner dies, however it dies: no kernel may outlive it."""
    sys.stdin.buffer.read()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
