"""One notebook in processes of its own: start, measure, end in time, leave nothing behind.

The worker (`worker.py`) runs papermill; papermill starts the kernel; the kernel may start
more.  All of them are sampled for memory and all of them are killed when the time is up.
"""

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from tqdm import tqdm  # type: ignore[import-untyped]

from pnilib.store.artefacts import write_json

__all__ = ["NotebookResult", "run_worker"]

_WORKER = Path(__file__).with_name("worker.py")
_SAMPLE_S = 0.1


@dataclass(frozen=True)
class NotebookResult:
    """What became of one notebook."""

    name: str
    ok: bool
    seconds: float
    peak_mb: float
    """Largest sum of the resident memory of the worker, its kernel and their children, MB (10^6
    bytes), sampled ten times a second: shorter peaks are missed, shared pages count twice."""
    error: str | None = None
    """Last line of the exception, or why the runner ended the notebook."""
    failing_cell: str | None = None
    """`cell 4: FIRST SOURCE LINE`, counting every cell of the notebook file from 1."""
    parameters: dict[str, Any] = dataclasses.field(default_factory=dict)


def run_worker(
    work: Path,
    notebook: Path,
    output: Path,
    parameters: dict[str, Any],
    timeout_s: float | None,
    bar: "tqdm[Any]",
    stop: threading.Event | None = None,
) -> NotebookResult:
    """Run `notebook` into `output` by way of the empty folder `work`; no process is left behind.

    `bar` counts the cells that are done.  `stop`, once set, ends it with KeyboardInterrupt.
    """
    request = {"notebook": str(notebook.resolve()), "output": str(output), "parameters": parameters}
    write_json(work / "request.json", request)
    _write_kernel(work)
    log = work / "worker.log"
    (work / "events.jsonl").touch()
    started = time.monotonic()
    family: dict[int, psutil.Process] = {}
    peak_bytes, late, cell = 0, False, None
    end: dict[str, Any] | None = None
    with log.open("w", encoding="utf-8") as log_handle, (work / "events.jsonl").open(encoding="utf-8") as events:
        worker = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER), str(work)],  # -P: pnilib's modules shadow nothing
            stdin=subprocess.PIPE,
            stdout=log_handle,
            stderr=subprocess.STDOUT,
            env=_environment(work),
            start_new_session=True,  # Ctrl-C reaches the runner alone, which ends the worker
        )
        assert worker.stdin is not None
        try:
            running = True
            while running:
                with suppress(subprocess.TimeoutExpired):
                    worker.wait(_SAMPLE_S)
                running = worker.poll() is None
                if stop is not None and stop.is_set():
                    raise KeyboardInterrupt
                peak_bytes = max(peak_bytes, _resident(worker.pid, family))
                for event in map(json.loads, events.readlines()):
                    if event["event"] == "end":
                        end = event
                    else:
                        cell = event
                        bar.n = max(0, (event["number"] or 1) - 1)
                        bar.refresh()
                if running and timeout_s is not None and time.monotonic() - started > timeout_s:
                    late = True
                    break
        finally:
            _end(family)
            worker.kill()
            worker.wait()
            worker.stdin.close()
    error = _verdict(end, late, timeout_s, worker.returncode, log)
    if error is None:
        bar.n = bar.total or 0
        bar.refresh()
    return NotebookResult(
        name=notebook.stem,
        ok=error is None,
        seconds=round(time.monotonic() - started, 3),
        peak_mb=round(peak_bytes / 1e6, 1),
        error=error,
        failing_cell=_cell_text(cell) if error is not None else None,
        parameters=parameters,
    )


def _write_kernel(work: Path) -> None:
    """A kernel specification for this very interpreter, found before all installed ones."""
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "pnilib", "language": "python"}
    write_json(work / "kernels" / "pnilib" / "kernel.json", spec)


def _environment(work: Path) -> dict[str, str]:
    """Jupyter's own files go to `work`, so neither the user's profile nor a full home matters."""
    inherited = [os.environ["JUPYTER_PATH"]] if os.environ.get("JUPYTER_PATH") else []
    return os.environ | {
        "JUPYTER_PATH": os.pathsep.join([str(work), *inherited]),
        "JUPYTER_RUNTIME_DIR": str(work / "runtime"),
        "IPYTHONDIR": str(work / "ipython"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def _verdict(end: dict[str, Any] | None, late: bool, timeout_s: float | None, status: int, log: Path) -> str | None:
    if late:
        return f"stopped after the time limit of {timeout_s:g} s"
    if end is None:  # the worker died without a word
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"the notebook's process died with status {status}: {lines[-1] if lines else 'out of memory?'}"
    error = end["error"]
    if error is not None and error.startswith("DeadKernelError"):
        return "the kernel died (out of memory?)"
    return str(error) if error is not None else None


def _cell_text(cell: dict[str, Any] | None) -> str | None:
    if cell is None:
        return None
    place = "injected parameters" if cell["number"] is None else f"cell {cell['number']}"
    return f"{place}: {cell['line']}"


def _resident(pid: int, family: dict[int, psutil.Process]) -> int:
    """Bytes resident now in the process tree of `pid`; every member is remembered in `family`."""
    with suppress(psutil.Error):
        worker = family.setdefault(pid, psutil.Process(pid))
        for process in worker.children(recursive=True):
            family.setdefault(process.pid, process)
    total = 0
    for process in family.values():
        with suppress(psutil.Error):
            total += process.memory_info().rss
    return total


def _end(family: dict[int, psutil.Process]) -> None:
    """Kill every process of the tree; psutil checks the start time, so a reused pid is safe."""
    for pid in list(family):
        _resident(pid, family)  # children that appeared since the last sample
    for process in family.values():
        with suppress(psutil.Error):
            process.kill()
