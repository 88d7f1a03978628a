"""`pni explore`: what it refuses, what it prepares of a `pni fit` folder, and what its server is told; no browser."""

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as W
import nbformat
import numpy as np
import pandas as pd
import pytest
from test_cli import pni, refused
from tiny import SCATTERING, write_category
from tiny_grid import resample_little
from tiny_run import ODD, tiny_store, write_unit
from traitlets.config import Config

from pnilib.apps.explore import open_exploration, prepare, serve
from pnilib.apps.explore.widgets import Explorer, app
from pnilib.data import Dataset, load_dataset
from pnilib.detector.pni import PNI
from pnilib.detector.runs import fit_or_load
from pnilib.errors import PNIError
from pnilib.store.locks import lock_folder

__all__ = ["tiny_store"]

HERE = ["--device", "cpu", "--quiet", "--no-browser"]


@pytest.fixture(autouse=True)
def few_replicates(monkeypatch: pytest.MonkeyPatch) -> None:
    resample_little(monkeypatch, 5)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """folder/data and folder/fit, as `pni fit` leaves it; copied by `fit`."""
    folder = tmp_path_factory.mktemp("fit")
    data = write_category(folder / "data", n_train=6)
    source = dict(dataset="mvtec", root=str(data.root), category="part", options={})
    fit_or_load(data.train, SCATTERING, folder / "fit" / "part", source=source)
    return folder


@pytest.fixture
def fit(made: Path, tmp_path: Path) -> Path:
    """A fitted run with its data set beside it."""
    shutil.copytree(made, tmp_path / "made")
    move(tmp_path / "made/fit", tmp_path / "made/data")
    return tmp_path / "made/fit"


def move(run: Path, data: Path) -> None:
    """Let the run look for its data there."""
    file = run / "part/run.json"
    record = json.loads(file.read_text())
    record["source"]["root"] = str(data)
    file.write_text(json.dumps(record))


def data_of(run: Path) -> Dataset:
    return load_dataset("mvtec", run.parent / "data", "part")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What Voilà would have been started with, one dict a start: argv, config, notebook, folder, settings."""
    from voila.app import Voila

    starts: list[dict[str, Any]] = []

    def launch(argv: list[str], config: Config) -> None:
        notebook = Path(argv[0])
        starts.append(
            dict(argv=argv, config=config, notebook=notebook.read_text(), folder=notebook.parent,
                 files=os.listdir(notebook.parent), settings=json.loads(os.environ["PNILIB_EXPLORE"]))
        )  # fmt: skip

    monkeypatch.setattr(Voila, "launch_instance", launch)
    monkeypatch.delenv("PNILIB_EXPLORE", raising=False)
    yield starts
    os.environ.pop("PNILIB_EXPLORE", None)


@pytest.fixture
def displayed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a page shows."""
    found: list[Any] = []
    monkeypatch.setattr(app, "display", found.append)
    return found


# -- the command -----------------------------------------------------------------------------------


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert pni("explore", "--help") == 0
    text = capsys.readouterr().out
    for word in ("RUN", "--data", "--compare", "--notes", "--host", "--port", "127.0.0.1"):
        assert word in text
    assert pni("--help") == 0
    assert "explore" in capsys.readouterr().out


def test_runs_that_cannot_be_opened(
    tmp_path: Path, tiny_store: Path, served: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a <b>file"
    file.write_text("x")
    for run, fault in (
        (tmp_path / "absent", "is not a folder: give the --store of `pni reproduce`, or the --out of `pni fit`"),
        (file, "is not a folder"),
        (tmp_path, "holds no finished run"),
    ):
        line = refused(capsys, "explore", run, *HERE)
        assert str(run) in line and fault in line
    (tmp_path / "mvtec/part/scattering/seed0/fit-settings-1").mkdir(parents=True)
    assert "holds no finished run (1 not finished)" in refused(capsys, "explore", tmp_path, *HERE)
    assert "is not a folder" in refused(capsys, "explore", tiny_store, "--compare", tmp_path / "absent", *HERE)
    assert "Missing argument 'run'" in refused(capsys, "explore")
    assert served == []


def test_unfinished_units_are_told(
    tmp_path: Path, served: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "run/mvtec/part/scattering/seed0"
    write_unit(place / "fit-settings-1", [0.0, 1.0], [0, 1])
    for k in range(7):
        (place / f"network-x-{k}").mkdir()
    capsys.readouterr()
    assert pni("explore", tmp_path / "run", *HERE) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("not finished, and left out: mvtec/part/") for line in lines[:5]] == [True] * 5
    assert lines[5:] == ["... and 2 more"] and len(served) == 1


def test_ports_and_hosts(tiny_store: Path, served: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refused(capsys, "explore", tiny_store, "--port", port, *HERE)
        assert f"--port {port}: cannot be used (Address already in use): choose another" in line
    for more in ([], ["--port", "8866"]):  # a documentation address: nobody's; the port is not at fault
        line = refused(capsys, "explore", tiny_store, "--host", "192.0.2.1", *more, *HERE)
        assert "--host 192.0.2.1: cannot be bound" in line and "use 127.0.0.1" in line
    assert "--port" in refused(capsys, "explore", tiny_store, "--port", "70000", *HERE)
    assert served == []
    assert pni("explore", tiny_store, "--port", port, *HERE) == 0  # free by now
    assert served[0]["config"].Voila.port == port


# -- what the server is told -------------------------------------------------------------------------


def test_the_server_lets_nothing_else_through(
    tiny_store: Path, tmp_path: Path, served: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
    from voila.app import Voila
    from voila.configuration import VoilaConfiguration

    monkeypatch.chdir(tiny_store.parent)
    for _ in range(2):
        capsys.readouterr()
        assert pni("explore", tiny_store.name, "--notes", "n.csv", "--data", "data", *HERE) == 0
        said = capsys.readouterr().out
        config = served[-1]["config"]
        options, voila = VoilaConfiguration(config=config), Voila(config=config)
        assert voila.ip == "127.0.0.1" and voila.open_browser is False and voila.port_retries == 0
        assert len(voila.token) == 48 and f"http://127.0.0.1:{voila.port}/?token={voila.token}" in said
        assert options.show_tracebacks is False and options.file_allowlist == []
        assert (options.allow_template_override, options.allow_theme_override) == ("NO", "NO")
        assert voila.config_file_paths == []  # a voila.json in the folder changes nothing of it
        policy = voila.tornado_settings["headers"]["Content-Security-Policy"]
        assert "default-src 'self'" in policy and "//" not in policy and "*" not in policy
        kernels = AsyncMappingKernelManager(config=config)
        assert 0 < kernels.cull_interval <= kernels.cull_idle_timeout <= 600 and not kernels.cull_connected
    first, second = served
    assert first["config"].Voila.token != second["config"].Voila.token  # another one each time
    for start in served:
        assert start["files"] == ["explorer.ipynb"] and not start["folder"].exists()  # gone with the server
        assert start["settings"] == {
            "run": str(tiny_store.resolve()), "data": str((tiny_store.parent / "data").resolve()), "other": None,
            "notes": str(tiny_store.parent.resolve() / "n.csv"),
        }  # fmt: skip
        assert str(tiny_store.parent) not in f"{start['argv']} {start['config']}"
        assert nbformat.reads(start["notebook"], 4).cells[0].source == serve.page_notebook().cells[0].source


def test_the_notebook_is_one_cell_without_a_path(tiny_store: Path, displayed: list[Any], served: Any,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    notebook = serve.page_notebook()
    nbformat.validate(notebook)
    assert [cell.cell_type for cell in notebook.cells] == ["code"]
    monkeypatch.setenv("PNILIB_EXPLORE", json.dumps({"run": str(tiny_store), "notes": "/x/notes.csv"}))
    monkeypatch.setattr("pnilib.apps.explore.widgets.page", app.page)
    exec(notebook.cells[0].source, {})
    (screen,) = displayed
    assert isinstance(screen, Explorer) and screen.state.notes.file == Path("/x/notes.csv")
    assert screen.image.pointing.layout.display == "none"


def test_the_address_of_an_ipv6_host(tiny_store: Path, served: list[dict[str, Any]]) -> None:
    try:
        serve.free_port("::1")
    except PNIError:
        pytest.skip("this machine has no IPv6")
    said: list[str] = []
    serve.serve(tiny_store, data=None, other=None, notes=None, host="::1", port=0, browser=True, say=said.append)
    assert "http://[::1]:" in said[0] and served[0]["config"].Voila.open_browser is True


def test_a_page_that_cannot_open_its_run(tmp_path: Path, displayed: list[Any]) -> None:
    run = tmp_path / """<script>alert("x")<b>"""
    app.page(run)
    run.mkdir(parents=True)
    app.page(str(run))
    for shown, why in zip(displayed, ("is not a folder", "holds no finished run"), strict=True):
        assert type(shown) is W.HTML and why in shown.value
        assert escape(str(run)) in shown.value and "<script" not in shown.value and shown.value.count("<") == 2


def test_a_page_does_not_point(tiny_store: Path, tmp_path: Path, displayed: list[Any]) -> None:
    run = shutil.copytree(tiny_store, tmp_path / "run")
    for file in run.rglob("unit.json"):
        file.write_text(file.read_text().replace(str(tiny_store.parent / "data"), "/nowhere"))
    app.page(run)
    assert displayed[0].image.pointing.layout.display == "none"
    displayed[0].show("mvtec/two parts", 3)
    assert "/nowhere" in displayed[0].state.message.value and ODD in displayed[0].image.panels.words


# -- a folder of `pni fit` ---------------------------------------------------------------------------


def units(run: Path) -> list[Path]:
    return sorted(path.parent for path in run.glob("part/scored-*/unit.json"))


def no_scoring(*_: Any) -> None:
    raise AssertionError("scored again")


def test_a_fit_is_scored_once(fit: Path, served: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch,
                              capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    assert prepare.is_fit(fit) and prepare.is_fit(fit / "part") and not prepare.is_fit(fit.parent)
    assert pni("explore", fit, *HERE) == 0 and len(served) == 1
    (unit,) = units(fit)
    category = open_exploration(fit).category("part")
    assert set(category.results) == {"A", "B", "position", "E"} and category.results["E"].folder == unit
    model, test = PNI.load(fit / "part/model"), data_of(fit).test
    for name in ("A", "E"):
        found = model.with_config(setting=name).predict(test)
        kept = category.results[name]
        assert kept.maps is not None and np.array_equal(kept.maps, found.maps)
        assert kept.table["score"].tolist() == pytest.approx(found.image_scores.tolist())
        assert kept.config.setting == name
    assert category.labels.tolist() == test.samples["label"].tolist()
    assert category.results["E"].metric("normal_threshold") == pytest.approx(
        model.with_config(setting="E").predict(test).threshold
    )
    assert category.model_folder(category.results["A"]) == fit / "part/model"
    monkeypatch.setattr(prepare, "_score", no_scoring)
    stamp = (unit / "unit.json").stat().st_mtime_ns
    for run in (fit, fit / "part"):
        assert pni("explore", run, *HERE) == 0
    screen = app.explore(fit)
    assert screen.result.options[:2] == ("E", "position") and screen.state.notes.file == fit / "notes.csv"
    screen.show("mvtec/part", 0)
    screen.image.ask(30, 30)
    assert "this patch scores" in screen.image.answer.words
    assert units(fit) == [unit] and (unit / "unit.json").stat().st_mtime_ns == stamp


def test_a_killed_preparation_leaves_nothing_half(fit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = prepare.write_setting
    done = []

    def dies(place: Path, name: str, *words: Any, **options: Any) -> None:
        if len(done) == 2:
            (place / "B.maps.npy").write_bytes(b"half")
            raise KeyboardInterrupt
        done.append(name)
        write(place, name, *words, **options)

    monkeypatch.setattr(prepare, "write_setting", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(fit)
    assert units(fit) == [] and len(list(fit.glob("part/scored-*"))) == 1
    with pytest.raises(PNIError, match="holds no finished run"):
        open_exploration(fit)
    monkeypatch.setattr(prepare, "write_setting", write)
    assert prepare.prepare(fit) == units(fit)
    results = open_exploration(fit).category("part").results
    assert all(result.maps is not None and len(result.maps) == 4 for result in results.values())


def test_a_data_set_that_moved(fit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                               served: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    data = fit.parent / "data"
    data.rename(tmp_path / "elsewhere")
    line = refused(capsys, "explore", fit, *HERE)  # nothing was scored yet
    assert str(data) in line and "is not there" in line
    assert pni("explore", fit, "--data", tmp_path / "elsewhere", *HERE) == 0
    (unit,) = units(fit)
    monkeypatch.setattr(prepare, "_score", no_scoring)
    assert pni("explore", fit, *HERE) == 0  # the numbers are there, wherever the pictures are
    (tmp_path / "elsewhere").rename(tmp_path / "third")
    assert pni("explore", fit, *HERE) == 0
    assert units(fit) == [unit]
    opened = open_exploration(fit, data=tmp_path / "third")
    assert len(opened.category("part").first.table) == 4 and opened.category("part").image(0).shape == (3, 64, 64)
    assert len(served) == 3


def test_other_test_images_make_another_unit(fit: Path) -> None:
    (first,) = prepare.prepare(fit)
    good = fit.parent / "data/part/test/good"
    shutil.copy(min(good.iterdir()), good / "new.png")
    (second,) = prepare.prepare(fit)
    assert second != first and units(fit) == [second] and not first.exists()  # never mixed
    assert len(open_exploration(fit).category("part").first.table) == 5
    (good / "new.png").unlink()
    assert prepare.prepare(fit) == [first] == units(fit)


def test_another_refinement_makes_another_unit(fit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = prepare.prepare(fit)
    assert json.loads((first / "unit.json").read_text())["settings"] == ["A", "B", "position", "E"]
    small = ["refine_iterations=2", "pool_images=4", "refine_batch=2", "refine_crop=32", "pool_folds=2"]
    assert pni("refine", fit, "--device", "cpu", "--quiet", *[w for one in small for w in ("--set", one)]) == 0
    (second,) = prepare.prepare(fit)
    assert second != first and units(fit) == [second]
    category = open_exploration(fit).category("part")
    assert list(category.results)[:2] == ["PNI", "E"]
    refined = PNI.load(fit / "part/model").predict(data_of(fit).test, refined=True)
    kept = category.results["PNI"].maps
    assert kept is not None and np.array_equal(kept, refined.maps)


def test_two_who_prepare(fit: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
                         served: list[dict[str, Any]]) -> None:  # fmt: skip
    with lock_folder(fit / "part"):
        assert "another run is writing there" in refused(capsys, "explore", fit, *HERE)
    assert served == [] and not list(fit.glob("part/scored-*"))
    (unit,) = prepare.prepare(fit)
    stamp = (unit / "E.maps.npy").stat().st_mtime_ns
    shutil.move(unit, fit.parent / "aside")

    @contextmanager
    def late(folder: Path) -> Iterator[None]:
        """The other one finishes just before we get the lock."""
        shutil.move(fit.parent / "aside", unit)
        with lock_folder(folder):
            yield

    monkeypatch.setattr(prepare, "lock_folder", late)
    monkeypatch.setattr(prepare, "_score", no_scoring)
    assert prepare.prepare(fit) == [unit] and (unit / "E.maps.npy").stat().st_mtime_ns == stamp


def test_no_test_images(fit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(fit.parent / "data/part/test")
    (fit.parent / "data/part/test/good").mkdir(parents=True)
    assert "part" in refused(capsys, "explore", fit, *HERE)
    assert not list(fit.glob("part/scored-*"))


def test_scores_file_is_the_runs(fit: Path) -> None:
    """What is on disk has the columns of `pni reproduce`, so that other tools read it."""
    (unit,) = prepare.prepare(fit)
    table = pd.read_csv(unit / "E.scores.csv")
    assert list(table) == ["image", "label", "defect_type", "score"] and len(table) == 4
    assert table["image"].str.startswith("part/test/").all()
