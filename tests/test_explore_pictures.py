"""Pictures are of the right image, on the category's one scale, and never of a file outside the data set."""

import base64
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_run import tiny_store, write_unit

from pnilib.apps.explore import Category, open_exploration
from pnilib.apps.explore.pictures import (
    THUMBNAIL,
    crop,
    rgb,
    scale,
    thumbnail,
)
from pnilib.apps.pages import data_url
from pnilib.errors import PNIError

__all__ = ["tiny_store"]


@pytest.fixture(scope="module")
def category(tiny_store: Path) -> Category:
    return open_exploration(tiny_store).category("two parts")


def test_data_url_round_trip() -> None:
    head, body = data_url(b"\x00<>", "text/html").split(",")
    assert head == "data:text/html;base64" and base64.b64decode(body) == b"\x00<>"


def test_rgb_by_hand() -> None:
    image = torch.tensor([[[0.0, 1.0]], [[0.5, 2.0]], [[0.2, -1.0]]])
    assert rgb(image).tolist() == [[[0, 128, 51], [255, 255, 0]]]  # 127.5 to even


def test_every_picture_of_a_category_is_on_one_scale(category: Category) -> None:
    """Between median and 99.9 % quantile of all test pixels, not of the one map that is shown."""
    for label in ("E", "PNI"):
        maps = category.results[label].maps
        assert maps is not None
        assert scale(category, label) == pytest.approx(tuple(np.quantile(maps, [0.5, 0.999])))


def test_a_scale_without_extent(tmp_path: Path) -> None:
    """A category whose maps are all equal is dark, not divided by zero."""
    folder = write_unit(tmp_path / "u", [0.0], [0])
    text = (folder / "E/meta.json").read_text()
    (folder / "E/meta.json").write_text(text.replace("1.0", "0.0"))
    found = open_exploration(tmp_path).category("part")
    low, high = scale(found, "E")
    assert low == 0.0 < high


def test_thumbnails_are_of_the_image(category: Category) -> None:
    for i in range(len(category.names)):
        found = thumbnail(category, i).astype(float)
        assert found.shape == (THUMBNAIL, THUMBNAIL, 3)
        with Image.open(category.test.samples["image_path"].iloc[i]) as image:
            wanted = np.asarray(image.convert("RGB").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)).astype(
                float
            )
        assert abs(found - wanted).mean() < 8  # JPEG
    assert not np.array_equal(thumbnail(category, 2), thumbnail(category, 4))


def test_crops_are_of_the_training_patch(category: Category) -> None:
    image = category.train.image(2, category.geometry)
    found = crop(category, 2, 9, (8, 8), 1)  # row 1, column 1, and one cell around it
    assert np.array_equal(found, rgb(image)[0:24, 0:24])
    corner = crop(category, 2, 63, (8, 8), 1)
    assert np.array_equal(corner[:16, :16], rgb(image)[48:, 48:]) and corner.shape == (24, 24, 3)
    assert np.array_equal(corner[20, :16], rgb(image)[63, 48:])  # the edge repeats
    assert np.array_equal(crop(category, 2, 9, (8, 8), 0), rgb(image)[8:16, 8:16])


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
