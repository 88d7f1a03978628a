"""Units done one after another in this process, or side by side on a Dask cluster, with the same bytes either way.

A cluster may be two processes of this machine (`workers`), one process a GPU, or whatever a Dask scheduler's address
leads to (`dask scheduler` and `dask worker`, dask-jobqueue, dask-kubernetes).  Its workers must see the data and the
store under the same paths and run the same versions; both are checked before anything is sent.  A worker that dies
loses the unit in its hands, which is tried again elsewhere.  Workers of your own on CPUs: `dask worker --no-nanny`,
since a nanny's environment (MALLOC_TRIM_THRESHOLD_) makes trainings take twice as long; local ones do without it.
"""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from pnilib.apps.reproduce.plan import Plan, Unit
from pnilib.apps.reproduce.units import drop_work, environment, run_unit
from pnilib.errors import PNIError
from pnilib.store.files import atomic_write
from pnilib.store.locks import lock_folder

__all__ = ["connected", "default_workers", "execute", "finished", "require_alike"]

PATIENCE = 10
"""seconds to wait for a scheduler's answer."""
SINGLE = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""environment of local workers: one thread each until `threads` says otherwise."""


def finished(plan: Plan, store: Path | str) -> list[Unit]:
    """Units whose results are whole."""
    return [unit for unit in plan.units if (Path(store) / unit.id / "unit.json").exists()]


def default_workers(device: str) -> int:
    """One a GPU, else one a core, four at most: each holds a category's work in memory."""
    return torch.cuda.device_count() if device.startswith("cuda") else max(1, min(4, os.cpu_count() or 1))


def execute(
    plan: Plan,
    store: Path | str,
    *,
    device: str = "cpu",
    threads: int = 1,
    workers: int = 1,
    scheduler: str | None = None,
    progress: bool = False,
    keep_work: bool = False,
    say: Callable[[str], None] = print,
) -> dict[Unit, str]:
    """Do what is not yet done; returns the units that failed, each with one line that says why.

    A unit that needs a failed one is not tried and counts as failed.  Intermediate work (features, pools) goes when its
    category and backbone are done, unless `keep_work`.  Raises PNIError when another run writes to the store, the
    scheduler does not answer, or its workers run other versions or do not see the store.
    """
    store = Path(store).resolve()
    with lock_folder(store):
        todo = plan.needed(finished(plan, store))
        for unit in todo:  # an earlier failure is tried again
            (store / unit.id / "failed.json").unlink(missing_ok=True)
        failed: dict[Unit, str] = {}
        left = {group: sum(unit.group == group for unit in todo) for group in {unit.group for unit in todo}}
        bar = tqdm(total=len(todo), desc="grid", unit="unit", disable=not progress or not todo)
        with bar:

            def done(unit: Unit, fault: str) -> None:
                if fault:
                    failed[unit] = fault
                    (bar.write if progress else say)(f"failed: {unit.describe()}: {fault}")
                left[unit.group] -= 1
                if left[unit.group] == 0 and not keep_work:
                    drop_work(unit, store)
                bar.set_postfix_str(unit.describe(), refresh=False)
                bar.update()

            if not todo:
                return failed
            if scheduler is None and workers <= 1:
                _serial(todo, store, device, threads, failed, done)
            else:
                with connected(scheduler, workers, store, say) as client:
                    _parallel(client, todo, store, device, threads, scheduler is None, failed, done)
        return failed


def _serial(
    todo: list[Unit], store: Path, device: str, threads: int, failed: dict[Unit, str], done: Callable[[Unit, str], None]
) -> None:
    before = torch.get_num_threads()
    try:
        for unit in todo:
            blocked = next((f"needs {need.describe()}, which failed" for need in unit.needs if need in failed), "")
            done(unit, blocked or run_unit(unit, store, device, threads))
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def connected(scheduler: str | None, workers: int, store: Path, say: Callable[[str], None]) -> Iterator[Any]:
    """A connected client whose workers have been checked."""
    import dask
    from distributed import Client, LocalCluster  # seconds to import

    with contextlib.ExitStack() as held:
        ways = {
            "distributed.worker.memory.terminate": False,  # nothing here is large in Dask's eyes: results lie on disk
            "distributed.worker.memory.pause": False,
            # without Dask's MALLOC_TRIM_THRESHOLD_, under which glibc gives all freed memory back at once
            "distributed.nanny.pre-spawn-environ": dict.fromkeys(SINGLE, 1),
        }
        held.enter_context(dask.config.set(ways))
        if scheduler is None:
            cluster = held.enter_context(
                LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0", silence_logs=50)
            )
            client = held.enter_context(Client(cluster))
        else:
            try:
                client = held.enter_context(Client(scheduler, timeout=PATIENCE))
            except (OSError, ValueError, TypeError) as fault:
                raise PNIError(
                    f"scheduler {scheduler}: does not answer ({type(fault).__name__}): start one with `dask scheduler` "
                    "and `dask worker ADDRESS`, or leave --scheduler out to run here"
                ) from None
        say(f"dashboard: {client.dashboard_link}")
        require_alike(client, store)
        yield client


def require_alike(client: Any, store: Path) -> None:
    token = secrets.token_hex(8)
    probe = store / ".probe"
    with atomic_write(probe) as handle:
        handle.write(token)
    try:
        try:
            found = client.run(_look, str(probe))
        except Exception as fault:
            raise PNIError(
                f"scheduler: a worker cannot run pnilib ({type(fault).__name__}: {fault}): install the same version"
                " of pnilib on every worker"
            ) from None
    finally:
        probe.unlink(missing_ok=True)
    if not found:
        raise PNIError("scheduler: it has no workers: start some with `dask worker ADDRESS`")
    own = environment()["versions"]
    for address, (versions, seen) in found.items():
        other = [
            f"{name} {versions.get(name)} (here {value})" for name, value in own.items() if versions.get(name) != value
        ]
        if other:
            raise PNIError(
                f"worker {address}: has other versions: {', '.join(other)}: results would differ: install alike"
            )
        if seen != token:
            raise PNIError(f"worker {address}: does not see {store}: use a folder that all workers share")


def _look(probe: str) -> tuple[dict[str, str], str]:
    """On a worker: its versions, and what it reads in the store."""
    try:
        seen = Path(probe).read_text(encoding="utf-8")
    except OSError:
        seen = ""
    return environment()["versions"], seen


def _on_worker(unit: Unit, store: str, device: str, threads: int, local: bool, *faults: str) -> str:
    """One unit; `faults`: what became of those that it needs."""
    from distributed import get_worker

    if any(faults):
        return "needs a unit that failed"
    if device == "cuda" and local:  # worker k takes GPU k
        device = f"cuda:{int(get_worker().name) % torch.cuda.device_count()}"
    return run_unit(unit, store, device, threads)


def _parallel(
    client: Any, todo: list[Unit], store: Path, device: str, threads: int, local: bool, failed: dict[Unit, str],
    done: Callable[[Unit, str], None],
) -> None:  # fmt: skip
    from distributed import as_completed

    futures: dict[Unit, Any] = {}
    for rank, unit in enumerate(todo):
        needed = [futures[need] for need in unit.needs if need in futures]
        futures[unit] = client.submit(
            _on_worker, unit, str(store), device, threads, local, *needed, key=unit.id, pure=False, priority=-rank
        )
    by_key = {unit.id: unit for unit in todo}
    for future in as_completed(list(futures.values()), raise_errors=False):
        unit = by_key[future.key]
        if future.status == "finished":
            done(unit, future.result())
        else:
            done(unit, f"its worker died or was lost ({type(future.exception()).__name__}): run the same command again")
