"""gate=soft: its rule against the slow form, its constants against their definitions, and what has no constants."""

from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Int64

from pnilib import PNI, PNIConfig
from pnilib.apps.explore.words import sentence
from pnilib.coreset import select_coreset
from pnilib.data import Dataset, Split, load_dataset
from pnilib.demo import make_demo
from pnilib.detector.inference import score_image
from pnilib.detector.veto import equal_features, fit_veto
from pnilib.errors import PNIError
from pnilib.position import (
    PositionHistogram,
    count_positions,
    count_positions_reference,
    fit_concentration,
    fit_concentration_reference,
)
from pnilib.scoring import SoftVeto, patch_distances, soft_nearest

SOFT = PNIConfig.profile("smoke").replace(setting="position", gate="soft", combine="prob")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("demo")
    make_demo(root, categories=["cable"], n_train=6, n_good=3, n_per_defect=1, size=96)
    return load_dataset("demo", root, "cable")


@pytest.fixture(scope="module")
def model(data: Dataset) -> PNI:
    return PNI(SOFT).fit(data.train)


def random_bins(n: int, seed: int = 0) -> Int64[np.ndarray, "n 7 6"]:
    """Bins that mean something in the upper rows, where two of five alone occur."""
    bins = np.random.default_rng(seed).integers(0, 5, (n, 7, 6))
    bins[:, :3] = np.minimum(bins[:, :3], 1)
    return bins


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("border", [0, 1])
def test_concentration_is_that_of_the_reference(n: int, border: int) -> None:
    bins = random_bins(n)
    assert fit_concentration(bins, 5, 3, border) == fit_concentration_reference(bins, 5, 3, border)


def test_concentration_knows_aligned_parts_from_textures() -> None:
    generator = np.random.default_rng(0)
    texture = generator.integers(0, 8, (12, 10, 10))
    aligned = np.broadcast_to(generator.integers(0, 8, (10, 10)), (12, 10, 10)).copy()
    assert fit_concentration(aligned, 8, 3) < 10 < 100 < fit_concentration(texture, 8, 3)


def test_evidence_by_hand() -> None:
    """One cell, 3 + 1 votes of two bins, alpha 2.  Marginal with one pseudo-count a bin: (3 + 1) / 6 and 2 / 6."""
    histogram = PositionHistogram(np.array([[[3, 1]]], dtype=np.uint16))
    p0, p1 = (3 + 2 * 4 / 6) / 6, (1 + 2 * 2 / 6) / 6
    expected = [max(0, np.log(4 / 6 / p0)), max(0, np.log(2 / 6 / p1))]
    assert histogram.against(slice(None), 2.0)[0].tolist() == pytest.approx(expected, abs=1e-6)
    assert expected[0] == 0 or expected[1] == 0  # evidence for one is no credit


def test_votes_of_an_image_can_be_taken_back() -> None:
    bins = random_bins(4)
    histogram = PositionHistogram(count_positions(bins, 5, 3))
    without = histogram.without(count_positions_reference(bins[1:2], 5, 3))
    assert np.array_equal(without.counts, count_positions_reference(np.delete(bins, 1, 0), 5, 3))
    assert without.counts.dtype == histogram.counts.dtype


@pytest.mark.parametrize("with_bins", [False, True])
def test_soft_nearest_is_the_minimum_over_all(with_bins: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    distances = torch.rand(200, 12, generator=generator)
    distances[:, 3] = torch.inf  # left out
    against = (torch.rand(200, 4 if with_bins else 12, generator=generator) - 0.5).clamp_min(0)
    bin_of = torch.arange(12) % 4 if with_bins else None
    cost = against[:, bin_of] if with_bins else against
    expected = (distances + 0.3 * cost).min(1)
    score, idx = soft_nearest(distances.clone(), against, 0.3, bin_of)
    assert torch.allclose(score, expected.values, rtol=1e-6) and torch.equal(idx, expected.indices)
    assert not torch.equal(score, distances.amin(1))


def test_scores_grow_with_the_distances_and_with_the_evidence() -> None:
    generator = torch.Generator().manual_seed(1)
    distances, against = torch.rand(50, 9, generator=generator), torch.rand(50, 9, generator=generator)
    score = soft_nearest(distances.clone(), against, 0.5)[0]
    assert (soft_nearest(1.5 * distances, against, 0.5)[0] > score).all()
    assert (soft_nearest(distances.clone(), against, 1.0)[0] >= score).all()


def test_prediction_is_the_formula(model: PNI, data: Dataset) -> None:
    """S(x) written out for one image: every distance, every nat, the level."""
    image = data.test.image(0, SOFT.geometry)
    features = model.embed(image)
    assert model.coreset is not None and model.position is not None and model.veto is not None
    veto, counts = model.veto, model.position.counts.astype(float)
    p = (counts.sum((0, 1)) + 1) / (counts.sum() + counts.shape[2])
    p_here = (counts + veto.alpha * p) / (counts.sum(2, keepdims=True) + veto.alpha)
    against = np.maximum(0, np.log(p) - np.log(p_here)).reshape(-1, counts.shape[2])[:, model.coreset.emb_to_dist]
    distances = patch_distances(features.flatten(0, 1), model.coreset.embedding).numpy()
    total = distances + veto.distance / SOFT.veto_nats * against
    level = veto.level.numpy().reshape(-1)
    expected = total.min(1) / np.sqrt(level / level.mean())
    prediction = model.predict(image)
    assert prediction.patch_scores.reshape(-1) == pytest.approx(expected, rel=1e-4)
    assert np.array_equal(prediction.match_idx.reshape(-1), total.argmin(1))


def test_constants_come_from_other_images(model: PNI, data: Dataset) -> None:
    """The mean distance and the level, image by image, from a coreset and a histogram without that image's part."""
    config = SOFT
    features = np.stack([model.embed(data.train.image(i, config.geometry)).numpy() for i in range(len(data.train))])
    coreset = select_coreset(features, config)
    bins = np.stack(
        [patch_distances(torch.from_numpy(f).flatten(0, 1), coreset.distribution).argmin(1).numpy() for f in features]
    ).reshape(features.shape[:3])
    position = PositionHistogram(count_positions(bins, coreset.n_dist, config.patch))
    veto = fit_veto(features, bins, coreset, position, config)
    nearest = []
    for i, f in enumerate(features):
        others = coreset.embedding[coreset.image_idx != i]
        nearest.append(patch_distances(torch.from_numpy(f).flatten(0, 1), others).amin(1).mean())
    assert veto.distance == pytest.approx(float(torch.stack(nearest)[::2].mean()), rel=1e-5)
    assert veto.alpha == fit_concentration_reference(bins, coreset.n_dist, config.patch)
    without = PositionHistogram(count_positions(np.delete(bins, 2, 0), coreset.n_dist, config.patch))
    soft = config.replace(level_power=0.0)
    plain = SoftVeto(veto.alpha, veto.distance, torch.ones_like(veto.level))
    image = torch.from_numpy(features[2])
    own = score_image(image, coreset, position, None, {"": soft}, 2, plain)[""][0].score
    kept = coreset.image_idx != 2
    distances = patch_distances(image.flatten(0, 1), coreset.embedding)
    distances[:, ~kept] = torch.inf
    expected = soft_nearest(
        distances, without.against(slice(None), veto.alpha), plain.per_nat(soft), coreset.emb_to_dist
    )[0]
    assert torch.allclose(own, expected)


def test_a_density_moves_every_score_and_no_constant(model: PNI, data: Dataset) -> None:
    """released=density: constants are of distances as they are, scores are lambda d - log(lambda) (B10)."""
    density = PNI(SOFT.replace(released="density", lambda_=0.5)).fit(data.train)
    assert model.veto is not None and density.veto is not None
    assert (density.veto.alpha, density.veto.distance) == (model.veto.alpha, model.veto.distance)
    assert torch.equal(density.veto.level, model.veto.level)
    image = data.test.image(0, SOFT.geometry)
    found, plain = density.predict(image), model.predict(image)
    assert found.patch_scores == pytest.approx(0.5 * plain.patch_scores + np.log(2), rel=1e-5)
    assert np.array_equal(found.match_idx, plain.match_idx)
    explained = density.explain_cell(density.embed(image), 7, density.config)
    assert explained.score == pytest.approx(found.patch_scores.flat[7], rel=1e-4)


def test_equal_images_say_nothing_of_each_other(data: Dataset) -> None:
    """Copies of one image: nothing to compare with, so no veto, no level, and plain distances."""
    same = data.train.samples.iloc[[0, 0, 0]].reset_index(drop=True)
    model = PNI(SOFT).fit(Split(same, data.train.root))
    assert model.veto is not None and model.veto.distance == 0 and bool((model.veto.level == 1).all())
    image = data.test.image(0, SOFT.geometry)
    variants = {"soft": model.config, "A": model.config.replace(setting="A")}
    found = model.predict_variants(image, variants)
    assert np.array_equal(found["soft"].maps, found["A"].maps)
    features = np.zeros((3, 2, 2, 1), np.float32)
    features[1] = 1
    assert equal_features(features) == [[0, 2], [1], [0, 2]]


def test_one_training_image_is_enough_to_score(data: Dataset) -> None:
    model = PNI(SOFT).fit(Split(data.train.samples.iloc[:1], data.train.root))
    assert np.isfinite(model.predict(data.test).maps).all() and np.isnan(model.decision()[0])


def test_saved_constants_give_the_same_bytes(model: PNI, data: Dataset, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    again = PNI.load(tmp_path / "model")
    assert np.array_equal(again.predict(data.test).maps, model.predict(data.test).maps)
    assert again.decision() == model.decision()
    assert again.fingerprint() == model.fingerprint()


def test_a_model_without_constants_cannot_score_softly(data: Dataset) -> None:
    hard = PNI(SOFT.replace(gate="hard")).fit(data.train)
    with pytest.raises(PNIError, match="gate=soft: the model was fitted without its constants: fit with"):
        hard.with_config(gate="soft")
    with pytest.raises(PNIError, match=r"veto_nats=5\.0: the model was fitted with 10\.0"):
        PNI(SOFT).fit(data.train).with_config(veto_nats=5)
    with pytest.raises(PNIError, match="gate counts for setting=position only"):
        SOFT.replace(setting="A").require_used(["gate"])


def test_explanations_add_up(model: PNI, data: Dataset) -> None:
    """The explorer's sentence and `explain` tell of the score that `predict` gives."""
    index = int(np.flatnonzero(data.test.samples["defect_type"] == "swapped")[0])
    image = data.test.image(index, SOFT.geometry)
    prediction, table = model.predict(image), model.explain(image)
    assert table["score"].to_numpy() == pytest.approx(prediction.patch_scores.reshape(-1), rel=1e-5)
    assert model.veto is not None
    total = table["match_distance"] + model.veto.per_nat(SOFT) * table["match_against"]
    assert (total / table["level"]).to_numpy() == pytest.approx(table["score"].to_numpy(), rel=1e-4)
    cell = int((table["score"] - table["nearest_distance"] / table["level"]).argmax())
    found = model.explain_cell(model.embed(image), cell, SOFT)
    assert found.score == pytest.approx(table["score"][cell], rel=1e-4)
    assert found.nearest.added > 0
    told = sentence(found, 1.0, 2.0, 0.1)
    assert "the place speaks against the nearest patch" in told and "shut" not in told
