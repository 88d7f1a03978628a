"""Which mask belongs to which image: names and places as tools and data sets write them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_data import SMALL, mvtec, put

from pnilib.data import load_dataset
from pnilib.data.masks import match_masks, orphan_note
from pnilib.errors import PNIError


def matched(base: Path, images: list[str], masks: list[str], tree: str = "ground_truth") -> dict[str, list[str]]:
    for name in [*(f"test/{image}" for image in images), *(f"{tree}/{mask}" for mask in masks)]:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).touch()
    found = match_masks(base, [base / "test" / image for image in images])
    return {
        image.relative_to(base / "test").as_posix(): [mask.relative_to(base / tree).as_posix() for mask in own]
        for image, own in found.items()
    }


@pytest.mark.parametrize(
    ("image", "masks"),
    [
        ("cut/000.png", ["cut/000_mask.png"]),
        ("cut/000.png", ["cut/000.png"]),
        ("cut/000.jpg", ["cut/000.bmp"]),
        ("cut/000.png", ["cut/000_gt.png"]),
        ("cut/000.png", ["cut/000_label.tif"]),
        ("cut/000.png", ["cut/000_MASK.PNG"]),
        ("cut/000.PNG", ["CUT/000-Mask.png"]),
        ("cut/000.png", ["cut/mask_000.png"]),
        ("cut/000.png", ["cut/000.png_mask.png"]),
        ("cut/IMG_1.JPG", ["cut/img_1_GT.png"]),
        ("cut/0.0 a.png", ["cut/0.0 a_mask.png"]),
        ("cut/\u00f6l.png", ["cut/o\u0308l_mask.png"]),
        ("cut/000.png", ["cut/000_mask_1.png", "cut/000_mask_2.png"]),
        ("cut/000.png", ["cut/000_mask.png", "cut/000_mask_1.png"]),
        ("cut/000.png", ["cut/000_1_mask.png", "cut/000_2_mask.png"]),
        ("cut/000.png", ["cut/000/000.png", "cut/000/001.png"]),
        ("cut/000.png", ["cut/000_masks/left.png"]),
        ("cut/cam1/000.png", ["cut/cam1/000_mask.png"]),
        ("cut/part_1.png", ["cut/part_1_mask.png"]),
    ],
)
@pytest.mark.parametrize("tree", ["ground_truth", "masks"])
def test_names(tmp_path, image, masks, tree):
    assert matched(tmp_path, [image], masks, tree) == {image: masks}
    assert orphan_note(tmp_path, [tmp_path / tree / mask for mask in masks]) == []


def test_every_mask_finds_its_own_image(tmp_path):
    images = ["cut/000.png", "cut/000_1.png", "cut/cam1/000.png", "hole/000.png", "hole/7.jpg", "hole/7.png"]
    masks = ["cut/000_mask.png", "cut/000_1.png", "cut/cam1/000_gt.png", "hole/7.jpg_mask.png", "hole/7.png_mask.png"]
    assert matched(tmp_path, images, masks) == {
        "cut/000.png": ["cut/000_mask.png"],
        "cut/000_1.png": ["cut/000_1.png"],
        "cut/cam1/000.png": ["cut/cam1/000_gt.png"],
        "hole/7.jpg": ["hole/7.jpg_mask.png"],
        "hole/7.png": ["hole/7.png_mask.png"],
    }


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        (
            ["cut/0.jpg", "cut/0.png"],
            ["cut/0_mask.png"],
            r"0_mask.png: could be the mask of 0.jpg or of 0.png: name it",
        ),
        (["cut/0.png"], ["cut/0.png", "cut/0_mask.png"], r"0_mask.png: 0.png has another mask, 0.png: remove one"),
        (["cut/0.png", "cut/0_mask.png"], [], r"0_mask.png: is by its name the mask of 0.png, which lies beside it"),
        (["cut/0.png"], ["cut/0.png", "../masks/cut/0.png"], "holds masks in ground_truth and in masks: keep one"),
    ],
)
def test_what_could_be_meant_in_two_ways_stops(tmp_path, images, masks, message):
    with pytest.raises(PNIError, match=message):
        matched(tmp_path, images, masks)


def test_masks_of_no_image_are_counted(tmp_path):
    base = mvtec(tmp_path) / "bolt"
    assert load_dataset("mvtec", tmp_path).notes == ()
    for name in ("crack/7_mask.png", "crack/part_1.png", "scratch/000_mask.png"):
        put(base / "ground_truth" / name, 255)
    (note,) = load_dataset("mvtec", tmp_path).notes
    assert "3 files belong to no image in" in note and "e.g. crack/7_mask.png" in note


def test_united_masks_of_a_data_set(tmp_path):
    """MVTec LOCO's shape: a folder of masks an image."""
    base = mvtec(tmp_path) / "bolt"
    single = load_dataset("mvtec", tmp_path).test.fingerprint()
    first, second = np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)
    first[0, :3], second[7, :2] = 255, 200
    (base / "ground_truth/crack/000").mkdir()
    (base / "ground_truth/crack/000_mask.png").unlink()
    for name, values in (("000", first), ("001", second)):
        Image.fromarray(values).save(base / f"ground_truth/crack/000/{name}.png")
    united = load_dataset("mvtec", tmp_path).test
    assert int(united.mask(0, SMALL).sum()) == 5 and united.mask(0, SMALL)[7, 1]
    before = united.fingerprint()
    put(base / "ground_truth/crack/000/001.png", 0)
    assert len({before, united.fingerprint(), single}) == 3


def test_what_masks_mean_is_an_option_of_the_data_set(tmp_path):
    mvtec(tmp_path)
    plain, inverted = (load_dataset("mvtec", tmp_path, masks=name).test for name in ("auto", "inverted"))
    assert int(inverted.mask(0, SMALL).sum()) == 64 - int(plain.mask(0, SMALL).sum()) == 60
    assert not inverted.mask(2, SMALL).any()  # a normal image has no defect, whatever masks mean
    assert plain.fingerprint() != inverted.fingerprint()
    assert load_dataset("mvtec", tmp_path).test.fingerprint() == plain.fingerprint()
    with pytest.raises(PNIError, match="masks=white: unknown: choose one of auto, inverted"):
        load_dataset("mvtec", tmp_path, masks="white")
    with pytest.raises(PNIError, match="data set folder: has no option 'masks'"):
        load_dataset("folder", tmp_path / "bolt/train", masks="inverted")


@pytest.mark.parametrize("where", ["root", "test_root", "train"])
def test_masks_beside_the_images_are_no_images(tmp_path, where):
    """They would train as normal images, or be scored."""
    base = mvtec(tmp_path) / "bolt"
    folder = base / {"root": "train/good", "test_root": "test/crack", "train": "train/good"}[where]
    image = sorted(folder.glob("*.png"))[0]
    image.with_name(f"{image.stem}_mask.png").write_bytes(image.read_bytes())
    with pytest.raises(PNIError, match=r"_mask.png: is by its name the mask of"):
        if where == "train":
            load_dataset("mvtec", tmp_path, base.name)
        else:
            load_dataset("folder", base / "train/good", test_root=base / "test")
