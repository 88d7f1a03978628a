"""Runs on disk: fitted once, resumed, never mixed, one at a time; a failure loses nothing."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import SCATTERING, write_category

from pnilib.data import Dataset, Split, load_dataset
from pnilib.detector.pni import PNI
from pnilib.detector.runs import fit_or_load, manifest, open_run, read_record, run_categories
from pnilib.errors import PNIError
from pnilib.store.locks import lock_folder

CONFIG = SCATTERING.replace(setting="A", calibration_images=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_category(tmp_path_factory.mktemp("tiny"), n_train=4)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Work folders of the fits that are started."""
    whole, seen = PNI.fit, []

    def counting(self: PNI, train: Split, **options: Any) -> PNI:
        seen.append(options["workdir"])
        return whole(self, train, **options)

    monkeypatch.setattr(PNI, "fit", counting)
    return seen


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_fitted_once_then_loaded(data: Dataset, tmp_path: Path, fits: list[Path]) -> None:
    folder = tmp_path / "deep" / "run"
    first = fit_or_load(data.train, CONFIG, folder)
    before = files(folder)
    second = fit_or_load(data.train, CONFIG, folder)
    assert fits == [folder / "work"] and files(folder) == before
    assert first.predict(data.test).maps.tobytes() == second.predict(data.test).maps.tobytes()
    assert {p.name for p in folder.iterdir()} == {
        ".pnilib.lock",
        ".pnilib-output",
        "model",
        "run.json",
    }  # the work is gone


def test_the_record_says_what_was_fitted(data: Dataset, tmp_path: Path) -> None:
    model = fit_or_load(data.train, CONFIG, tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["config"] == CONFIG.to_dict() and record["data"] == data.train.fingerprint()
    assert record["n_train"] == 4 and record["device"] == "cpu" and record["weights"] == "scattering-v1"
    assert record["seconds"] == model.seconds and set(model.seconds) == {
        "features",
        "coreset",
        "calibration",
    }
    assert set(record["versions"]) == {"pnilib", "python", "torch", "torchvision", "timm", "numpy", "faiss"}
    assert torch.__version__.startswith(record["versions"]["torch"])
    assert record.keys() == manifest(CONFIG, data.train, "cpu").keys() | {"weights", "seconds", "source"}


def test_a_model_of_something_else_is_left_alone(data: Dataset, tmp_path: Path, fits: list[Path]) -> None:
    folder = tmp_path / "run"
    fit_or_load(data.train, CONFIG, folder)
    before = files(folder)
    with pytest.raises(
        PNIError, match=r"run: holds a model of emb_ratio=0.15 \(now 0.2\), sigma=3.0 \(now 1.0\): choose"
    ):
        fit_or_load(data.train, CONFIG.replace(emb_ratio=0.2, sigma=1.0), folder)
    fewer = Split(data.train.samples.iloc[:3], data.root)
    with pytest.raises(PNIError, match="run: holds a model of other training images: choose"):
        fit_or_load(fewer, CONFIG, folder)
    assert len(fits) == 1 and files(folder) == before


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"config": {}}', '{"config": 3, "data": ""}'])
def test_a_damaged_record_is_one_line(data: Dataset, tmp_path: Path, text: str | None) -> None:
    fit_or_load(data.train, CONFIG, tmp_path)
    record = tmp_path / "run.json"
    record.unlink() if text is None else record.write_text(text)
    with pytest.raises(PNIError, match=r"run\.json: is missing or damaged: delete .* and fit again"):
        fit_or_load(data.train, CONFIG, tmp_path)


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (lambda record: record["config"].update(dist_size=7), "says dist_size=7, the model dist_size="),
        (lambda record: record.update(data="0" * 64), "says other training images than the model"),
    ],
)
def test_a_record_that_contradicts_the_model_is_refused(
    data: Dataset, tmp_path: Path, edit: Callable[[dict[str, Any]], None], fault: str
) -> None:
    """Whatever is asked for: the settings of before the edit, those of after, or no fit at all."""
    fit_or_load(data.train, CONFIG, tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    edit(record)
    (tmp_path / "run.json").write_text(json.dumps(record))
    for look in (
        lambda: fit_or_load(data.train, CONFIG, tmp_path),
        lambda: fit_or_load(data.train, CONFIG.replace(dist_size=7), tmp_path),
        lambda: read_record(tmp_path),
    ):
        with pytest.raises(PNIError, match=rf"run\.json: {fault}.*: delete .* and fit again"):
            look()


def test_a_damaged_model_is_named_not_overwritten(data: Dataset, tmp_path: Path, fits: list[Path]) -> None:
    fit_or_load(data.train, CONFIG, tmp_path)
    (tmp_path / "model" / "coreset.safetensors").unlink()
    with pytest.raises(PNIError, match=r"model: coreset\.safetensors is missing"):
        fit_or_load(data.train, CONFIG, tmp_path)
    assert len(fits) == 1


def test_a_run_finds_its_data_again(data: Dataset, tmp_path: Path) -> None:
    source = {"dataset": "mvtec", "root": str(data.root), "category": "part", "options": {}}
    model = fit_or_load(data.train, CONFIG, tmp_path / "run" / "part", source=source)
    (folder,) = run_categories(tmp_path / "run")
    assert run_categories(tmp_path / "run", ["part"]) == run_categories(folder) == [folder]
    loaded, found = open_run(folder)
    assert found.test.fingerprint() == data.test.fingerprint()
    assert loaded.predict(found.test).maps.tobytes() == model.predict(data.test).maps.tobytes()
    moved = shutil.copytree(data.root, tmp_path / "moved")
    assert open_run(folder, root=moved)[1].root == moved
    (moved / "part/test/good_2").mkdir()
    min((moved / "part/test/good").iterdir()).rename(moved / "part/test/good_2/0.png")
    with pytest.raises(
        PNIError, match=r"--option normal=good,good_2, .* \(the same `pni fit` with it keeps the model\)"
    ):
        open_run(folder, root=moved)
    options = {"normal": ("good", "good_2")}
    train = load_dataset("mvtec", moved, "part", **options).train
    fit_or_load(train, CONFIG, folder, source=source | {"root": str(moved), "options": options})
    assert sorted(open_run(folder)[1].test.samples["label"]) == [0, 0, 1, 1]
    (moved / "part/train/good/000.png").unlink()
    with pytest.raises(PNIError, match=r"moved: its training images are not those"):
        open_run(folder, root=moved)
    with pytest.raises(PNIError, match=r"nowhere: the data set of .* is not there: .*--root"):
        open_run(folder, root=tmp_path / "nowhere")


def test_a_run_without_a_source_or_model(data: Dataset, tmp_path: Path) -> None:
    fit_or_load(data.train, CONFIG, tmp_path / "part")
    with pytest.raises(PNIError, match=r"run\.json: does not say which data set"):
        open_run(tmp_path / "part")
    with pytest.raises(PNIError, match="has no category 'screw': choose one of part"):
        run_categories(tmp_path, ["screw"])
    with pytest.raises(PNIError, match="elsewhere: holds no fitted model"):  # nothing there to delete
        read_record(tmp_path / "elsewhere")
    with pytest.raises(PNIError, match="holds no fitted model"):
        run_categories(tmp_path / "part" / "model")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_at_the_end_loses_nothing(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    whole = PNI.save

    def refused(self: PNI, directory: Path) -> None:
        def refuse(*_: Any) -> None:
            raise OSError(code, os.strerror(code))

        patch.setattr(os, "fsync", refuse)
        whole(self, directory)

    with monkeypatch.context() as patch:
        patch.setattr(PNI, "save", refused)
        with pytest.raises(PNIError, match="disk is full" if code == errno.ENOSPC else "no permission"):
            fit_or_load(data.train, CONFIG, tmp_path)
    assert not (tmp_path / "model").exists() and list((tmp_path / "work").glob("features-*/features.npy"))
    with monkeypatch.context() as patch:
        patch.setattr("pnilib.detector.fitting.extract", None)
        patch.setattr("pnilib.detector.fitting.select_coreset", None)
        fit_or_load(data.train, CONFIG, tmp_path)


def test_a_place_that_cannot_be_written(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(PNIError, match=r"run: is a file: choose a folder"):
        fit_or_load(data.train, CONFIG, tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"

    def denied(*_: Any, **__: Any) -> None:  # the tests may run as root, whom nothing is denied
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(PNIError, match="locked: no permission: choose another folder"):
        fit_or_load(data.train, CONFIG, tmp_path / "locked")


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder until it is told to end."""
    code = "import sys, filelock\nwith filelock.FileLock(sys.argv[1]): print('held', flush=True); sys.stdin.readline()"
    with lock_folder(tmp_path):
        (lock,) = tmp_path.glob("*.lock")
    command = [sys.executable, "-c", code, str(lock)]  # pnilib itself takes seconds to import
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_two_runs_into_one_folder(
    data: Dataset, tmp_path: Path, other_process: subprocess.Popen[str], fits: list[Path]
) -> None:
    with pytest.raises(PNIError, match="another run is writing there: wait for it or choose another folder") as caught:
        fit_or_load(data.train, CONFIG, tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value) and fits == []
    other_process.kill()  # a run that died holds nothing
    other_process.wait()
    fit_or_load(data.train, CONFIG, tmp_path)
    assert len(fits) == 1
