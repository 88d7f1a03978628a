"""CutPaste, scar and DRAEM, one by one, against what they are said to draw."""

import math

import cv2
import numpy as np
import pytest

from pnilib.synthesis import draem as draem_module
from pnilib.synthesis.cutpaste import Jitter, cutpaste, scar
from pnilib.synthesis.draem import AUGMENTATIONS, augmented, draem, noise_mask
from pnilib.synthesis.painting import Materials
from pnilib.synthesis.textures import FAMILIES

NONE = Materials()


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


def everywhere(image: np.ndarray) -> np.ndarray:
    return np.ones(image.shape[:2], bool)


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """top, left, height, width"""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(rows[0]), int(columns[0]), int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


# --- CutPaste ---


@pytest.mark.parametrize("size", [(100, 140), (256, 256)])
def test_cutpaste_draws_what_it_says(size):
    image = noise(*size)
    for seed in range(60):
        new, region, drawn = cutpaste(image, everywhere(image), np.random.default_rng(seed), NONE)
        top, left, height, width = box_of(region)
        assert region.sum() == height * width and ((new != image).any(axis=2) == region).all()
        assert [top, left] == drawn["to"] and [height, width] == drawn["size"]
        assert 0.02 <= drawn["ratio"] <= 0.15 and 0.3 <= drawn["aspect"] <= 3.3
        assert height == round(math.sqrt(drawn["ratio"] * image[..., 0].size / drawn["aspect"]))
        assert width == round(math.sqrt(drawn["ratio"] * image[..., 0].size * drawn["aspect"]))
        y, x = drawn["from"]
        source = image[y : y + height, x : x + width]
        assert source.shape == (height, width, 3)  # inside the image
        assert 2 * abs(y - top) >= height or 2 * abs(x - left) >= width
        jitter = Jitter(**drawn["jitter"])
        assert all(abs(factor - 1) <= 0.1 for factor in jitter[:3]) and abs(jitter.hue) <= 0.1
        assert (new[region].reshape(height, width, 3) == jitter(source)).all()


def test_cutpaste_ratios_and_aspects_fill_their_ranges():
    """U(.02, .15), and both intervals of the aspect equally often: 400 draws, four standard deviations."""
    image = noise(64, 64)
    rng = np.random.default_rng(0)
    drawn = [cutpaste(image, everywhere(image), rng, NONE).drawn for _ in range(400)]
    ratios, aspects = np.array([(d["ratio"], d["aspect"]) for d in drawn]).T
    assert abs(ratios.mean() - 0.085) < 4 * 0.13 / math.sqrt(12 * 400)
    assert ratios.min() < 0.025 and ratios.max() > 0.145
    assert abs((aspects < 1).sum() - 200) <= 40
    assert abs(aspects[aspects < 1].mean() - 0.65) < 0.06 and abs(aspects[aspects > 1].mean() - 2.15) < 0.2


def test_cutpaste_centre_lies_in_the_area():
    image = noise(90, 120)
    area = np.zeros((90, 120), bool)
    area[40:50, 50:70] = True  # so far inside that every patch fits about it
    for seed in range(100):
        drawn = cutpaste(image, area, np.random.default_rng(seed), NONE).drawn
        assert area[drawn["to"][0] + drawn["size"][0] // 2, drawn["to"][1] + drawn["size"][1] // 2]


def test_cutpaste_near_the_border_stays_inside_and_covers_the_area():
    image = noise(50, 50)
    area = np.zeros((50, 50), bool)
    area[49, 0] = True
    for seed in range(50):
        painted = cutpaste(image, area, np.random.default_rng(seed), NONE)
        assert painted.region[49, 0] and painted.region.sum() == np.prod(painted.drawn["size"])


def test_cutpaste_in_an_oblong_image_keeps_its_area():
    image = noise(16, 2000)
    full = 0
    for seed in range(50):
        drawn = cutpaste(image, everywhere(image), np.random.default_rng(seed), NONE).drawn
        height, width = drawn["size"]
        full += height == 16
        assert height <= 16 and height * width == pytest.approx(drawn["ratio"] * 32000, rel=0.06)
        turned = cutpaste(noise(2000, 16), everywhere(noise(2000, 16)), np.random.default_rng(seed), NONE).drawn
        assert turned["size"][1] <= 16 and np.prod(turned["size"]) == pytest.approx(turned["ratio"] * 32000, rel=0.06)
    assert full > 25  # most patches would be higher


# --- colour jitter ---


PATCH = np.array([[[0.2, 0.4, 0.6], [0.6, 0.6, 0.6]]], np.float32)  # greys .4 and .6, mean .5


@pytest.mark.parametrize(
    ("jitter", "expected"),
    [
        (Jitter(), PATCH[0]),
        (Jitter(brightness=0.5), [[0.1, 0.2, 0.3], [0.3, 0.3, 0.3]]),
        (Jitter(contrast=0), [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]),
        (Jitter(contrast=0.5), [[0.35, 0.45, 0.55], [0.55, 0.55, 0.55]]),
        (Jitter(brightness=0.5, contrast=0), [[0.25, 0.25, 0.25], [0.25, 0.25, 0.25]]),
        (Jitter(saturation=0), [[0.4, 0.4, 0.4], [0.6, 0.6, 0.6]]),
        (Jitter(saturation=0.5), [[0.3, 0.4, 0.5], [0.6, 0.6, 0.6]]),
        (Jitter(hue=1 / 3), [[0.6, 0.2, 0.4], [0.6, 0.6, 0.6]]),  # red becomes green
        (Jitter(hue=-1 / 3), [[0.4, 0.6, 0.2], [0.6, 0.6, 0.6]]),
        (Jitter(brightness=2), [[0.4, 0.8, 1.0], [1.0, 1.0, 1.0]]),  # clipped
    ],
)
def test_jitter_by_hand(jitter, expected):
    assert jitter(PATCH)[0] == pytest.approx(np.array(expected), abs=1e-6)


def test_jitter_draws():
    drawn = np.array([Jitter.draw(np.random.default_rng(seed)) for seed in range(300)])
    assert np.abs(drawn - (1, 1, 1, 0)).max() <= 0.1
    assert (np.ptp(drawn, axis=0) > 0.18).all()
    assert np.abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.25  # four draws, not one


# --- scar ---


@pytest.mark.parametrize(("side", "scale"), [(256, 1), (384, 1.5), (128, 0.5)])
def test_scar_sizes_scale_with_the_image(side, scale):
    image = noise(side, side + 30)
    rng = np.random.default_rng(0)
    painted = [scar(image, everywhere(image), rng, NONE) for _ in range(200)]
    widths, lengths, angles = np.array([[p.drawn[k] for k in ("width", "length", "angle")] for p in painted]).T
    assert 2 * scale <= widths.min() < 3 * scale and 15 * scale < widths.max() <= 16 * scale
    assert 10 * scale <= lengths.min() < 11 * scale and 24 * scale < lengths.max() <= 25 * scale
    assert -45 <= angles.min() < -42 and 42 < angles.max() <= 45
    pixels = np.array([p.region.sum() for p in painted])
    assert (np.abs(pixels - widths * lengths) <= 2 * (widths + lengths)).all()
    assert pixels.mean() == pytest.approx((widths * lengths).mean(), rel=0.03)


def test_smallest_scar():
    """At 16 px: 1 px wide, 3 px long, without gaps."""
    image = noise(16, 16)
    for seed in range(100):
        painted = scar(image, everywhere(image), np.random.default_rng(seed), NONE)
        assert (painted.drawn["width"], painted.drawn["length"]) == (1, 3)
        assert 2 <= painted.region.sum() <= 5
        assert cv2.connectedComponents(painted.region.astype(np.uint8), connectivity=8)[0] == 2


def test_scar_lies_at_its_angle():
    image = noise(1024, 1024)
    checked = 0
    for seed in range(60):
        region, drawn = scar(image, everywhere(image), np.random.default_rng(seed), NONE)[1:]
        if drawn["length"] > 1.5 * drawn["width"]:
            checked += 1
            y, x = np.nonzero(region)
            long_y, long_x = np.linalg.eigh(np.cov(np.stack([y, x])))[1][:, 1]
            assert -math.degrees(math.atan(long_x / long_y)) == pytest.approx(drawn["angle"], abs=3)
    assert checked > 20


def test_scar_shows_its_source():
    """On a ramp bilinear sampling is exact, so each pixel tells where it came from."""
    y, x = np.mgrid[:128, :160].astype(np.float32)
    image = np.stack([x / 200, y / 200, (x + y) / 400], axis=2)
    checked = 0
    for seed in range(60):
        new, region, drawn = scar(image, everywhere(image), np.random.default_rng(seed), NONE)
        (top, left), (from_y, from_x), (height, width) = drawn["to"], drawn["from"], drawn["size"]
        dy, dx = np.mgrid[:height, :width] - np.array([height // 2, width // 2])[:, None, None]
        turn = math.radians(drawn["angle"])
        source_y = from_y + height // 2 + math.cos(turn) * dy - math.sin(turn) * dx
        source_x = from_x + width // 2 + math.sin(turn) * dy + math.cos(turn) * dx
        if min(source_y.min(), source_x.min()) < 0 or source_y.max() > 127 or source_x.max() > 159:
            continue
        checked += 1
        strip = np.stack([source_x / 200, source_y / 200, (source_x + source_y) / 400], axis=2).astype(np.float32)
        expected = Jitter(**drawn["jitter"])(strip)
        box = np.s_[top : top + height, left : left + width]
        assert np.abs(new[box] - expected)[region[box]].max() < 2e-3
        assert (new[~region] == image[~region]).all()
    assert checked > 20


@pytest.mark.parametrize("pixel", [(0, 0), (0, 199), (99, 0), (99, 199), (0, 100)])
def test_scar_in_a_corner_is_cut_off_but_there(pixel):
    image = noise(100, 200)
    area = np.zeros((100, 200), bool)
    area[pixel] = True
    for seed in range(30):
        new, region, _ = scar(image, area, np.random.default_rng(seed), NONE)
        assert region[pixel] and (new[pixel] != image[pixel]).any()
        assert (new[~region] == image[~region]).all()


# --- DRAEM ---


def test_noise_mask_scales():
    """2^0 ... 2^5 on either axis, drawn apart; cells of 4 px at least."""
    rng = np.random.default_rng(0)
    drawn = [noise_mask(np.ones((160, 160), bool), rng) for _ in range(200)]
    cells = np.array([d[1] for d in drawn])
    assert set(cells.ravel()) == {1, 2, 4, 8, 16, 32}
    assert 0.05 < (cells[:, 0] == cells[:, 1]).mean() < 0.3
    angles = np.array([d[2] for d in drawn])
    assert -90 <= angles.min() < -80 and 80 < angles.max() <= 90
    assert 0.02 < np.mean([d[0].mean() for d in drawn]) < 0.12
    small = np.array([noise_mask(np.ones((16, 70), bool), rng)[1] for _ in range(100)])
    assert set(small[:, 0]) == {1, 2, 4} and set(small[:, 1]) == {1, 2, 4, 8, 16}


def test_noise_mask_meets_its_area():
    """A single pixel, a small corner; and 1/2,000 of the image where the area has room."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        for rows, columns, least in ((1, 1, 1), (3, 3, 1), (20, 120, 6)):
            area = np.zeros((100, 120), bool)
            area[:rows, :columns] = True
            assert (noise_mask(area, rng)[0] & area).sum() >= least


def test_noise_mask_reaches_the_corners():
    """Turned noise is mirrored at the border, not 0 there."""
    rng = np.random.default_rng(0)
    masks = sum(noise_mask(np.ones((32, 32), bool), rng)[0].astype(int) for _ in range(600))
    assert masks[:3, :3].mean() > 0.5 * masks.mean() and masks[-3:, -3:].mean() > 0.5 * masks.mean()


@pytest.mark.parametrize("seed", range(20))
def test_draem_formula(seed, monkeypatch):
    """A texture of one colour, left as it is: (1 - beta) T + beta I on the mask, to the texture's 8 bits."""
    monkeypatch.setattr(draem_module, "AUGMENTATIONS", {name: lambda levels, rng: levels for name in "abc"})
    image, colour = noise(60, 80), np.array([51, 102, 204], np.float32) / 255
    texture = np.broadcast_to(colour, (30, 40, 3)).copy()
    new, mask, drawn = draem(image, everywhere(image), np.random.default_rng(seed), Materials(textures=[texture]))
    beta = drawn["beta"]
    assert 0 <= beta < 0.8 and sorted(drawn["augmentations"]) == ["a", "b", "c"] and drawn["texture"] == "0"
    assert np.abs(new - ((1 - beta) * colour + beta * image))[mask].max() < 1e-5
    assert (new[~mask] == image[~mask]).all() and mask.any()


def test_draem_takes_its_texture_from_where_it_is_told():
    image = noise(40, 40)
    given = Materials(textures=[noise(50, 60), noise(20, 20)])
    names = {draem(image, everywhere(image), np.random.default_rng(s), given).drawn["texture"] for s in range(20)}
    assert names == {"0", "1"}
    names = {draem(image, everywhere(image), np.random.default_rng(s), NONE).drawn["texture"] for s in range(80)}
    assert names == set(FAMILIES)


def test_three_different_augmentations():
    drawn = [augmented(noise(20, 20), np.random.default_rng(seed))[1] for seed in range(60)]
    assert all(len(set(names)) == 3 for names in drawn)
    assert {name for names in drawn for name in names} == set(AUGMENTATIONS)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_augmentation_changes_a_texture(name):
    texture = (noise(30, 45) * 200 + 20).astype(np.uint8)
    before = texture.copy()
    results = [AUGMENTATIONS[name](texture, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert all(r.shape == (30, 45, 3) and r.dtype == np.uint8 for r in results)
    assert (results[0] == results[1]).all() and (texture == before).all()
    assert any((r != texture).mean() > 0.2 for r in results)


class Middle(np.random.Generator):
    """A random source that draws the middle of every range."""

    def uniform(self, low, high, size=None):
        return np.full(size, (low + high) / 2) if size else (low + high) / 2

    def integers(self, low, high):
        return (low + high) // 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gamma", [255 * (level / 255) ** 1.25 for level in (10, 80, 200)]),
        ("brightness", [10, 80, 200]),
        ("sharpness", [10, 80, 200]),
        ("solarize", [10, 80, 55]),  # above 80
        ("posterize", [0, 80, 192]),  # the lowest 4 bits are dropped
        ("invert", [245, 175, 55]),
        ("autocontrast", [0, 70 * 255 / 190, 255]),
        ("rotate", [10, 80, 200]),  # by 0 degrees
    ],
)
def test_augmentations_by_hand(name, expected):
    texture = np.repeat(np.array([[10, 80, 200]], np.uint8)[..., None], 3, axis=2)
    result = AUGMENTATIONS[name](texture, Middle(np.random.PCG64()))
    assert np.abs(result[0] - np.array(expected)[:, None]).max() <= 0.5


def test_hue_turns():
    """Red by 70 degrees is yellow and a third towards green: hue 70 of 360."""
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255

    class Most(Middle):
        def uniform(self, low, high, size=None):
            return high

    result = AUGMENTATIONS["hue_saturation"](red, Most(np.random.PCG64()))
    assert result[0, 0] == pytest.approx([255 * (2 - 70 / 60), 255, 0], abs=2)
