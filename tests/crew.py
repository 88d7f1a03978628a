"""Long-lived processes that do the same at the same moment; they are forked from one that has imported pnilib."""

import multiprocessing
import os
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from threading import BrokenBarrierError
from typing import Any

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pnilib.cli"])  # seconds, paid once for all processes of a test session

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
