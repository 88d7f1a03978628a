"""The training pool: the same bytes again, resumed when killed, never mixed; who scores; where and what is painted."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy import ndarray
from PIL import Image
from tiny import SCATTERING, write_category

from pnilib.config import PNIConfig
from pnilib.data import Dataset, Split, load_dataset
from pnilib.detector import training_pool as module
from pnilib.detector.folds import drop_folds
from pnilib.detector.pni import PNI
from pnilib.detector.training_pool import build_pool
from pnilib.errors import PNIError
from pnilib.maps import anomaly_maps
from pnilib.refinement.pool import Pool, pool_size
from pnilib.store.locks import lock_folder
from pnilib.synthesis import foreground_mask

CONFIG = SCATTERING.replace(setting="A", calibration_images=0, pool_images=14, pool_clean=0.2, pool_maps="leave_out")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_category(tmp_path_factory.mktemp("tiny"), n_train=7)


@pytest.fixture(scope="module")
def model(data: Dataset) -> PNI:
    return PNI(CONFIG).fit(data.train)


@pytest.fixture(scope="module")
def pool(model: PNI, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return build_pool(model, data.train, tmp_path_factory.mktemp("pool"), "part")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps that cost nothing: the image's brightness."""
    monkeypatch.setattr(PNI, "maps", lambda self, images, *, without_image=None: images.mean(1).numpy())


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stamps(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


def file_of(pool: Pool, k: int) -> Path:
    return pool.folder / "000" / f"{k:06}.safetensors"


def clean(split: Split, i: int, config: PNIConfig = CONFIG) -> ndarray:
    return (split.image(i, config.geometry).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)


# -- the same bytes, resumed ---------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 5])
def test_threads_change_no_byte(
    pool: Pool, model: PNI, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr(module, "WORKERS", threads)
    before, state = torch.get_num_threads(), torch.get_rng_state()
    again = build_pool(model, data.train, tmp_path)
    assert torch.get_num_threads() == before and torch.equal(torch.get_rng_state(), state)
    assert again.folder.name == pool.folder.name and bytes_of(again.folder) == bytes_of(pool.folder)
    assert len(stamps(pool.folder)) == pool.n == 14


def test_a_killed_run_is_completed(
    pool: Pool, model: PNI, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WORKERS", 1)
    whole, calls = module.atomic_write, 0

    def killed(path: Path, mode: str) -> Any:
        nonlocal calls
        calls += 1
        if calls >= 6:
            raise KeyboardInterrupt
        return whole(path, mode)

    with monkeypatch.context() as patch:
        patch.setattr(module, "atomic_write", killed)
        with pytest.raises(KeyboardInterrupt):
            build_pool(model, data.train, tmp_path)
    (folder,) = tmp_path.glob("pool-*")
    finished = stamps(folder)
    assert len(finished) == 5 and not (folder / "pool.json").exists()
    resumed = build_pool(model, data.train, tmp_path)
    assert bytes_of(resumed.folder) == bytes_of(pool.folder) and resumed.folder == folder
    assert {name: stamp for name, stamp in stamps(folder).items() if name in finished} == finished
    assert (resumed.low, resumed.high) == (pool.low, pool.high)

    before = stamps(folder)
    build_pool(model, data.train, tmp_path)
    assert stamps(folder) == before  # nothing is made twice


@pytest.mark.parametrize("kept", ["pool.json", ""])
def test_lost_files_are_made_again(pool: Pool, model: PNI, data: Dataset, tmp_path: Path, kept: str) -> None:
    folder = build_pool(model, data.train, tmp_path).folder
    for name in ("000/000003.safetensors", "000/000013.safetensors") + (() if kept else ("pool.json",)):
        (folder / name).unlink()
    left = stamps(folder)
    assert bytes_of(build_pool(model, data.train, tmp_path).folder) == bytes_of(pool.folder)
    assert left.items() <= stamps(folder).items()


def test_damaged_files_are_named_and_can_be_made_again(pool: Pool, model: PNI, data: Dataset, tmp_path: Path) -> None:
    mine = build_pool(model, data.train, tmp_path)
    victim = file_of(mine, 2)
    victim.write_bytes(victim.read_bytes()[:900])
    for read in (mine.item, mine.drawn, lambda k: mine.batch([0, k])):
        with pytest.raises(
            PNIError, match=r"000002.safetensors: is missing or damaged: delete it and run `pni refine`"
        ):
            read(2)
    victim.unlink()
    build_pool(model, data.train, tmp_path)
    (mine.folder / "pool.json").write_text('{"n": 14, "lo')
    with pytest.raises(PNIError, match=r"pool.json: is damaged: delete it and run"):
        build_pool(model, data.train, tmp_path)
    (mine.folder / "pool.json").unlink()
    assert bytes_of(build_pool(model, data.train, tmp_path).folder) == bytes_of(pool.folder)


def test_a_whole_pool_is_read_whoever_holds_it(pool: Pool, model: PNI, data: Dataset, tmp_path: Path) -> None:
    """One that is being made is waited for: test_races."""
    mine = build_pool(model, data.train, tmp_path)
    with lock_folder(mine.folder):
        assert build_pool(model, data.train, tmp_path) == mine


@pytest.mark.usefixtures("quick")
def test_another_configuration_has_another_folder(model: PNI, data: Dataset, tmp_path: Path) -> None:
    def folder(split: Split = data.train, **overrides: Any) -> str:
        return build_pool(model.with_config(**overrides), split, tmp_path / "work").folder.name

    first, textures = folder(), tmp_path / "textures"
    before = {name: blob for name, blob in bytes_of(tmp_path / "work" / first).items()}
    textures.mkdir()
    names = {first}
    for colour in (20, 200):  # the same folder with another picture in it
        Image.new("RGB", (32, 32), (colour, 0, 0)).save(textures / "one.png")
        names.add(folder(defect_textures=str(textures)))
    for change in (
        {"defects": "scar"}, {"pool_images": 13}, {"pool_clean": 0.0}, {"pool_maps": "fitted"},
        {"defect_area": "foreground"}, {"sigma": 5.0},
    ):  # fmt: skip
        names.add(folder(**change))
    other = write_category(tmp_path / "other", n_train=7, seed=5).train
    names.add(folder(other))
    assert len(names) == 10
    assert bytes_of(tmp_path / "work" / first) == before
    assert folder(refine_lr=0.5, refine_weight=0.3, refine_iterations=7) == first  # nothing the pool depends on


# -- contents ------------------------------------------------------------------------------------


def test_masks_are_where_the_image_was_changed(pool: Pool, data: Dataset) -> None:
    kinds = Counter()
    for k in range(pool.n):
        item, drawn = pool.item(k), pool.drawn(k)
        changed = (item["image"] != clean(data.train, k % 7)).any(2)
        assert np.array_equal(changed, item["mask"])
        assert changed.any() == (drawn["kind"] != "clean")
        assert (item["image"].dtype, item["map"].dtype, item["mask"].dtype) == (np.uint8, np.float16, np.bool_)
        kinds[drawn["kind"]] += 1
    assert len(kinds) > 2


def test_scores_beyond_half_precision(
    model: PNI, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As random weights give them at full size."""
    monkeypatch.setattr(PNI, "maps", lambda self, images, *, without_image=None: 1e6 * images.mean(1).numpy())
    found = build_pool(model, data.train, tmp_path)
    assert found.high > 65504
    normal = found.batch(range(found.n))[1]
    assert normal.min() == 0 and normal.max() == 1


def test_one_stated_normalisation(pool: Pool) -> None:
    maps = [pool.item(k)["map"].astype(np.float64) for k in range(pool.n)]
    assert pool.low == min(m.min() for m in maps) and pool.high == max(m.max() for m in maps)
    images, normal, masks = pool.batch([5, 0, 5])
    assert images.shape == (3, 3, 64, 64) and images.dtype == torch.uint8
    for row, k in enumerate((5, 0, 5)):
        assert np.allclose(normal[row, 0], (maps[k] - pool.low) / (pool.high - pool.low), atol=1e-6)
        assert np.array_equal(images[row].movedim(0, 2), pool.item(k)["image"])
        assert np.array_equal(masks[row, 0], pool.item(k)["mask"].astype(np.float32))
    everything = pool.batch(range(pool.n))[1]
    assert everything.min() == 0 and everything.max() == 1
    narrow = Pool("", pool.folder, pool.n, pool.low + 0.1, pool.high - 0.1)  # another pool's limits: cut
    assert narrow.batch(range(pool.n))[1].min() == 0 and narrow.batch(range(pool.n))[1].max() == 1


@pytest.mark.usefixtures("quick")
def test_shares(model: PNI, data: Dataset, tmp_path: Path) -> None:
    def kinds(**overrides: Any) -> Counter[str]:
        made = build_pool(model.with_config(**overrides), data.train, tmp_path)
        return Counter(made.drawn(k)["kind"] for k in range(made.n))

    equal = kinds(pool_images=240, pool_clean=0.0)
    assert set(equal) == {"cutpaste", "scar", "draem", "manual"}
    assert all(abs(count - 60) < 4 * math.sqrt(240 * 0.25 * 0.75) for count in equal.values())
    weighted = kinds(pool_images=240, pool_clean=0.5, defects="cutpaste:3,scar:1")
    assert abs(weighted["clean"] - 120) < 4 * math.sqrt(240) / 2
    assert abs(weighted["scar"] - 30) < 22 and weighted["cutpaste"] > 60
    assert set(kinds(pool_images=6, pool_clean=0.0, defects="natural")) == {"natural"}


@pytest.mark.usefixtures("quick")
def test_another_seed_paints_other_defects(data: Dataset, tmp_path: Path) -> None:
    pools = [
        build_pool(PNI(CONFIG.replace(seed=seed, pool_clean=0.0)).fit(data.train), data.train, tmp_path)
        for seed in (0, 1)
    ]
    one, two = ([pool.item(k)["mask"].tobytes() for k in range(14)] for pool in pools)
    assert len({*one, *two}) == 28


@pytest.mark.usefixtures("quick")
def test_the_pool_stays_within_its_gigabytes(model: PNI, data: Dataset, tmp_path: Path) -> None:
    config = dict(pool_images=400, pool_gb=1e-3)
    assert pool_size(CONFIG.replace(**config)) == int(1e6 / (64 * 64 * 6 + 1024)) == 39
    made = build_pool(model.with_config(**config), data.train, tmp_path)
    size = sum(path.stat().st_size for path in made.folder.rglob("*") if path.is_file())
    assert made.n == 39 == len(stamps(made.folder)) and 0.9e6 < size <= 1e6
    assert pool_size(PNIConfig()) == 4000  # 480 px: 5.5 GB
    assert pool_size(PNIConfig(pool_gb=1e-3)) == 2


def parts(root: Path, empty: int | None = None, n: int = 4) -> Dataset:
    """Speckled squares on a plain background; of the image `empty` nothing but the background."""
    rng = np.random.default_rng(0)
    folder = root / "part" / "train" / "good"
    for kind in (folder, root / "part" / "test" / "good"):
        kind.mkdir(parents=True)
    for i in range(n):
        pixels = np.full((64, 64, 3), 30, np.uint8)
        if i != empty:
            pixels[20:44, 24:50] = rng.integers(100, 250, (24, 26, 3))
        Image.fromarray(pixels).save(folder / f"{i:03}.png")
    Image.fromarray(pixels).save(root / "part" / "test" / "good" / "000.png")
    return load_dataset("mvtec", root, "part")


@pytest.mark.usefixtures("quick")
def test_defects_stay_on_the_part(tmp_path: Path) -> None:
    data = parts(tmp_path / "data")
    fitted = PNI(CONFIG.replace(pool_clean=0.0, defect_area="foreground", pool_images=16)).fit(data.train)
    made = build_pool(fitted, data.train, tmp_path / "pool")
    areas = [foreground_mask(clean(data.train, i).astype(np.float32) / 255) for i in range(4)]
    assert all(0.1 < area.mean() < 0.2 for area in areas)
    assert not any((made.item(k)["mask"] & ~areas[k % 4]).any() for k in range(16))
    anywhere = build_pool(fitted.with_config(defect_area="all"), data.train, tmp_path / "pool")
    assert sum((anywhere.item(k)["mask"] & ~areas[k % 4]).any() for k in range(16)) > 8


# -- who scores ----------------------------------------------------------------------------------


def by_hand(model: PNI, image: ndarray, barred: int | None) -> ndarray:
    """Setting A: distance to the nearest coreset vector, those of the image `barred` left out."""
    assert model.coreset is not None
    features = model.embedder.embed(torch.from_numpy(image).movedim(2, 0)[None].float() / 255)[0]
    vectors = model.coreset.embedding
    if barred is not None:
        vectors = vectors[model.coreset.image_idx != barred]
    distances = torch.cdist(features.flatten(0, 1).double(), vectors.double()).amin(1).float()
    return anomaly_maps(distances.view(1, *features.shape[:2]), 64, CONFIG.sigma)[0].numpy()


def test_leave_out_bars_the_images_own_vectors(pool: Pool, model: PNI, data: Dataset, tmp_path: Path) -> None:
    fitted = build_pool(model.with_config(pool_maps="fitted"), data.train, tmp_path)
    differ = 0
    for k in range(pool.n):
        image = pool.item(k)["image"]
        assert np.array_equal(image, fitted.item(k)["image"])
        own, other = by_hand(model, image, k % 7), by_hand(model, image, None)
        assert np.allclose(pool.item(k)["map"], own, rtol=2e-3, atol=2e-3)
        assert np.allclose(fitted.item(k)["map"], other, rtol=2e-3, atol=2e-3)
        differ += not np.allclose(own, other, rtol=0.02, atol=0.02)
    assert differ > 10


@pytest.mark.parametrize("folds", [3, 100])
def test_held_out_models_have_not_seen_the_image(
    model: PNI, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folds: int
) -> None:
    monkeypatch.setattr(module, "WORKERS", 1)  # scored in the order of their numbers
    whole, seen, fits = PNI.maps, [], []

    def spy(self: PNI, images: Any, *, without_image: Any = None) -> ndarray:
        seen.append((self.train_paths, without_image))
        return whole(self, images, without_image=without_image)

    monkeypatch.setattr(PNI, "maps", spy)
    fit = PNI.fit
    monkeypatch.setattr(PNI, "fit", lambda self, train, **rest: fits.append(len(train)) or fit(self, train, **rest))
    cross = model.with_config(pool_maps="held_out", pool_folds=folds, pool_clean=0.0)
    with monkeypatch.context() as patch:
        patch.setattr(module, "synthesize", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build_pool(cross, data.train, tmp_path)
    assert fits == ([4, 5, 5] if folds == 3 else [6] * 7)
    seen.clear()
    made = build_pool(cross, data.train, tmp_path)
    assert len(fits) == min(folds, 7)  # kept from the killed run
    assert len(list(tmp_path.glob("folds-*"))) == 1  # kept for other pools of these images
    drop_folds(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [made.folder.name]
    paths = [str(path) for path in data.train.samples["image_path"]]
    assert len(seen) == 14
    for k, (trained_on, barred) in enumerate(seen):
        assert paths[k % 7] not in trained_on and barred is None
        assert len(trained_on) == (6 if folds == 100 else 4 if k % 7 % 3 == 0 else 5)
    build_pool(cross, data.train, tmp_path)
    assert len(fits) == min(folds, 7)


def interrupted(*args: Any, **kwargs: Any) -> None:
    raise KeyboardInterrupt


# -- mistakes ------------------------------------------------------------------------------------


def test_a_category_of_one_image(tmp_path: Path) -> None:
    data = write_category(tmp_path / "data", n_train=1)
    fitted = PNI(CONFIG.replace(pool_images=3)).fit(data.train)
    with pytest.raises(PNIError, match="pool_maps=held_out needs two training images, there is one: set pool_maps="):
        build_pool(fitted.with_config(pool_maps="held_out"), data.train, tmp_path / "pool")
    maps = [
        build_pool(fitted.with_config(pool_maps=how), data.train, tmp_path / "pool").batch(range(3))[1]
        for how in ("fitted", "leave_out")
    ]
    assert torch.equal(*maps)  # without its own there would be no vector at all
    assert (maps[0] > 0).any()


def test_an_image_without_a_part_is_named(tmp_path: Path) -> None:
    data = parts(tmp_path / "data", empty=2)
    fitted = PNI(CONFIG.replace(pool_clean=0.0, defect_area="foreground")).fit(data.train)
    with pytest.raises(PNIError, match=r"good/002.png: there is no foreground to paint a defect on"):
        build_pool(fitted, data.train, tmp_path / "pool")
    assert (tmp_path / "pool").exists()
    done = stamps(tmp_path / "pool")
    with pytest.raises(PNIError, match=r"good/002.png"):
        build_pool(fitted, data.train, tmp_path / "pool")
    assert done.items() <= stamps(tmp_path / "pool").items()  # nothing lost


def refused(fitted: PNI, train: Split, work: Path, expected: str, **overrides: Any) -> None:
    with pytest.raises(PNIError, match=expected):
        build_pool(fitted.with_config(**overrides), train, work)


def test_empty_folders_and_nonsense(model: PNI, data: Dataset, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no picture")
    empty, gone = str(tmp_path / "empty"), str(tmp_path / "gone")
    cases: list[tuple[str, dict[str, Any]]] = [
        (rf"{empty}: holds no ", {"defect_textures": empty}),
        (rf"{gone}: there is no such folder", {"defect_textures": gone}),
        (rf"{empty}: holds no ", {"defect_patches": empty}),
        (rf"{gone}: holds no image", {"defect_patches": gone}),
        (r"defects=scars: there is no generator 'scars'", {"defects": "scars"}),
        (r"defects=scar:0: write each generator once", {"defects": "scar:0"}),
    ]
    for expected, overrides in cases:
        refused(model, data.train, tmp_path / "pool", expected, **overrides)
    assert not (tmp_path / "pool").exists()


@pytest.mark.parametrize("folder", ["textures", "patches"])
@pytest.mark.usefixtures("quick")
def test_own_textures_and_patches_are_used(model: PNI, data: Dataset, tmp_path: Path, folder: str) -> None:
    grey = np.zeros((20, 20), np.uint8)
    grey[8:12] = 255
    Image.fromarray(grey).save(tmp_path / "mine.png")
    overrides: dict[str, Any] = dict(
        defects="draem" if folder == "textures" else "manual", pool_clean=0.0, pool_images=4
    )
    made = build_pool(model.with_config(**overrides, **{f"defect_{folder}": str(tmp_path)}), data.train, tmp_path / "p")
    text = json.dumps([made.drawn(k) for k in range(4)])
    assert '"texture": "0"' in text if folder == "textures" else set(patch_numbers(made)) == {0}


def patch_numbers(pool: Pool) -> list[int]:
    return [placed["patch"] for k in range(pool.n) for placed in pool.drawn(k)["patches"]]


def test_an_image_too_small_for_a_defect(data: Dataset, tmp_path: Path) -> None:
    small = CONFIG.replace(
        image_resize=8, image_crop=8, backbone="resnet18", weights="random", feature_norm="none", dim=8, emb_ratio=0.5,
        dist_size=2,
    )  # fmt: skip
    fitted = PNI(small).fit(data.train)
    refused(
        fitted, data.train, tmp_path, r"000.png: an image of 8 x 8 px is too small for a defect: 16 px", pool_clean=0.0
    )


def test_maps_that_span_nothing(model: PNI, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PNI, "maps", lambda self, images, *, without_image=None: np.ones((1, 64, 64), np.float32))
    refused(model, data.train, tmp_path, "the maps of the pool span nothing")
