"""Complete or absent: files, artefact folders, and one run a folder."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from pnilib.errors import PNIError
from pnilib.store import artefacts
from pnilib.store.artefacts import read_artefact, write_artefact
from pnilib.store.files import atomic_write, os_errors, write_csv, write_json
from pnilib.store.locks import lock_folder
from pnilib.store.text import many

TENSORS = {
    "coreset": {"vectors": torch.arange(6, dtype=torch.float32).reshape(2, 3), "idx": torch.tensor([4, 1])},
    "mlp": {"mask": torch.tensor([True, False]), "half": torch.ones(2, dtype=torch.bfloat16)},
}
META = {"setting": "E", "sigma": 8.0, "note": "σ"}


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_round_trip(tmp_path):
    write_artefact(tmp_path / "model", TENSORS, META)
    tensors, meta = read_artefact(str(tmp_path / "model"))
    assert meta == META
    assert {stem: set(group) for stem, group in tensors.items()} == {
        "coreset": {"vectors", "idx"},
        "mlp": {"mask", "half"},
    }
    for stem, group in TENSORS.items():
        for name, tensor in group.items():
            assert tensors[stem][name].dtype == tensor.dtype
            assert torch.equal(tensors[stem][name], tensor)
    assert names(tmp_path) == {"model"}, "no temporary folder is left"


def test_views_and_shared_memory_are_stored(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    write_artefact(tmp_path / "a", {"x": {"t": base.T, "same": base, "row": base[1]}}, {})
    group = read_artefact(tmp_path / "a")[0]["x"]
    assert torch.equal(group["t"], base.T) and torch.equal(group["row"], base[1])


def test_replaces_an_older_artefact_and_an_empty_folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    write_artefact(folder, TENSORS, META)
    write_artefact(folder, {"coreset": TENSORS["coreset"]}, {"second": True})
    tensors, meta = read_artefact(folder)
    assert set(tensors) == {"coreset"} and meta == {"second": True}
    assert names(tmp_path) == {"model"}
    assert "mlp.safetensors" not in names(folder)


def test_an_interrupted_write_keeps_the_older_artefact(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    write_artefact(folder, TENSORS, META)

    def stop(path, value):
        raise KeyboardInterrupt

    monkeypatch.setattr(artefacts, "write_json", stop)
    with pytest.raises(KeyboardInterrupt):
        write_artefact(folder, TENSORS, {"second": True})
    assert read_artefact(folder)[1] == META
    assert names(tmp_path) == {"model"}


@pytest.mark.parametrize("failing", [2, 3])
def test_a_failed_swap_brings_the_older_artefact_back(tmp_path, monkeypatch, failing):
    """At the rename that moves it away, or at the one that brings the new one."""
    folder = tmp_path / "model"
    write_artefact(folder, TENSORS, META)
    rename, moves = os.rename, []

    def fails(a, b):
        moves.append(a)
        if len(moves) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(a, b)

    monkeypatch.setattr(os, "rename", fails)
    with pytest.raises(PNIError, match="disk is full"):
        write_artefact(folder, TENSORS, {"second": True})
    assert read_artefact(folder)[1] == META
    assert names(tmp_path) == {"model"}


def test_a_reader_between_the_two_renames_waits_for_the_second(tmp_path, monkeypatch):
    folder, rename, found = tmp_path / "model", os.rename, []
    write_artefact(folder, TENSORS, META)

    def slow(a, b):
        if not folder.exists():
            reader.start()
            time.sleep(0.1)
        rename(a, b)

    reader = threading.Thread(target=lambda: found.append(read_artefact(folder)[1]))
    monkeypatch.setattr(os, "rename", slow)
    write_artefact(folder, TENSORS, {"second": True})
    reader.join()
    assert found == [{"second": True}]


def test_a_writer_whose_place_is_taken_between_its_renames_is_the_last(tmp_path, monkeypatch):
    folder, rename, between = tmp_path / "model", os.rename, []
    write_artefact(folder, TENSORS, META)

    def taken(a, b):
        if not folder.exists() and not between:
            between.append(True)
            write_artefact(folder, TENSORS, {"other": True})
        rename(a, b)

    monkeypatch.setattr(os, "rename", taken)
    write_artefact(folder, TENSORS, {"second": True})
    assert between and read_artefact(folder)[1] == {"second": True} and names(tmp_path) == {"model"}


def test_foreign_folders_are_not_overwritten(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"x")
    with pytest.raises(PNIError, match=r"photos.*choose another folder"):
        write_artefact(tmp_path / "photos", TENSORS, META)
    write_artefact(tmp_path / "model", TENSORS, META)
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(PNIError, match=r"notes\.txt"):
        write_artefact(tmp_path / "model", TENSORS, META)
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"
    (tmp_path / "plain").write_text("x")
    with pytest.raises(PNIError, match="is a file"):
        write_artefact(tmp_path / "plain", TENSORS, META)


@pytest.mark.parametrize("stem", ["../up", "a/b", "", ".hidden"])
def test_stems_are_plain_names(tmp_path, stem):
    with pytest.raises(PNIError, match="no plain file name"):
        write_artefact(tmp_path / "model", {stem: {}}, {})


@pytest.mark.parametrize("meta", [{"x": float("nan")}, {"x": torch.ones(1)}])
def test_meta_must_be_json(tmp_path, meta):
    with pytest.raises(PNIError, match="not JSON"):
        write_artefact(tmp_path / "model", {}, meta)
    assert names(tmp_path) == set()


def flip_a_bit(folder: Path) -> None:
    blob = bytearray((folder / "coreset.safetensors").read_bytes())
    blob[-1] ^= 1
    (folder / "coreset.safetensors").write_bytes(blob)


def truncate(folder: Path) -> None:
    (folder / "mlp.safetensors").write_bytes((folder / "mlp.safetensors").read_bytes()[:-3])


def edit_manifest(**changes):
    def edit(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | changes))

    return edit


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (flip_a_bit, r"coreset\.safetensors is damaged \(wrong SHA-256\)"),
        (truncate, r"mlp\.safetensors has .* half-written"),
        (lambda f: (f / "meta.json").write_text("{}\n"), r"meta\.json has 3 bytes"),
        (lambda f: (f / "coreset.safetensors").unlink(), r"coreset\.safetensors is missing"),
        (lambda f: (f / "manifest.json").unlink(), "not a pnilib artefact"),
        (lambda f: (f / "manifest.json").write_text('{"form'), "manifest.json is damaged"),
        (lambda f: (f / "manifest.json").write_text("[]"), "not that of a pnilib artefact"),
        (edit_manifest(format="other"), "not that of a pnilib artefact"),
        (edit_manifest(version=99, pnilib="9.9"), r"made by pnilib 9\.9 .* upgrade"),
        (edit_manifest(version="1"), "damaged"),
        (edit_manifest(files={"meta.json": {}, "../../x.safetensors": {}}), "damaged"),
        (edit_manifest(files={"meta.json": {}, "x.pkl": {}}), "damaged"),
        (edit_manifest(files={}), "damaged"),
    ],
)
def test_spoiled_artefacts_are_refused_by_name(tmp_path, spoil, message):
    folder = tmp_path / "model"
    write_artefact(folder, TENSORS, META)
    spoil(folder)
    with pytest.raises(PNIError, match=message) as caught:
        read_artefact(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_artefact_is_refused(tmp_path):
    with pytest.raises(PNIError, match="no such artefact folder"):
        read_artefact(tmp_path / "nothing")


def test_atomic_write_is_all_or_nothing(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with atomic_write(path) as handle:
        handle.write("one")
        assert not path.exists()
    with pytest.raises(RuntimeError), atomic_write(path) as handle:
        handle.write("two")
        raise RuntimeError
    assert path.read_text() == "one"
    assert names(path.parent) == {"a.txt"}
    with atomic_write(path, "wb") as handle:
        handle.write(b"\x00")
    assert path.read_bytes() == b"\x00"


def test_a_full_disk_is_one_line(tmp_path):
    with pytest.raises(PNIError, match="disk is full") as caught, atomic_write(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "\n" not in str(caught.value)


def test_a_real_full_device(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(PNIError, match="disk is full"), os_errors(tmp_path):
        Path("/dev/full").write_bytes(b"x" * 10_000)


def test_an_unwritable_folder_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(  # root may write everywhere: imitate the refusal
        artefacts.Path, "mkdir", lambda *a, **k: (_ for _ in ()).throw(PermissionError(errno.EACCES, "no"))
    )
    for write in (
        lambda: write_json(tmp_path / "a" / "b.json", {}),
        lambda: write_artefact(tmp_path / "a", {}, {}),
        lambda: lock_folder(tmp_path / "a").__enter__(),
    ):
        with pytest.raises(PNIError, match="no permission"):
            write()


def test_a_file_in_the_way_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PNIError, match="file"):
        write_json(tmp_path / "file" / "b.json", {})
    with pytest.raises(PNIError, match="file"), lock_folder(tmp_path / "file"):
        pass


def test_write_json_and_csv(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, None], "a": "é"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"b": [1, None], "a": "é"}
    write_csv(tmp_path / "a.csv", [{"metric": "P,AUROC", "value": 0.1 + 0.2}, {"metric": "x"}], ["metric", "value"])
    assert (tmp_path / "a.csv").read_text() == 'metric,value\n"P,AUROC",0.30000000000000004\nx,\n'
    with pytest.raises(PNIError, match="'extra'"):
        write_csv(tmp_path / "b.csv", [{"extra": 1}], ["metric"])
    assert names(tmp_path) == {"a.json", "a.csv"}


def test_a_locked_folder_refuses_a_second_holder_at_once(tmp_path):
    folder = tmp_path / "run"
    with lock_folder(folder):
        with pytest.raises(PNIError, match=r"run: another run is writing there"), lock_folder(folder):
            pass
        code = (
            "import sys; from pnilib.store.locks import lock_folder\n"
            "try:\n    lock_folder(sys.argv[1]).__enter__()\nexcept ValueError as e: print(e)"
        )
        other = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
        assert "another run is writing there" in other.stdout
    with lock_folder(folder):
        pass  # free again


def test_a_locked_folder_can_wait_for_the_holder(tmp_path):
    seen = []

    def second():
        with lock_folder(tmp_path, wait=True):
            seen.append("second")

    with lock_folder(tmp_path):
        waiting = threading.Thread(target=second)
        waiting.start()
        time.sleep(0.2)
        seen.append("first")
    waiting.join()
    assert seen == ["first", "second"]


@pytest.mark.parametrize("name", ["x" * 244, "x" * 251 + ".csv", "ü" * 120, "\udcfc.csv"])
def test_any_name_that_fits_on_disk(tmp_path, name):
    with atomic_write(tmp_path / name) as handle:
        handle.write("whole")
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "whole"


@pytest.mark.parametrize("below", ["", "cable", "cable/deep"])
def test_the_file_in_the_way_is_named(tmp_path, below):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(PNIError, match=r"/out: is a file: choose a folder$"), lock_folder(tmp_path / "out" / below):
        pass
    assert (tmp_path / "out").read_text() == "mine"


def test_numbers_with_their_nouns():
    said = [many(n, "image") for n in (0, 1, 2, 1200)]
    assert said == ["0 images", "1 image", "2 images", "1,200 images"]
    assert many(1, "category", "categories") == "1 category" and many(2, "category", "categories") == "2 categories"
