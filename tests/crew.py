"""Long-lived processes that do the same at the same moment, and commands that can be killed.

All are forked from one process that has imported what pnilib's commands load, which takes many seconds.
"""

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from threading import BrokenBarrierError
from typing import Any

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "pnilib.apps.cli.opening", "pnilib.apps.batch", "pnilib.apps.notebooks.runner", "pnilib.apps.reproduce.outputs",
        "pnilib.apps.reproduce.schedule", "pnilib.detector.refine", "pnilib.demo", "pnilib.evaluation", "timm",
        "torch._dynamo",
    ]
)  # fmt: skip

STRESS = "PNILIB_STRESS" in os.environ
"""Set by `make stress`: many rounds instead of a few."""


class Crew:
    """`n` processes.  do: call a function (of a module) in each with arguments of its own, all let go at once."""

    def __init__(self, n: int) -> None:
        self.barrier = FORKS.Barrier(n)
        self.lines: list[Connection] = []
        self.processes = []
        for _ in range(n):
            here, there = FORKS.Pipe()
            self.lines.append(here)
            self.processes.append(FORKS.Process(target=_work, args=(there, self.barrier), daemon=True))
            self.processes[-1].start()

    def do(self, task: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """What each call returned; fails with the traceback of one that raised."""
        for line, given in zip(self.lines, arguments, strict=True):
            line.send((task, given))
        answers = []
        for line in self.lines:
            assert line.poll(120), "a process hangs"
            answers.append(line.recv())
        faults = [fault for _, fault in answers if fault]
        assert not faults, "\n".join(faults)
        return [answer for answer, _ in answers]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


def _work(line: Connection, barrier: Any) -> None:
    while True:
        task, arguments = line.recv()
        try:
            barrier.wait(60)
            line.send((task(*arguments), ""))
        except (Exception, BrokenBarrierError):
            line.send((None, traceback.format_exc()))


def pni(words: Sequence[object], folder: Path, status: int = 0, kill_after: float | None = None) -> float:
    """Run `pni` with these words in a process of its own, with `folder` as its working directory, and return the
    seconds it took; or kill it -9 so many seconds after its start, if it still runs then.  Fails when it ends with
    another exit status."""
    log = folder / "log.txt"
    process = FORKS.Process(target=_command, args=([str(word) for word in words], folder, log))
    began = time.perf_counter()
    process.start()
    process.join(kill_after)
    process.kill()  # nothing, where it has ended
    process.join()
    assert process.exitcode == status or (kill_after is not None and process.exitcode == -9), log.read_text()
    return time.perf_counter() - began


def _command(words: list[str], folder: Path, log: Path) -> None:
    from pnilib.apps.cli import main

    os.chdir(folder)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.argv = ["pni", *words]
    main()
