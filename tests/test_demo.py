"""pnilib.demo: exact masks, faults that are what their names say, a tree that is whole or absent."""

import hashlib
import json

import cv2
import numpy as np
import pytest

from pnilib.data import load_dataset
from pnilib.demo import CATEGORIES, TOLERANCE, make_demo, render, writer
from pnilib.errors import PNIError

TINY = dict(n_train=2, n_good=1, n_per_defect=1, size=64, progress=False)
EVERY = [(c, d) for c, category in CATEGORIES.items() for d in category.defects]


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def n_regions(labels, *parts):
    """Connected regions of at least 20 px."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(np.isin(labels, parts).astype(np.uint8))
    return int((stats[1:, cv2.CC_STAT_AREA] >= 20).sum())


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return make_demo(tmp_path_factory.mktemp("demo") / "root", categories=["weave", "cable"], **TINY)


# -- pictures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("category", "defect"), EVERY)
def test_mask_is_where_the_fault_shows(category, defect):
    picture = render(category, "test", defect, 0, size=64)
    difference = np.abs(picture.image.astype(int) - picture.clean.astype(int)).max(2)
    assert picture.mask.any()
    assert difference[picture.mask].min() > TOLERANCE
    assert difference[~picture.mask].max() <= TOLERANCE
    assert picture.parts.max() < len(CATEGORIES[category].parts)
    assert 0 < picture.severity <= 1


@pytest.mark.parametrize("category", CATEGORIES)
def test_good_pictures_are_clean_and_all_different(category):
    pictures = [render(category, "train", "good", i, size=64) for i in range(3)]
    pictures.append(render(category, "test", "good", 0, size=64))
    pictures.append(render(category, "train", "good", 0, size=64, seed=1))
    assert not any(p.mask.any() or p.severity for p in pictures)
    assert len({p.image.tobytes() for p in pictures}) == 5


def test_same_arguments_same_picture_at_any_size():
    a, b = (render("cable", "test", "swapped", 3, size=96) for _ in range(2))
    assert a.image.tobytes() == b.image.tobytes()
    large = render("cable", "test", "swapped", 3, size=192)
    assert (large.parts[::2, ::2] == a.parts).mean() > 0.98  # the same scene, not merely the same kind
    assert a.severity == large.severity


@pytest.mark.parametrize("index", range(4))
def test_swapped_wires_differ_in_colour_alone(index):
    wrong = render("cable", "test", "swapped", index, size=128)
    wires = np.isin(wrong.parts, (2, 3, 4))
    # brown, blue, green from top to bottom is right; here it is another order of the same three
    rows = np.arange(128)[:, None] * np.ones(128)
    order = sorted((2, 3, 4), key=lambda part: rows[wrong.parts == part].mean())
    assert order != [2, 3, 4]
    # no seam or shadow gives the swap away: all that changed lies on the wires (1 px of lens blur)
    near = cv2.dilate(wires.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert not (wrong.mask & ~near).any()
    assert n_regions(wires.astype(np.uint8), 1) == 3


def test_weave_error_has_only_normal_pairs_of_bands():
    right = "abacbc" * 2
    pairs, triples = ({right[i : i + k] for i in range(6)} for k in (2, 3))
    assert len(pairs) == 6  # all ordered pairs of two different colours: no pair can tell
    for index in range(8):
        seen = []
        for kind in ("good", "band_order"):
            row = render("weave", "test", kind, index, size=128).parts[64]
            runs = row[np.flatnonzero(np.diff(row.astype(int), prepend=9))]
            seen.append("".join("abc"[colour] for colour in runs))
        good, wrong = seen
        assert {good[i : i + 3] for i in range(len(good) - 2)} <= triples
        assert {wrong[i : i + 2] for i in range(len(wrong) - 1)} <= pairs
        assert not {wrong[i : i + 3] for i in range(len(wrong) - 2)} <= triples


@pytest.mark.parametrize(("defect", "holes"), [("good", 4), ("hole_missing", 3), ("hole_extra", 5)])
def test_gear_holes(defect, holes):
    assert n_regions(render("gear", "test", defect, 0, size=128).parts, 2) == holes  # the bore is one


@pytest.mark.parametrize(("defect", "change"), [("missing", -1), ("misplaced", 0), ("swapped", 0)])
def test_board_part_counts(defect, change):
    right, wrong = (render("board", "test", kind, 0, size=128).parts for kind in ("good", defect))
    assert n_regions(right, 4) + n_regions(right, 5) == 8  # chip resistors and capacitors
    assert n_regions(wrong, 4) + n_regions(wrong, 5) == 8 + change
    assert n_regions(wrong, 6) == 4


def test_wrong_tile_is_one_whole_tile():
    picture = render("tiles", "test", "wrong_tile", 0, size=192)
    assert n_regions(picture.mask.astype(np.uint8), 1) == 1
    assert abs(picture.mask.sum() / (192 / 6 * 0.86) ** 2 - 1) < 0.15  # (tile less its joints)^2


@pytest.mark.parametrize("wrong", [("lamp", "test", "good"), ("cable", "train", "cut"), ("cable", "val", "good")])
def test_unknown_picture_is_refused(wrong):
    with pytest.raises(PNIError, match="choose"):
        render(*wrong, 0, size=64)


# -- the folder ----------------------------------------------------------------------------------


def test_tree_and_manifest(demo):
    manifest = json.loads((demo / "manifest.json").read_text())
    files = {p.relative_to(demo).as_posix() for p in demo.rglob("*.png")}
    n_defects = len(CATEGORIES["cable"].defects) + len(CATEGORIES["weave"].defects)
    assert len(files) == 2 * (2 * 3) + 3 * n_defects  # (image, parts) of the good, and a mask for the others
    assert files == set(manifest["files"])
    for name, expected in manifest["files"].items():
        assert hashlib.sha256((demo / name).read_bytes()).hexdigest() == expected
    assert manifest["parameters"] == {"categories": ["cable", "weave"]} | {
        k: v for k, v in (TINY | {"seed": 0}).items() if k != "progress"
    }
    assert manifest["categories"]["cable"]["parts"]["3"] == "blue wire"
    picture = render("cable", "test", "cut", 0, size=64)
    assert np.array_equal(read(demo / "cable/test/cut/000.png")[..., ::-1], picture.image)
    assert np.array_equal(read(demo / "cable/ground_truth/cut/000_mask.png"), picture.mask * np.uint8(255))
    assert np.array_equal(read(demo / "cable/segmentation/test/cut/000.png"), picture.parts)
    assert manifest["faults"]["cable/test/cut/000.png"]["area"] == round(float(picture.mask.mean()), 6)


def test_the_reader_of_mvtec_reads_it(demo):
    dataset = load_dataset("demo", demo, category="cable")
    assert len(dataset.train) == 2
    counts = dataset.samples.query("split == 'test'")["defect_type"].value_counts().to_dict()
    assert counts == {"good": 1} | dict.fromkeys(CATEGORIES["cable"].defects, 1)
    assert dataset.samples.query("label == 1")["mask_path"].notna().all()


def test_a_smaller_set_is_part_of_a_larger_one(demo, tmp_path):
    small = make_demo(tmp_path / "small", categories=["weave"], **(TINY | dict(n_train=1)))
    images = list(small.rglob("*.png"))
    assert len(images) == 2 * (1 + 1) + 3 * len(CATEGORIES["weave"].defects)
    for path in images:
        assert path.read_bytes() == (demo / path.relative_to(small)).read_bytes()


def test_a_second_call_verifies_and_draws_nothing(demo, monkeypatch):
    monkeypatch.setattr(writer, "render", None)
    assert make_demo(demo, categories=["cable", "weave"], **TINY) == demo


def test_other_parameters_and_altered_folders_are_refused(tmp_path):
    one = TINY | dict(categories=["grain"])
    root = make_demo(tmp_path / "root", **one)
    with pytest.raises(PNIError, match="seed=0, not 1: delete"):
        make_demo(root, **one, seed=1)
    image = root / "grain/train/good/000.png"
    original = image.read_bytes()
    image.write_bytes(original + b"0")
    with pytest.raises(PNIError, match=r"000\.png was changed"):
        make_demo(root, **one)
    image.unlink()
    with pytest.raises(PNIError, match=r"000\.png is missing"):
        make_demo(root, **one)
    image.write_bytes(original)
    make_demo(root, **one)
    (root / "notes.txt").write_text("mine")
    with pytest.raises(PNIError, match=r"notes\.txt does not belong"):
        make_demo(root, **one)


@pytest.mark.parametrize("manifest", [None, "{", "[]", '{"format": "other", "parameters": {}}'])
def test_foreign_folders_are_left_alone(tmp_path, manifest):
    (tmp_path / "thesis.tex").write_text("mine")
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(PNIError, match="holds other files"):
        make_demo(tmp_path, **TINY)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_file_is_no_root(tmp_path):
    (tmp_path / "root").write_text("mine")
    with pytest.raises(PNIError, match="is a file"):
        make_demo(tmp_path / "root", **TINY)


def test_a_stopped_run_leaves_nothing(tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        if args[1] == "test":
            raise KeyboardInterrupt
        return render(*args, **kwargs)

    monkeypatch.setattr(writer, "render", stop)
    with pytest.raises(KeyboardInterrupt):
        make_demo(tmp_path / "root", categories=["grain"], **TINY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(n_train=0), "n_train=0: must be a whole number from 1"),
        (dict(size=32), "size=32"),
        (dict(n_good=True), "n_good=True"),
        (dict(seed=-1), "seed=-1"),
        (dict(categories=["cabel"]), "'cabel' is unknown: choose from cable, board"),
        (dict(categories=[]), "is empty"),
        (dict(categories=["grain", "grain"]), "repeats itself"),
        (dict(categories="grain"), "give a list"),
    ],
)
def test_bad_parameters(tmp_path, wrong, message):
    with pytest.raises(PNIError, match=message):
        make_demo(tmp_path / "root", **(TINY | wrong))
    assert not (tmp_path / "root").exists()
