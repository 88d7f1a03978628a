"""Plant one defect of each kind; the report names each of them and nothing else."""

import hashlib
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_data import MTD, btad, mask, mtd, mvtec, needs_mtd, put

from pnilib.data import DATASETS, Finding, check_dataset, load_dataset


def check(name: str, root: Path, category: str | None = None, **options) -> dict[tuple[str, str], Finding]:
    findings = check_dataset(load_dataset(name, root, category, **options), progress=False)
    for finding in findings:
        assert "\n" not in str(finding) and finding.problem and finding.remedy
    return {(f.kind, Path(f.path).name): f for f in findings}


def digest(root: Path) -> dict[str, str]:
    files = (p for p in root.rglob("*") if p.is_file())
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_clean_data_sets_have_no_findings(tmp_path):
    (mvtec(tmp_path / "a") / "bolt/license.txt").write_text("free")
    assert not check("mvtec", tmp_path / "a")
    btad(tmp_path / "b")
    assert not check("btad", tmp_path / "b", "03", btad03_half=True)  # unused images are no strays
    mtd(tmp_path / "c").joinpath("README.md").write_text("hello")
    assert not check("mtd", tmp_path / "c", split="tile")
    put(tmp_path / "d/1.png")
    assert not check("folder", tmp_path / "d")


def test_everything_at_once_and_nothing_changed(tmp_path):
    base = mvtec(tmp_path) / "bolt"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)).save(base / "train/good/003.png")
    (base / "train/good/003.png").write_bytes((base / "train/good/003.png").read_bytes()[:900])
    (base / "train/good/004.png").write_text("text")
    (base / "test/crack/002.png").write_bytes(b"")
    for i, size in [(3, (9, 8)), (5, (8, 8))]:
        put(base / f"test/crack/{i:03d}.png", 100 + i)
        put(base / f"ground_truth/crack/{i:03d}_mask.png", 255 if i == 3 else 0, size)
    put(base / "test/crack/004.png", 104)  # no mask, where others have one
    put(base / "test/crack/006.png", 106)
    (base / "ground_truth/crack/006_mask.png").write_bytes(b"")
    mask(base / "ground_truth/crack/999_mask.png")
    mask(base / "ground_truth/good/000_mask.png")
    put(base / "test/scratch/000.png", 120)
    put(base / "test/scratch/001.png", 121)
    put(base / "test/good/copy.bmp", 11)  # the pixels of train/good/001.png in another format
    (base / "test/crack/notes.txt").write_text("x")
    put(base / "train/bad/000.png", 130)
    before = digest(tmp_path)
    found = check("mvtec", tmp_path)
    assert set(found) == {
        ("unreadable", "003.png"),
        ("unreadable", "004.png"),
        ("unreadable", "002.png"),
        ("missing-mask", "002.png"),
        ("mask-size", "003_mask.png"),
        ("empty-mask", "005_mask.png"),
        ("missing-mask", "004.png"),
        ("unreadable", "006_mask.png"),
        ("orphan-mask", "999_mask.png"),
        ("mask-on-normal", "000_mask.png"),
        ("missing-mask", "scratch"),
        ("duplicate", "copy.bmp"),
        ("unexpected", "notes.txt"),
        ("unexpected", "000.png"),
    }
    assert "truncated" in found["unreadable", "003.png"].problem
    assert found["unreadable", "002.png"].problem == "is empty (0 bytes)"
    assert found["mask-size", "003_mask.png"].problem == "mask is 9 x 8 px, its image 8 x 8 px"
    assert "none of its 2 images" in found["missing-mask", "scratch"].problem
    assert "train/good/001.png" in found["duplicate", "copy.bmp"].problem
    assert "marks 4 pixels of a normal image" in found["mask-on-normal", "000_mask.png"].problem
    assert digest(tmp_path) == before


def test_training_images_among_the_test_images(tmp_path):
    base = mvtec(tmp_path) / "bolt"
    shutil.copy(base / "train/good/000.png", base / "test/good/001.png")
    shutil.copy(base / "train/good/001.png", base / "test/crack/001.png")
    assert set(check("mvtec", tmp_path)) == {("duplicate", "001.png")}
    assert len(check_dataset(load_dataset("mvtec", tmp_path), progress=False)) == 2


def test_visa_strays_and_missing_files(tmp_path):
    put(tmp_path / "pcb1/Data/Images/Normal/0.JPG", 1)
    put(tmp_path / "pcb1/Data/Images/Normal/9.JPG", 2)
    put(tmp_path / "pcb1/Data/Masks/Anomaly/9.png", 2)
    (tmp_path / "pcb1/image_anno.csv").write_text("image\n")
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv/1cls.csv").write_text(
        "object,split,label,image,mask\n"
        "pcb1,train,normal,pcb1/Data/Images/Normal/0.JPG,\n"
        "pcb1,test,anomaly,pcb1/Data/Images/Anomaly/0.JPG,pcb1/Data/Masks/Anomaly/0.png\n"
    )
    found = check("visa", tmp_path)
    assert {kind for kind, _ in found} == {"unreadable", "missing-mask", "unexpected", "orphan-mask"}
    assert "does not exist" in found["unreadable", "0.JPG"].problem


def test_mtd_strays(tmp_path):
    base = mtd(tmp_path)
    put(base / "MT_Free/Imgs/exp1_num_77.png")
    (base / "MT_Free/Thumbs.db").write_bytes(b"x")
    (base / "MT_Free/Imgs/notes.txt").write_bytes(b"x")
    assert set(check("mtd", tmp_path)) == {("orphan-mask", "exp1_num_77.png"), ("unexpected", "notes.txt")}


@needs_mtd
@pytest.mark.parametrize("split", ["differnet"])
def test_published_mtd_has_four_empty_masks(split):
    findings = check_dataset(load_dataset("mtd", MTD, split=split), progress=False)
    assert {f.kind for f in findings} == {"empty-mask"} and len(findings) == 4


SCRIPTS = Path(__file__).resolve().parents[1] / "data_prep"


def run_script(monkeypatch, name: str, *arguments: object) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setattr("sys.argv", [name, *map(str, arguments)])
    runpy.run_path(str(SCRIPTS / name), run_name="__main__")


def test_scripts(tmp_path, monkeypatch, capsys):
    put(mvtec(tmp_path / "m") / "bolt/test/scratch/000.png", 99)
    run_script(monkeypatch, "mvtec.py", "--root", tmp_path / "m")
    printed = capsys.readouterr().out
    assert (
        "mvtec/bolt: 3 training images; 1 normal (good) and 3 defective test images; 1 findings" in printed
        and "defect image without a mask" in printed
    )
    run_script(monkeypatch, "folder.py", "--root", tmp_path / "m/bolt/train", "--test-root", tmp_path / "m/bolt/test")
    assert "3 training images; 1 normal (good) and 3 defective test images; 0 findings" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="error: mvtec: cannot be downloaded"):
        run_script(monkeypatch, "mvtec.py", "--root", tmp_path / "absent")


def test_every_data_set_has_a_script_and_a_page():
    for name in DATASETS:
        assert (SCRIPTS / f"{name}.py").is_file() and (SCRIPTS / f"{name}.md").is_file()
