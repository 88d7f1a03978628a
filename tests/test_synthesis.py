"""The interface that all defect generators share: exact masks, the same bytes by seed, the area, bad input."""

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import jaxtyping
import numpy as np
import pytest
import torch

from pnilib.errors import PNIError
from pnilib.synthesis import GENERATORS, Materials, foreground_mask, mixture, synthesize
from pnilib.synthesis.painting import Painted, exact

KINDS = list(GENERATORS)
FOUR = "cutpaste,scar,draem,manual"
LEVEL = np.float32(1 / 255)


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8: stripes, a disc and noise, some of it black and some white."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    grey = (
        130
        + 90 * np.sin(x / 5 + y / 9)
        + 70 * ((y - height / 2) ** 2 + (x - width / 2) ** 2 < min(height, width) ** 2 / 9)
    )
    pixels = grey[..., None] * (1.0, 0.8, 0.6) + rng.normal(0, 12, (height, width, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def converted(image: np.ndarray, dtype: str, tensor: bool):
    array = image if dtype == "uint8" else (image / 255).astype(dtype)
    return torch.from_numpy(array).movedim(2, 0) if tensor else array


def channels_last(image) -> np.ndarray:
    return image.movedim(0, 2).numpy() if isinstance(image, torch.Tensor) else image


# --- the mask ---


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_mask_is_where_pixels_changed(kind, dtype):
    for size in [(16, 16), (17, 200), (200, 17), (61, 83), (480, 479)]:
        for seed, tensor in product(range(1 if size[0] == 480 else 4), (False, True)):
            clean = converted(photo(*size), dtype, tensor)
            before = channels_last(clean).copy()
            image, mask, drawn = synthesize(clean, kind, seed)
            assert type(image) is type(clean) is type(mask)
            assert image.dtype == clean.dtype and image.shape == clean.shape
            after, mask = channels_last(image), np.asarray(mask)
            assert mask.shape == size and mask.dtype == bool and mask.any()
            assert (mask == (after != before).any(axis=2)).all()
            assert (channels_last(clean) == before).all()  # the clean image is left alone
            assert after.min() >= 0 and after.max() <= (255 if dtype == "uint8" else 1)
            assert drawn["kind"] == kind


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_and_floats_get_the_same_defect(kind):
    """To the rounding; tensors and arrays to the bit."""
    clean = photo(64, 48)
    image, mask, drawn = synthesize(clean, kind, 3)
    for dtype in ("float32", "float64"):
        other = synthesize(converted(clean, dtype, False), kind, 3)
        assert (other.mask == mask).all() and other.drawn == drawn
        assert np.abs(other.image * 255 - image).max() <= 0.5 + 1e-4
    tensor = synthesize(converted(clean, "uint8", True), kind, 3)
    assert (channels_last(tensor.image) == image).all() and (tensor.mask.numpy() == mask).all()


@pytest.mark.parametrize("kind", KINDS)
def test_memory_layout_does_not_matter(kind):
    for clean in (photo(64, 48), photo(64, 48).astype(np.float32) / 255):
        image = synthesize(clean, kind, 5).image
        for same in (np.asfortranarray(clean), np.repeat(clean, 2, axis=1)[:, ::2], clean[::-1].copy()[::-1]):
            assert (synthesize(same, kind, 5).image == image).all()
    read_only = clean.copy()
    read_only.flags.writeable = False
    assert (synthesize(read_only, kind, 5).image == image).all()


def test_exact_by_hand():
    """5 x 5, grey 0.5.  Painted: rows 1-3, columns 1-3; allowed: all but column 3."""
    clean = np.full((5, 5, 3), 0.5, np.float32)
    image, region, area = np.full_like(clean, 0.9), np.zeros((5, 5), bool), np.ones((5, 5), bool)
    region[1:4, 1:4] = True
    area[:, 3] = False
    image[1, 1], image[1, 2] = -1, 1.5  # clipped
    image[2, 1] = 0.5 + 0.4 / 255  # a pinhole: under one level, changed pixels on both sides
    image[2, 2] = 0.5  # another
    image[3, 1:3] = 0.5, 0.5, 0.8  # one channel is enough
    new, mask = exact(clean, Painted(image, region, {}), area)
    expected = clean.copy()
    expected[1, 1], expected[1, 2], expected[3, 1:3] = 0, 1, (0.5, 0.5, 0.8)
    expected[2, 1:3] = 0.5 - LEVEL
    assert np.argwhere(mask).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2], [3, 1], [3, 2]]
    assert (new == expected).all()


def test_exact_puts_back_what_did_not_change():
    """All is claimed, only column 0 moved: the rest is no pinhole."""
    clean = np.full((5, 5, 3), 0.25, np.float32)
    image = clean + np.float32(0.5 / 255)
    image[:, 0] = 0.75
    new, mask = exact(clean, Painted(image, np.ones((5, 5), bool), {}), np.ones((5, 5), bool))
    assert mask[:, 0].all() and not mask[:, 1:].any()
    assert (new[:, 1:] == clean[:, 1:]).all() and (new[:, 0] == 0.75).all()


def test_exact_nothing_painted():
    clean = np.full((5, 5, 3), 0.25, np.float32)
    nothing = np.zeros((5, 5), bool)
    new, mask = exact(clean, Painted(clean + np.float32(0.5), nothing, {}), ~nothing)
    assert (new == clean).all() and new is not clean and not mask.any()


def slow_exact(clean: np.ndarray, painted: Painted, area: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The definition, pixel by pixel."""
    height, width = area.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    wanted = np.clip(painted.image, 0, 1)
    inside = painted.region & area
    changed = {p for p in pixels if inside[p] and np.abs(wanted[p] - clean[p]).max() > 0.999 / 255}
    near = {(y, x): [(a, b) for a in (y - 1, y, y + 1) for b in (x - 1, x, x + 1) if 0 <= a < height and 0 <= b < width]
            for y, x in pixels}  # fmt: skip
    dilated = {p for p in pixels if changed.intersection(near[p])}
    new, mask = clean.copy(), np.zeros_like(area)
    for p in pixels:
        if p in changed:
            new[p], mask[p] = wanted[p], True
        elif inside[p] and all(q in dilated for q in near[p]):
            new[p], mask[p] = clean[p] + np.where(clean[p] < 0.5, LEVEL, -LEVEL), True
    return new, mask


def test_exact_against_the_definition():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        clean = rng.random((9, 11, 3), dtype=np.float32)
        top, left = rng.integers(0, 8), rng.integers(0, 10)
        region = np.zeros((9, 11), bool)
        region[top : top + rng.integers(1, 9), left : left + rng.integers(1, 11)] = True
        moved = rng.random((9, 11, 1)) < 0.6
        image = clean + np.where(moved, rng.uniform(-0.5, 0.5, (9, 11, 3)), 0).astype(np.float32)
        painted, area = Painted(image, region, {}), rng.random((9, 11)) < 0.9
        new, mask = exact(clean, painted, area)
        slow_new, slow_mask = slow_exact(clean, painted, area)
        assert (mask == slow_mask).all()
        assert (new == slow_new).all()
        assert (mask == (new != clean).any(axis=2)).all()


# --- the seed ---


@pytest.mark.parametrize("kind", [*KINDS, FOUR])
def test_same_seed_same_bytes(kind):
    clean = photo(48, 64)
    np.random.seed(1)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first = synthesize(clean, kind, 7)
    np.random.seed(2)  # noqa: NPY002
    again = synthesize(clean, kind, 7)
    assert first.image.tobytes() == again.image.tobytes() and (first.mask == again.mask).all()
    assert json.loads(json.dumps(first.drawn)) == again.drawn
    np.random.seed(1)  # noqa: NPY002
    synthesize(clean, kind, 7)
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002  # no draw from the global source
    masks = {synthesize(clean, kind, seed).mask.tobytes() for seed in range(8)}
    assert len(masks) == 8


def test_threads_do_not_disturb_each_other():
    clean = photo(96, 96)
    jobs = [(kind, seed) for kind in KINDS for seed in range(8)]
    alone = [synthesize(clean, *job).image.tobytes() for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda job: synthesize(clean, *job).image.tobytes(), jobs)) == alone


# --- mixtures ---


def test_mixture_by_hand():
    assert mixture("cutpaste") == {"cutpaste": 1.0}
    assert mixture("cutpaste,scar") == {"cutpaste": 0.5, "scar": 0.5}
    assert mixture(" draem : 3 , scar:1") == {"draem": 0.75, "scar": 0.25}
    assert sum(mixture("cutpaste:0.1,scar:0.2,draem:0.7,manual:1e-3").values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cutpast", "'cutpast'"),
        ("", "''"),
        ("cutpaste,", "''"),
        ("cutpaste:", "positive weight"),
        ("cutpaste:0", "positive weight"),
        ("cutpaste:-1", "positive weight"),
        ("cutpaste:nan", "positive weight"),
        ("cutpaste:inf", "positive weight"),
        ("cutpaste:much", "positive weight"),
        ("scar,cutpaste,scar", "each generator once"),
    ],
)
def test_mixture_that_is_none(text, said):
    with pytest.raises(PNIError, match=said) as error:
        mixture(text)
    assert "\n" not in str(error.value)
    with pytest.raises(PNIError, match=said):
        synthesize(photo(32, 32), text, 0)


@pytest.mark.parametrize(("text", "shares"), [(FOUR, [100] * 4), ("scar:3,cutpaste:1", [300, 100])])
def test_mixture_shares(text, shares):
    """400 seeds; four standard deviations of the binomial are 35 at both shares."""
    clean = photo(24, 24)
    drawn = [synthesize(clean, text, seed).drawn["kind"] for seed in range(400)]
    for name, expected in zip(mixture(text), shares, strict=True):
        assert abs(drawn.count(name) - expected) <= 35


# --- the area ---


def areas() -> dict[str, np.ndarray]:
    y, x = np.mgrid[:72, :64]
    return {
        "disc": (y - 40) ** 2 + (x - 20) ** 2 < 300,
        "corner": (y < 3) & (x < 3),
        "other corner": (y > 68) & (x > 60),
        "right edge": x > 60,  # `natural` leaves the image's outermost pixels alone
        "scattered": (y % 8 == 0) & (x % 8 == 0),
        "halves": x < 32,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_changes_outside_the_area(kind):
    clean = photo(72, 64)
    for name, area in areas().items():
        for seed in range(10):
            image, mask, _ = synthesize(clean, kind, seed, area=area)
            assert mask.any() and not (mask & ~area).any(), (name, seed)
            assert (image[~area] == clean[~area]).all()


def test_every_part_of_the_area_gets_defects():
    """Edges of the image too: the masks of many seeds together cover nearly everything."""
    clean = photo(48, 48)
    for kind in KINDS:
        n_seeds = {"scar": 1200, "small_rectangle": 1200, "thin_rectangle": 600}.get(kind, 150)  # small ones
        covered = sum(synthesize(clean, kind, seed).mask.astype(int) for seed in range(n_seeds))
        assert (covered > 0).mean() > 0.85, kind


@pytest.mark.parametrize("kind", KINDS)
def test_grey_images(kind):
    """Three equal channels; cutpaste and scar, which recolour only what has colour, leave them equal."""
    clean = np.repeat(photo(64, 64)[..., :1], 3, axis=2)
    for seed in range(5):
        image, mask, _ = synthesize(clean, kind, seed)
        assert (mask == (image != clean).any(axis=2)).all() and mask.any()
        if kind in ("cutpaste", "scar"):
            assert np.ptp(image.astype(int), axis=2).max() <= 1


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("kind", ["draem", "manual"])
def test_uniform_images_get_foreign_material(kind, value):
    clean = np.full((40, 40, 3), value, np.uint8)
    image, mask, _ = synthesize(clean, kind, 0)
    assert mask.any() and (mask == (image != clean).any(axis=2)).all()


# --- bad input ---


@pytest.mark.parametrize("kind", ["cutpaste", "scar", "natural"])
def test_a_black_image_has_nothing_to_paste(kind):
    with pytest.raises(PNIError, match=f"{kind}: 20 attempts changed no pixel.*set other defects="):
        synthesize(np.zeros((32, 32, 3), np.uint8), kind, 0)


def bad_pixel(value: float) -> np.ndarray:
    image = np.full((32, 32, 3), 0.5, np.float32)
    image[4, 5, 1] = value
    return image


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (bad_pixel(np.nan), "rescale"),
        (bad_pixel(np.inf), "rescale"),
        (bad_pixel(-0.01), "rescale"),
        (bad_pixel(1.01), "rescale"),
        (bad_pixel(1e38).astype(np.float64) * 1e100, "rescale"),
        (torch.full((3, 32, 32), 255.0), "rescale"),
        (np.full((32, 32, 3), 7, np.int32), "rescale"),
        (np.ones((32, 32, 3), bool), "rescale"),
        (np.ones((32, 32, 3), np.complex64), "rescale"),
        (np.full((3, 32, 32), 0.5, np.float32), "array or a"),
        (np.full((32, 32), 0.5, np.float32), "array or a"),
        (np.full((32, 32, 4), 0.5, np.float32), "array or a"),
        (torch.full((32, 32, 3), 0.5), "array or a"),
        (torch.full((1, 3, 32, 32), 0.5), "array or a"),
        (torch.full((3, 32, 32), 0.5, dtype=torch.bfloat16), "array or a"),
        ([[0.5]], "array or a"),
        (np.full((15, 32, 3), 0.5, np.float32), "32 x 15 px is too small"),
        (torch.full((3, 32, 15), 0.5), "15 x 32 px is too small"),
        (np.zeros((0, 0, 3), np.uint8), "too small"),
    ],
)
def test_bad_images(image, said):
    with pytest.raises(PNIError, match=said) as error:
        synthesize(image, FOUR, 0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_no_foreground(kind):
    with pytest.raises(PNIError, match=r"no foreground.*defect_area=all"):
        synthesize(photo(32, 32), kind, 0, area=np.zeros((32, 32), bool))
    empty = foreground_mask(np.full((32, 32, 3), 0.3, np.float32))
    with pytest.raises(PNIError, match=r"no foreground.*defect_area=all"):
        synthesize(photo(32, 32), kind, 0, area=empty)


def test_misshapen_area():
    with pytest.raises(PNIError, match="one bool a pixel"):
        synthesize(photo(32, 40), "cutpaste", 0, area=np.ones((40, 32), bool))
    jaxtyping.config.update("jaxtyping_disable", True)  # as users run it
    try:
        with pytest.raises(PNIError, match="one bool a pixel"):
            synthesize(photo(32, 40), "cutpaste", 0, area=np.ones((32, 40), np.uint8))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_that_learns(kind):
    """Gradients are not followed; the image is taken as it is."""
    clean = converted(photo(32, 32), "float32", True).contiguous().requires_grad_()
    assert not synthesize(clean, kind, 0, materials=Materials()).image.requires_grad


# --- the background rule ---


def disc(value: float, background: float, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:90, :120]
    inside = (y - 40) ** 2 + (x - 70) ** 2
    image = np.where(inside < 25**2, value, background)[..., None].repeat(3, 2)
    return (image + np.random.default_rng(0).normal(0, noise, image.shape)).astype(np.float32), np.sqrt(inside)


@pytest.mark.parametrize(("value", "background"), [(0.9, 0.1), (0.2, 0.8), (0.5, 0.35)])
def test_foreground_is_the_disc(value, background):
    """To two pixels at its rim, which the 7 x 7 median rounds."""
    for noise in (0.0, 0.01):
        image, radius = disc(value, background, noise)
        found = foreground_mask(image)
        assert found[radius < 23].all() and not found[radius > 27].any()


def test_foreground_one_channel_is_enough():
    image, radius = disc(0.5, 0.5)
    image[..., 2] = np.where(radius < 25, 0.7, 0.5)
    assert foreground_mask(image)[radius < 23].all()


def test_foreground_drops_specks():
    image, radius = disc(0.9, 0.1)
    image[5, 5] = image[80, 20:23] = 0.9
    assert not foreground_mask(image)[radius > 27].any()


def test_foreground_keeps_a_small_part():
    """0.7 % of the image, on a quiet background."""
    image = np.full((120, 120, 3), 0.2, np.float32)
    image[50:60, 50:60] = 0.9
    assert 0.005 < foreground_mask(image).mean() < 0.01


def test_a_texture_has_no_background():
    assert foreground_mask(photo(64, 64).astype(np.float32) / 255).all()


def test_a_texture_of_low_contrast_has_no_background():
    """Its border is quiet enough for a background, but nothing stands out from it."""
    y, x = np.mgrid[:64, :64]
    image = (0.5 + 0.05 * np.sin(x / 3 + np.sin(y / 5)))[..., None].repeat(3, 2).astype(np.float32)
    assert foreground_mask(image).all()


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_uniform_image_is_all_background(noise):
    image, _ = disc(0.4, 0.4, noise)
    assert not foreground_mask(image).any()
