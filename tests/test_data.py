"""Each layout on a miniature of itself; the real MTD where it is at hand."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import write_category

from pnilib.config.geometry import Geometry
from pnilib.data import DATASETS, check_dataset, list_categories, load_dataset
from pnilib.data.mtd import tile_numbers
from pnilib.errors import PNIError

MTD = Path(__file__).resolve().parents[2] / "shared" / "data" / "mtd"
needs_mtd = pytest.mark.skipif(not MTD.is_dir(), reason="MTD is not at ../shared/data/mtd")
SMALL = Geometry(8, 8)


def put(path: Path, value: int = 0, size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)
    return path


def mask(path: Path) -> Path:
    values = np.zeros((8, 8), np.uint8)
    values[2:4, 2:4] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def mvtec(root: Path, category: str = "bolt") -> Path:
    base = root / category
    for i in range(3):
        put(base / "train/good" / f"{i:03d}.png", 10 + i)
    put(base / "test/good/000.png", 20)
    put(base / "test/crack/000.png", 30)
    put(base / "test/crack/001.png", 31)
    mask(base / "ground_truth/crack/000_mask.png")
    mask(base / "ground_truth/crack/001_mask.png")
    return root


def names(split) -> list[str]:
    return [Path(p).name for p in split.samples["image_path"]]


@pytest.mark.parametrize("name", ["mvtec", "demo"])
def test_mvtec(tmp_path, name):
    data = load_dataset(name, mvtec(tmp_path))
    assert data.category == "bolt" and data.name == name
    assert names(data.train) == ["000.png", "001.png", "002.png"]
    assert list(data.test.samples["defect_type"]) == ["crack", "crack", "good"]
    assert list(data.test.samples["label"]) == [1, 1, 0]
    assert set(data.samples.columns) >= {
        "image_path",
        "mask_path",
        "label",
        "defect_type",
        "split",
        "category",
    }
    assert data.train.image(1, SMALL)[0, 0, 0] == pytest.approx(11 / 255)
    assert int(data.test.mask(0, SMALL).sum()) == 4
    assert not data.test.mask(2, SMALL).any()


def test_inner_folder_of_the_archive_is_found(tmp_path):
    mvtec(tmp_path / "mvtec_anomaly_detection")
    assert list_categories("mvtec", tmp_path) == ["bolt"]


def test_defect_folder_without_ground_truth(tmp_path):
    put(mvtec(tmp_path) / "bolt/test/scratch/000.jpg", 40)
    data = load_dataset("mvtec", tmp_path)
    i = list(data.test.samples["defect_type"]).index("scratch")
    assert data.test.samples["mask_path"].iloc[i] is None
    assert data.test.mask(i, SMALL) is None


@pytest.mark.parametrize("category", ["metal nut", "schraube größe", "ねじ"])
def test_names_with_spaces_and_other_letters(tmp_path, category):
    data = load_dataset("mvtec", mvtec(tmp_path, category), category)
    assert len(data.train) == 3 and data.train.image(0, SMALL).shape == (3, 8, 8)


def test_decomposed_names_are_the_same_name(tmp_path):
    """macOS stores o + combining diaeresis; the user types the one letter."""
    assert len(load_dataset("mvtec", mvtec(tmp_path, "o\u0308l"), "\u00f6l").train) == 3


def test_hidden_and_other_files_are_not_images(tmp_path):
    base = mvtec(tmp_path) / "bolt/train/good"
    (base / "._000.png").write_bytes(b"apple double")
    (base / "notes.txt").write_text("no image")
    assert len(load_dataset("mvtec", tmp_path).train) == 3


def test_unknown_names_list_what_there_is(tmp_path):
    mvtec(tmp_path, "bolt")
    mvtec(tmp_path, "nut")
    with pytest.raises(PNIError, match=r"has no category 'screw': choose one of bolt, nut"):
        load_dataset("mvtec", tmp_path, "screw")
    with pytest.raises(PNIError, match=r"no category given: choose one of bolt, nut"):
        load_dataset("mvtec", tmp_path)
    with pytest.raises(PNIError, match="choose one of " + ", ".join(DATASETS)):
        load_dataset("mvtek", tmp_path)
    with pytest.raises(PNIError, match=r"has no option 'half': it takes .*normal"):
        load_dataset("mvtec", tmp_path, "bolt", half=True)
    with pytest.raises(PNIError, match="is not a folder"):
        load_dataset("mvtec", tmp_path / "absent")


def test_incomplete_categories(tmp_path):
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(PNIError, match="train: holds no image: put the normal training images in train/good"):
        load_dataset("mvtec", tmp_path, "empty")
    with pytest.raises(PNIError, match="is itself a category: give its parent as root and category='empty'"):
        load_dataset("mvtec", tmp_path / "empty")
    with pytest.raises(PNIError, match="holds no category folder"):
        load_dataset("mvtec", tmp_path / "empty" / "train")


@pytest.mark.parametrize("layout", ["mvtec", "btad", "visa", "mtd"])
def test_without_test_images(tmp_path, layout):
    """Enough to fit and to score other images; the notes and the check say so."""
    if layout == "visa":
        visa(tmp_path, "part,train,normal,part/0.png,\n")
    put(tmp_path / {"visa": "part/0.png", "mtd": "MT_Free/Imgs/exp1_num_1.jpg"}.get(layout, "part/train/good/0.png"))
    options = {}
    if layout == "mtd":
        (tmp_path / "list.txt").write_text("exp1_num_1.jpg")
        options = {"split": "differnet", "train_list": tmp_path / "list.txt"}
    (tmp_path / "part/test/good").mkdir(parents=True)
    data = load_dataset(layout, tmp_path, **options)
    assert len(data.train) == 1 and len(data.test) == 0 and any("no test images" in note for note in data.notes)
    assert data.test.fingerprint() == hashlib.sha256().hexdigest() and data.summary().endswith("no test images")
    assert [finding.kind for finding in check_dataset(data, progress=False)] == ["no-test"]


def test_mask_of_another_size_names_both(tmp_path):
    put(mvtec(tmp_path) / "bolt/ground_truth/crack/000_mask.png", 255, (9, 8))
    with pytest.raises(PNIError, match=r"000_mask.png: mask is 9 x 8 px but its image .*000.png is 8 x 8 px"):
        load_dataset("mvtec", tmp_path).test.mask(0, SMALL)


def btad(root: Path) -> Path:
    for category in ("01", "03"):
        for i in range(4):
            put(root / category / "train/ok" / f"{i:04d}.bmp", i)
        put(root / category / "test/ok/0000.bmp", 50)
        put(root / category / "test/ko/0001.bmp", 60)
    mask(root / "01/ground_truth/ko/0001.png")
    mask(root / "03/ground_truth/ko/0001.bmp")
    return root


def test_btad(tmp_path):
    btad(tmp_path / "BTech_Dataset_transformed")
    assert list_categories("btad", tmp_path) == ["01", "03"]
    for category in ("01", "03"):
        data = load_dataset("btad", tmp_path, category, btad03_half=False)
        assert len(data.train) == 4 and list(data.test.samples["label"]) == [1, 0]
        assert int(data.test.mask(0, SMALL).sum()) == 4


def test_btad03_half_is_the_released_first_half(tmp_path):
    btad(tmp_path)
    half = load_dataset("btad", tmp_path, "03", btad03_half=True)
    assert names(half.train) == ["0000.bmp", "0001.bmp"] and len(half.test) == 2
    assert "2 of 4 training images left out" in half.notes[0]
    assert len(load_dataset("btad", tmp_path, "01", btad03_half=True).train) == 4


VISA_HEAD = "object,split,label,image,mask\n"


def visa(root: Path, lines: str) -> Path:
    (root / "split_csv").mkdir(parents=True)
    (root / "split_csv/1cls.csv").write_text(VISA_HEAD + lines)
    return root


def test_visa(tmp_path):
    for i in range(2):
        put(tmp_path / f"candle/Data/Images/Normal/{i}.JPG", i)
    put(tmp_path / "candle/Data/Images/Anomaly/0.JPG", 9)
    labels = np.zeros((8, 8), np.uint8)
    labels[0, :3] = [1, 2, 3]  # VisA numbers the kinds of defect
    (tmp_path / "candle/Data/Masks/Anomaly").mkdir(parents=True)
    Image.fromarray(labels).save(tmp_path / "candle/Data/Masks/Anomaly/0.png")
    visa(
        tmp_path,
        "candle,test,anomaly,candle/Data/Images/Anomaly/0.JPG,candle/Data/Masks/Anomaly/0.png\n"
        "candle,test,normal,candle/Data/Images/Normal/1.JPG,\n"
        "candle,train,normal,candle/Data/Images/Normal/0.JPG,\n"
        "pcb1,train,normal,pcb1/Data/Images/Normal/0.JPG,\n",
    )
    assert list_categories("visa", tmp_path) == ["candle", "pcb1"]
    data = load_dataset("visa", tmp_path, "candle")
    assert names(data.train) == ["0.JPG"] and list(data.test.samples["label"]) == [0, 1]
    assert int(data.test.mask(1, SMALL).sum()) == 3 and not data.test.mask(0, SMALL).any()
    assert len(load_dataset("visa", tmp_path, "pcb1").test) == 0


WRITTEN = {
    "as published": lambda text: text.encode(),
    "a byte order mark, Windows line ends": lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "backslashes": lambda text: text.replace("/", "\\").encode(),
    "other letters on disk": lambda text: text.upper().encode(),
}
"""What Windows and its spreadsheets make of a table."""


@pytest.mark.parametrize("how", [*WRITTEN, "semicolons", "tabs"])
def test_visa_table_from_a_spreadsheet(tmp_path, how):
    for name in ("n/0.jpg", "n/1.jpg", "a/0.JPG"):
        put(tmp_path / "x" / name)
    mask(tmp_path / "x/m/0.png")
    lines = "x,train,normal,x/n/0.jpg,\nx,test,normal,x/n/1.jpg,\nx,test,anomaly,x/a/0.JPG,x/m/0.png\n"
    change = WRITTEN.get(how, lambda text: text.replace(",", {"semicolons": ";", "tabs": "\t"}[how]).encode())
    if "other letters" in how:
        (tmp_path / "x").rename(tmp_path / "X")  # only names of files are looked for, not of folders
        for folder in list((tmp_path / "X").iterdir()):
            folder.rename(folder.with_name(folder.name.upper()))
    visa(tmp_path, "").joinpath("split_csv/1cls.csv").write_bytes(change(VISA_HEAD + lines))
    data = load_dataset("visa", tmp_path)
    assert names(data.train) == ["0.jpg"] and list(data.test.samples["label"]) == [0, 1]
    assert int(data.test.mask(1, SMALL).sum()) == 4 and data.train.image(0, SMALL).shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x,train,normal,../../secret.png,\n", r"line 2: '../../secret.png' lies outside"),
        ("x,train,normal,/etc/hosts,\n", "lies outside"),
        ("x,val,normal,x/0.png,\n", "line 2: unknown split or label"),
        ("x,test,maybe,x/0.png,\n", "line 2: unknown split or label"),
        ("x,train,anomaly,x/0.png,\n", "line 2: a defect among the training images"),
        ("x,train,normal,..\\..\\secret.png,\n", "lies outside"),
        ("x,train,normal,,\n", "line 2: names no image"),
    ],
)
def test_visa_with_a_bad_table(tmp_path, line, message):
    with pytest.raises(PNIError, match=message):
        load_dataset("visa", visa(tmp_path, line), "x")


def test_visa_without_or_with_another_table(tmp_path):
    with pytest.raises(PNIError, match=r"1cls.csv: does not exist: extract the whole VisA archive"):
        load_dataset("visa", tmp_path)
    visa(tmp_path, "").joinpath("split_csv/1cls.csv").write_text("object,split\n")
    with pytest.raises(PNIError, match="lacks the column 'label'"):
        load_dataset("visa", tmp_path)


def test_folder(tmp_path):
    put(tmp_path / "normal/a/1.png")
    put(tmp_path / "normal/2.jpg")
    put(tmp_path / "new/x.png")
    alone = load_dataset("folder", tmp_path / "normal")
    assert names(alone.train) == ["2.jpg", "1.png"] and len(alone.test) == 0 and alone.category == "normal"
    scored = load_dataset("folder", tmp_path / "normal", test_root=tmp_path / "new")
    assert list(scored.test.samples["label"]) == [-1] and scored.test.mask(0, SMALL) is None
    assert "unlabelled" in scored.notes[0]
    put(tmp_path / "new/good/1.png")
    put(tmp_path / "new/dent/1.png")
    (tmp_path / "new/x.png").unlink()
    labelled = load_dataset("folder", tmp_path / "normal", test_root=tmp_path / "new")
    assert dict(zip(labelled.test.samples["defect_type"], labelled.test.samples["label"], strict=True)) == {
        "dent": 1,
        "good": 0,
    }


def test_folder_mistakes(tmp_path):
    put(tmp_path / "normal/1.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PNIError, match="empty: holds no image"):
        load_dataset("folder", tmp_path / "empty")
    with pytest.raises(PNIError, match="empty: holds no image: put the images to score there"):
        load_dataset("folder", tmp_path / "normal", test_root=tmp_path / "empty")
    with pytest.raises(PNIError, match="overlaps the training folder"):
        load_dataset("folder", tmp_path / "normal", test_root=tmp_path)


def test_fingerprint_sees_content_names_and_order_but_not_the_place(tmp_path):
    one = load_dataset("mvtec", mvtec(tmp_path / "one")).test
    two = load_dataset("mvtec", mvtec(tmp_path / "two")).test
    assert one.fingerprint() == two.fingerprint() != load_dataset("mvtec", tmp_path / "one").train.fingerprint()
    reference = one.fingerprint()
    assert type(one)(one.samples.iloc[::-1], one.root).fingerprint() != reference
    put(tmp_path / "two/bolt/test/good/000.png", 21)
    assert two.fingerprint() != reference
    (tmp_path / "one/bolt/test/crack/001.png").rename(tmp_path / "one/bolt/test/crack/002.png")
    assert load_dataset("mvtec", tmp_path / "one").test.fingerprint() != reference
    with pytest.raises(PNIError, match=r"001.png: cannot be read"):
        one.fingerprint()


# -- MTD ---------------------------------------------------------------------------------------


def test_tiles_start_after_a_gap():
    """743, 760 | 821 (61 later) 881 (60 later) | 1000; whatever the order."""
    assert tile_numbers([1000, 743, 881, 821, 760]) == [2, 0, 1, 1, 0]
    assert tile_numbers([]) == []


def mtd(root: Path) -> Path:
    for tile in range(6):
        for exposure in range(1, 4):
            kind = "MT_Crack" if tile == 5 or (tile == 2 and exposure == 3) else "MT_Free"
            stem = root / kind / "Imgs" / f"exp{exposure}_num_{1000 * tile + exposure}"
            put(stem.with_suffix(".jpg"), 10 * tile + exposure)
            (mask if kind == "MT_Crack" else put)(stem.with_suffix(".png"))
    return root


def test_mtd_tiles_stay_whole(tmp_path):
    mtd(tmp_path)
    for seed in range(8):
        data = load_dataset("mtd", tmp_path, split="tile", seed=seed, train_fraction=0.6)
        train, test = data.train.samples, data.test.samples
        assert train["tile"].nunique() == 3 and set(train["label"]) == {0}
        assert not set(train["tile"]) & set(test["tile"])
        left_out = int(2 in set(train["tile"]))  # the cracked photograph of a training tile
        assert len(train) + len(test) == 18 - left_out
        assert f"{left_out} defect image{'' if left_out == 1 else 's'} of training tiles left out" in data.notes[0]
    assert names(load_dataset("mtd", tmp_path, seed=3).train) == names(load_dataset("mtd", tmp_path, seed=3).train)
    splits = {tuple(names(load_dataset("mtd", tmp_path, seed=s).train)) for s in range(8)}
    assert len(splits) > 1


def test_mtd_list(tmp_path):
    mtd(tmp_path)
    with pytest.raises(PNIError, match=r"mtd_train_filenames.txt: does not exist: get it from .* give train_list="):
        load_dataset("mtd", tmp_path, split="differnet")
    wanted = tmp_path / "list.txt"
    wanted.write_text("exp1_num_1.jpg\nexp2_num_2.jpg\n\n")
    data = load_dataset("mtd", tmp_path, split="differnet", train_list=wanted)
    assert names(data.train) == ["exp1_num_1.jpg", "exp2_num_2.jpg"] and len(data.test) == 16
    assert "1 tile is in training and test" in data.notes[0]
    for change in WRITTEN.values():
        wanted.write_bytes(change("MT_Free/Imgs/exp1_num_1.jpg\n\nexp2_num_2.jpg\n"))
        assert names(load_dataset("mtd", tmp_path, split="differnet", train_list=wanted).train) == names(data.train)
    wanted.write_text("exp1_num_1.jpg\nexp9_num_9.jpg\n")
    with pytest.raises(PNIError, match=r"names exp9_num_9.jpg, which is no image of MT_Free"):
        load_dataset("mtd", tmp_path, split="differnet", train_list=wanted)


def test_mtd_mistakes(tmp_path):
    with pytest.raises(PNIError, match="has no folder MT_Free"):
        load_dataset("mtd", tmp_path)
    mtd(tmp_path)
    with pytest.raises(PNIError, match="split='half': unknown: choose tile or differnet"):
        load_dataset("mtd", tmp_path, split="half")
    with pytest.raises(PNIError, match=r"train_fraction=1.0: must lie between 0 and 1"):
        load_dataset("mtd", tmp_path, train_fraction=1.0)
    put(tmp_path / "MT_Free/Imgs/mine.jpg")
    with pytest.raises(PNIError, match=r"mine.jpg: is not named exp"):
        load_dataset("mtd", tmp_path)


@needs_mtd
def test_published_mtd():
    data = load_dataset("mtd", MTD, split="differnet")
    assert (len(data.samples), len(data.train), len(data.test)) == (1344, 761, 583)
    assert data.samples["tile"].nunique() == 263
    assert data.samples[data.samples["label"] == 0]["tile"].nunique() == 182
    assert data.samples["defect_type"].value_counts().to_dict() == {
        "good": 952, "blowhole": 115, "uneven": 103, "break": 85, "crack": 57, "fray": 32,
    }  # fmt: skip
    honest = load_dataset("mtd", MTD, split="tile", seed=0)
    assert len(honest.train) + len(honest.test) + 44 == 1344
    assert "146 of 263 tiles train, none is in both; 44 defect images" in honest.notes[0]


# --- hold_out ---


def test_hold_out_takes_training_images_away(tmp_path):
    """SegAD's release: a tenth of the normal images, by scikit-learn's rule and seed; fitting sees the others."""
    from sklearn.model_selection import train_test_split

    whole = write_category(tmp_path, n_train=20)
    held = load_dataset("mvtec", tmp_path, "part", hold_out=0.1)
    paths = list(whole.train.samples["image_path"])
    assert sorted(held.held_out.samples["image_path"]) == sorted(
        train_test_split(paths, test_size=0.1, random_state=333)[1]
    )
    assert len(held.train) == 18 and not set(held.train.samples["image_path"]) & set(
        held.held_out.samples["image_path"]
    )
    assert list(held.test.samples["image_path"]) == list(whole.test.samples["image_path"])
    assert len(whole.held_out) == 0


@pytest.mark.parametrize("share", [1.0, -0.1, "a", 0.99, True])
def test_hold_out_refuses(tmp_path, share):
    write_category(tmp_path, n_train=20)
    with pytest.raises(PNIError, match="hold_out="):
        load_dataset("mvtec", tmp_path, "part", hold_out=share)
