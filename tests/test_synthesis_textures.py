"""Perlin noise against the textbook; procedural textures, and those of a folder."""

import math
from itertools import product

import numpy as np
import pytest
from PIL import Image

from pnilib.errors import PNIError
from pnilib.synthesis.textures import (
    FAMILIES,
    lattice_noise,
    load_textures,
    perlin_noise,
    procedural_texture,
    random_texture,
)

# --- Perlin noise ---


def textbook_noise(angles: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixel by pixel, as in Perlin's description."""
    cells_y, cells_x = angles.shape[0] - 1, angles.shape[1] - 1
    result = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            v, u = y * cells_y / height, x * cells_x / width
            for i in (int(v), int(v) + 1):
                for j in (int(u), int(u) + 1):
                    ramp = math.sin(angles[i, j]) * (v - i) + math.cos(angles[i, j]) * (u - j)
                    t, s = 1 - abs(v - i), 1 - abs(u - j)
                    fade = (6 * t**5 - 15 * t**4 + 10 * t**3) * (6 * s**5 - 15 * s**4 + 10 * s**3)
                    result[y, x] += math.sqrt(2) * ramp * fade
    return result


@pytest.mark.parametrize(
    ("size", "cells"), [((16, 16), (1, 1)), ((17, 40), (4, 8)), ((31, 20), (2, 5)), ((5, 7), (5, 7))]
)
def test_noise_against_the_textbook(size, cells):
    angles = np.random.default_rng(1).uniform(0, 7, (cells[0] + 1, cells[1] + 1)).astype(np.float32)
    assert lattice_noise(angles, *size) == pytest.approx(textbook_noise(angles, *size), abs=2e-5)


def test_noise_by_hand():
    """All four gradients of a cell point to its centre: sqrt(2) * sqrt(1/2) = 1 there.  Away from it: -1."""
    quarter = math.pi / 4
    inwards = np.array([[quarter, 3 * quarter], [-quarter, -3 * quarter]], np.float32)
    assert lattice_noise(inwards, 16, 16)[8, 8] == pytest.approx(1)
    assert lattice_noise(inwards + np.float32(math.pi), 16, 16)[8, 8] == pytest.approx(-1)
    right = np.zeros((2, 2), np.float32)  # all to the right: x - 1/2, faded, which is 0 in the middle
    assert lattice_noise(right, 16, 16)[:, 8] == pytest.approx(np.zeros(16), abs=1e-6)


def test_noise_is_zero_on_lattice_points():
    field = perlin_noise((64, 96), (4, 8), np.random.default_rng(0))
    assert np.abs(field[::16, ::12]).max() == 0
    assert np.abs(field).max() <= 1 and np.abs(field[8::16, 6::12]).min() > 0


# --- textures ---


@pytest.mark.parametrize("family", FAMILIES)
def test_procedural_textures(family):
    for shape, seed in product([(1, 1), (2, 60), (17, 200), (96, 95)], range(4)):
        texture = procedural_texture(shape, np.random.default_rng(seed), family)
        assert texture.shape == (*shape, 3) and texture.dtype == np.float32
        assert texture.min() >= 0 and texture.max() <= 1
        assert (texture == procedural_texture(shape, np.random.default_rng(seed), family)).all()
        if min(shape) > 10:
            assert texture.std(axis=(0, 1)).max() > 0.02
            assert (texture != procedural_texture(shape, np.random.default_rng(seed + 9), family)).mean() > 0.9


def test_levels_beyond_the_palette_take_its_ends(monkeypatch):
    """A field of -0.5 looks like one of 0; one of 7 like one of 1."""
    for beyond, end in ((-0.5, 0), (7, 1)):
        pair = []
        for value in (beyond, end):
            monkeypatch.setitem(FAMILIES, "flat", lambda shape, rng, value=value: np.full(shape, value, np.float32))
            pair.append(procedural_texture((9, 9), np.random.default_rng(0), "flat"))
        assert (pair[0] == pair[1]).all()


def test_any_family():
    names = {random_texture((8, 8), [], np.random.default_rng(seed))[1] for seed in range(80)}
    assert names == set(FAMILIES)


@pytest.mark.parametrize("source", [(60, 200), (400, 50)])
@pytest.mark.parametrize("shape", [(40, 40), (17, 90), (200, 60), (1, 1)])
def test_crops_keep_proportions(shape, source):
    """The texture holds its own coordinates: as many source pixels a pixel along both axes, and no more than exist."""
    y, x = np.mgrid[: source[0], : source[1]]
    texture = np.stack([y / 1000, x / 1000, 0 * x], axis=2).astype(np.float32)
    shares = []
    for seed in range(30):
        crop, name = random_texture(shape, [texture], np.random.default_rng(seed))
        assert crop.shape == (*shape, 3) and name == "0"
        assert crop[..., 0].max() <= (source[0] - 1) / 1000 + 1e-6
        if min(shape) > 15:
            down, right = (np.median(np.diff(crop[..., axis], axis=axis)) for axis in (0, 1))
            most = min(source[0] / shape[0], source[1] / shape[1])
            assert down == pytest.approx(right, rel=0.3)
            assert 0.3 * most < 1000 * down < 1.05 * most
            shares.append(1000 * down / most)
    assert not shares or (min(shares) < 0.55 and max(shares) > 0.85)  # from 0.4 to 1


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)


def test_load_textures(tmp_path):
    colour = np.zeros((40, 60, 3), np.uint8)
    colour[..., 0], colour[..., 1] = 255, 51
    save(tmp_path / "b/deep/colour.png", colour)
    save(tmp_path / "a/grey.jpg", np.full((90, 30), 102, np.uint8))
    save(tmp_path / "c/alpha.png", np.dstack([colour, np.zeros((40, 60), np.uint8)]))
    save(tmp_path / "d/palette.png", Image.fromarray(colour).quantize(4), transparency=bytes([9]))
    save(tmp_path / "e/deep.png", np.array([[1000, 2000], [1500, 1000]], np.uint16))
    (tmp_path / "notes.txt").write_text("no texture")
    grey, named, alpha, palette, deep = load_textures(tmp_path, side=45)
    assert all(t.dtype == np.float32 for t in (grey, named, alpha, palette, deep))
    assert grey.shape == (45, 15, 3) and named.shape == (30, 45, 3)  # longer side: 45 px
    assert grey == pytest.approx(np.full((45, 15, 3), 0.4), abs=0.005)
    for texture in (named, alpha, palette):
        assert texture == pytest.approx(np.broadcast_to((1, 0.2, 0), (30, 45, 3)), abs=1e-5)
    assert deep.shape == (2, 2, 3) and deep[..., 0].ravel() == pytest.approx([0, 1, 0.5, 0])
    assert len(load_textures(tmp_path, side=1)) == 5


def test_load_textures_spreads_over_the_folder(tmp_path):
    for i in range(10):
        save(tmp_path / f"{i}.png", np.full((4, 4), 10 * i, np.uint8))
    assert [round(t[0, 0, 0] * 25.5) for t in load_textures(tmp_path, limit=4)] == [0, 3, 6, 9]
    assert len(load_textures(tmp_path, limit=100)) == 10 and len(load_textures(tmp_path, limit=1)) == 1


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n0000"])
def test_unreadable_texture(tmp_path, content):
    save(tmp_path / "good.png", np.zeros((4, 4), np.uint8))
    (tmp_path / "wrong.png").write_bytes(content)
    with pytest.raises(PNIError, match=r"wrong\.png") as error:
        load_textures(tmp_path)
    assert "\n" not in str(error.value)


def test_texture_of_no_numbers(tmp_path):
    save(tmp_path / "nan.tif", np.array([[0.5, np.nan]], np.float32))
    with pytest.raises(PNIError, match=r"nan\.tif: has pixels that are no numbers"):
        load_textures(tmp_path)


def test_texture_folder_is_empty_or_missing(tmp_path):
    (tmp_path / "notes.txt").write_text("no texture")
    with pytest.raises(PNIError, match="holds no image"):
        load_textures(tmp_path)
    for path in (tmp_path / "elsewhere", tmp_path / "notes.txt"):
        with pytest.raises(PNIError, match="no such folder") as error:
            load_textures(path)
        assert str(path) in str(error.value)
