"""Every image format that a camera or a data set may hand over, and every broken file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pnilib.errors import PNIError
from pnilib.images import Geometry, image_size, mask_array, read_image, read_mask

SAME = Geometry(8, 8)


def save(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


def grey(value: int = 51, size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new("L", size, value)


@pytest.mark.parametrize(
    ("name", "image", "rgb"),
    [
        ("grey.png", grey(51), (0.2, 0.2, 0.2)),
        ("rgb.png", Image.new("RGB", (8, 8), (255, 51, 0)), (1.0, 0.2, 0.0)),
        ("rgba.png", Image.new("RGBA", (8, 8), (255, 51, 0, 0)), (1.0, 0.2, 0.0)),  # alpha dropped
        ("la.png", Image.new("LA", (8, 8), (51, 10)), (0.2, 0.2, 0.2)),
        ("palette.png", Image.new("RGB", (8, 8), (255, 51, 0)).quantize(4), (1.0, 0.2, 0.0)),
        ("bilevel.png", Image.new("1", (8, 8), 1), (1.0, 1.0, 1.0)),
        ("cmyk.tif", Image.new("CMYK", (8, 8), (0, 204, 255, 0)), (1.0, 0.2, 0.0)),
        ("deep.png", Image.fromarray(np.full((8, 8), 13107, np.uint16)), (0.2, 0.2, 0.2)),
        ("deep.tif", Image.fromarray(np.full((8, 8), 13107, np.int32)), (0.2, 0.2, 0.2)),
        ("float.tif", Image.fromarray(np.full((8, 8), 0.2, np.float32)), (0.2, 0.2, 0.2)),
        ("grey.bmp", grey(51), (0.2, 0.2, 0.2)),
    ],
)
def test_formats(tmp_path, name, image, rgb):
    pixels = read_image(save(tmp_path / name, image), SAME)
    assert pixels.shape == (3, 8, 8)
    assert torch.allclose(pixels, torch.tensor(rgb)[:, None, None].expand(3, 8, 8), atol=1e-6)


def test_palette_with_transparency(tmp_path):
    image = Image.new("RGB", (8, 8), (255, 51, 0)).quantize(4)
    path = save(tmp_path / "p.png", image, transparency=bytes([100, 200]))
    assert read_image(path, SAME)[:, 0, 0].tolist() == pytest.approx([1.0, 0.2, 0.0])


def test_16_bit_keeps_its_depth(tmp_path):
    """Two levels that 8 bits cannot tell apart."""
    values = np.full((8, 8), 1000, np.uint16)
    values[:, 4:] = 1001
    pixels = read_image(save(tmp_path / "d.png", Image.fromarray(values)), SAME)
    assert pixels[0, 0, 7] * 65535 == pytest.approx(1001, abs=0.01)
    assert pixels[0, 0, 0] * 65535 == pytest.approx(1000, abs=0.01)


def test_out_of_range_grey_is_refused(tmp_path):
    path = save(tmp_path / "f.tif", Image.fromarray(np.full((8, 8), 7.0, np.float32)))
    with pytest.raises(PNIError, match=r"f.tif: grey values lie outside 0 \.\.\. 1: rescale"):
        read_image(path, SAME)


def test_bilinear_is_antialiased(tmp_path):
    """One white column, reduced by 4: Pillow's triangle filter also reaches the neighbouring pixel."""
    stripes = np.zeros((16, 16), np.uint8)
    stripes[:, 8] = 255  # one white column, cell 2 of 4 (columns 8..11)
    pixels = read_image(save(tmp_path / "s.png", Image.fromarray(stripes)), Geometry(4, 4))
    # output x has centre 4x+2 and weights 1 - |t|/4 (sum 4) on columns; column 8 (centre 8.5):
    # x=2: centre 10, t=1.5 -> .625/4; x=1: centre 6, t=2.5 -> .375/4; x=0, 3: out of reach
    expected = [0, 0.375 / 4, 0.625 / 4, 0]
    assert pixels[0, 1].tolist() == pytest.approx(expected, abs=1.1 / 255)


def test_square_and_short(tmp_path):
    """A 16 x 8 image with a white right half."""
    wide = np.zeros((8, 16), np.uint8)
    wide[:, 12:] = 255
    path = save(tmp_path / "w.png", Image.fromarray(wide))
    square = read_image(path, Geometry(8, 8, "square"))
    short = read_image(path, Geometry(8, 8, "short"))
    assert square[0, 0, -1] == 1  # the right end survives
    assert short.max() == 0  # the crop keeps columns 4..11 of 16


def test_short_edge_and_crop_match_torchvision(tmp_path):
    from torchvision.transforms import v2

    rng = np.random.default_rng(0)
    for size in [(31, 47), (47, 31), (40, 40)]:
        image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        path = save(tmp_path / "n.png", image)
        reference = v2.Compose([v2.Resize(20), v2.CenterCrop(15), v2.PILToTensor()])(image)
        assert torch.equal((read_image(path, Geometry(20, 15, "short")) * 255).round().byte(), reference)


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("L", (8, 4), 0)
    image.paste(255, (4, 0, 8, 4))  # the right half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise: the right end goes down
    path = save(tmp_path / "e.png", image, exif=exif)
    pixels = read_image(path, Geometry(8, 8))
    assert image_size(path) == (4, 8)
    assert pixels[0, 0].max() == 0 and pixels[0, -1].min() == 1


def write_mask(path: Path, values: list[list[int]]) -> Path:
    return save(path, Image.fromarray(np.array(values, np.uint8)))


@pytest.mark.parametrize(
    ("values", "defect"),
    [
        ([[0, 255]], [[False, True]]),
        ([[0, 9, 127, 128]], [[False, False, False, True]]),  # compression noise (MTD)
        ([[0, 1, 2]], [[False, True, True]]),  # labels (VisA)
        ([[0, 0]], [[False, False]]),
    ],
)
def test_mask_rule(tmp_path, values, defect):
    assert mask_array(write_mask(tmp_path / "m.png", values)).tolist() == defect


@pytest.mark.parametrize("mode", ["1", "RGB", "RGBA", "P", "I;16"])
def test_mask_modes(tmp_path, mode):
    values = np.array([[0, 255]], np.uint8)
    image = Image.fromarray(values)
    image = Image.fromarray(values.astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    assert mask_array(save(tmp_path / "m.png", image)).tolist() == [[False, True]]


def test_palette_mask_is_read_by_its_index(tmp_path):
    """Index 1 may well be painted black: it is still another label than 0."""
    image = Image.new("P", (2, 1))
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.putpixel((1, 0), 1)
    assert mask_array(save(tmp_path / "m.png", image)).tolist() == [[False, True]]


def test_nearest_and_floor(tmp_path):
    """A 4 x 4 square enlarged twice: nearest keeps 8 x 8, floor erodes its blurred rim."""
    values = np.zeros((8, 8), int)
    values[2:6, 2:6] = 255
    path = write_mask(tmp_path / "m.png", values.tolist())
    nearest = read_mask(path, Geometry(16, 16))
    floor = read_mask(path, Geometry(16, 16, mask_resize="floor"))
    assert int(nearest.sum()) == 64 and nearest[4:12, 4:12].all()
    assert int(floor.sum()) == 36 and floor[5:11, 5:11].all()


def test_mask_and_image_stay_aligned(tmp_path):
    rng = np.random.default_rng(1)
    values = ((rng.random((10, 14)) > 0.5) * 255).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    path = save(tmp_path / "m.png", Image.fromarray(values))
    for geometry in [Geometry(64, 48), Geometry(64, 48, "short")]:
        image, mask = read_image(path, geometry)[0], read_mask(path, geometry, image_path=path)
        assert ((image > 0.5) == mask).float().mean() > 0.9


def test_mask_of_another_size(tmp_path):
    image, mask = save(tmp_path / "i.png", grey(size=(8, 6))), save(tmp_path / "m.png", grey(size=(6, 8)))
    with pytest.raises(PNIError, match=r"m.png: mask is 6 x 8 px but its image .*i.png is 8 x 6 px: redraw"):
        read_mask(mask, SAME, image_path=image)


def broken(path: Path, how: str) -> Path:
    if how == "truncated":
        rng = np.random.default_rng(0)
        save(path, Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)))
        path.write_bytes(path.read_bytes()[:1500])
    elif how == "text":
        path.write_text("I am not an image\n")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "is damaged and cannot be read"),
        ("text", "is not an image"),
        ("empty", "is empty"),
        ("missing", "does not exist"),
        ("folder", "is damaged|is not an image|is empty"),
    ],
)
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_broken_files_are_named_in_one_line(tmp_path, how, message, read):
    path = broken(tmp_path / "bad ü.png", how)
    with pytest.raises(PNIError, match=message) as caught:
        read(path, SAME)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text


def test_truncated_jpeg(tmp_path):
    rng = np.random.default_rng(0)
    path = save(tmp_path / "t.jpg", Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)))
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(PNIError, match=r"t.jpg: is damaged"):
        read_image(path, SAME)


def test_decompression_bomb_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "big.png", grey(size=(64, 64)))
    monkeypatch.setattr("pnilib.images._MAX_PIXELS", 1000)
    with pytest.raises(PNIError, match="64 x 64 pixels"):
        read_image(path, SAME)


@pytest.mark.parametrize("bad", [dict(crop=600), dict(crop=0), dict(resize_mode="fit"), dict(mask_resize="cubic")])
def test_geometry_is_validated(bad):
    with pytest.raises(PNIError):
        Geometry(**bad)
