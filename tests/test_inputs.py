"""What people have in memory: it scores as its file does, or is refused by name."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pnilib.config.geometry import Geometry
from pnilib.data import load_dataset
from pnilib.data.images import read_image
from pnilib.data.inputs import as_images
from pnilib.errors import PNIError

SIDE = 16
GEOMETRY = Geometry(20, SIDE, bit_depth=12)
RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (31, 47, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 4096, (31, 47), dtype=np.uint16)
FLOAT = RNG.random((3, SIDE, SIDE), np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    Image.fromarray(PHOTO).save(folder / "photo.png")
    Image.fromarray(PHOTO[..., 1]).save(folder / "grey.png")
    Image.fromarray(DEEP).save(folder / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PHOTO).save(folder / "turned.png", exif=exif)
    return folder


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda f: f / "photo.png", "photo.png"),
        (lambda f: str(f / "photo.png"), "photo.png"),
        (lambda f: [f / "photo.png"], "photo.png"),
        (lambda f: f.glob("photo.*"), "photo.png"),
        (lambda f: pd.Series([str(f / "photo.png")]), "photo.png"),
        (lambda f: Image.open(f / "photo.png"), "photo.png"),
        (lambda f: (Image.open(f / "photo.png"),), "photo.png"),
        (lambda f: Image.open(f / "turned.png"), "turned.png"),
        (lambda f: PHOTO, "photo.png"),
        (lambda f: [PHOTO], "photo.png"),
        (lambda f: PHOTO[None], "photo.png"),
        (lambda f: PHOTO[..., ::-1].copy()[..., ::-1], "photo.png"),  # as from cv2.imread: negative strides
        (lambda f: np.dstack([PHOTO, PHOTO[..., :1]]), "photo.png"),  # alpha is dropped
        (lambda f: torch.from_numpy(PHOTO), "photo.png"),
        (lambda f: PHOTO[..., 1], "grey.png"),
        (lambda f: PHOTO[..., 1:2], "grey.png"),
        (lambda f: DEEP, "deep.png"),
        (lambda f: DEEP / np.float64(4095), "deep.png"),
    ],
)
def test_photographs_are_read_as_their_files(files, make, name):
    found = as_images(make(files), GEOMETRY)
    assert len(found) == 1
    assert torch.equal(found.load(0), read_image(files / name, GEOMETRY))


def test_floats_of_a_photograph_differ_from_its_file_by_rounding(files):
    """Pillow rounds 8-bit images to whole levels in each direction."""
    found = as_images(PHOTO / 255, GEOMETRY).load(0)
    assert (found - read_image(files / "photo.png", GEOMETRY)).abs().max() < 1.01 / 255


BYTES = RNG.integers(0, 256, (3, SIDE, SIDE), dtype=np.uint8)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (torch.from_numpy(FLOAT), FLOAT),
        (torch.from_numpy(FLOAT)[None], FLOAT),
        (FLOAT, FLOAT),
        ([FLOAT], FLOAT),
        (FLOAT.astype(np.float64), FLOAT),
        (torch.from_numpy(FLOAT).half(), FLOAT.astype(np.float16).astype(np.float32)),
        (torch.from_numpy(FLOAT).bfloat16(), torch.from_numpy(FLOAT).bfloat16().float().numpy()),
        (torch.from_numpy(FLOAT).requires_grad_(), FLOAT),
        (BYTES, BYTES / np.float32(255)),
        (torch.from_numpy(BYTES), BYTES / np.float32(255)),
        (FLOAT[:1], FLOAT[[0, 0, 0]]),
        (FLOAT[None, :1], FLOAT[[0, 0, 0]]),
        (np.full((1, SIDE, SIDE), 4095, np.uint16), np.ones((3, SIDE, SIDE), np.float32)),
        (np.full((1, SIDE, SIDE), 1.0005), np.ones((3, SIDE, SIDE), np.float32)),  # overshoot of a resized image
    ],
)
def test_what_a_split_gives_goes_in_as_it_is(images, expected):
    found = as_images(images, GEOMETRY)
    assert len(found) == 1
    assert torch.equal(found.load(0), torch.from_numpy(expected))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (FLOAT * 255, r"image 0: has values from .* to 25\d.*outside \[0, 1\]: divide it by 255"),
        ((FLOAT - 0.45) / 0.225, "outside .* the model normalises by itself"),
        (FLOAT * np.nan, "image 0: holds NaN"),
        (np.where(FLOAT > 0.5, np.inf, FLOAT), "image 0: holds NaN"),
        ((255 * FLOAT).astype(np.int64), "image 0: has values of type int64: give 8-bit integers"),
        (FLOAT > 0.5, "image 0: has values of type bool"),
        (torch.full((1, SIDE, SIDE), 3), "image 0: has values of type int64"),
        (np.full((1, SIDE, SIDE), 4096, np.uint16), "image 0: its value 4096 exceeds 4095, bit_depth=12"),
        (np.full((9, 9), 4096, np.uint16), "image 0: values from 4096 to 4096 lie outside"),
        (torch.rand(1, 3, 8, 8), r"shape \(3, 8, 8\): the model wants \(3, 16, 16\)"),
        (np.zeros((5, SIDE, SIDE)), r"shape \(5, 16, 16\)"),
        (np.zeros((2, 0, 3)), r"shape \(2, 0, 3\)"),
        (np.zeros(9), r"shape \(9,\)"),
        (b"bytes", "bytes is no image: give a Split, paths"),
        ({"a": FLOAT}, "dict is no image"),
        (None, "NoneType is no image"),
        ([1, 2], "int is no image"),
        ([FLOAT, "nowhere.png"], "nowhere.png: does not exist"),
        (Path(__file__).parent, "tests: is a folder"),
    ],
)
def test_all_else_is_refused_by_name(images, message):
    with pytest.raises(PNIError, match=message):
        found = as_images(images, GEOMETRY)
        for i in range(len(found)):
            found.load(i)


def test_several_kinds_at_once_and_none(files):
    found = as_images([files / "photo.png", [PHOTO, PHOTO[..., 0]], np.stack([FLOAT, FLOAT])], GEOMETRY)
    assert found.names == [str(files / "photo.png"), "image 1", "image 2", "image 3", "image 4"]
    assert torch.equal(found.load(4), torch.from_numpy(FLOAT))
    assert len(as_images([], GEOMETRY)) == len(as_images(np.zeros((0, 3, SIDE, SIDE)), GEOMETRY)) == 0
    data = load_dataset("folder", files)
    assert as_images(data.train, GEOMETRY).names == list(data.train.samples["image_path"])
    with pytest.raises(PNIError, match=r"not the whole data set .*: give its \.test"):
        as_images(data, GEOMETRY)
