"""`pni demo`: categories and notebooks side by side give what each gives alone; an error or Ctrl-C ends all."""

import multiprocessing
import shutil
import time
from functools import partial
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from test_cli import pni, refused

from pnilib import demo
from pnilib.apps.cli import demo as module
from pnilib.config import PNIConfig
from pnilib.data import load_dataset
from pnilib.detector.runs import fit_or_load
from pnilib.errors import PNIError
from pnilib.evaluation import evaluate
from pnilib.store.text import read_json

WORDS = ["--profile", "smoke", "--device", "cpu", "--workers", 2, "--quiet"]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Demo data of a few small images, which the command takes for the whole."""
    few = partial(demo.make_demo, n_train=5, n_good=2, n_per_defect=1, size=64)
    monkeypatch.setattr(demo, "make_demo", few)
    return few(tmp_path / "data", progress=False)


@pytest.fixture
def notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two lessons, of which the second fails."""
    monkeypatch.setattr(module, "LESSONS", ["00", "01"])
    for name, source in (("00_models", "print(sorted(os.listdir(model_dir)))"), ("01_fails", "1 / 0")):
        cell = nbformat.v4.new_code_cell(
            "profile = data_dir = model_dir = out_dir = ''", metadata={"tags": ["parameters"]}
        )
        notebook = nbformat.v4.new_notebook(cells=[cell, nbformat.v4.new_code_cell(f"import os\n{source}")])
        (tmp_path / "lessons").mkdir(exist_ok=True)
        nbformat.write(notebook, tmp_path / "lessons" / f"{name}.ipynb")
    return tmp_path / "lessons"


def test_side_by_side_is_what_each_is_alone(
    data: Path, notebooks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    settings = PNIConfig.profile("smoke").replace(setting="position", gate="soft")
    alone = {name: load_dataset("demo", data, name) for name in ("grain", "cable")}
    made = fit_or_load(alone["cable"].train, settings, out / "cable")  # as an earlier run left it
    before = read_json(out / "cable" / "run.json")
    words = ["-c", "grain", "-c", "cable", "--data", data, "--notebooks", notebooks, "--out", out, *WORDS]
    assert pni("demo", *words) == 1, "a notebook failed"
    after = read_json(out / "cable" / "run.json")
    assert after | {"source": None} == before and after["source"]["category"] == "cable"
    shown = capsys.readouterr().out
    assert "FAILED 01_fails" in shown and "1 of 2 notebooks" in shown
    assert "smoke-cable-0" in (out / "notebooks" / "00_models.ipynb").read_text(encoding="utf-8")
    table = pd.read_csv(out / "metrics.csv")
    assert list(dict.fromkeys(table["category"])) == ["grain", "cable"]
    assert list(table["rule"]) == list(module.SHOWN_RULES) * 2
    for name, model in (("cable", made), ("grain", fit_or_load(alone["grain"].train, settings, tmp_path / "again"))):
        expected = evaluate(model.predict(alone[name].test), alone[name].test).metrics
        row = table[(table["category"] == name) & (table["rule"] == "soft veto")].iloc[0]
        assert row[list(expected)].to_dict() == pytest.approx(expected, nan_ok=True, abs=1e-12)
    assert (out / "index.html").exists()


def test_mistakes(data: Path, notebooks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["demo", "--data", data, "--notebooks", notebooks, "--out", tmp_path / "out", "--quiet"]
    assert "'cabel'" in refused(capsys, *words, "-c", "cabel")
    assert "--workers" in refused(capsys, *words, "--workers", 0)
    shutil.rmtree(notebooks)
    assert "no notebooks" in refused(capsys, *words)
    assert not list((tmp_path / "out").glob("*/run.json"))


@pytest.mark.parametrize("fault", [KeyboardInterrupt, PNIError])
def test_an_end_before_time_ends_the_processes(fault: type[BaseException]) -> None:
    began = time.monotonic()
    with pytest.raises(fault), module.processes_that_end(1) as pool:
        pool.submit(time.sleep, 600)
        pool.submit(time.sleep, 600)
        raise fault("now")
    assert not multiprocessing.active_children() and time.monotonic() - began < 300
