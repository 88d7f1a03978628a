"""Which folders are normal: tables of layouts and names.  No name that could be meant either way gets a label."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from test_data import mask, put, visa

from pnilib.apps.cli.options import parse_options
from pnilib.data import Dataset, load_dataset
from pnilib.data.words import is_defect, is_normal, is_part, names_a_fault, sounds_normal
from pnilib.errors import PNIError

NORMAL = ["good", "Good", "GOOD", "ok", "OK", "Okay", "normal", "Normal", "pass", "PASS", "passed", "no_defect",
          "Defect-free"]  # fmt: skip
DOUBTFUL = ["good_lowlight", "good_2", "OK2", "ok-dark", "normalised", "Good (copy)", "pass_1", "lowlightGood"]
DEFECT = ["NG", "ng", "not_ok", "Not OK", "NOK", "ko", "no-good", "notgood", "bad", "Bad_2", "defect", "Defects",
          "defective", "anomaly", "logical_anomalies", "abnormal", "reject", "fail", "faulty_imprint"]  # fmt: skip
FAULTS = ["scratch", "Scratches", "missing_cable", "broken_large", "cut_inner_insulation"]
SILENT = ["batch7", "2024-05", "gut", "token", "smoke", "cam1", "passivation", "thread", "combined", "-"]


def test_what_names_say() -> None:
    for names, expected in {
        tuple(NORMAL): (True, False, False, False),
        tuple(DOUBTFUL): (False, True, False, False),
        tuple(DEFECT): (False, False, True, True),
        tuple(FAULTS): (False, False, False, True),
        tuple(SILENT): (False, False, False, False),
    }.items():
        for name in names:
            assert (is_normal(name), sounds_normal(name), is_defect(name), names_a_fault(name)) == expected, name
    assert all(map(is_part, ["train", "Test", "ground_truth", "Ground-Truth", "masks"])) and not is_part("best")


def make(root: Path, layout: str, *names: str) -> dict[str, Any]:
    """Images by name below a layout's test folder, and two training images; returns what load_dataset takes."""
    if layout == "folder":
        put(root / "normal/0.png"), put(root / "normal/1.png", 1)
        base, found = root / "new", dict(name="folder", root=root / "normal", test_root=root / "new")
    else:
        good = {"mvtec": "good", "btad": "ok"}[layout]
        put(root / "part/train" / good / "0.png"), put(root / "part/train" / good / "1.png", 1)
        base, found = root / "part/test", dict(name=layout, root=root)
    for i, name in enumerate(names):
        put(base / name, 10 + i)
    return found


def labels(data: Dataset) -> dict[str, int]:
    return dict(zip(data.test.samples["defect_type"], data.test.samples["label"], strict=True))


@pytest.mark.parametrize("layout", ["mvtec", "btad", "folder"])
def test_normal_in_every_spelling(tmp_path: Path, layout: str) -> None:
    standard = "ok" if layout == "btad" else "good"
    for i, name in enumerate(NORMAL):
        made = make(tmp_path / str(i), layout, f"{name}/0.png", f"{name}/cam1/1.png", "NG/0.png", "dent/0.png")
        data = load_dataset(**made)
        assert labels(data) == {name: 0, "NG": 1, "dent": 1}
        assert any(f"test/{name} (2 images)" in note for note in data.notes) == (name != standard)
        assert data.summary() == f"2 training images; 2 normal ({name}) and 2 defective test images"


def test_training_folder_in_every_spelling(tmp_path: Path) -> None:
    for i, name in enumerate(NORMAL):
        root = tmp_path / str(i)
        make(root, "mvtec", "good/0.png")
        (root / "part/train/good").rename(root / "part/train" / name)
        put(root / "part/train/bad/0.png")
        data = load_dataset("mvtec", root)
        assert len(data.train) == 2 and "not read: 1 in other folders of train/" in data.notes, name
        assert any(f"train/{name} (2 images)" in note for note in data.notes) == (name != "good")


def test_labels_of_a_table(tmp_path: Path) -> None:
    for normal in ("normal", "Normal", "OK", "good"):
        for defect in ("anomaly", "Anomaly", "NG", "defect"):
            root = tmp_path / f"{normal} {defect}"
            for i in range(3):
                put(root / f"{i}.png")
            lines = f"x,train,{normal},0.png,\nx,Test,{defect},1.png,\nx,test,{normal},2.png,\n"
            found = labels(load_dataset("visa", visa(root, lines)))
            assert found == {"normal": 0, "anomaly": 1}, (normal, defect)


SUSPICIOUS = {
    "a doubtful name beside good": (["good/0.png", "good_lowlight/0.png", "cut/0.png"], [1, 2]),
    "a doubtful name alone": (["good_2/0.png", "cut/0.png"], [1, 2]),
    "a name with a space": (["good/0.png", "good (2)/0.png"], [0, 1]),
    "a name with a comma": (["good/0.png", "good,dark/0.png"], [0, 1]),
    "a loose image": (["good/0.png", "cut/0.png", "overview.png"], [1, 1]),
    "day folders": (["good/0.png", "cut/0.png", "2024-05/good/0.png"], [1, 2]),
    "normal images within defects": (["good/0.png", "cut/0.png", "cut/OK/0.png"], [1, 2]),
    "defects within normal images": (["good/0.png", "good/NG/0.png", "cut/0.png"], [1]),
}
"""Test images, and how many are defects under each of the options that the refusal shows."""


@pytest.mark.parametrize("case", SUSPICIOUS)
def test_what_could_be_either_stops_and_the_ways_out_work(tmp_path: Path, case: str) -> None:
    files, expected = SUSPICIOUS[case]
    for layout in ("mvtec", "btad", "folder"):
        found = make(tmp_path / layout, layout, *files)
        told = [load_dataset(**found, normal=way) for way in ways_out(found)]
        assert sorted(sum(data.test.samples["label"]) for data in told) == expected, layout
        assert all(data.notes[0].startswith("normal: ") for data in told)


def ways_out(found: dict[str, Any]) -> list[Any]:
    """Values of `normal=` that the refusal shows, as a shell and the command line read them."""
    with pytest.raises(PNIError) as fault:
        load_dataset(**found)
    options = re.findall(r"--option ('[^']*'|\S+?)(?=[,:;]? |$)", str(fault.value))
    assert "\n" not in str(fault.value) and options
    return [parse_options(shlex.split(option))["normal"] for option in options]


def test_unlabelled_or_only_defects(tmp_path: Path) -> None:
    """Without a word for normal: unlabelled in the folder layout, defects in MVTec's; NG alone says too little."""
    data = load_dataset(**make(tmp_path / "a", "folder", "dent/0.png", "2024-05/cam1/0.png", "0.png"))
    assert labels(data) == {"unknown": -1} and "unlabelled" in data.notes[0]
    data = load_dataset(**make(tmp_path / "b", "mvtec", "dent/0.png", "cut/0.png"))
    assert labels(data) == {"dent": 1, "cut": 1} and "no normal test images" in data.notes[0]
    ng = make(tmp_path / "c", "folder", "NG/0.png", "dent/0.png")
    assert ways_out(ng) == ["FOLDER", ""]
    assert labels(load_dataset(**ng, normal="")) == {"NG": 1, "dent": 1}
    assert labels(load_dataset(**ng, normal="dent")) == {"NG": 1, "dent": 0}


def test_a_folder_without_masks_beside_masked_ones(tmp_path: Path) -> None:
    """It is a defect where its name says so; else nobody knows."""
    found = make(tmp_path, "mvtec", "good/0.png", "blob/0.png", "scratch/0.png", "NG/0.png", "gut/0.png")
    assert labels(load_dataset(**found))["gut"] == 1  # nothing has a mask
    mask(tmp_path / "part/ground_truth/blob/0_mask.png")
    assert ways_out(found) == ["good", "good,gut"]
    assert [labels(load_dataset(**found, normal=way))["gut"] for way in ("good", ["good", "gut"])] == [1, 0]
    (tmp_path / "part/test/gut/0.png").unlink()
    assert labels(load_dataset(**found)) == {"good": 0, "blob": 1, "scratch": 1, "NG": 1}


@pytest.mark.parametrize(
    ("names", "normal", "message"),
    [
        (["train/OK/0.png", "train/good/0.png"], None, "train: which of OK/, good/ train"),
        (["train/good/0.png", "train/good_2/0.png"], None, "train: which of good/, good_2/ train"),
        (["train/good/0.png", "train/1.png"], None, r"1 image \(1.png\) lies directly in it, beside good/"),
        (["train/good/NG/0.png"], None, "train/good/NG: are these defects"),
        (["train/batch1/0.png"], None, "train: holds no folder good, but it has batch1/: .*normal=batch1$"),
        (["train/gut/0.png", "train/bad/0.png"], None, "but it has bad/, gut/: .*normal=gut$"),
        (["train/a/0.png", "train/b/0.png"], None, "but it has a/, b/: .*normal=FOLDER$"),
        (["train/0.png"], None, r"but 1 image \(0.png\) lies directly in it: .*normal=\.$"),
        (["train/0.png", "test/IO/0.png"], "IO", r"none of the folders of normal=, but 1 image .*normal=IO,\.$"),
        (["train/good/0.png", "test/good/0.png"], "god", "normal=god: there is no such folder in .*train or .*test"),
        (["train/good/0.png", "test/good/0.png", "test/b/0.png"], "b", "test/good: is not among .*normal=b,good"),
    ],
)
def test_training_folders_and_options_that_mislead(
    tmp_path: Path, names: list[str], normal: str | None, message: str
) -> None:
    for name in names:
        put(tmp_path / "part" / name)
    with pytest.raises(PNIError, match=message):
        load_dataset("mvtec", tmp_path, **({} if normal is None else {"normal": normal}))


@pytest.mark.parametrize(
    ("names", "normal", "taken"),
    [
        (["train/OK/0.png", "train/good/0.png"], "good,OK", 2),
        (["train/good/0.png", "train/good_2/0.png"], "good", 1),
        (["train/good/0.png", "train/1.png"], ".,good", 2),
        (["train/good/NG/0.png", "train/good/1.png"], "good", 2),
        (["train/batch1/0.png"], "batch1", 1),
        (["train/o\u0308l/0.png"], "\u00f6l", 1),
    ],
)
def test_normal_names_the_training_folders(tmp_path: Path, names: list[str], normal: str, taken: int) -> None:
    for name in names:
        put(tmp_path / "part" / name)
    data = load_dataset("mvtec", tmp_path, normal=normal)
    assert len(data.train) == taken and data.notes[0].startswith("normal: train/")


WRONG_ROOTS = {
    "a category of MVTec's shape": ["train/good/0.png", "test/good/0.png", "test/cut/0.png", "ground_truth/cut/0.png"],
    "several of them": ["bolt/train/good/0.png", "bolt/test/cut/0.png"],
    "OK and NG": ["OK/0.png", "NG/0.png"],
    "good and a defect": ["good/0.png", "scratch/0.png"],
    "days": ["2024-05/ok/0.png", "2024-05/nok/0.png", "2024-06/ok/0.png"],
    "images and masks": ["images/0.png", "masks/0.png"],
    "loose images and bad ones": ["0.png", "1.png", "bad/0.png"],
    "a linked folder of defects": ["0.png", "NG/0.png"],
}


@pytest.mark.parametrize("case", WRONG_ROOTS)
def test_a_folder_of_normal_images_holds_nothing_else(tmp_path: Path, case: str) -> None:
    """The line says what to do instead, and that works."""
    root = tmp_path / "parts"
    for name in WRONG_ROOTS[case]:
        put(root / name)
    if "linked" in case:
        (root / "NG").rename(tmp_path / "disk")
        (root / "NG").symlink_to("../disk")
    with pytest.raises(PNIError, match="and every image below would train") as fault:
        load_dataset("folder", root)
    text = str(fault.value)
    if "train" in " ".join(WRONG_ROOTS[case]):
        place, category = re.findall(r"--dataset mvtec --root (\S+) --category (\S+),", text)[0]
        assert len(load_dataset("mvtec", place, category).train) == 1
    elif "0.png" not in WRONG_ROOTS[case]:
        (alone,) = re.findall(r"as --root (\S+),", text)
        told = load_dataset("folder", root, normal=ways_out({"name": "folder", "root": root})[0])
        assert len(load_dataset("folder", alone).train) == 1 and len(told.train) == ("days" in case) + 1
        assert f"not read: {len(WRONG_ROOTS[case]) - len(told.train)} left out by normal=" in told.notes


@pytest.mark.parametrize("names", [["a/0.png", "b/c/0.png"], ["good/0.png", "ok/0.png"], ["OK_1/0.png", "OK_2/0.png"],
                                   ["good/cam1/0.png", "good/cam2/0.png"], ["0.png", "good/0.png"]])  # fmt: skip
def test_folders_of_normal_images_alone_train(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        put(tmp_path / name)
    assert len(load_dataset("folder", tmp_path).train) == len(names)
