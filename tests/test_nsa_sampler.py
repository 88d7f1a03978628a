"""NSA's sampler: Table 4 from the text, slow references of labels and places, blending by hand and against OpenCV."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
from scipy import ndimage
from scipy.fft import dstn, idstn

from pnilib.errors import PNIError
from pnilib.published import load_published
from pnilib.synthesis.natural import blend, object_mask, paste
from pnilib.synthesis.nsa_labels import changed_mask, label_map
from pnilib.synthesis.nsa_tasks import CLASSES, TASKS, VARIANTS, ClassRules, PatchTask, class_rules, measured_rules
from pnilib.synthesis.patch_places import N_TRIES, Box, destination, patch_shape, resized, source_box

TEXTURE = CLASSES["mvtec/carpet"]
ALL = TASKS | VARIANTS


def rng(seed=0):
    return np.random.default_rng(seed)


def photo(seed, side=128):
    """Smooth noise, 8 bits."""
    noise = cv2.GaussianBlur(rng(seed).random((side, side, 3)).astype(np.float32), (0, 0), 2)
    return np.uint8(cv2.normalize(noise, None, 20, 235, cv2.NORM_MINMAX))


def part(seed, side=128, background=200):
    """A disc of noise, darker by far than its background."""
    image = np.full((side, side, 3), background, np.uint8)
    y, x = np.mgrid[:side, :side]
    disc = (y - side / 2) ** 2 + (x - side / 2 - 4 * (seed % 3)) ** 2 < (0.33 * side) ** 2
    image[disc] = photo(seed, side)[disc] // 2
    return image


OBJECT = ClassRules(background=(200, 20), t_object=0.5, t_overlap=0.25)


# -- Tables 4 and 5 ------------------------------------------------------------------------------


def test_table_4_is_the_printed_one():
    table = load_published("NSA Table 4")
    assert set(table["dataset"] + "/" + table["category"]) == {
        n for n in CLASSES if n.split("/")[0] in ("mvtec", "rcxr")
    }
    for (dataset, category), rows in table.groupby(["dataset", "category"]):
        rules, printed = CLASSES[f"{dataset}/{category}"], dict(zip(rows["metric"], rows["value"], strict=True))
        assert rules.n_max == printed["n_max"]
        for name, bounds in (("h", rules.height), ("w", rules.width), ("s", rules.scale)):
            assert bounds == (printed[f"{name}_min"], printed[f"{name}_max"]), category
        if np.isnan(printed["b"]):
            assert rules.background is None and rules.t_object == rules.t_overlap == 0
        else:
            assert rules.background == (printed["b"], printed["t_brightness"])
            assert (rules.t_object, rules.t_overlap) == (printed["t_object"], printed["t_overlap"]), category
        assert rules.midpoint == printed["y_0"] and rules.steepness == pytest.approx(printed["k"], abs=1e-3)


def test_table_5_column_by_column():
    other = {name: task.source == "other" for name, task in TASKS.items()}
    assert other == {"cutpaste": False, "fpi": True, "pii": True} | dict.fromkeys(list(TASKS)[3:], True)
    assert [task.resize for task in TASKS.values()] == [False] * 3 + [True] * 3
    assert [task.shift for task in TASKS.values()] == [True, False, False, True, True, True]
    assert [task.loss for task in TASKS.values()] == ["bce"] * 4 + ["mse", "bce"]
    assert [task.label for task in TASKS.values()] == ["binary", "factor", "factor", "binary", "continuous", "logistic"]
    base = TASKS["nsa-logistic"]
    changed = {
        name: {f.name for f in dataclasses.fields(base) if getattr(base, f.name) != getattr(task, f.name)}
        for name, task in VARIANTS.items()
    }
    assert changed["A"] == {"constrained"} and changed["B"] == {"several"} and changed["D"] == {"shape"}
    assert changed["C"] == {"sizes", "several", "constrained", "resize"}


@pytest.mark.parametrize("wrong", [dict(blend="soft"), dict(label="grey"), dict(released=("half",)), dict(source="x")])
def test_unknown_values_are_named(wrong):
    with pytest.raises(PNIError, match=r"unknown: choose (one of|from) .*,"):
        PatchTask(**wrong)


def test_rules_of_known_and_unknown_classes():
    assert class_rules("mvtec", "screw") is CLASSES["mvtec/screw"]
    assert class_rules("mtd", "anything") is CLASSES["mtd/mtd"]
    assert class_rules("demo", "cable") is not CLASSES["mvtec/cable"] and class_rules("folder", "x") is None
    objects = measured_rules([part(k) / np.float32(255) for k in range(3)])
    assert objects.background == (200, 30) and not objects.texture
    assert measured_rules([photo(k) / np.float32(255) for k in range(3)]).texture


# -- objects -------------------------------------------------------------------------------------


def test_object_mask_against_a_loop():
    image = part(1, 64)
    slow = np.abs(image.astype(float).mean(axis=2) - 200) > 20
    slow = ndimage.median_filter(slow.astype(np.uint8), 7, mode="nearest").astype(bool)
    assert (object_mask(image, OBJECT) == slow).all() and 0.2 < slow.mean() < 0.5
    assert object_mask(image, TEXTURE) is None


# -- places --------------------------------------------------------------------------------------


def test_gamma_sizes_follow_the_law():
    """Half-sides .03 + Gamma(2, .05) of a side of 1,000 px, clipped to .03 ... .4: 130 px less a little."""
    boxes = [source_box((1000, 1000), None, TASKS["nsa-logistic"], TEXTURE, rng(k)) for k in range(2000)]
    inner = [b for b in boxes if 400 < b.top < 600 and 400 < b.left < 600]
    halves = np.array([(b.height / 2, b.width / 2) for b in inner])
    draws = np.minimum(0.03 + rng(1).gamma(2, 0.05, 100_000), 0.4)
    assert halves.min() >= 30 and halves.max() <= 400
    assert all(b.top >= 0 and b.top + b.height <= 1000 and b.left + b.width <= 1000 for b in boxes)
    whole = [b for b in boxes if b.top > 0 and b.top + b.height < 1000]
    assert np.mean([b.height / 2000 for b in whole]) < draws.mean() + 0.01
    bounded = dataclasses.replace(TEXTURE, height=(0.1, 0.12))
    heights = [source_box((1000, 1000), None, TASKS["nsa-logistic"], bounded, rng(k)).height for k in range(200)]
    assert max(heights) == 120 and sorted(heights)[100] == 120


def test_fpi_and_cutpaste_sizes():
    task = dataclasses.replace(TASKS["fpi"], sizes="fpi")
    for k in range(200):
        box = source_box((500, 500), None, task, TEXTURE, rng(k))
        middle = box.top + box.height / 2, box.left + box.width / 2
        assert 20 <= box.height <= 200 and all(25 <= at <= 475 for at in middle)
        if 0 < box.top < 500 - box.height and 0 < box.left < 500 - box.width:
            assert box.height == box.width, "square, except when truncated by the border"
    areas = []
    for k in range(300):
        box = source_box((500, 500), None, VARIANTS["C"], TEXTURE, rng(k))
        areas.append(box.height * box.width / 250_000)
        assert 0.29 < box.width / box.height < 3.4 and box.top + box.height <= 500 and box.left + box.width <= 500
    assert 0.019 < min(areas) < 0.03 and 0.14 < max(areas) < 0.151


def test_a_source_shows_the_object():
    objects = object_mask(part(0), OBJECT)
    for k in range(100):
        box = source_box(objects.shape, objects, TASKS["nsa-logistic"], OBJECT, rng(k))
        assert objects[box.window].mean() > 0.5
    assert source_box((64, 64), np.zeros((64, 64), bool), TASKS["nsa-logistic"], OBJECT, rng()) is None


def test_a_destination_overlaps_the_object():
    """The object ends at column 60; of a patch 40 px wide only the last 22 columns show it: a quarter must meet it."""
    objects, seen = np.zeros((100, 100), bool), np.zeros((40, 40), bool)
    objects[:, :60], seen[:, 18:] = True, True
    boxes = [destination((40, 40), seen, objects, (100, 100), OBJECT, rng(k)) for k in range(300)]
    overlap = [(objects[b.window] & seen).sum() / seen.sum() for b in boxes]
    assert min(overlap) > 0.25
    lefts = {b.left for b in boxes}
    assert min(lefts) == 0 and max(lefts) == 60 - 18 - 6, "6 of 22 columns are the least over a quarter"
    assert destination((40, 40), seen[:, ::-1], ~objects & False, (100, 100), OBJECT, rng()) is None
    thin = np.zeros((40, 40), bool)
    thin[:, :20] = True
    assert destination((40, 40), thin, objects, (100, 100), OBJECT, rng()) is None, "half is not more than t_object"


def test_destinations_are_inside_and_everywhere():
    corners = np.array([destination((30, 50), None, None, (100, 80), TEXTURE, rng(k))[:2] for k in range(600)])
    assert corners.min() == 0 and (corners.max(axis=0) == (70, 30)).all()


def test_resizing_keeps_the_aspect_and_the_bounds():
    task, screw = TASKS["nsa-logistic"], CLASSES["mvtec/screw"]
    box = Box(0, 0, 40, 20)
    sizes = np.array([resized(box, (256, 256), task, screw, rng(k)) for k in range(300)])
    assert sizes[:, 0].min() >= 0.7 * 40 - 1 and sizes[:, 0].max() <= 1.3 * 40
    assert np.abs(sizes[:, 0] / sizes[:, 1] - 2).max() < 0.15
    large = [resized(Box(0, 0, 60, 60), (256, 256), task, screw, rng(k))[0] for k in range(300)]
    assert max(large) == int(0.24 * 256), "Table 4's bound of the whole side"
    half = dataclasses.replace(task, released=("half_clip",))
    quirk = [resized(Box(0, 0, 60, 60), (256, 256), half, screw, rng(k)) for k in range(100)]
    assert set(quirk) == {(30, 30)}, "the release's code: .12 of 256"
    assert resized(box, (256, 256), TASKS["pii"], screw, rng()) == (40, 20)


def test_ellipses_are_inside_and_not_rectangles():
    shares = [patch_shape((40, 60), "ellipses", rng(k)).mean() for k in range(50)]
    assert min(shares) > 0.2 and max(shares) < 1 and patch_shape((4, 5), "rectangle", rng()).all()


# -- blending ------------------------------------------------------------------------------------


def poisson(image, patch, mixed):
    """The Poisson equation on a rectangle, its rim the image's: exactly, by the sine transform (floats)."""
    image, patch = image.astype(float), patch.astype(float)
    vy, vx = np.diff(patch, axis=0), np.diff(patch, axis=1)
    if mixed:
        own_y, own_x = np.diff(image, axis=0), np.diff(image, axis=1)
        vy, vx = np.where(np.abs(own_y) > np.abs(vy), own_y, vy), np.where(np.abs(own_x) > np.abs(vx), own_x, vx)
    rim = image.copy()
    rim[1:-1, 1:-1] = 0
    known = np.diff(vy[:, 1:-1], axis=0) + np.diff(vx[1:-1], axis=1)
    known -= rim[:-2, 1:-1] + rim[2:, 1:-1] + rim[1:-1, :-2] + rim[1:-1, 2:]
    ey, ex = (2 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1)) - 2 for n in known.shape[:2])
    solved = image.copy()
    waves = dstn(known, type=1, axes=(0, 1)) / (ey[:, None] + ex)[..., None]
    solved[1:-1, 1:-1] = idstn(waves, type=1, axes=(0, 1))
    return np.clip(solved, 0, 255)


def test_cloning_solves_poissons_equation():
    """OpenCV's answer is the equation's on the rectangle that is left when it has taken off three pixels more."""
    image, patch = photo(1, 60), photo(2, 60)
    found = blend(image, patch, np.ones((60, 60), bool), 1.0, "poisson").astype(float)
    expected = image.astype(float)
    expected[3:-3, 3:-3] = poisson(image[3:-3, 3:-3], patch[3:-3, 3:-3], False)
    inner = np.s_[8:-8, 8:-8]
    assert np.corrcoef(found[inner].ravel(), expected[inner].ravel())[0, 1] > 0.98
    assert np.abs(found - expected)[inner].mean() < 0.15 * np.abs(image.astype(float) - patch)[inner].mean()
    assert (found[0] == image[0]).all() and (found[:, -1] == image[:, -1]).all()


def test_cloning_twice_is_the_same():
    """OpenCV writes into the mask that it is given; blending must not hand on a changed one."""
    image, patch, mask = photo(1, 60), photo(2, 60), np.ones((60, 60), bool)
    first = blend(image, patch, mask, 1.0, "mixed")
    assert (blend(image, patch, mask, 1.0, "mixed") == first).all() and mask.all() and (first != image).any()


def test_copy_interpolate_and_small_patches_by_hand():
    image, patch = np.full((4, 4, 3), 100, np.uint8), np.full((4, 4, 3), 201, np.uint8)
    mask = np.zeros((4, 4), bool)
    mask[1, 2] = True
    assert blend(image, patch, mask, 1.0, "copy")[1, 2].tolist() == [201] * 3
    assert blend(image, patch, mask, 0.25, "interpolate")[1, 2].tolist() == [125] * 3, "125.25, rounded down"
    for mode in ("copy", "interpolate"):
        assert (blend(image, patch, mask, 0.25, mode)[~mask] == 100).all()
    assert (blend(image, patch, np.ones((4, 4), bool), 1.0, "poisson") == image).all(), "4 px are left to clone"


def test_half_a_factor_clones_half_as_much():
    image, patch, mask = np.full((80, 80, 3), 120, np.uint8), photo(3, 80), np.ones((80, 80), bool)
    whole, half = (blend(image, patch, mask, f, "poisson").astype(float) - 120 for f in (1.0, 0.5))
    assert np.abs(half - whole / 2).mean() < 1.5 and np.abs(whole).mean() > 8


# -- the sampler ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("rules", [OBJECT, TEXTURE], ids=["object", "texture"])
def test_properties_of_every_task(name, rules):
    task, make = ALL[name], part if rules is OBJECT else photo
    image, source = make(1), make(2)
    before = image.copy(), source.copy()
    n_patches, changed = [], 0
    for seed in range(40):
        pasted = paste(image, source, task, rules, rng(seed))
        again = paste(image, source, task, rules, rng(seed))
        assert pasted.image.tobytes() == again.image.tobytes() and pasted.patches == again.patches
        boxes = np.zeros(image.shape[:2], bool)
        for record in pasted.patches:
            boxes[Box(*record["to"]).window] = True
            if not task.shift:
                assert record["to"] == record["from"]
            elif not task.resize:
                assert record["to"][2:] == record["from"][2:]
        assert (pasted.image[~boxes] == image[~boxes]).all() and not pasted.region[~boxes].any()
        if task.blend in ("copy", "interpolate"):
            assert (pasted.image[~pasted.region] == image[~pasted.region]).all()
        if task.constrained and rules is OBJECT:
            seen = object_mask(image, rules) | object_mask(source, rules)
            assert task.source == "same" or task.shift or not (pasted.region & ~seen).any()
        label = label_map(task.label, image, pasted.image, pasted.region, pasted.factor, rules)
        assert (label >= 0).all() and (task.label == "continuous" or label.max() <= 1)
        changed += bool(label.any())
        n_patches.append(len(pasted.patches) + pasted.lost)
        json.dumps(pasted.patches)
    assert changed >= 25
    assert set(n_patches) == ({1} if not task.several else set(range(1, rules.n_max + 1)))
    assert (image == before[0]).all() and (source == before[1]).all()


def test_an_image_without_foreground_stays_as_it_is():
    blank = np.full((64, 64, 3), 200, np.uint8)
    pasted = paste(blank, part(1, 64), TASKS["nsa-logistic"], OBJECT, rng())
    assert (pasted.image == blank).all() and not pasted.patches and pasted.lost >= 1 and not pasted.region.any()
    assert N_TRIES == 200


def test_cutpaste_takes_from_the_image_itself():
    image = photo(1)
    pasted = paste(image, np.zeros_like(image), TASKS["cutpaste"], TEXTURE, rng(3))
    taken, put = (Box(*pasted.patches[-1][key]) for key in ("from", "to"))
    if len(pasted.patches) == 1:
        assert (pasted.image[put.window] == image[taken.window]).all()
    assert pasted.image.min() > 0


def test_released_overwrites_the_earlier_mask():
    united, overwritten = 0, 0
    task = dataclasses.replace(TASKS["nsa-logistic"], released=("overwritten",))
    for seed in range(60):
        ours = paste(part(1), part(2), TASKS["nsa-logistic"], OBJECT, rng(seed))
        theirs = paste(part(1), part(2), task, OBJECT, rng(seed))
        assert (ours.image == theirs.image).all() and not (theirs.region & ~ours.region).any()
        united, overwritten = united + ours.region.sum(), overwritten + theirs.region.sum()
    assert overwritten < united


# -- labels --------------------------------------------------------------------------------------


def slow_label(kind, before, after, region, factor, rules):
    """The formulas of the docstring, pixel by pixel."""
    difference = np.abs(before.astype(float) - after.astype(float)).mean(axis=2) * region
    mask = ndimage.median_filter((difference > 1).astype(np.uint8), 5, mode="nearest")
    y, x = np.mgrid[-5:6, -5:6]
    median = ndimage.median_filter(difference, footprint=y * y + x * x <= 25, mode="nearest")
    if kind == "binary":
        return mask.astype(float)
    if kind == "factor":
        return factor * mask
    if kind == "continuous":
        return mask * median
    return mask / (1 + np.exp(-rules.steepness * (median - rules.midpoint)))


@pytest.mark.parametrize("kind", ["binary", "factor", "continuous", "logistic"])
def test_labels_against_the_slow_formula(kind):
    rules = CLASSES["mvtec/pill"]
    n_labelled = 0
    for seed in range(8):
        image = photo(seed, 90)
        pasted = paste(image, photo(seed + 20, 90), TASKS["nsa-logistic"], TEXTURE, rng(seed))
        found = label_map(kind, image, pasted.image, pasted.region, 0.3, rules)
        expected = slow_label(kind, image, pasted.image, pasted.region, 0.3, rules)
        assert np.allclose(found, expected, atol=1e-4) and found.dtype == np.float32, seed
        n_labelled += found.any()
    assert n_labelled >= 5


def test_a_logistic_label_by_hand():
    """A patch that is brighter by 7 levels has label 1/2 where y_0 = 7, and 1 / (1 + e) with y_0 = 10, k = 1/3."""
    image, after, region = (
        np.full((40, 40, 3), 50, np.uint8),
        np.full((40, 40, 3), 50, np.uint8),
        np.zeros((40, 40), bool),
    )
    after[10:30, 10:30], region[10:30, 10:30] = 57, True
    label = label_map("logistic", image, after, region, 1.0, ClassRules(midpoint=7, steepness=1 / 3))
    assert label[20, 20] == pytest.approx(0.5) and label[5, 5] == 0
    label = label_map("logistic", image, after, region, 1.0, ClassRules(midpoint=10, steepness=1 / 3))
    assert label[20, 20] == pytest.approx(1 / (1 + np.e), rel=1e-5)
    assert label_map("continuous", image, after, region, 1.0, ClassRules())[20, 20] == pytest.approx(7)
    with pytest.raises(PNIError, match="label=soft: unknown"):
        label_map("soft", image, after, region, 1.0, ClassRules())


def test_one_level_is_no_change():
    image, region = np.full((30, 30, 3), 50, np.uint8), np.ones((30, 30), bool)
    assert not changed_mask(image, image + np.uint8(1), region).any()
    after = image.copy()
    after[..., 0] += 4  # 4/3 levels in the mean
    assert changed_mask(image, after, region).all() and not changed_mask(image, after, ~region).any()
