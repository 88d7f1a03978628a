"""Pictures are of the right image, on the category's one scale, and never of a file outside the data set."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy import ndarray
from PIL import Image
from tiny_run import tiny_store, write_unit

from pnilib.apps.explore import Category, open_exploration
from pnilib.apps.explore.pictures import (
    THUMBNAIL,
    change_colours,
    crop,
    data_url,
    map_colours,
    png,
    rgb,
    scale,
    thumbnail,
)
from pnilib.errors import PNIError

__all__ = ["tiny_store"]


@pytest.fixture(scope="module")
def category(tiny_store: Path) -> Category:
    return open_exploration(tiny_store).category("two parts")


def pixels(blob: bytes) -> ndarray:
    with Image.open(io.BytesIO(blob)) as image:
        return np.asarray(image)


def test_png_and_data_url_round_trip() -> None:
    rng = np.random.default_rng(0)
    for channels in (3, 4):
        wanted = rng.integers(0, 256, (5, 7, channels), np.uint8)
        assert np.array_equal(pixels(png(wanted)), wanted)
    head, body = data_url(b"\x00<>", "jpeg").split(",")
    assert head == "data:image/jpeg;base64" and base64.b64decode(body) == b"\x00<>"


def test_rgb_by_hand() -> None:
    image = torch.tensor([[[0.0, 1.0]], [[0.5, 2.0]], [[0.2, -1.0]]])
    assert rgb(image).tolist() == [[[0, 128, 51], [255, 255, 0]]]  # 127.5 to even


def test_every_picture_of_a_category_is_on_one_scale(category: Category) -> None:
    """Between median and 99.9 % quantile of all test pixels, not of the one map that is shown."""
    for label in ("E", "PNI"):
        maps = category.results[label].maps
        assert maps is not None
        assert scale(category, label) == pytest.approx(tuple(np.quantile(maps, [0.5, 0.999])))
    low, high = scale(category, "E")
    level = np.float32([[low - 1, low, (low + high) / 2, high, high + 1]])
    colours = map_colours(level, (low, high))
    assert colours.dtype == np.uint8 and (colours[..., 3] == 255).all()
    assert colours[0, 0].tolist() == colours[0, 1].tolist() != colours[0, 2].tolist()
    assert colours[0, 3].tolist() == colours[0, 4].tolist()
    assert map_colours(level, (low, high), clear=True)[0, :, 3] == pytest.approx([0, 0, 127, 255, 255], abs=1)
    brightness = colours[0, 1:4, :3].sum(1)
    assert (np.diff(brightness.astype(int)) > 0).all()  # higher is brighter


def test_a_scale_without_extent(tmp_path: Path) -> None:
    """A category whose maps are all equal is dark, not divided by zero."""
    folder = write_unit(tmp_path / "u", [0.0], [0])
    text = (folder / "E/meta.json").read_text()
    (folder / "E/meta.json").write_text(text.replace("1.0", "0.0"))
    found = open_exploration(tmp_path).category("part")
    low, high = scale(found, "E")
    assert low == 0.0 < high
    assert (map_colours(np.zeros((2, 2), np.float32), (low, high), clear=True)[..., 3] == 0).all()
    assert np.isfinite(map_colours(np.zeros((2, 2), np.float32), (0.0, 0.0))).all()


def test_signed_changes() -> None:
    change = np.float32([[-2, -1, 0, 1, 2]])
    colours = change_colours(change, 1.0)[0].astype(int)
    assert colours[0].tolist() == colours[1].tolist() and colours[3].tolist() == colours[4].tolist()
    assert colours[1, 2] > colours[1, 0] and colours[3, 0] > colours[3, 2]  # blue below, red above
    assert min(colours[2, :3]) > 240 and np.ptp(colours[2, :3]) < 4  # white at 0
    assert (change_colours(np.zeros((1, 1), np.float32), 0.0)[0, 0, :3] > 240).all()  # nothing changed


def test_thumbnails_are_of_the_image(category: Category) -> None:
    for i in range(len(category.names)):
        found = pixels(thumbnail(category, i)).astype(float)
        assert found.shape == (THUMBNAIL, THUMBNAIL, 3)
        with Image.open(category.test.samples["image_path"].iloc[i]) as image:
            wanted = np.asarray(image.convert("RGB").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)).astype(
                float
            )
        assert abs(found - wanted).mean() < 8  # JPEG
        assert len(thumbnail(category, i)) < 8000
    assert thumbnail(category, 2) != thumbnail(category, 4)


def test_crops_are_of_the_training_patch(category: Category) -> None:
    image = category.train.image(2, category.geometry)
    found = pixels(crop(category, 2, 9, (8, 8), 1))  # row 1, column 1, and one cell around it
    assert np.array_equal(found, rgb(image)[0:24, 0:24])
    corner = pixels(crop(category, 2, 63, (8, 8), 1))
    assert np.array_equal(corner[:16, :16], rgb(image)[48:, 48:]) and corner.shape == (24, 24, 3)
    assert np.array_equal(corner[20, :16], rgb(image)[63, 48:])  # the edge repeats
    assert np.array_equal(pixels(crop(category, 2, 9, (8, 8), 0)), rgb(image)[8:16, 8:16])


def test_crops_of_nothing(category: Category) -> None:
    for image in (-1, 4):
        with pytest.raises(PNIError, match=f"has 4 training images, the run knew number {image}"):
            crop(category, image, 0, (8, 8), 1)
    with pytest.raises(PNIError, match="cell 64 lies outside a 8x8 grid"):
        crop(category, 0, 64, (8, 8), 1)


def test_pictures_of_a_data_set_that_is_not_there(tmp_path: Path) -> None:
    write_unit(tmp_path / "u", [0.0], [0], names=["../../../../etc/passwd"])
    found = open_exploration(tmp_path).category("part")
    for read in (lambda: thumbnail(found, 0), lambda: crop(found, 0, 0, (8, 8), 1)):
        with pytest.raises(PNIError, match="/nowhere/data: the data set of mvtec/part is not there"):
            read()
    assert scale(found, "E") == (0.0, 1.0)  # what needs no picture works
