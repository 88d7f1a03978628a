"""Hand-drawn patches, eq. (S1), and Poisson blending: values by hand, slow references, odd sizes, bad folders."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image

from pnilib.errors import PNIError
from pnilib.synthesis.manual import SIZES, SOURCES, anomaly_map, blend, defect_image, manual, turn_patch
from pnilib.synthesis.natural import natural
from pnilib.synthesis.painting import LEVEL, Materials, exact
from pnilib.synthesis.patches import KINDS, SIDE, crop_patch, draw_patch, library, load_patches, save_patch, trace

SHAPES = [(16, 16), (17, 200), (200, 17), (96, 96)]


def texture(height, width, seed=0):
    """A normal image: smooth noise in three colours."""
    noise = np.random.default_rng(seed).random((height, width, 3), np.float32)
    return np.clip(cv2.GaussianBlur(noise, (0, 0), 1.5) * 2 - 0.5, 0, 1)


def rng(seed=0):
    return np.random.default_rng(seed)


def everywhere(image):
    return np.ones(image.shape[:2], bool)


# -- eq. (S1) ------------------------------------------------------------------------------------


def test_blend_by_hand():
    clean = np.full((1, 3, 3), 0.2, np.float32)
    defect = np.full((1, 3, 3), 0.8, np.float32)
    blended = blend(clean, np.array([[0, 0.5, 1]], np.float32), defect)
    assert np.allclose(blended[0, :, 0], [0.2, 0.5, 0.8])


def test_manual_is_s1_with_its_own_a_on_a_black_image():
    """On black, with a plain white patch of half opacity, I = A * I_defect: at most half, and zero outside A."""
    black = np.zeros((64, 64, 3), np.float32)
    half = Materials(patches=[np.full((9, 5), 0.5, np.float32)], textures=[np.ones((8, 8, 3), np.float32)])
    seen = set()
    for seed in range(40):
        painted = manual(black, everywhere(black), rng(seed), half)
        seen.add(painted.drawn["source"])
        assert not painted.image[~painted.region].any()
        if painted.drawn["source"] == "texture":  # I_defect is white, so I is A itself
            strongest = max(record["strength"] for record in painted.drawn["patches"])
            assert painted.image.max() <= 0.5 * strongest + 1e-3
            assert np.ptp(painted.image, axis=2).max() == 0
    assert seen == set(SOURCES)


def test_patches_are_combined_by_the_maximum():
    """Up to five full patches over one tiny area never exceed the strongest of them."""
    area = np.zeros((40, 40), bool)
    area[18:22, 18:22] = True
    for seed in range(20):
        opacity, placed = anomaly_map([np.ones((20, 20), np.float32)], area, rng(seed))
        strongest = max(record["strength"] for record in placed)
        assert 0.5 * strongest < opacity.max() <= strongest + 1e-3
        assert not opacity[~area].any()


def test_sizes_and_numbers_of_patches():
    area = np.ones((200, 300), bool)
    records = [anomaly_map(library(), area, rng(seed))[1] for seed in range(300)]
    assert {len(placed) for placed in records} == {1, 2, 3, 4, 5}
    sizes = np.array([record["size_px"] for placed in records for record in placed])
    assert sizes.min() >= SIZES[0] * 200 and sizes.max() <= SIZES[1] * 200 and sizes.max() > 90
    assert np.median(sizes) == pytest.approx(200 * (SIZES[0] * SIZES[1]) ** 0.5, rel=0.1)  # uniform in the logarithm


def test_turned_patch_by_hand():
    bar = np.zeros((3, 30), np.float32)
    bar[:, :15] = 1  # the left half
    assert np.allclose(turn_patch(bar, 30, 0, False), bar, atol=1e-5)
    assert np.allclose(turn_patch(bar, 30, 0, True), bar[:, ::-1], atol=1e-5)
    assert np.allclose(turn_patch(bar, 30, 90, False), np.rot90(bar), atol=1e-4)  # anticlockwise: left goes down
    small = turn_patch(bar, 6, 33, False)
    assert small.max() == pytest.approx(1, abs=1e-6) and max(small.shape) <= 7


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (7, 7)])
def test_a_thin_patch_stays_visible(shape):
    for turn in range(0, 360, 15):
        assert turn_patch(np.full(shape, 0.7, np.float32), 6, turn, False).max() == pytest.approx(0.7, abs=1e-6)


def test_defect_images():
    clean = texture(30, 40)
    plain = defect_image(clean, "plain", rng())
    assert (plain.std(axis=(0, 1)) < 0.025).all() and plain.shape == clean.shape
    grey = np.full((8, 8, 3), 0.5, np.float32)
    assert all(abs(float(defect_image(grey, "shifted", rng(k)).mean()) - 0.5) <= 0.5 for k in range(5))
    own = [np.zeros((5, 300, 3), np.float32) + np.float32([0.1, 0.2, 0.3])]
    assert np.allclose(defect_image(clean, "texture", rng(), own), own[0][0, 0], atol=1e-6)
    assert defect_image(clean, "texture", rng()).shape == clean.shape
    for source in SOURCES:
        made = defect_image(clean, source, rng(3))
        assert made.min() >= 0 and made.max() <= 1


# -- both generators -----------------------------------------------------------------------------


@pytest.mark.parametrize("generator", [manual, natural])
@pytest.mark.parametrize("shape", SHAPES)
def test_any_size(generator, shape):
    image = texture(*shape)
    before = image.copy()
    painted_something = 0
    for seed in range(12):
        painted = generator(image, everywhere(image), rng(seed), Materials())
        assert painted.image.shape == image.shape and painted.image.dtype == np.float32
        assert painted.image.min() >= 0 and painted.image.max() <= 1
        new, mask = exact(image, painted, everywhere(image))
        assert ((new != image).any(axis=2) == mask).all()
        painted_something += bool(mask.any())
        json.dumps(painted.drawn)
    assert painted_something >= 11
    assert (image == before).all(), "the clean image is the caller's"


@pytest.mark.parametrize("generator", [manual, natural])
def test_deterministic_also_in_threads(generator):
    image = texture(96, 80)
    materials = Materials(donors=[texture(96, 80, 1), texture(50, 60, 2)])

    def paint(seed):
        painted = generator(image, everywhere(image), rng(seed), materials)
        return painted.image.tobytes(), json.dumps(painted.drawn)

    alone = [paint(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(paint, range(8))) == alone
    assert len({image for image, _ in alone}) == 8


@pytest.mark.parametrize("generator", [manual, natural])
def test_touches_even_a_small_area(generator):
    image = texture(80, 80)
    area = np.zeros((80, 80), bool)
    area[60:66, 9:16] = True
    hits = 0
    for seed in range(30):
        painted = generator(image, area, rng(seed), Materials(donors=[texture(80, 80, 5)]))
        new, mask = exact(image, painted, area)
        assert not mask[~area].any() and (new[~area] == image[~area]).all()
        hits += bool(mask.any())
    assert hits >= 27  # a changed pixel may happen to look as before


# -- the library and users' patches --------------------------------------------------------------


def test_library():
    patches = library()
    assert len(patches) == 10 * len(KINDS) and library() is patches
    assert len({patch.tobytes() for patch in patches}) == len(patches)
    for patch in patches:
        assert patch.dtype == np.float32 and patch.min() >= 0 and patch.max() <= 1 and patch.max() > 0.3
        assert SIDE * 0.3 < max(patch.shape) <= SIDE
        with pytest.raises(ValueError):
            patch[0, 0] = 1


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_drawn_at_once_and_alike(kind):
    assert (draw_patch(kind, rng(4)) == draw_patch(kind, rng(4))).all()
    assert draw_patch(kind, rng(4)).tobytes() != draw_patch(kind, rng(5)).tobytes()


def test_trace_covers_the_line():
    sheet = np.zeros((40, 60), np.float32)
    trace(sheet, np.array([[10.0, 20.0], [50.0, 20.0]]), np.array([6.0, 6.0]))
    assert (sheet[18:23, 10:51] == 1).all()
    assert not sheet[:16].any() and not sheet[25:].any() and not sheet[:, :6].any() and not sheet[:, 55:].any()


def test_crop():
    opacity = np.zeros((9, 9), np.float32)
    opacity[2, 3], opacity[5, 4] = 0.5, 1
    cropped = crop_patch(opacity)
    assert cropped.shape == (4, 2) and cropped[0, 0] == 0.5 and cropped[3, 1] == 1
    with pytest.raises(PNIError, match="empty"):
        crop_patch(np.full((5, 5), 0.001, np.float32))


def test_saved_patches_come_back(tmp_path):
    drawn = [np.round(patch * 255) / np.float32(255) for patch in library()[:3]]
    paths = [save_patch(tmp_path / "mine", np.pad(patch, 4)) for patch in drawn]
    assert [path.name for path in paths] == ["patch_001.png", "patch_002.png", "patch_003.png"]
    loaded = load_patches(tmp_path / "mine")
    assert all(np.array_equal(a, crop_patch(b)) for a, b in zip(loaded, drawn, strict=True))
    assert len(list((tmp_path / "mine").iterdir())) == 3, "nothing temporary is left"
    image = texture(64, 64)
    painted = manual(image, everywhere(image), rng(), Materials(patches=loaded))
    assert {record["patch"] for record in painted.drawn["patches"]} <= {0, 1, 2}


def test_many_savers_take_different_names(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda k: save_patch(tmp_path, np.full((2, k + 1), 0.5, np.float32)), range(12)))
    assert len(set(paths)) == 12
    assert sorted(patch.shape[1] for patch in load_patches(tmp_path)) == list(range(1, 13))


def test_pictures_of_other_kinds(tmp_path):
    shape = np.zeros((8, 8), np.uint8)
    shape[2:5, 1:7] = 204  # 0.8
    Image.fromarray(shape).save(tmp_path / "a_grey.png")
    Image.fromarray(np.dstack([np.zeros((8, 8, 3), np.uint8), shape])).save(tmp_path / "b_ink_on_glass.png")
    Image.fromarray(shape.astype(np.uint16) * 257).save(tmp_path / "c_deep.png")
    Image.fromarray(np.dstack([shape] * 3)).save(tmp_path / "d_colour.bmp")
    for patch in load_patches(tmp_path):
        assert patch.shape == (3, 6) and np.allclose(patch, 0.8, atol=1e-6)
    (tmp_path / "notes.txt").write_text("not a picture")
    assert len(load_patches(tmp_path)) == 4
    Image.fromarray(np.full((1000, 2000), 255, np.uint8)).save(tmp_path / "e_large.png")
    assert load_patches(tmp_path)[-1].shape == (256, 512)


def test_bad_folders_are_one_clear_line(tmp_path):
    def line(folder):
        with pytest.raises(PNIError) as caught:
            load_patches(folder)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "holds no image: save patches" in line(tmp_path)
    assert "nowhere" in line(tmp_path / "nowhere")
    damaged = tmp_path / "patch_001.png"
    damaged.write_bytes(b"\x89PNG no more")
    assert "patch_001.png" in line(tmp_path) and "not an image" in line(tmp_path)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(damaged)
    assert "patch_001.png: nothing is drawn on it" in line(tmp_path)
    with pytest.raises(PNIError, match="empty"):
        save_patch(tmp_path / "new", np.zeros((5, 5), np.float32))
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PNIError, match="no permission"):
        save_patch(tmp_path / "mine", np.ones((3, 3), np.float32))


# -- Poisson blending ----------------------------------------------------------------------------


def test_natural_has_no_seam():
    """Pasting would jump at the rim by the difference of the two images, here 0.4; blending does not."""
    image, donor = texture(120, 120) * 0.3, texture(120, 120, 3) * 0.3 + 0.4
    area = everywhere(image)
    area[0, 0] = False  # an object: the donor's gradients alone
    for seed in range(5):
        painted = natural(image, area, rng(seed), Materials(donors=[donor]))
        new, mask = exact(image, painted, area)
        rim = (cv2.dilate(mask.astype(np.uint8), np.ones((3, 3))) > 0) & ~mask
        jumps = np.abs(np.diff(new, axis=1)).max(axis=2)[rim[:, 1:] | rim[:, :-1]]
        assert painted.drawn["gradients"] == "donor" and mask.any() and jumps.max() < 0.25


def test_natural_marks_what_moved_by_more_than_a_level():
    image = texture(96, 96)
    painted = natural(image, everywhere(image), rng(2), Materials(donors=[texture(96, 96, 9)]))
    moved = np.abs(painted.image - image).mean(axis=2) > LEVEL
    assert (painted.region & moved).sum() > 0.9 * painted.region.sum()
    assert painted.drawn["donor"] == 0 and painted.drawn["gradients"] == "mixed"
    assert 1 <= len(painted.drawn["patches"]) <= 4
    assert natural(image, everywhere(image), rng(2), Materials()).drawn["donor"] is None


def test_natural_ignores_what_nobody_sees():
    grey = np.full((64, 64, 3), 0.5, np.float32)
    almost = grey + (rng().random(grey.shape, np.float32) - np.float32(0.5)) * np.float32(0.2 * LEVEL)
    painted = natural(grey, everywhere(grey), rng(1), Materials(donors=[almost]))
    assert painted.drawn["patches"] and not painted.region.any()
