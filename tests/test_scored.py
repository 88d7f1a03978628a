"""`pni score`: resumed rows, heat maps of earlier runs, names, what cannot be read, and what is said of it."""

import dataclasses
import io
import json
import math
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_cli import pni, refused
from tiny import SCATTERING, write_category

from pnilib.apps import batch as scored
from pnilib.apps.batch import score_images
from pnilib.detector.pni import PNI
from pnilib.detector.prediction import Calibration
from pnilib.errors import PNIError

QUIET = ("--device", "cpu", "--quiet")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`run/part`: a fitted model; `new`: three images."""
    folder = tmp_path_factory.mktemp("scored")
    data = write_category(folder, n_train=4)
    PNI(SCATTERING).fit(data.train).save(folder / "run/part/model")
    (folder / "run/part/run.json").write_text("{}")
    (folder / "new").mkdir()
    for i, path in enumerate(sorted(folder.glob("part/test/*/*.png"))[:3]):
        shutil.copy(path, folder / "new" / f"{i}.png")
    return folder / "run/part"


@pytest.fixture
def new(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run.parents[1] / "new", tmp_path / "new"))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Names that were scored, and after how many to stop as if killed."""
    whole, state = scored.read_image, {"names": [], "stop": math.inf}

    def one(path: Path, *args: Any) -> Any:
        if len(state["names"]) >= state["stop"]:
            raise KeyboardInterrupt
        state["names"].append(path.name)
        return whole(path, *args)

    monkeypatch.setattr(scored, "read_image", one)
    return state


def other_image(new: Path) -> None:
    """Other pixels in a file of the same name, size and time."""
    file = new / "0.bmp"
    before = file.stat()
    Image.open(file).transpose(Image.Transpose.ROTATE_180).save(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size and file.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ("nothing", ["1.png", "2.png"]),
        ("image", ["0.bmp", "1.png", "2.png"]),
        ("model", ["0.bmp", "1.png", "2.png"]),
        ("settings", ["0.bmp", "1.png", "2.png"]),
        ("threshold", ["0.bmp", "1.png", "2.png"]),
        ("version", ["0.bmp", "1.png", "2.png"]),
    ],
)
def test_a_killed_run_resumes_rows_of_the_same_model_and_image_only(
    change: str, again: list[str], run: Path, new: Path, tmp_path: Path, calls: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    Image.open(new / "0.png").save(new / "0.bmp")
    (new / "0.png").unlink()
    model, out = PNI.load(run / "model"), tmp_path / "out"
    calls["stop"] = 1
    with pytest.raises(KeyboardInterrupt):
        score_images(model, new, out)
    assert not (out / "scores.csv").exists()
    if change == "image":
        other_image(new)
    if change in ("model", "settings"):  # the same names, number of images, threshold and colours
        fitted = PNI(SCATTERING).fit(write_category(tmp_path / "other", n_train=4, seed=9).train)
        other = fitted if change == "model" else model.with_config(sigma=1.0)
        other.train_paths, other.calibration = model.train_paths, model.calibration
        model = other
    if change == "threshold":
        model.calibration = Calibration(model.calibration.image_scores * 2, 0.0, 9.0)  # type: ignore[union-attr]
    if change == "version":
        monkeypatch.setattr(scored, "pnilib_version", lambda: "9.9")
    calls.update(names=[], stop=math.inf)
    table = score_images(model, new, out).table
    assert calls["names"] == again and not (out / "scores.part.jsonl").exists()
    fresh = score_images(model, new, tmp_path / "fresh").table
    pd.testing.assert_frame_equal(table, fresh)
    for name in table["heat_map"]:
        assert (out / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


def test_heat_maps_of_earlier_runs(run: Path, new: Path, tmp_path: Path, calls: dict[str, Any]) -> None:
    """Those that a finished or killed run listed go, when today's table does not; nothing else does."""
    model, out = PNI.load(run / "model"), tmp_path / "out"
    score_images(model, new, out)
    os.replace(new / "0.png", new / "zero.png")
    calls.update(names=[], stop=3)
    (new / "a.png").write_bytes((new / "1.png").read_bytes())
    with pytest.raises(KeyboardInterrupt):
        score_images(model, new, out)
    assert calls["names"] == ["1.png", "2.png", "a.png"]
    (new / "a.png").unlink()
    (new / "2.png").write_bytes(b"damaged")
    (out / "heatmaps/mine.txt").write_text("a note")
    calls.update(names=[], stop=math.inf)
    scores = score_images(model, new, out)
    left = sorted(path.name for path in (out / "heatmaps").iterdir() if not path.name.startswith("."))
    assert left == ["1.png.png", "mine.txt", "zero.png.png"]
    replaced, note = [line for line in scores.notes if not line.startswith("threshold")]
    assert "scores.csv: replaced an earlier table, 1 image of which" in replaced and "0.png: choose" in replaced
    assert "1 file that no table lists" in note and "mine.txt" in note
    assert calls["names"] == ["2.png", "zero.png"] and scores.n_scored == 2


ODD = [
    b"a,b.png", b'q"uote.png', b"line\nbreak.png", b"=1+1.png", b"#1 100%.png", b"x" * 240 + b".png",
    b"x" * 241 + b".png", "ü".encode() * 125 + b".png", "ä".encode() * 125 + b".png", b"a\\b.png", b" lead.png",
    b"trail .png", b"[1].png", b"*.png", b"-o.png", b"000.jpg", b"000.png", b"pr\xfcfung.png", b"pr\\xfcfung.png",
    b"\xc4\xe3/\xfc.png",
]  # fmt: skip


@pytest.mark.skipif(sys.platform == "darwin", reason="takes UTF-8 names only")
def test_names(run: Path, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its row and its heat map, and no output stops at a letter that it cannot write."""
    folder, out = tmp_path / "odd", tmp_path / "grüße"
    for name in ODD:
        path = Path(os.fsdecode(os.fsencode(folder) + b"/" + name))
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(new / "0.png", path)
    for words in ([], ["--json"]):
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            assert pni("score", run, folder, "--out", out, *QUIET, *words) == 0
        stream.flush()
        said = stream.buffer.getvalue().decode()  # type: ignore[attr-defined]
    table = pd.read_csv(out / "scores.csv")
    assert [row["image"] for row in json.loads(said)] == table["image"].tolist()
    assert len(table) == table["heat_map"].nunique() == len(ODD) and table["score"].nunique() == 1
    assert {"=1+1.png", "line\nbreak.png", " lead.png", "pr\\xfcfung.png"} <= set(table["image"])
    assert all((out / name).is_file() for name in table["heat_map"])
    assert len(list((out / "heatmaps").rglob("*.png"))) == len(ODD)


@pytest.mark.parametrize(("damaged", "status"), [(1, 0), (3, 1)])
def test_images_that_cannot_be_read(
    damaged: int, status: int, run: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(damaged):
        (new / f"{i}.png").write_bytes((new / f"{i}.png").read_bytes()[:300])
    for words in ([], ["--json"]):
        capsys.readouterr()
        assert pni("score", run, new, "--out", tmp_path / "out", *QUIET, *words) == status
        shown = capsys.readouterr()
        last = (shown.err if words or status else shown.out).splitlines()[-1]
        assert (
            f"{3 - damaged} of 3 images scored" in last and f"{damaged} could not be read" in last and "0.png" in last
        )
    assert len(json.loads(shown.out)) == 3
    table = pd.read_csv(tmp_path / "out/scores.csv")
    assert table["problem"].notna().tolist() == table["score"].isna().tolist() == [i < damaged for i in range(3)]
    assert table["heat_map"].isna().tolist() == table["score"].isna().tolist()


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["report.pdf"], "is no image"),
        (["new", "report.pdf"], "is no image"),
        (["nothere.png"], "there is no such file"),
        (["new/*.png"], "leave the quotes out"),
        (["empty"], "holds no image"),
        (["other"], "not read: 1 .jp2, 1 hidden"),
        (["new", "-o", "new"], "holds the images"),
        (["new", "-o", "."], "holds the images"),
        (["new/0.png", "-o", "new"], "holds the images"),
    ],
)
def test_paths_that_cannot_be_scored(
    words: list[str], fault: str, run: Path, new: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(new.parent)
    Path("report.pdf").write_text("hello")
    for name in ("empty", "other"):
        Path(name).mkdir()
    for name in ("x.jp2", "._0.png"):
        Path("other", name).touch()
    before = sorted(Path().rglob("*"))
    assert fault in refused(capsys, "score", run, *(["-o", "out"] if "-o" not in words else []), *words, *QUIET)
    assert sorted(Path().rglob("*")) == before


def test_several_paths_hidden_and_linked_files(
    run: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are those below the folder that holds all that was given."""
    monkeypatch.chdir(tmp_path)
    Path("disk").mkdir()
    shutil.move(new / "2.png", "disk/2.png")
    os.symlink(tmp_path / "disk", new / "camera2")
    (new / "@eaDir").mkdir()
    for name in ("._0.png", "Thumbs.db", "@eaDir/0.png", "scan.jp2"):
        (new / name).touch()
    more = Path("more")
    more.mkdir()
    shutil.copy(new / "0.png", more / "0.png")
    assert pni("score", run.parent, "more/0.png", "new", new / "0.png", "--out", "out", *QUIET) == 0
    table = pd.read_csv("out/scores.csv")
    assert table["image"].tolist() == ["more/0.png", "new/0.png", "new/1.png", "new/camera2/2.png"]
    said = json.loads(Path("out/score.json").read_text())
    assert said == {"model": str(run / "model"), "images": str(tmp_path), "refined": False}
    shown = capsys.readouterr()
    assert "new: not read: 1 .jp2, 3 hidden" in shown.out and "its one model, part" in shown.err
    for words, names in ((["new"], ["0.png", "1.png", "camera2/2.png"]), (["new/1.png"], ["1.png"])):
        assert pni("score", run, *words, "--out", "out", *QUIET) == 0
        assert pd.read_csv("out/scores.csv")["image"].tolist() == names
    assert [path.name for path in Path("out/heatmaps").rglob("*.png")] == ["1.png.png"]


def test_masks_of_a_data_set_are_no_images(run: Path, tmp_path: Path) -> None:
    root = write_category(tmp_path / "data", n_train=2).root
    model = PNI.load(run / "model")
    scores = score_images(model, root, tmp_path / "out")
    assert len(scores.table) > 2 and not scores.table["image"].str.contains("ground_truth").any()
    (note,) = [note for note in scores.notes if "left out" in note]
    assert "ground_truth" in note
    (tree,) = (path for path in root.rglob("ground_truth") if path.is_dir())
    for masks in (tree, next(path for path in tree.iterdir() if path.is_dir())):
        with pytest.raises(PNIError, match=r"holds the masks of .*test: give the images"):
            score_images(model, masks, tmp_path / "masks")
    shutil.copytree(tree, tree.with_name("segmentation"))  # label maps of parts
    again = score_images(model, root, tmp_path / "again")
    assert len(again.table) == len(scores.table) and any("label maps are left out" in note for note in again.notes)


def test_a_run_of_several_models(run: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        shutil.copytree(run, tmp_path / "run" / name)
    line = refused(capsys, "score", tmp_path / "run", new, "-o", tmp_path / "out", *QUIET)
    assert "holds several models" in line and str(tmp_path / "run/one") in line and str(tmp_path / "run/two") in line


def test_without_a_threshold_there_is_no_decision(run: Path, new: Path, tmp_path: Path) -> None:
    model = PNI.load(run / "model")
    assert model.calibration is not None
    model.calibration = dataclasses.replace(model.calibration, image_scores=np.empty(0, np.float32))
    scores = score_images(model, new, tmp_path / "out")
    assert scores.table["score"].notna().all() and scores.table["defective"].isna().all()
    (note,) = scores.notes
    assert "no normal-only threshold" in note


def test_images_of_12_bits_in_16_are_told(run: Path, new: Path, tmp_path: Path) -> None:
    """The model would see them nearly black; pni score has no --set, so the line says what else helps."""
    model = PNI.load(run / "model")
    for path in new.iterdir():
        with Image.open(path) as image:
            grey = np.array(image.convert("L")).astype(np.uint16)
        Image.fromarray(grey * 257).save(path)
    notes = score_images(model, new, tmp_path / "whole").notes
    assert not any("nearly black" in note for note in notes)
    for path in new.iterdir():
        with Image.open(path) as image:
            Image.fromarray((np.array(image) // 16).astype(np.uint16)).save(path)
    (note,) = [line for line in score_images(model, new, tmp_path / "twelve").notes if "nearly black" in line]
    assert note.endswith("save them as the training images are, or fit with --set bit_depth=12")
    assert "(3 looked at)" in note


def test_images_unlike_the_training_images_are_told(run: Path, new: Path, tmp_path: Path) -> None:
    """Another kind or shape than the model learnt scores high, or says nothing: no silent decision."""
    model = PNI.load(run / "model")
    unlike = ("unlike the training images", "of another shape")
    assert not any(word in note for word in unlike for note in score_images(model, new, tmp_path / "a").notes)
    with Image.open(new / "0.png") as image:
        grey, wide = image.convert("L"), image.resize((2 * image.width, image.height))
    grey.save(new / "0.png")
    wide.save(new / "1.png")
    notes = [note for note in score_images(model, new, tmp_path / "b").notes if note.startswith(unlike)]
    kind, shape = sorted(notes, reverse=True)
    assert "1 of grey of 8 bits" in kind and "0.png" in kind and "(colour of 8 bits)" in kind
    assert "1 of " in shape and "1.png" in shape
