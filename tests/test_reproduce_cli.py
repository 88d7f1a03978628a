"""`pni reproduce`, `pni runs` and `pni estimate --grid` as a user types them."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from test_cli import pni, refused
from tiny_grid import OVERRIDES, few_resamples, tiny_data

from pnilib.apps import estimate as estimates
from pnilib.store.files import write_json
from pnilib.store.locks import lock_folder

SET = [word for name, value in OVERRIDES.items() for word in ("--set", f"{name}={value}")]
SMALL = ["--profile", "scattering", "--device", "cpu", "--seeds", "1", "--workers", "1", "--quiet", *SET]


@pytest.fixture(scope="module", autouse=True)
def demo_data_are_tiny() -> Iterator[None]:
    """Tiny data under the demo's name, which stand in for MVTec AD."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pnilib.demo.make_demo", lambda *_, **__: None)
        yield


__all__ = ["few_resamples"]
pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_data(tmp_path_factory.mktemp("grid"), ("part",), n_train=4)


@pytest.fixture(scope="module")
def store(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the runs of Table 3, and its outputs beside it."""
    place = tmp_path_factory.mktemp("runs")
    words = ["--data", f"demo={data}"]
    assert (
        pni("reproduce", "table-3", "figure-5", *words, *SMALL, "--store", place / "store", "--out", place / "out") == 0
    )
    return place / "store"


def test_table_3_and_figure_5(store: Path) -> None:
    out = store.parent / "out"
    table = pd.read_csv(out / "tables/table-3.csv")
    ours = table[table["dataset"] == "demo"]
    assert set(ours["method"]) == {"A", "B", "E", "PNI"} and ours["ours"].notna().all()
    assert ours["difference"].isna().all()
    assert (out / "figures/figure-5.pdf").exists() and (out / "index.html").exists()
    assert not (out / "figures/figure-6.png").exists()


def test_again_is_only_reading(
    store: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what an earlier call left there of other data is on no page."""
    monkeypatch.setattr("pnilib.apps.reproduce.schedule.run_unit", None)
    shutil.copytree(store.parent / "out", tmp_path, dirs_exist_ok=True)
    file = tmp_path / "manifests/figure-5.json"
    other = json.loads(file.read_text()) | {"data": {"demo/part": "other"}}
    file.write_text(json.dumps(other))
    capsys.readouterr()
    words = ["--data", f"demo={data}", *SMALL, "--store", store, "--out", tmp_path]
    assert pni("reproduce", "table-3", *words) == 0
    shown = capsys.readouterr()
    assert "4 units of work, 0 to do; profile scattering, refinement 2 iterations" in shown.err
    assert "3 files -> " in shown.out and "left out of the pages: figure-5" in shown.err
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'id="table-3"' in page and "figure-5" not in page
    assert 'id="figure-5"' in (store.parent / "out/report.html").read_text(encoding="utf-8")
    csv = "tables/table-3.csv"
    assert (tmp_path / csv).read_bytes() == (store.parent / "out" / csv).read_bytes()


def test_list_says_what_is_finished(store: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert pni("reproduce", "--list", "--data", f"demo={data}", *SMALL, "--store", store) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert len(lines) == 37
    assert lines["table-3"].endswith("2 of 2 units done") and lines["figure-2"].endswith("needs no runs")
    assert lines["table-2"].endswith("1 of 2 units done")


def test_runs(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert pni("runs", store, "--json") == 0
    units = json.loads(capsys.readouterr().out)
    assert {unit["unit"] for unit in units if unit["status"] == "done"} >= {"fit-settings", "network-PNI"}
    assert pni("runs", store) == 0
    assert "0 not done" in capsys.readouterr().out


def test_a_failed_run_gives_status_1_and_its_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tiny_data(tmp_path, ("one", "two"), n_train=4)
    victim = next((bad / "two/train/good").iterdir())
    victim.write_bytes(victim.read_bytes()[:200])
    capsys.readouterr()
    words = ["--data", f"demo={bad}", *SMALL, "--settings", "A", "--store", tmp_path / "s", "--out", tmp_path / "o"]
    assert pni("reproduce", "table-3", *words) == 1
    shown = capsys.readouterr().err
    assert f"failed: two, scattering, seed 0: features train: {victim}" in shown
    assert "partial: table-3" in shown and "Traceback" not in shown


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["table-33"], "table-33: no such table or figure: did you mean table-3"),
        (["--data", "mvtec"], "--data mvtec: is not LAYOUT=FOLDER"),
        (["--data", "mvtek=x"], "layout 'mvtek' is unknown"),
        (["--data", "mvtec=/nowhere"], "/nowhere: is not a folder"),
        (["--data", "demo=a", "--data", "mtd=b"], "demo and mtd cannot both stand in"),
        (["--data", "btad=a", "--data", "btad=b"], "btad is given twice"),
        (["--seeds", "0"], "--seeds, --threads and --workers: give 1 or more"),
        (["--network-seeds", "5"], "--network-seeds 5: give 1 to 3"),
        (["--profile", "papper"], "profile 'papper' is unknown"),
        (["--settings", "A,Q"], "setting 'Q' is unknown"),
    ],
)
def test_mistakes(words: list[str], fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: Path) -> None:
    if "--data" not in words:
        words = [*words, "--data", f"mvtec={data}"]
    assert fault in refused(capsys, "reproduce", *words, "--store", tmp_path / "s", "--out", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_other_mistakes(store: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["reproduce", "table-3", "--data", f"demo={data}", *SMALL, "--store", store]
    with lock_folder(store):
        assert "another run is writing there" in refused(capsys, *words, "--out", tmp_path)
        assert "another run is writing there" in refused(capsys, "runs", store, "--clean", "maps")
    assert "choose one of work, maps" in refused(capsys, "runs", store, "--clean", "everything")
    assert "is not a folder" in refused(capsys, "runs", tmp_path / "absent")
    for file in (tmp_path / "fitted/part/run.json", tmp_path / "part/run.json"):
        write_json(file, {})
        assert "holds models of `pni fit`" in refused(capsys, "runs", file.parents[1])


def test_estimate_of_the_grid(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """All categories of the paper, without any data; the speeds themselves are tested in test_estimate."""
    whole = estimates.estimate_plan
    monkeypatch.setattr(estimates, "estimate_plan", lambda plan, counts, device: whole(plan, counts, device, False))
    capsys.readouterr()
    assert pni("estimate", "--grid", "--seeds", "1", "--device", "cpu", "--json") == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len({row["category"] for row in rows}) == 30 and {"fit", "pool", "network"} <= {row["kind"] for row in rows}
    assert pni("estimate", "--grid", "--seeds", "1", "--device", "cpu") == 0
    assert "mvtec/bottle" in capsys.readouterr().out
