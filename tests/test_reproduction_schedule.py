"""Units are done once, side by side as one after another, and no failure takes others with it."""

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from crew import STRESS
from PIL import Image
from tiny_grid import resample_little, tiny_data, tiny_request

from pnilib.apps.reproduce import schedule
from pnilib.apps.reproduce.outputs import chosen_items, write_outputs
from pnilib.apps.reproduce.plan import Plan, build_plan
from pnilib.apps.reproduce.results import Results
from pnilib.apps.reproduce.schedule import default_workers, execute, finished
from pnilib.detector.pni import PNI
from pnilib.errors import PNIError
from pnilib.store.locks import lock_folder

SETTINGS = ["A", "B", "E", "L", "PNI"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_data(tmp_path_factory.mktemp("grid"), ("one", "two"), n_train=4)


@pytest.fixture(scope="module")
def plan(data: Path) -> Plan:
    return build_plan(tiny_request(data), SETTINGS, switches=False)


@pytest.fixture(scope="module")
def serial(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store filled by an undisturbed serial run."""
    store = tmp_path_factory.mktemp("serial")
    assert execute(plan, store) == {}
    return store


def numbers(plan: Plan, store: Path, out: Path) -> dict[str, bytes]:
    """Every CSV: of the outputs, and the scores of each run; and the maps that were kept."""
    write_outputs(chosen_items(["table-3", "table-s9"]), Results.from_store(plan, store), out)
    csv = {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*.csv"))}
    kept = [*sorted(store.rglob("*.scores.csv")), *sorted(store.rglob("*.maps.npy"))]
    return csv | {path.relative_to(store).as_posix(): path.read_bytes() for path in kept}


@pytest.fixture(scope="module")
def expected(plan: Plan, serial: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    found = numbers(plan, serial, tmp_path_factory.mktemp("out"))
    assert len([name for name in found if name.endswith(".maps.npy")]) == 2 * 4  # A, B, E, PNI of two categories
    return found


def test_finished_units_are_not_done_again(plan: Plan, serial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(finished(plan, serial)) == set(plan.units) and plan.needed(finished(plan, serial)) == []
    monkeypatch.setattr(schedule, "run_unit", None)
    assert execute(plan, serial) == {}


def test_passing_work_is_gone_and_can_be_kept(plan: Plan, serial: Path, data: Path, tmp_path: Path) -> None:
    assert not [path for path in serial.rglob("work") if path.is_dir()]
    small = build_plan(tiny_request(data), ["A"], switches=False)
    execute(small, tmp_path, keep_work=True)
    assert len(list(tmp_path.rglob("features-*/features.npy"))) == 2


def test_a_damaged_category_fails_alone(data: Path, tmp_path: Path, serial: Path) -> None:
    bad = tiny_data(tmp_path, ("one", "two"), n_train=4)
    Image.new("L", (5, 5)).save(bad / "two/test/bad/999.png")  # without ground truth of its size
    Image.new("L", (7, 9)).save(bad / "two/ground_truth/bad/999_mask.png")
    plan = build_plan(tiny_request(bad), SETTINGS, switches=False)
    said: list[str] = []
    failed = execute(plan, tmp_path / "store", say=said.append)
    reasons = {unit.name: fault for unit, fault in failed.items()}
    assert set(reasons) == {"train", "settings", "cutpaste,scar,draem,manual", "L", "PNI"}
    assert "999" in reasons["train"] and "two, scattering, seed 0: features train" in said[0], (
        "before anything is fitted"
    )
    assert reasons["PNI"] == "needs two, scattering, seed 0: fit settings, which failed"
    assert {unit.source.category for unit in failed} == {"two"}
    written = write_outputs(
        chosen_items(["table-3", "figure-6"]), Results.from_store(plan, tmp_path / "store"), tmp_path / "out"
    )
    text = (tmp_path / "out/tables/table-3.md").read_text()
    assert written.partial == ["table-3"] and "**PARTIAL: 24 of its numbers are missing" in text
    assert "is not finished" in written.missing["figure-6"]
    # mended, the same call does only what is left
    (bad / "two/test/bad/999.png").unlink()
    (bad / "two/ground_truth/bad/999_mask.png").unlink()


# -- side by side --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as found:
        yield found


def test_a_worker_is_killed_and_the_bytes_are_those_of_a_serial_run(
    plan: Plan, expected: dict[str, bytes], cluster: Any, tmp_path: Path
) -> None:
    store, killed = tmp_path / "store", []

    def kill() -> None:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            busy = [path for path in store.glob("*/*/*/seed0/*-*") if not (path / "unit.json").exists()]
            if len(list(store.rglob("unit.json"))) >= 2 and busy:
                killed.append(next(iter(cluster.workers.values())).process.pid)
                os.kill(killed[0], signal.SIGKILL)
                return
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    said: list[str] = []
    failed = execute(plan, store, scheduler=cluster.scheduler_address, say=said.append)
    killer.join()
    assert killed and failed == {}
    assert any(line.startswith("dashboard: ") for line in said)
    assert numbers(plan, store, tmp_path / "out") == expected


def test_units_that_share_their_stages_side_by_side(
    data: Path, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one coreset; of features, too, whose unit is left out here."""
    from distributed import Client

    request = tiny_request(data)
    request = dataclasses.replace(request, overrides=request.overrides | dict(temperature=0.05))
    whole, names = build_plan(request, ["A"]), [f"switch {name}" for name in ("B1", "B2", "B4", "B16")]
    racing = [unit for unit in whole.units if unit.source.category == "one" and unit.name in names]
    plan = dataclasses.replace(whole, units=tuple(racing))

    def found(store: Path) -> dict[str, bytes]:
        paths = [*store.rglob("*.scores.csv"), *store.rglob("model/*.safetensors")]
        return {path.relative_to(store).as_posix(): path.read_bytes() for path in paths}

    resample_little(monkeypatch)
    assert execute(plan, tmp_path / "serial") == {}
    expected = found(tmp_path / "serial")
    scores = [blob for name, blob in expected.items() if name.endswith(".csv")]
    assert len(scores) == 8 and len(set(scores)) > 4
    with Client(cluster.scheduler_address) as client:
        client.run(resample_little, pytest.MonkeyPatch())
    for k in range(20 if STRESS else 3):
        store = tmp_path / f"store{k}"
        assert execute(plan, store, scheduler=cluster.scheduler_address, say=[].append) == {}
        assert found(store) == expected


def test_few_training_images(data: Path, tmp_path: Path) -> None:
    """|C_emb| below `dist_size`: each size has a fit of its own, the networks take that of setting E."""
    request = tiny_request(data)
    request = dataclasses.replace(request, overrides=request.overrides | dict(emb_ratio=0.1, dist_size=40))
    plan = build_plan(request, SETTINGS, switches=False)
    assert execute(plan, tmp_path) == {}
    unit = next(unit for unit in plan.units if unit.kind == "fit")
    split = unit.source.load()
    for name in ("A", "B", "C", "E", "F"):
        own = PNI(unit.variants[name].replace(calibration_images=0)).fit(split.train)
        expected = own.predict(split.test).image_scores
        kept = pd.read_csv(tmp_path / unit.id / f"{name}.scores.csv")["score"].to_numpy(np.float32)
        np.testing.assert_allclose(kept, expected, rtol=1e-5)
    model = PNI.load(tmp_path / unit.id / "model")
    assert model.coreset is not None and model.coreset.n_dist == len(model.coreset.embedding) == 25  # 4 x 64 x 0.1


def test_memory_of_local_workers_is_not_given_back_at_every_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Dask sets by default doubles the time of a training."""
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)  # other clusters of this process leave it behind
    with schedule.connected(None, 1, tmp_path, [].append) as client:
        (found,) = client.run(lambda: dict(os.environ)).values()
    assert "MALLOC_TRIM_THRESHOLD_" not in found and found["OMP_NUM_THREADS"] == "1"


def test_a_scheduler_that_does_not_answer(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "PATIENCE", 1)
    with pytest.raises(PNIError, match=r"scheduler tcp://127.0.0.1:9: does not answer \(\w+\): start one with"):
        execute(plan, tmp_path, scheduler="tcp://127.0.0.1:9")


class _Workers:
    """What a client says of workers that are not like us."""

    def __init__(self, **found: Any) -> None:
        self.found = found

    def run(self, look: Any, probe: str) -> dict[str, Any]:
        assert Path(probe).exists()
        return self.found


def test_workers_must_be_alike(tmp_path: Path) -> None:
    own = schedule.environment()["versions"]
    with pytest.raises(
        PNIError, match=rf"worker w1: has other versions: torch 1.0 \(here {own['torch']}".replace("+", r"\+")
    ):
        schedule.require_alike(_Workers(w1=(own | {"torch": "1.0"}, "")), tmp_path)
    with pytest.raises(PNIError, match=r"worker w1: does not see .*: use a folder that all workers share"):
        schedule.require_alike(_Workers(w1=(own, "something else")), tmp_path)
    with pytest.raises(PNIError, match="it has no workers: start some"):
        schedule.require_alike(_Workers(), tmp_path)
    assert list(tmp_path.iterdir()) == []  # the probe is gone


def test_two_at_once(plan: Plan, serial: Path) -> None:
    with lock_folder(serial), pytest.raises(PNIError, match="another run is writing there"):
        execute(plan, serial)


def test_workers_by_default() -> None:
    assert 1 <= default_workers("cpu") <= 4
