"""The estimator: the same bytes again, resumed, saved and loaded; every switch moves something; faults in one line."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import RESNET, SCATTERING, write_category

from pnilib import neighborhood
from pnilib.config import PNIConfig
from pnilib.data import Dataset, Split, load_dataset
from pnilib.detector import fitting
from pnilib.detector.calibration import equal_images
from pnilib.detector.pni import PNI
from pnilib.detector.prediction import Prediction
from pnilib.errors import PNIError
from pnilib.evaluation import evaluate
from pnilib.features.extraction import Embedder
from pnilib.k_center import _Selection
from pnilib.maps import anomaly_maps, image_scores
from pnilib.released.neighborhood import leaked_offsets
from pnilib.scoring import tau
from pnilib.store.artefacts import read_artefact, write_artefact

GATED = SCATTERING.replace(temperature=0.05)
FIELDS = "maps", "image_scores", "patch_scores", "match_idx", "nearest_idx"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_category(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module", params=["scattering", "resnet18"])
def fitted(request: pytest.FixtureRequest, data: Dataset) -> PNI:
    return PNI(SCATTERING if request.param == "scattering" else RESNET).fit(data.train)


@pytest.fixture(scope="module")
def model(data: Dataset) -> PNI:
    """With a temperature that shuts some gates, though hardly anything is trained."""
    return PNI(GATED).fit(data.train)


def same(one: Prediction, other: Prediction) -> bool:
    equal = all(getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in FIELDS)
    return equal and (one.threshold == other.threshold or np.isnan([one.threshold, other.threshold]).all())


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a saved model but for the times it took."""
    found = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    found["meta"] = json.dumps(json.loads((folder / "meta.json").read_text()) | {"seconds": None}).encode()
    return {name: hashlib.sha256(blob).hexdigest() for name, blob in found.items()}


def saved(model: PNI, folder: Path) -> dict[str, str]:
    model.save(folder)
    return hashes(folder)


# -- the same bytes ------------------------------------------------------------------------------


def test_save_load_predict_is_equal_bit_for_bit(fitted: PNI, data: Dataset, tmp_path: Path) -> None:
    before = fitted.predict(data.test)
    fitted.save(tmp_path / "model")
    loaded = PNI.load(tmp_path / "model")
    after = loaded.predict(data.test)
    assert same(before, after) and np.isfinite(after.threshold)
    assert after.image_paths == [str(p) for p in data.test.samples["image_path"]]
    assert after.maps.shape == (4, 64, 64) and after.patch_scores.shape == (4, 8, 8)
    assert (after.maps.dtype, after.match_idx.dtype) == (np.float32, np.int32)
    assert loaded.train_paths == fitted.train_paths and loaded.history == fitted.history
    assert loaded.seconds == fitted.seconds
    loaded.save(tmp_path / "again")
    assert hashes(tmp_path / "model") == hashes(tmp_path / "again")


def test_two_fits_with_one_seed_give_the_same_bytes(fitted: PNI, data: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(12345)  # whatever the global generator holds
    state = torch.get_rng_state()
    again = PNI(fitted.config).fit(data.train)
    assert torch.equal(state, torch.get_rng_state())
    assert saved(again, tmp_path / "b") == saved(fitted, tmp_path / "a")
    assert same(again.predict(data.test), fitted.predict(data.test))
    other = PNI(fitted.config.replace(seed=1)).fit(data.train)
    assert saved(other, tmp_path / "c")["coreset.safetensors"] != hashes(tmp_path / "a")["coreset.safetensors"]


def test_a_work_folder_changes_no_byte(fitted: PNI, data: Dataset, tmp_path: Path) -> None:
    on_disk = PNI(fitted.config).fit(data.train, workdir=tmp_path / "work")
    assert saved(on_disk, tmp_path / "b") == saved(fitted, tmp_path / "a")


def test_an_image_scores_the_same_in_any_company(fitted: PNI, data: Dataset) -> None:
    images = torch.stack([data.test.image(i, fitted.config.geometry) for i in (3, 0)])
    found, expected = fitted.predict(images), fitted.predict(data.test)
    assert found.image_paths == ["image 0", "image 1"]
    for name in FIELDS:
        assert np.array_equal(getattr(found, name), getattr(expected, name)[[3, 0]])


# -- killed and resumed --------------------------------------------------------------------------


def killed_after(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, calls: int) -> None:
    """`owner.name` is interrupted when it is entered for the (calls + 1)-th time."""
    whole, seen = getattr(owner, name), []

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        seen.append(name)
        if len(seen) > calls:
            raise KeyboardInterrupt
        return whole(*args, **kwargs)

    monkeypatch.setattr(owner, name, interrupted)


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[Any]:
    """First arguments of every call of `owner.name`."""
    whole, seen = getattr(owner, name), []

    def counting(*args: Any, **kwargs: Any) -> Any:
        seen.append(args[1] if owner is Embedder else args[0])
        return whole(*args, **kwargs)

    monkeypatch.setattr(owner, name, counting)
    return seen


@pytest.mark.parametrize(
    ("owner", "name", "calls"),
    [
        (Embedder, "embed", 1),  # the second of two batches
        (_Selection, "add", 20),
        (fitting, "coreset_tensors", 0),  # chosen, not yet written
        (fitting, "count_positions", 0),
        (neighborhood, "_save_checkpoint", 1),  # the second epoch is lost
        (neighborhood, "gather_neighbors", 7),  # within the second epoch
        (PNI, "calibrate", 0),
    ],
)
def test_a_killed_fit_resumes_to_the_same_bytes(
    fitted: PNI, data: Dataset, tmp_path: Path, owner: Any, name: str, calls: int
) -> None:
    work = tmp_path / "work"
    with pytest.MonkeyPatch.context() as patch:
        killed_after(patch, owner, name, calls)
        with pytest.raises(KeyboardInterrupt):
            PNI(fitted.config).fit(data.train, workdir=work)
    with pytest.MonkeyPatch.context() as patch:
        batches = counted(patch, Embedder, "embed")
        selections = counted(patch, fitting, "select_coreset")
        epochs = counted(patch, neighborhood, "_save_checkpoint")
        resumed = PNI(fitted.config).fit(data.train, workdir=work)
    extracted = sum(len(batch) for batch in batches) - 3  # calibration scores three
    assert extracted == (2 if owner is Embedder else 0)
    assert len(selections) == (name in ("embed", "add", "coreset_tensors"))
    remaining = {"_save_checkpoint": fitted.config.mlp_epochs - 1, "calibrate": 0}
    if name == "gather_neighbors":  # 5 steps an epoch
        remaining[name] = fitted.config.mlp_epochs - 1
    assert len(epochs) == remaining.get(name, fitted.config.mlp_epochs)
    assert saved(resumed, tmp_path / "resumed") == saved(fitted, tmp_path / "whole")


@pytest.mark.parametrize("change", ["config", "images", "labels of the files"])
def test_a_stale_work_folder_is_never_mixed_in(data: Dataset, tmp_path: Path, change: str) -> None:
    """Left behind by other settings or other images, in the middle of the features or of the network."""
    config, train = SCATTERING, data.train
    if change == "config":
        config = SCATTERING.replace(emb_ratio=0.2, dim=12)
    elif change == "images":
        train = write_category(tmp_path / "other", seed=1).train
    else:
        train = Split(data.train.samples.iloc[::-1], data.root)  # the same images in another order
    expected = saved(PNI(config).fit(train), tmp_path / "fresh")
    for name, owner, calls in (("embed", Embedder, 1), ("_save_checkpoint", neighborhood, 1)):
        work = tmp_path / f"work-{name}"
        with pytest.MonkeyPatch.context() as patch:
            killed_after(patch, owner, name, calls)
            with pytest.raises(KeyboardInterrupt):
                PNI(SCATTERING).fit(data.train, workdir=work)
        assert saved(PNI(config).fit(train, workdir=work), tmp_path / f"model-{name}") == expected


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    small = write_category(tmp_path / "data", n_train=3)
    before = PNI(SCATTERING).fit(small.train, workdir=tmp_path / "work")
    write_category(tmp_path / "data", n_train=3, seed=9)  # same names, other pixels
    after = PNI(SCATTERING).fit(small.train, workdir=tmp_path / "work")
    assert not same(before.predict(small.test), after.predict(small.test))


# -- settings and switches -----------------------------------------------------------------------


def test_setting_a_is_the_nearest_neighbor(fitted: PNI, data: Dataset) -> None:
    found = fitted.with_config(setting="A").predict(data.test)
    assert fitted.coreset is not None
    vectors = fitted.coreset.embedding.double()
    for i in range(len(data.test)):
        features = fitted.embedder.embed(data.test.image(i, fitted.config.geometry)[None])[0].double()
        distances = torch.cdist(features.flatten(0, 1), vectors, compute_mode="donot_use_mm_for_euclid_dist")
        assert np.allclose(found.patch_scores[i].ravel(), distances.amin(1), rtol=1e-3, atol=1e-4 * vectors.std())
        assert np.array_equal(found.nearest_idx[i].ravel(), distances.argmin(1))
    assert np.array_equal(found.match_idx, found.nearest_idx)


def test_gates_only_ever_raise_a_score(model: PNI, data: Dataset) -> None:
    """Eq. (4): the maximum over fewer vectors is no larger."""
    plain = model.with_config(setting="A").predict(data.test).patch_scores
    for setting in ("B", "position", "E"):
        found = model.with_config(setting=setting).predict(data.test)
        assert (found.patch_scores >= plain).all()
        moved = found.match_idx != found.nearest_idx
        assert np.array_equal(found.patch_scores[~moved], plain[~moved])
    assert moved.any()


def test_variants_at_once_equal_one_at_a_time(model: PNI, data: Dataset) -> None:
    overrides: dict[str, dict[str, Any]] = {
        "A": dict(setting="A"),
        "B": dict(setting="B", temperature=1.0),
        "released": dict(combine="score", released="rank_transfer,first_eighth"),
        "map": dict(setting="A", sigma=0.0, released="reweighted"),
        "own": {},
    }
    configs = {name: model.config.replace(**values) for name, values in overrides.items()}
    found = model.predict_variants(data.test, configs)
    for name, values in overrides.items():
        assert found[name].config == configs[name]
        assert same(found[name], model.with_config(**values).predict(data.test)), name
    assert np.isfinite(found["own"].threshold) and np.isnan(found["A"].threshold)


FITTED_SWITCHES: dict[str, dict[str, Any]] = {
    "B1": dict(released="centre_leak"),
    "B2": dict(mlp_dropout=0.5),
    "B3 patch": dict(setting="A", agg_patch=3),
    "B3 d": dict(setting="A", dim=8),
    "B4": dict(setting="position", released="emb_bins"),
    "B11-B14 A": dict(setting="A", border="replicate"),
    "B11-B14 E": dict(border="replicate"),
    "border_cells": dict(border="replicate", border_cells=1),
    "B15": dict(nb_pad="replicate"),
    "B16": dict(released="best_epoch"),
    "B17 start": dict(setting="A", released="start_dropped"),
    "B18": dict(setting="position", dist_size=8),
    "B20": dict(setting="A", resize="short"),
    "B29": dict(setting="A", seed=1),
    "feature_norm": dict(setting="A", feature_norm="channel"),
    "patch": dict(setting="position", patch=5),
    "mlp_lr_gamma": dict(setting="B", mlp_lr_step=1, mlp_lr_gamma=0.5),
    "mlp_layers": dict(setting="B", mlp_layers=1),
}
LATE_SWITCHES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "B5 score": ({}, dict(combine="score")),
    "B5 product": ({}, dict(combine="product")),
    "B6": (dict(setting="B"), dict(released="rank_transfer")),
    "B6 in E": (dict(combine="score"), dict(released="rank_transfer")),
    "B7, B8 B": (dict(setting="B"), dict(released="first_eighth")),
    "B7, B8 rank": (dict(setting="B", released="rank_transfer"), dict(released="rank_transfer,first_eighth")),
    "B9": (dict(setting="position"), dict(released="dist_threshold")),
    "B10 density": (dict(lambda_=0.99), dict(released="density")),
    "B10 lambda": ({}, dict(lambda_=0.99)),
    "temperature": (dict(setting="B"), dict(temperature=2.0)),
    "B22": ({}, dict(sigma=1.0)),
    "B23 raw_max": ({}, dict(image_score="raw_max")),
    "B23 top1": ({}, dict(image_score="top1")),
    "B23 reweight": (dict(setting="A"), dict(released="reweighted")),
    "B24": (dict(setting="A"), dict(baseline="patchcore")),
    "B24 k": (dict(setting="A", baseline="patchcore"), dict(baseline_neighbors=3)),
}


@pytest.mark.parametrize("switch", FITTED_SWITCHES)
def test_switches_of_fitted_parts_change_the_scores(model: PNI, data: Dataset, switch: str) -> None:
    values = FITTED_SWITCHES[switch]
    setting = values.get("setting", "B" if switch in ("B1", "B2", "B15", "B16") else "E")
    config = model.config.replace(**{"calibration_images": 0, "setting": setting} | values)
    found = PNI(config).fit(data.train).predict(data.test)
    expected = model.with_config(setting=setting).predict(data.test)
    if switch == "border_cells":
        expected = PNI(config.replace(border_cells=2)).fit(data.train).predict(data.test)
    assert np.isfinite(found.maps).all()
    assert not np.array_equal(found.patch_scores, expected.patch_scores)


@pytest.mark.parametrize("switch", LATE_SWITCHES)
def test_switches_of_scoring_change_the_scores(model: PNI, data: Dataset, switch: str) -> None:
    base, values = LATE_SWITCHES[switch]
    before = model.with_config(**base).predict(data.test)
    after = model.with_config(**base | values).predict(data.test)
    assert np.isfinite(after.maps).all() and np.isfinite(after.image_scores).all()
    assert not np.array_equal(before.image_scores, after.image_scores)
    if switch == "B10 density":  # an affine change: nothing else moves
        assert np.allclose(after.patch_scores, before.patch_scores - np.log(0.99))


def test_the_reweighted_score_is_of_three_distances(model: PNI, data: Dataset) -> None:
    """B23, from the features: s (1 - exp(s) / sum exp(d)) of the cell whose nearest vector is farthest."""
    released = model.with_config(setting="A", released="reweighted", lambda_=0.9)
    assert released.coreset is not None
    features = released.embed(data.test.image(0, released.config.geometry)).flatten(0, 1)
    nearest = torch.cdist(features, released.coreset.embedding).sort(1).values[:, :3].double()
    d = nearest[nearest[:, 0].argmax()]
    expected = d[0] * (1 - d[0].exp() / d.exp().sum())
    assert released.predict(data.test).image_scores[0] == pytest.approx(float(expected), rel=1e-3)


def test_more_neighbors_than_the_coreset_has_are_refused(data: Dataset) -> None:
    model = PNI(SCATTERING.replace(setting="A", calibration_images=0, emb_max=40)).fit(data.train)
    assert model.with_config(baseline="patchcore", baseline_neighbors=40).config.baseline_neighbors == 40
    with pytest.raises(PNIError, match="baseline_neighbors=41: the coreset has 40 vectors: lower it"):
        model.with_config(baseline="patchcore", baseline_neighbors=41)


def test_the_sparse_projection_changes_the_choice(data: Dataset) -> None:
    """B17: only where d exceeds the dimension that Johnson and Lindenstrauss ask for."""
    config = RESNET.replace(setting="A", dim=200, calibration_images=0)
    plain, sparse = (PNI(config.replace(released=p)).fit(data.train).coreset for p in ("", "sparse_projection"))
    assert plain is not None and sparse is not None
    assert not torch.equal(plain.cell_idx, sparse.cell_idx)
    assert sparse.embedding.shape == plain.embedding.shape  # only the choice is projected


def test_mask_resizing_changes_the_ground_truth_only(model: PNI, data: Dataset) -> None:
    """B21."""
    nearest, floor = (model.with_config(mask_resize=m).predict(data.test) for m in ("nearest", "floor"))
    assert nearest.maps.tobytes() == floor.maps.tobytes()
    assert evaluate(nearest, data.test).metrics["p_f1_max"] != evaluate(floor, data.test).metrics["p_f1_max"]


def test_every_fitted_field_is_refused_by_with_config(model: PNI) -> None:
    for override in (dict(patch=5), dict(seed=1), dict(released="emb_bins"), dict(mlp_lr=0.1), dict(emb_ratio=0.5)):
        name = next(iter(override))
        with pytest.raises(PNIError, match=f"^{name}=.*fitted with.*fit again$"):
            model.with_config(**override)
    with pytest.raises(PNIError, match="there is no setting 'sigmaa': did you mean sigma"):
        model.with_config(sigmaa=1.0)
    with pytest.raises(PNIError, match="image_crop"):
        model.predict_variants(torch.zeros(1, 3, 64, 64), {"x": model.config.replace(image_crop=32)})


def test_with_config_leaves_the_model_as_it_was(model: PNI) -> None:
    config = model.config
    other = model.with_config(sigma=1.0)
    assert other.calibration is None and model.calibration is not None and model.config == config
    assert model.with_config().calibration is model.calibration


def test_the_released_preset_runs_end_to_end(data: Dataset, tmp_path: Path) -> None:
    small = {
        name: getattr(RESNET, name)
        for name in ("image_resize", "image_crop", "backbone", "weights", "agg_patch", "dim", "emb_ratio", "dist_size",
                     "patch", "mlp_layers", "mlp_width", "mlp_epochs", "mlp_batch")
    }  # fmt: skip
    released = PNI(PNIConfig.profile("released").replace(**small, border_cells=1)).fit(data.train, workdir=tmp_path)
    found = released.predict(data.test)
    assert np.isfinite(found.maps).all() and (found.match_idx >= 0).all()
    for cells in (found.patch_scores, found.match_idx, found.nearest_idx):  # a border cell shows an inner one
        assert np.array_equal(cells, np.pad(cells[:, 1:-1, 1:-1], ((0, 0), (1, 1), (1, 1)), mode="edge"))
    assert released.coreset is not None and released.position is not None
    cells = released.coreset.cell_idx.numpy()
    assert ((cells % 8 > 0) & (cells % 8 < 7) & (cells // 8 > 0) & (cells // 8 < 7)).all()
    assert released.position.n_bins == len(released.coreset.embedding)


def test_a_loaded_model_has_the_window_that_it_was_fitted_with(data: Dataset, tmp_path: Path) -> None:
    """B1: nothing in the weights tells it."""
    leaky = PNI(RESNET.replace(setting="B", released="centre_leak")).fit(data.train)
    leaky.save(tmp_path)
    loaded = PNI.load(tmp_path)
    assert leaky.mlp is not None and loaded.mlp is not None
    assert loaded.mlp.offsets == leaky.mlp.offsets == leaked_offsets(RESNET.patch)
    assert same(loaded.predict(data.test), leaky.predict(data.test))


# -- calibration ---------------------------------------------------------------------------------


def test_calibration_leaves_the_vectors_of_an_image_and_of_its_copies_out(tmp_path: Path) -> None:
    data = write_category(tmp_path)
    files = [Path(path) for path in data.train.samples["image_path"]]
    with Image.open(files[3]) as picture:
        picture.save(files[7], compress_level=1)  # the same pixels in other bytes
    assert files[7].read_bytes() != files[3].read_bytes()
    assert equal_images(data.train, RESNET.geometry) == [[3, 7] if i in (3, 7) else [i] for i in range(10)]
    calibrated = PNI(RESNET.replace(setting="A", calibration_images=4)).fit(data.train)
    coreset, config = calibrated.coreset, calibrated.config
    assert coreset is not None and calibrated.calibration is not None
    scores, maps = [], []
    for i in (0, 3, 6, 9):  # 4 of 10, evenly spread
        features = calibrated.embedder.embed(data.train.image(i, config.geometry)[None])[0].flatten(0, 1).double()
        own = torch.isin(coreset.image_idx, torch.tensor([3, 7] if i == 3 else [i]))
        others = coreset.embedding[~own].double()
        assert len(others) < len(coreset.embedding)
        patches = (features[:, None] - others).norm(dim=2).amin(1).float().view(1, 8, 8)
        final = anomaly_maps(patches, 64, config.sigma)
        maps.append(final.numpy())
        scores.append(float(image_scores(final, patches, config)[0]))
    assert np.allclose(calibrated.calibration.image_scores, scores, rtol=1e-4)
    assert calibrated.calibration.low == pytest.approx(np.min(maps), rel=1e-3)
    assert calibrated.calibration.high == pytest.approx(np.max(maps), rel=1e-3)


def test_calibration_knows_the_images_of_the_fit(data: Dataset, tmp_path: Path) -> None:
    """By what is in them: names like 000.png are the same in every category."""
    fitted = PNI(SCATTERING.replace(setting="A")).fit(data.train)
    expected = fitted.calibration
    moved = load_dataset("mvtec", shutil.copytree(data.root, tmp_path / "moved"), "part").train
    foreign = write_category(tmp_path / "foreign", seed=1).train
    assert [Path(path).name for path in foreign.samples["image_path"]] == [Path(p).name for p in fitted.train_paths]
    fitted.save(tmp_path / "model")
    assert fitted.train_fingerprint == data.train.fingerprint() == PNI.load(tmp_path / "model").train_fingerprint
    for model in (fitted, PNI.load(tmp_path / "model"), fitted.with_config(sigma=1.0)):
        for other in (foreign, Split(data.train.samples.iloc[::-1], data.root), data.test):
            with pytest.raises(PNIError, match="training images are not those that the model was fitted on"):
                model.calibrate(other)
    assert np.array_equal(fitted.calibrate(moved).image_scores, expected.image_scores)


@pytest.mark.parametrize(
    "values",
    [
        {},
        dict(setting="B"),
        dict(combine="product"),
        dict(combine="score", released="first_eighth"),
        dict(setting="B", released="rank_transfer"),
        dict(setting="A", released="reweighted"),
        dict(setting="A", baseline="patchcore"),
    ],
)
def test_calibration_never_matches_the_images_own_vectors(model: PNI, data: Dataset, values: dict[str, Any]) -> None:
    other = model.with_config(**values)
    assert model.coreset is not None
    found = other._predict(data.train, {"": other.config}, list(range(10)), False, "")[""]
    origin = model.coreset.image_idx.numpy()
    own = np.arange(10)[:, None, None]
    assert (origin[found.match_idx] != own).all() and (origin[found.nearest_idx] != own).all()
    assert np.isfinite(found.image_scores).all() and np.isfinite(found.maps).all()


@pytest.mark.parametrize(("n", "why"), [(1, "there is one training image alone"), (4, "training images are equal")])
def test_without_anything_to_compare_with_there_is_no_decision(n: int, why: str, tmp_path: Path) -> None:
    data = write_category(tmp_path / "data", n_train=n)
    files = [Path(path) for path in data.train.samples["image_path"]]
    for i, file in enumerate(files[1:]):
        with Image.open(files[0]) as picture:
            picture.save(file, compress_level=i)
    alone = PNI(SCATTERING.replace(setting="A")).fit(data.train)
    alone.save(tmp_path / "model")
    for model in (alone, PNI.load(tmp_path / "model")):
        assert model.calibration is not None and model.calibration.image_scores.shape == (0,)
        assert model.calibration.high > model.calibration.low  # for the colours of heat maps
        found = model.predict(data.test)
        assert np.isnan(found.threshold) and why in found.threshold_note and "nothing is called" in found.threshold_note
        assert evaluate(found, data.test).notes == [found.threshold_note]


def test_a_threshold_says_what_it_cannot_promise(model: PNI, data: Dataset) -> None:
    """Three calibration images promise 25 %: asked for 2 % or for that."""
    found = model.predict(data.test)
    assert model.calibration is not None and found.threshold == np.nextafter(
        model.calibration.image_scores.max(), np.float32(np.inf)
    )
    assert found.threshold_note.endswith(
        "3 calibration images cannot promise fewer than 25 % false alarms (asked: 2 %)"
    )
    assert evaluate(found, data.test).notes == [found.threshold_note] and model.decision()[1] == found.threshold_note
    tolerant = model.with_config(calibration_fpr=0.25)
    tolerant.calibrate(data.train)
    assert (
        tolerant.predict(data.test).threshold_note == ""
        and "no calibration" in model.with_config(sigma=1.0).decision()[1]
    )


def test_no_calibration_no_threshold(data: Dataset) -> None:
    plain = PNI(SCATTERING.replace(setting="A", calibration_images=0)).fit(data.train)
    assert plain.calibration is None and np.isnan(plain.predict(data.test).threshold)
    plain.config = plain.config.replace(calibration_images=5)
    assert len(plain.calibrate(data.train).image_scores) == 5 and np.isfinite(plain.predict(data.test).threshold)


# -- explanations --------------------------------------------------------------------------------


@pytest.mark.parametrize(("bins", "border"), [("", "keep"), ("emb_bins", "replicate")])
def test_explanations_agree_with_the_scores(data: Dataset, bins: str, border: str) -> None:
    change = dict(released=bins, border=border, border_cells=1, calibration_images=0)
    explained = PNI(GATED.replace(**change)).fit(data.train)
    table = explained.explain(data.test.image(0, GATED.geometry))
    found = explained.predict(data.test)
    coreset = explained.coreset
    assert coreset is not None and len(table) == 64
    assert np.array_equal(table["row"] * 8 + table["column"], np.arange(64))
    for name, values in (("score", "patch_scores"), ("match_idx", "match_idx"), ("nearest_idx", "nearest_idx")):
        assert np.array_equal(table[name], getattr(found, values)[0].ravel())
    assert np.allclose(table["match_distance"], table["score"], rtol=1e-3)  # lambda = 1
    assert (table["nearest_distance"] <= table["match_distance"] * (1 + 1e-5)).all()
    for which in ("nearest", "match"):
        idx = table[f"{which}_idx"]
        assert np.array_equal(table[f"{which}_train_image"], coreset.image_idx.numpy()[idx])
        assert np.array_equal(table[f"{which}_train_cell"], coreset.cell_idx.numpy()[idx])
    threshold = tau(len(coreset.embedding))
    assert np.array_equal(table["open_position"], table["p_position"] > threshold)
    mean = (table["p_neighborhood"].to_numpy() + table["p_position"].to_numpy()) / 2
    assert np.array_equal(mean > threshold, table["match_idx"] == table["nearest_idx"])  # eq. (6): open or moved on
    assert 0 < (mean > threshold).sum() < 64


# -- faults --------------------------------------------------------------------------------------


def test_an_image_with_nan_is_refused(model: PNI) -> None:
    image = torch.full((1, 3, 64, 64), 0.5)
    image[0, 1, 10, 20] = torch.nan
    with pytest.raises(PNIError, match="image 0: holds NaN"):
        model.predict(image)


def test_a_wrong_size_is_refused(model: PNI) -> None:
    with pytest.raises(PNIError, match=r"\(3, 32, 64\): the model wants \(3, 64, 64\)"):
        model.predict(torch.zeros(2, 3, 32, 64))
    with pytest.raises(PNIError, match=r"the model wants \(3, 64, 64\)"):
        model.explain(torch.zeros(3, 65, 65))


def test_files_and_arrays_score_as_their_split(model: PNI, data: Dataset) -> None:
    paths = list(data.test.samples["image_path"])
    expected = model.predict(data.test)
    assert same(model.predict(paths), expected) and model.predict(paths).image_paths == paths
    arrays = [np.array(Image.open(path)) for path in paths]
    found = model.predict(arrays)
    assert same(found, expected) and found.image_paths == [f"image {i}" for i in range(len(paths))]
    assert np.array_equal(model.maps(arrays[1])[0], expected.maps[1])
    whole = model.explain(paths[1])
    assert np.array_equal(whole["score"].to_numpy(np.float32), expected.patch_scores[1].ravel())
    with pytest.raises(PNIError, match="explain wants one image, not 4"):
        model.explain(paths)


def test_empty_splits_are_refused(model: PNI, data: Dataset) -> None:
    nothing = Split(data.test.samples.iloc[:0], data.root)
    with pytest.raises(PNIError, match="no training images"):
        PNI(SCATTERING).fit(nothing)
    with pytest.raises(PNIError, match="no images to score"):
        model.predict(nothing)
    with pytest.raises(PNIError, match="no images to score"):
        model.predict(torch.zeros(0, 3, 64, 64))


def test_an_unfitted_model_says_so(data: Dataset, tmp_path: Path) -> None:
    for act in (lambda m: m.predict(data.test), lambda m: m.save(tmp_path / "model")):
        with pytest.raises(PNIError, match="not fitted"):
            act(PNI(SCATTERING))
    assert not (tmp_path / "model").exists()


def test_one_training_image_is_enough(data: Dataset) -> None:
    single = PNI(SCATTERING).fit(Split(data.train.samples.iloc[:1], data.root))
    assert np.isfinite(single.predict(data.test).maps).all()


def flip(path: Path) -> None:
    blob = bytearray(path.read_bytes())
    blob[len(blob) // 2] ^= 1
    path.write_bytes(blob)


def versioned(folder: Path, version: int) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": version}))


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a file gone": (lambda f: (f / "position.safetensors").unlink(), "position.safetensors is missing"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "not a pnilib artefact"),
    "cut": (lambda f: os.truncate(f / "coreset.safetensors", 100), "half-written"),
    "a bit flipped": (lambda f: flip(f / "neighborhood.safetensors"), "wrong SHA-256"),
    "newer": (lambda f: versioned(f, 99), "newer format .* upgrade pnilib"),
    "older": (
        lambda f: versioned(f, 1),
        "older format .* its settings and defaults were others: delete it and make it again",
    ),
    "no model": (lambda f: write_artefact(f, {}, {"kind": "else"}), "not a fitted PNI model"),
    "other weights": (
        lambda f: write_artefact(f, *(lambda t, m: (t, m | {"weights_id": "0"}))(*read_artefact(f))),
        "other scattering weights",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_model_is_one_line_that_names_the_folder(model: PNI, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "model"
    model.save(folder)
    act, message = DAMAGE[damage]
    act(folder)
    with pytest.raises(PNIError, match=message) as caught:
        PNI.load(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(PNIError, match="nowhere: there is no such artefact folder"):
        PNI.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("code", "message"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "no permission"), (errno.EROFS, "no permission")],
)
@pytest.mark.parametrize("where", ["fsync", "replace", "rename"])
def test_a_failed_save_keeps_the_old_model(
    model: PNI, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, message: str, where: str
) -> None:
    folder = tmp_path / "model"
    before = saved(model, folder)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, where, refuse)
        with pytest.raises(PNIError, match=message):
            model.with_config(sigma=5.0).save(folder)
    assert hashes(folder) == before
    assert [p.name for p in tmp_path.iterdir()] == ["model"]  # no litter
    assert same(PNI.load(folder).predict(data.test), model.predict(data.test))


def test_a_file_in_place_of_the_folder(model: PNI, data: Dataset, tmp_path: Path) -> None:
    (tmp_path / "model").write_text("mine")
    with pytest.raises(PNIError, match="model: is a file: choose a folder"):
        model.save(tmp_path / "model")
    with pytest.raises(PNIError, match="model"):
        PNI(SCATTERING).fit(data.train, workdir=tmp_path / "model")
    assert (tmp_path / "model").read_text() == "mine"  # and nothing else happened


def test_a_full_disk_while_fitting_loses_no_finished_stage(data: Dataset, tmp_path: Path) -> None:
    select = fitting.select_coreset

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def select_then_full(*args: Any, **kwargs: Any) -> Any:
        patch.setattr(os, "fsync", full)
        return select(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "select_coreset", select_then_full)
        with pytest.raises(PNIError, match="disk is full"):
            PNI(SCATTERING).fit(data.train, workdir=tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        extracted = counted(patch, fitting, "extract")
        PNI(SCATTERING).fit(data.train, workdir=tmp_path)
    assert extracted == []


def test_a_smaller_ratio_is_the_beginning_of_the_same_run(data: Dataset) -> None:
    """What the ablation's settings C, D and E share with F: one greedy run, one network, one histogram."""
    large = PNI(SCATTERING.replace(emb_ratio=0.3, calibration_images=0)).fit(data.train)
    small = PNI(SCATTERING.replace(calibration_images=0)).fit(data.train)
    assert large.coreset is not None and small.coreset is not None
    cut = large.with_config(emb_ratio=0.15)
    assert cut.coreset is not None and len(large.coreset.embedding) == 2 * len(small.coreset.embedding)
    for name in ("embedding", "emb_to_dist", "image_idx", "cell_idx"):
        assert torch.equal(getattr(cut.coreset, name), getattr(small.coreset, name))
    assert np.array_equal(cut.coreset.radii, small.coreset.radii, equal_nan=True)
    assert same(cut.predict(data.test), small.predict(data.test))
    both = large.predict_variants(data.test, {"C": cut.config, "F": large.config, "A": cut.config.replace(setting="A")})
    assert same(both["C"], small.predict(data.test)) and same(both["F"], large.predict(data.test))
    assert same(both["A"], small.with_config(setting="A").predict(data.test))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (dict(emb_ratio=0.4), "fitted with 0.3"),
        (dict(emb_ratio=0.01), "gives 32 ... 192 of its vectors"),
        (dict(emb_ratio=0.2, released="emb_bins"), "fit again"),
    ],
)
def test_a_ratio_that_the_run_does_not_hold(data: Dataset, change: dict[str, Any], fault: str) -> None:
    model = PNI(SCATTERING.replace(emb_ratio=0.3, setting="A", calibration_images=0)).fit(data.train)
    with pytest.raises(PNIError, match=fault):
        model.with_config(**change)
