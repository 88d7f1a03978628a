"""Plant one defect of each kind; the report names each of them and nothing else."""

import hashlib
import runpy
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_data import MTD, btad, mask, mtd, mvtec, needs_mtd, put

from pnilib.config.geometry import Geometry
from pnilib.data import DATASETS, Finding, check_dataset, load_dataset
from pnilib.data.appearance import notes_on_images, notes_on_masks
from pnilib.data.duplicates import near_duplicates, notes_on_repeats, repeated_images, thumbnail


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
        ("large-mask", "bolt"),
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


def kinds(root: Path, **options) -> dict[str, Finding]:
    return {kind: finding for (kind, _), finding in check("mvtec", root, **options).items()}


def test_images_that_pre_processing_treats_unequally(tmp_path):
    base = mvtec(tmp_path) / "bolt"
    assert not kinds(tmp_path)
    put(base / "train/good/wide.png", 90, (16, 8))
    put(base / "test/good/large.png", 91, (80, 80))
    found = kinds(tmp_path)["mixed-sizes"]
    assert "6 of 8 x 8 px, 1 of 16 x 8 px, 1 of 80 x 80 px" in found.problem and "large.png" in found.problem
    assert "squeezed to 512 x 512 px" in found.remedy and "resize=short" in found.remedy
    (base / "train/good/wide.png").unlink()
    assert "differs in sharpness" in kinds(tmp_path)["mixed-sizes"].remedy
    (base / "test/good/large.png").unlink()
    Image.new("RGB", (8, 8), (9, 80, 7)).save(base / "train/good/colour.png")
    found = kinds(tmp_path)["mixed-kinds"]
    assert "6 of grey of 8 bits, 1 of colour of 8 bits" in found.problem and "colour.png" in found.problem


@pytest.mark.parametrize(("largest", "advice"), [(4095, "bit_depth=12"), (1023, "bit_depth=10"), (200, "bit_depth=8")])
def test_16_bit_images_that_use_an_eighth_of_their_range(tmp_path, largest, advice):
    base = mvtec(tmp_path) / "bolt"
    for i, path in enumerate(sorted([*base.glob("train/*/*"), *base.glob("test/*/*")])):
        Image.fromarray(np.full((8, 8), largest - i, np.uint16)).save(path)
    (finding,) = kinds(tmp_path).values()
    assert finding.kind == "dark" and f"the largest value is {largest} of 65535" in finding.problem
    assert advice in finding.remedy
    data = load_dataset("mvtec", tmp_path)
    geometry = Geometry(bit_depth=int(advice.removeprefix("bit_depth=")))
    assert not check_dataset(data, progress=False, geometry=geometry)
    (note,) = notes_on_images(data.samples, Geometry())
    assert advice in note and not notes_on_images(data.samples, geometry)


def test_masks_that_may_have_been_meant_otherwise(tmp_path):
    base = mvtec(tmp_path) / "bolt"
    paths = [base / f"ground_truth/crack/00{i}_mask.png" for i in range(2)]
    for path in paths:
        Image.fromarray(255 - np.array(Image.open(path))).save(path)
    (finding,) = kinds(tmp_path).values()
    assert (
        finding.kind == "large-mask" and "2 of 2 masks mark over half" in finding.problem and "94%" in finding.problem
    )
    assert notes_on_masks(load_dataset("mvtec", tmp_path).samples) == [finding.note]
    assert not kinds(tmp_path, masks="inverted")
    noisy = np.random.default_rng(0).integers(0, 4, (32, 32)).astype(np.uint8)
    noisy[4:9, 4:9] = 100
    for path in [*paths, *base.glob("test/crack/*")]:
        Image.fromarray(noisy).save(path)
    found = kinds(tmp_path)["unsure-mask"]
    assert "2 of 2 masks" in found.problem and "values up to 6.25 cover 7" in found.problem
    labels = np.zeros((32, 32), np.uint8)
    labels[4:9, 4:9], labels[20:26, 20:26], labels[0, 0] = 255, 25, 8
    for path in paths:
        Image.fromarray(labels + np.arange(32, dtype=np.uint8) % 7 * (labels > 0)).save(path)
    assert "lie below its threshold" in kinds(tmp_path)["unsure-mask"].problem
    assert "unsure-mask" not in kinds(tmp_path, masks="nonzero")


def test_defects_that_pre_processing_takes_away(tmp_path):
    base = mvtec(tmp_path) / "bolt"
    for name, where in (("000", np.s_[0, :]), ("001", np.s_[301, 301])):
        mask = np.zeros((600, 600), np.uint8)
        mask[where] = 255
        Image.fromarray(mask).save(base / f"ground_truth/crack/{name}_mask.png")
        put(base / f"test/crack/{name}.png", 40, (600, 600))
    small = Geometry(64, 60)
    findings = {f.kind: f for f in check_dataset(load_dataset("mvtec", tmp_path), progress=False, geometry=small)}
    assert "1 of 2 defect images" in findings["cut-defect"].problem and "000.png" in findings["cut-defect"].problem
    assert "60 of 64 px" in findings["cut-defect"].problem and "001.png" in findings["lost-defect"].problem
    assert "lost-defect" not in kinds(tmp_path)  # at 512 px it is left


def photograph(seed: int) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((320, 320), Image.Resampling.BICUBIC)


def test_near_duplicates(tmp_path):
    """A photograph saved again, halved, brightened or taken again is one; another is not, nor are plain ones."""
    base = mvtec(tmp_path) / "bolt"
    for i in range(4):
        photograph(i).save(base / f"train/good/1{i}.png")
    photograph(0).save(base / "train/good/20.jpg", quality=60)
    photograph(0).resize((160, 160)).save(base / "train/good/21.png")
    noisy = np.array(photograph(1), float) + np.random.default_rng(9).normal(3, 5, (320, 320, 3))
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(base / "test/good/22.png")
    photograph(1).save(base / "test/good/23.jpg", quality=60)
    photograph(7).save(base / "test/good/24.png")
    found = {name: f for (kind, name), f in check("mvtec", tmp_path).items() if kind == "near-duplicate"}
    assert set(found) == {"10.png", "22.png"}
    assert "the training image" in found["10.png"].problem and "(and 1 more)" in found["10.png"].problem
    assert "11.png" in found["22.png"].problem and "(and 1 more test image)" in found["22.png"].problem
    notes = notes_on_repeats(load_dataset("mvtec", tmp_path).samples)
    assert len(notes) == 2 and "22.png" in notes[0] and "10.png" in notes[1]


def test_many_near_duplicates_are_counted_not_listed():
    images = [thumbnail(photograph(i)) for i in range(8)]
    found = repeated_images([str(i) for i in range(24)], [*images, *images, *images], 16, "here", most=3)
    assert [f.path for f in found] == ["16", "17", "18", "here"] and "5 more groups of test images" in found[3].problem
    assert near_duplicates(np.stack(images), 8) == []
    assert near_duplicates(np.stack([*images, images[2]]), 0) == []  # test images alone may be alike


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
def test_published_mtd(split):
    findings = check_dataset(load_dataset("mtd", MTD, split=split), progress=False)
    found = Counter(f.kind for f in findings)
    assert found == {"empty-mask": 4, "mixed-sizes": 1, "cut-defect": 1, "lost-defect": 1, "near-duplicate": 1}
    assert "6 of 392 defect images" in next(f.problem for f in findings if f.kind == "cut-defect")


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
        "mvtec/bolt: 3 training images; 1 normal (good) and 3 defective test images; findings: 1\n" in printed
        and "defect image without a mask" in printed
    )
    run_script(monkeypatch, "folder.py", "--root", tmp_path / "m/bolt/train", "--test-root", tmp_path / "m/bolt/test")
    assert "3 training images; 1 normal (good) and 3 defective test images; findings: 0\n" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="error: mvtec: cannot be downloaded"):
        run_script(monkeypatch, "mvtec.py", "--root", tmp_path / "absent")


def test_every_data_set_has_a_script_and_a_page():
    for name in DATASETS:
        assert (SCRIPTS / f"{name}.py").is_file() and (SCRIPTS / f"{name}.md").is_file()
