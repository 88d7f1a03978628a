"""Every image format that a camera or a data set may hand over, and every broken file."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from pnilib.config.geometry import Geometry
from pnilib.data.image_files import image_size, read_header
from pnilib.data.images import mask_array, read_image, read_mask
from pnilib.data.mask_values import united_mask
from pnilib.errors import PNIError

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
        ("palette-alpha.png", Image.new("RGBA", (8, 8), (255, 51, 0, 9)).quantize(4), (1.0, 0.2, 0.0)),
        ("cmyk.jpg", Image.new("CMYK", (8, 8), (0, 0, 0, 255)), (0.0, 0.0, 0.0)),
        ("deep.png", Image.fromarray(np.full((8, 8), 13107, np.uint16)), (0.2, 0.2, 0.2)),
        ("one.png", grey(51, (1, 1)), (0.2, 0.2, 0.2)),
        ("line.png", grey(51, (20000, 1)), (0.2, 0.2, 0.2)),
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


@pytest.mark.parametrize(
    ("name", "dtype", "value"),
    [("c.png", np.uint16, 1000), ("c.tif", np.uint16, 1000), ("c.tif", np.float32, 1000 / 65535)],
)
def test_deep_colour_keeps_its_depth(tmp_path, name, dtype, value):
    """Pillow reads 8 bits of the first two, and nothing of the last."""
    colour = np.zeros((8, 8, 3), dtype)
    colour[..., 0], colour[:4, :, 2] = value, (1 if dtype == np.float32 else 65535)
    assert cv2.imwrite(str(tmp_path / name), colour[..., ::-1])
    pixels = read_image(tmp_path / name, SAME)
    assert pixels[:, 0, 0].tolist() == pytest.approx([1000 / 65535, 0, 1], abs=1e-7)
    assert pixels[:, 7, 7].tolist() == pytest.approx([1000 / 65535, 0, 0], abs=1e-7)
    header = read_header(tmp_path / name)
    assert (header.width, header.colour, header.bits) == (8, True, 8 * np.dtype(dtype).itemsize)


def test_bit_depth(tmp_path):
    """Mono12 in 16 bits is an eighth as bright as it should be; 8-bit files stay what they are."""
    twelve, bright = Geometry(8, 8, bit_depth=12), np.full((8, 8), 4095, np.uint16)
    deep = save(tmp_path / "d.png", Image.fromarray(bright))
    assert read_image(deep, twelve).min() == 1 and read_image(deep, SAME).max() == pytest.approx(4095 / 65535)
    assert cv2.imwrite(str(tmp_path / "c.png"), np.dstack([bright] * 3))
    assert read_image(tmp_path / "c.png", twelve).min() == 1
    assert torch.equal(read_image(save(tmp_path / "e.png", grey()), twelve), read_image(tmp_path / "e.png", SAME))
    bright[3, 3] = 4096
    with pytest.raises(PNIError, match=r"d.png: values from 4095 to 4096 lie outside 0 \.\.\. 4095, bit_depth=12"):
        read_image(save(deep, Image.fromarray(bright)), twelve)


@pytest.mark.parametrize("value", [7.0, -0.5, np.nan])
def test_floats_out_of_range_are_refused(tmp_path, value):
    path = save(tmp_path / "f.tif", Image.fromarray(np.full((8, 8), value, np.float32)))
    with pytest.raises(PNIError, match=r"f.tif: values from .* lie outside 0 \.\.\. 1: divide them"):
        read_image(path, SAME)


PAGES = {"save_all": True, "append_images": [grey(9)]}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pages.tif", PAGES, "holds 2 pages: save each page"),
        ("moves.gif", PAGES, "is an animation of 2 pictures"),
        ("moves.webp", PAGES | {"lossless": True}, "is an animation of 2 pictures"),
        ("moves.png", PAGES, "is an animation of 2 pictures"),
    ],
)
def test_files_of_no_single_picture_are_named(tmp_path, name, options, message):
    path = save(tmp_path / name, grey(), **options)
    with pytest.raises(PNIError, match=f"{name}: {message}"):
        read_image(path, SAME)


def test_a_thumbnail_within_a_tiff_is_no_second_page(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    with tifffile.TiffWriter(tmp_path / "t.tif") as file:
        file.write(np.full((8, 8), 51, np.uint8))
        file.write(np.full((2, 2), 9, np.uint8), subfiletype=1)
    assert read_image(tmp_path / "t.tif", SAME).max() == pytest.approx(0.2)


def test_the_second_view_of_a_phones_jpeg_is_no_animation(tmp_path):
    path = save(tmp_path / "p.jpg", grey(51), format="MPO", save_all=True, append_images=[grey(9)])
    assert read_image(path, SAME).mean() == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("planar", ["planar", "half", "int16"])
def test_rarer_tiffs_are_refused_by_name(tmp_path, planar):
    tifffile = pytest.importorskip("tifffile")
    values = np.zeros((8, 8, 3), {"planar": np.uint16, "half": np.float16, "int16": np.int16}[planar])
    if planar == "planar":
        tifffile.imwrite(tmp_path / "r.tif", values.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    else:
        tifffile.imwrite(tmp_path / "r.tif", values, photometric="rgb")
    with pytest.raises(PNIError, match=r"r.tif: is a TIFF file of 3 channels of 16 bits, .* which is not read"):
        read_image(tmp_path / "r.tif", SAME)


def test_a_strip_that_resizing_would_make_huge(tmp_path):
    path = save(tmp_path / "s.png", grey(size=(20000, 1)))
    with pytest.raises(PNIError, match=r"s.png: resize=short would make its 20000 x 1 px .*: use resize=square"):
        read_image(path, Geometry(512, 480, "short"))


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
    deep = np.zeros((4, 8, 3), np.uint16)
    deep[:, 4:] = 65535
    assert cv2.imwrite(str(tmp_path / "e16.png"), deep)
    tagged = tmp_path / "e16.png"  # the EXIF block of the first file, before the pixels
    blob, block = tagged.read_bytes(), path.read_bytes()
    start = block.index(b"eXIf") - 4
    length = int.from_bytes(block[start : start + 4], "big") + 12
    place = blob.index(b"IDAT") - 4
    tagged.write_bytes(blob[:place] + block[start : start + length] + blob[place:])
    assert image_size(tagged) == (4, 8) and torch.equal(read_image(tagged, Geometry(8, 8)) > 0.5, pixels > 0.5)
    assert pixels[0, 0].max() == 0 and pixels[0, -1].min() == 1


def write_mask(path: Path, values: list[list[int]]) -> Path:
    return save(path, Image.fromarray(np.array(values, np.uint8)))


CRACK, STAIN = np.zeros((24, 24), bool), np.zeros((24, 24), bool)
CRACK[2:8, 2:8] = True
STAIN[12:20, 9:22] = True
BOTH = CRACK | STAIN
RINGING = np.random.default_rng(0).integers(0, 4, BOTH.shape)


def painted(crack: object, stain: object, ground: object, dtype: type = np.uint8) -> np.ndarray:
    """Two regions on a ground, each of one value, (h, w), or colour, (h, w, channels)."""
    layers = [CRACK, STAIN, np.ones_like(BOTH)]
    shape = BOTH.shape + np.shape(crack)
    whole = np.zeros(shape, dtype)
    for where, value in zip(layers[::-1], (ground, stain, crack), strict=True):
        whole[where] = value
    return whole


def palette(colours: list[int], transparent: bytes | None = None) -> Image.Image:
    """Crack has index 1, stain 2, the ground 0."""
    image = Image.fromarray(painted(1, 2, 0), "P")
    image.putpalette(colours)
    if transparent:
        image.info["transparency"] = transparent
    return image


def soft(values: np.ndarray, times: int = 4) -> Image.Image:
    """The regions with antialiased rims: drawn larger, and reduced."""
    large = Image.fromarray(values).resize((24 * times, 24 * times), Image.Resampling.NEAREST).rotate(0)
    return large.filter(ImageFilter.GaussianBlur(times / 2)).resize((24, 24), Image.Resampling.BOX)


BLACK, WHITE, RED, BLUE = (0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 0, 120)
PHOTO = np.random.default_rng(1).integers(0, 256, (24, 24, 3), dtype=np.uint8)
UNDER = np.dstack([PHOTO, np.where(BOTH, 255, 0)]).astype(np.uint8)  # any colour is stored where nothing is seen
UNDER[BOTH, :3] = 0
FAINT = painted((*WHITE, 255), (*BLACK, 255), (*BLACK, 100))

MASK_FILES = [
    # what is on disk, how it was saved, the option `masks`, what it marks
    ("1-bit", Image.fromarray(BOTH), "png", "auto", BOTH),
    ("0 and 255 (MVTec)", painted(255, 255, 0), "png", "auto", BOTH),
    ("0 and 1", painted(1, 1, 0), "png", "auto", BOTH),
    ("0, 1, 2 (VisA)", painted(1, 2, 0), "png", "auto", BOTH),
    ("grey labels on both sides of 127", painted(100, 200, 0), "png", "auto", BOTH),
    ("a dim label beside a bright one", painted(40, 255, 0), "png", "auto", BOTH),
    ("dim JPEG", painted(100, 100, 0), "jpg", "auto", BOTH),
    ("dim, with ringing", np.where(BOTH, 100, RINGING).astype(np.uint8), "png", "auto", BOTH),
    ("JPEG labels", painted(100, 200, 0), "jpg", "auto", BOTH),
    ("JPEG", painted(255, 255, 0), "jpg", "auto", BOTH),
    ("soft rims", soft(painted(255, 255, 0)), "png", "auto", BOTH),
    ("video range", painted(235, 235, 16), "png", "auto", BOTH),
    ("16 bits", painted(65535, 65535, 0, np.uint16), "png", "auto", BOTH),
    ("12 of 16 bits", painted(4095, 4095, 0, np.uint16), "png", "auto", BOTH),
    ("labels in 16 bits", painted(1, 3, 0, np.uint16), "png", "auto", BOTH),
    ("floats", painted(0.4, 1.0, 0.0, np.float32), "tif", "auto", BOTH),
    ("16-bit colour", painted((40000, 0, 0), (0, 0, 65535), BLACK, np.uint16), "cv2.png", "auto", BOTH),
    ("white on black", painted(WHITE, WHITE, BLACK), "png", "auto", BOTH),
    ("two colours on black", painted(RED, BLUE, BLACK), "png", "auto", BOTH),
    ("red on white", painted(RED, RED, WHITE), "png", "auto", BOTH),
    ("opaque, white on black", painted((*WHITE, 255), (*WHITE, 255), (*BLACK, 255)), "png", "auto", BOTH),
    ("white layer, shape in alpha", painted((*WHITE, 255), (*WHITE, 255), (*WHITE, 0)), "png", "auto", BOTH),
    ("red layer, shape in alpha", painted((*RED, 255), (*RED, 255), (*RED, 0)), "png", "auto", BOTH),
    ("black layer, shape in alpha", painted((*BLACK, 255), (*BLACK, 255), (*BLACK, 0)), "png", "auto", BOTH),
    ("black brush over whatever colour", UNDER, "png", "auto", BOTH),
    ("half-transparent brush", painted((*RED, 128), (*RED, 128), (*BLACK, 0)), "png", "auto", BOTH),
    ("brushes of two colours", painted((*RED, 255), (*BLACK, 255), (*BLACK, 0)), "png", "auto", BOTH),
    ("cut-out of the photograph", np.dstack([PHOTO, BOTH * np.uint8(255)]), "png", "auto", BOTH),
    ("grey with alpha", painted((0, 255), (0, 255), (0, 0)), "png", "auto", BOTH),
    ("palette labels", palette([*BLACK, 128, 0, 0, 0, 128, 0]), "png", "auto", BOTH),
    ("palette, two black labels", palette([*WHITE, *BLACK, *BLACK]), "png", "auto", BOTH),
    ("palette, white first", palette([*WHITE, *BLACK, *WHITE]).point(lambda i: i % 2), "png", "auto", ~CRACK),
    ("palette, all black", palette([*BLACK, *BLACK, *BLACK]), "png", "auto", BOTH),
    ("palette, transparent ground", palette([*BLACK, *BLACK, *RED], b"\0\xff\xff"), "png", "auto", BOTH),
    ("nothing", painted(0, 0, 0), "png", "auto", BOTH & False),
    ("everything", painted(255, 255, 255), "png", "auto", BOTH | True),
    ("a transparent layer", painted((*RED, 0), (*RED, 0), (*RED, 0)), "png", "auto", BOTH & False),
    ("black on white", painted(0, 0, 255), "png", "auto", ~BOTH),
    ("black on white", painted(0, 0, 255), "png", "inverted", BOTH),
    ("black on white, JPEG", painted(0, 0, 255), "jpg", "inverted", BOTH),
    ("holes in a layer", painted((*RED, 0), (*RED, 0), (*RED, 255)), "png", "inverted", BOTH),
    ("a label of 1 beside 255", painted(1, 255, 0), "png", "auto", STAIN),
    ("a label of 1 beside 255", painted(1, 255, 0), "png", "nonzero", BOTH),
    ("grey labels on both sides of 127", painted(100, 200, 0), "png", "bright", STAIN),
    ("black and white, partly faint", FAINT, "png", "auto", CRACK),
    ("black and white, partly faint", FAINT, "png", "alpha", BOTH),
]


@pytest.mark.parametrize(("what", "pixels", "saved", "masks", "defect"), MASK_FILES)
def test_what_a_mask_marks(tmp_path, what, pixels, saved, masks, defect):
    path = tmp_path / f"mask.{saved}"
    if saved == "cv2.png":
        assert cv2.imwrite(str(path), pixels[..., ::-1])
    elif saved == "jpg":  # rims and noise reach 8 px: at the size of a photograph
        defect = np.kron(defect, np.ones((8, 8), bool))
        Image.fromarray(np.kron(pixels, np.ones((8, 8), np.uint8))).save(path, quality=75)
    else:
        save(path, pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels))
    found = mask_array(path, masks)
    wrong = np.count_nonzero(found != defect)
    assert wrong <= (0.02 * defect.size if saved == "jpg" or what == "soft rims" else 0), found.mean()


def test_a_mask_of_no_alpha_and_an_unknown_meaning(tmp_path):
    path = write_mask(tmp_path / "m.png", [[0, 255]])
    with pytest.raises(PNIError, match=r"m.png: has no alpha channel"):
        mask_array(path, "alpha")
    with pytest.raises(PNIError, match="masks=white: unknown: choose one of auto, inverted"):
        mask_array(path, "white")


def test_several_masks_of_an_image_are_united(tmp_path):
    paths = [write_mask(tmp_path / "a.png", [[0, 255, 0]]), write_mask(tmp_path / "b.png", [[0, 0, 1]])]
    assert united_mask(paths).tolist() == [[False, True, True]]
    paths.append(write_mask(tmp_path / "c.png", [[0, 255]]))
    with pytest.raises(PNIError, match=r"c.png: mask is 2 x 1 px but the image's other mask is 3 x 1 px"):
        united_mask(paths)


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
        ("folder", "is a folder"),
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
    monkeypatch.setattr("pnilib.data.image_files.MAX_PIXELS", 1000)
    with pytest.raises(PNIError, match=r"64 x 64 pixels, more than [\d,]+: make it smaller, or cut it"):
        read_image(path, SAME)


@pytest.mark.parametrize(
    "bad", [dict(crop=600), dict(crop=0), dict(resize_mode="fit"), dict(mask_resize="cubic"), dict(bit_depth=5)]
)
def test_geometry_is_validated(bad):
    with pytest.raises(PNIError):
        Geometry(**bad)
