"""What the explorer says of a pixel is what the score was made of: cell, matches, gates, probabilities, words."""

import dataclasses
import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import SCATTERING, write_category
from tiny_run import tiny_store, write_unit
from torch import Tensor

from pnilib.apps.explore import open_exploration
from pnilib.apps.explore.maps import normal_level
from pnilib.apps.explore.words import sentence
from pnilib.config import PNIConfig
from pnilib.coreset import Coreset
from pnilib.data import Dataset
from pnilib.detector.explain import Explanation, cell_at
from pnilib.detector.pni import PNI
from pnilib.errors import PNIError
from pnilib.maps import anomaly_maps, repeat_inner
from pnilib.neighborhood import NeighborhoodMLP
from pnilib.plots.images import cell_box
from pnilib.position import PositionHistogram

__all__ = ["tiny_store"]

# -- which cell lies below a pixel -------------------------------------------------------------------


def test_cells_by_hand() -> None:
    at = {(0, 0): 0, (7, 8): 1, (8, 7): 8, (63, 63): 63, (0, 63): 7, (31.9, 32.0): 3 * 8 + 4}
    assert {pixel: cell_at(*pixel, 64, (8, 8)) for pixel in at} == at
    assert cell_at(3, 2, 8, (2, 4)) == 1 and cell_at(4, 7, 8, (2, 4)) == 4 + 3
    assert cell_at(0, 0, 64, (8, 8), border=1) == 9 and cell_at(63, 63, 64, (8, 8), border=1) == 54
    assert cell_at(30, 0, 64, (8, 8), border=2) == 3 * 8 + 2


@pytest.mark.parametrize("border", [0, 1, 2, 3])
def test_every_pixel_names_the_cell_whose_score_the_map_repeats(border: int) -> None:
    grid = torch.arange(64, dtype=torch.float32).view(1, 8, 8)
    repeated = repeat_inner(grid, border)[0]
    for row in range(0, 64, 3):
        for column in range(0, 64, 3):
            cell = cell_at(row, column, 64, (8, 8), border)
            assert cell == repeated[row // 8, column // 8]
            top, left, bottom, right = cell_box(cell_at(row, column, 64, (8, 8)), (8, 8), 64)
            assert top <= row < bottom and left <= column < right


@pytest.mark.parametrize("pixel", [(-1, 0), (0, 64), (64, 0), (math.nan, 0), (0, math.inf), (-0.001, 3)])
def test_pixels_outside(pixel: tuple[float, float]) -> None:
    with pytest.raises(PNIError, match="lies outside a 64x64 image"):
        cell_at(*pixel, 64, (8, 8))


# -- a model that can be worked out by hand ----------------------------------------------------------

COUNTS = [[[0, 9], [1, 9]], [[2, 8], [0, 0]]]
"""Votes at the four cells for c_dist 0 and 1: p = 0, 0.1, 0.2, and nobody voted (0.5)."""
P_NB = [0.04, 0.96]


def toy(counts: Any = COUNTS, **changes: Any) -> tuple[PNI, Tensor]:
    """C_emb on a line: 0, 10 (these two are C_dist), 1, 9, from training images 0 to 3.  Each cell's feature is 0.75:
    0.25, 0.75, 8.25, 9.25 away from 1, 0, 9, 10.  tau = 1/8."""
    config = SCATTERING.replace(setting="E", patch=3, mlp_layers=2, **changes)
    model = PNI(config)
    line = torch.tensor([[0.0, 0], [10, 0], [1, 0], [9, 0]])
    four = torch.arange(4)
    model.coreset = Coreset(line, 2, torch.tensor([0, 1, 0, 1]), four, four + 10, torch.zeros(4, dtype=torch.float64))
    model.position = PositionHistogram(np.array(counts, np.uint16))
    model.mlp = NeighborhoodMLP(2, 2, config).eval()
    for parameter in model.mlp.parameters():
        parameter.data.zero_()
    last: Any = model.mlp.rest[-1]
    last.bias.data = config.temperature * torch.tensor(P_NB).log()
    features = torch.zeros(2, 2, 2)
    features[..., 0] = 0.75
    return model, features


def explain(cell: int, counts: Any = COUNTS, most: int = 5, **changes: Any) -> Explanation:
    model, features = toy(counts, released="emb_bins" if "emb_bins" in changes.get("released", "") else "")
    return model.explain_cell(features, cell, model.config.replace(**changes), most=most)


def test_no_gate_by_hand() -> None:
    found = explain(0, setting="A")
    assert (found.score, found.tau, found.n_shut, found.shut) == (0.25, 0.125, {"none": 0}, {"none": []})
    nearest = found.nearest
    assert found.matches == {"none": nearest}
    assert (nearest.idx, nearest.distance, nearest.train_image, nearest.train_cell) == (2, 0.25, 2, 12)
    assert nearest.p_neighborhood == pytest.approx(0.04) and nearest.p_position == 0.0  # of its c_dist 0


@pytest.mark.parametrize(
    ("cell", "p", "n_shut", "distance", "image"),
    [(0, 0.0, 2, 8.25, 3), (1, 0.1, 2, 8.25, 3), (2, 0.2, 0, 0.25, 2), (3, 0.5, 0, 0.25, 2)],
)
def test_position_gate_by_hand(cell: int, p: float, n_shut: int, distance: float, image: int) -> None:
    found = explain(cell, setting="position")
    match = found.matches["position"]
    assert found.nearest.p_position == pytest.approx(p)
    assert (found.n_shut["position"], match.distance, match.train_image, found.score) == (
        n_shut, distance, image, distance,
    )  # fmt: skip
    assert [one.idx for one in found.shut["position"]] == [2, 0][:n_shut]  # nearest first
    assert explain(cell, setting="position", most=1).n_shut == found.n_shut
    assert len(explain(cell, setting="position", most=1).shut["position"]) == min(1, n_shut)


def test_what_was_seen_and_expected_by_hand() -> None:
    seen = explain(1)
    assert [(one.votes, one.train_image) for one in seen.seen] == [(9, 1), (1, 0)] and seen.n_seen == 2
    assert [one.probability for one in seen.seen] == pytest.approx([0.9, 0.1])
    assert [one.probability for one in seen.expected] == pytest.approx([0.96, 0.04])
    assert [one.train_image for one in seen.expected] == [1, 0] and seen.expected[0].votes == 0
    never = explain(3)
    assert never.seen == [] and never.n_seen == 0
    assert [one.votes for one in explain(0).seen] == [9]  # a bin without votes was not seen


@pytest.mark.parametrize(
    ("combine", "cell", "n_shut", "score"),
    [
        ("prob", 2, {"eq. (6)": 2}, 8.25),  # (0.04 + 0.2) / 2 = 0.12 <= 0.125
        ("prob", 3, {"eq. (6)": 0}, 0.25),  # (0.04 + 0.5) / 2 = 0.27
        ("score", 2, {"neighborhood": 2, "position": 0}, 4.25),
        ("score", 0, {"neighborhood": 2, "position": 2}, 8.25),
        ("product", 2, {"product": 2}, 8.25),  # p(c) = 4/31, 27/31: 0.062 / (0.062 + 0.882) = 0.066
        ("product", 3, {"product": 0}, 0.25),  # 0.155 / (0.155 + 0.551) = 0.220
    ],
)
def test_both_gates_by_hand(combine: str, cell: int, n_shut: dict[str, int], score: float) -> None:
    found = explain(cell, combine=combine)
    assert found.n_shut == n_shut and found.score == score
    assert found.none_allowed == ()


def test_eq_6_halves_the_sum_by_hand() -> None:
    """(0.04 + 0.22) / 2 = 0.13 > 0.125, though 0.04 alone does not open; (0.04 + 0.2) / 2 = 0.12 stays shut."""
    assert explain(0, [[[22, 78]] * 2] * 2).n_shut == {"eq. (6)": 0}
    assert explain(0, [[[20, 80]] * 2] * 2).n_shut == {"eq. (6)": 2}


def test_lambda_and_prefactor_by_hand() -> None:
    assert explain(0, setting="position", lambda_=0.5).score == 0.5 * 8.25
    found = explain(0, setting="A", lambda_=0.5, released="density")
    assert found.score == pytest.approx(0.5 * 0.25 + math.log(2))
    assert explain(0, setting="A", baseline="patchcore", baseline_neighbors=2).score == (0.25**2 + 0.75**2) / 2


def test_every_gate_shut_by_hand() -> None:
    """p = 1/4 for each c_emb, tau = 1/(2 |C_dist|) = 1/4: none exceeds it, and the farthest vector counts."""
    even = [[[1] * 4] * 2] * 2
    found = explain(0, even, setting="position", released="emb_bins,dist_threshold")
    assert (found.tau, found.n_shut, found.score) == (0.25, {"position": 4}, 9.25)
    assert found.matches["position"].idx == 1 and found.none_allowed == ("position",)
    assert [one.idx for one in found.shut["position"]] == [2, 0, 3, 1]
    said = sentence(found, 1.0, math.nan)
    assert "shuts all 4 training patches" in said and "the farthest (training image 1) counts, 9.25 away" in said
    assert "allowed" not in said


def test_bad_input() -> None:
    model, features = toy()
    for cell in (-1, 4):
        with pytest.raises(PNIError, match=f"cell {cell} lies outside a 2x2 grid: choose 0 to 3"):
            model.explain_cell(features, cell, model.config)
    for change in (dict(released="rank_transfer", combine="score"), dict(released="first_eighth")):
        with pytest.raises(PNIError, match="the release's rank gate"):
            model.explain_cell(features, 0, model.config.replace(**change))
    with pytest.raises(PNIError, match="the model was fitted with"):
        model.explain_cell(features, 0, model.config.replace(patch=5))


def test_a_model_without_a_distribution() -> None:
    model, features = toy()

    def found(setting: str) -> Explanation:
        return model.explain_cell(features, 0, model.config.replace(setting=setting))

    model.mlp = None
    for setting in ("B", "E"):
        with pytest.raises(PNIError, match=f"setting={setting}: .* without the distribution of neighborhood"):
            found(setting)
    by_position = found("position")
    assert math.isnan(by_position.nearest.p_neighborhood) and by_position.expected == []
    assert by_position.n_shut == {"position": 2}

    model.mlp, model.position = toy()[0].mlp, None
    for setting in ("position", "E"):
        with pytest.raises(PNIError, match=f"setting={setting}: .* without the distribution of position"):
            found(setting)
    by_neighborhood = found("B")
    assert math.isnan(by_neighborhood.nearest.p_position) and by_neighborhood.n_seen == 0
    assert (by_neighborhood.seen, by_neighborhood.n_shut) == ([], {"neighborhood": 2})
    assert found("A").score == 0.25


def test_what_looks_at_no_rank_is_explained_for_the_release_too() -> None:
    model, features = toy()
    ranked = model.config.replace(released="rank_transfer", combine="score")  # which has no part in these
    for setting in ("A", "position"):
        assert model.explain_cell(features, 0, ranked.replace(setting=setting)).matches


# -- in words ------------------------------------------------------------------------------------------


def test_sentences_by_hand() -> None:
    """A normal patch is 0.2 away; this one 0.25 without gates and 8.25 with them."""
    shut = (
        "this patch scores 8.25: the position gate shuts 2 nearer training patches (the nearest was never seen at this "
        "position), and the nearest allowed one (training image 3) is 8.25 away instead of 0.25. So it is its place "
        "more than its looks: of the 8.05 that it is farther than a normal patch (0.2), the gates make 8."
    )
    found = explain(0, setting="position")
    assert sentence(found, 5.0, 2.0, 0.2) == f"The map is 5 here, at or above the image threshold 2; {shut}"
    assert sentence(found, 2.0, 2.0, 0.2).startswith("The map is 2 here, at or above the image threshold 2; ")
    assert sentence(found, 1.5, 2.0, 0.2) == f"The map is 1.5 here, below the image threshold 2; {shut}"
    for nothing in (math.nan, math.inf, -math.inf):
        assert sentence(found, 5.0, nothing, 0.2) == f"The map is 5 here; {shut}"
    assert sentence(found, math.nan, 2.0, 0.2) == f"The run kept no map of this result; {shut}"
    other = explain(0, setting="position", image_score="top1")  # whose threshold is not one of the map
    assert sentence(other, 5.0, 2.0, 0.2) == f"The map is 5 here; {shut}"

    free = "the nearest patch of the coreset (training image 2) is 0.25 away"
    none = "So only its looks count: no gate stands between it and its nearest neighbor; a normal patch is 0.2 away."
    assert sentence(explain(0, setting="A"), 5.0, 2.0, 0.2).endswith(f"this patch scores 0.25: {free}. {none}")
    opened = sentence(explain(2, setting="position"), 5.0, 2.0, 0.2)
    assert opened.endswith(f"this patch scores 0.25: {free} and allowed by the position gate. {none}")
    both = sentence(explain(2, combine="score"), 5.0, 2.0, 0.2)
    assert f"this patch scores 4.25: {free} and allowed by the position gate; the neighborhood gate shuts 2" in both
    assert "(the nearest has p = 0.04 from the neighborhood, not above τ = 0.12)" in both
    assert both.endswith("of the 4.05 that it is farther than a normal patch (0.2), the gates make 4.")
    together = sentence(explain(1), 5.0, 2.0, 0.2)
    assert "the gate of eq. (6) shuts 2 nearer training patches" in together
    assert "p = 0.04 from the neighborhood, p = 0.1 at this position; together not above τ = 0.12)" in together
    assert "the product of both sources shuts 2" in sentence(explain(1, combine="product"), 5.0, 2.0)
    said = sentence(explain(1, setting="position"), 5.0, 2.0)
    assert "(the nearest has p = 0.1 at this position, not above τ = 0.12)" in said
    assert said.endswith(
        "counts as 8.25 away, and the gates make 8 of it; how far a normal patch is, the run does not say."
    )
    two = explain(3, combine="score")
    open_ = dataclasses.replace(
        two, matches=dict.fromkeys(two.matches, two.nearest), n_shut=dict.fromkeys(two.n_shut, 0)
    )
    assert "allowed by the neighborhood gate and the position gate. So only" in sentence(open_, 5.0, 2.0, 0.2)


@pytest.mark.parametrize(
    ("nearest", "allowed", "level", "said"),
    [
        (0.7, 1.6, 0.65, "its place more than its looks: of the 0.95 that it is farther than a normal patch (0.65), "
                         "the gates make 0.9."),  # 0.7 is what any patch has: it says nothing of looks
        (0.7, 1.6, 0.0, "its place more than its looks: of the 1.6"),  # 0.9 > 0.8
        (1.0, 1.0, 0.5, "how it looks, and the gates change little"),  # a tie that is shut
        (1.0, 1.02, 0.5, "how it looks, and the gates change little"),  # 0.02 <= 0.05 * 0.52
        (1.0, 1.25, 0.5, "its looks more than its place: of the 0.75 that it is farther than a normal patch (0.5), the "
                         "gates make 0.25."),
        (1.0, 1.5, 0.5, "its looks more than its place"),  # half and half
        (1.0, 1.55, 0.5, "its place more than its looks"),  # 0.55 > 0.525
        (0.3, 1.5, 0.5, "its place more than its looks: of the 1 that it is farther than a normal patch (0.5), the "
                        "gates make 1."),  # nearer than most, but not here
        (0.4, 0.52, 0.5, "nothing stands out here: a normal patch is 0.5 away."),
        (0.4, 0.45, 0.5, "nothing stands out here"),
        (0.0, 0.0, 0.0, "nothing stands out here"),
        (0.0, 3.0, 0.0, "its place more than its looks: of the 3 that"),
        (1.0, 3.0, math.nan, "counts as 3 away, and the gates make 2 of it; how far a normal patch is, the run does"),
    ],
)  # fmt: skip
def test_the_verdict_follows_the_distances(nearest: float, allowed: float, level: float, said: str) -> None:
    found = explain(0, setting="position")
    near = dataclasses.replace(found.nearest, distance=nearest)
    match = dataclasses.replace(found.matches["position"], distance=allowed)
    for score in (-3.0, 0.0, 100.0):  # a prefactor shifts the score, not what the gates did
        changed = dataclasses.replace(found, nearest=near, matches={"position": match}, score=score)
        assert said in sentence(changed, 1.0, 2.0, level)


@pytest.mark.parametrize(
    "change", [dict(), dict(lambda_=0.01), dict(lambda_=0.01, released="density"), dict(lambda_=50.0),
               dict(lambda_=0.99, released="density"), dict(baseline="patchcore", baseline_neighbors=3)]
)  # fmt: skip
@pytest.mark.parametrize("level", [math.nan, 0.1])
def test_without_gates_no_gate_is_blamed(change: dict[str, Any], level: float) -> None:
    said = sentence(explain(0, setting="A", **change), 1.0, 2.0, level)
    assert "shuts" not in said and "place" not in said and "no gate stands between it and its nearest neighbor" in said


@pytest.mark.parametrize(
    ("change", "median", "level"),
    [
        (dict(), 0.7, 0.7),
        (dict(lambda_=0.5), 0.35, 0.7),  # S = lambda d
        (dict(lambda_=0.5, released="density"), 0.35 + math.log(2), 0.7),  # S = lambda d - log(lambda)
        (dict(setting="A", baseline="patchcore"), 0.49, 0.7),  # S = d^2
    ],
)
def test_the_level_of_a_normal_patch_by_hand(
    tmp_path: Path, change: dict[str, Any], median: float, level: float
) -> None:
    """It is the median of the result's own map, as a distance; a refined map, and one that is computed, take E's."""
    config = SCATTERING.replace(**({"setting": "E"} | change))
    for name, limits in (("E", [median, 9.0]), ("PNI", [0.1, 0.9])):
        write_unit(tmp_path / f"u/{name}", [1.0, 2.0], [0, 1], settings=[name], name=name)
        file = tmp_path / f"u/{name}/{name}/meta.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"limits": limits, "config": config.to_dict()}))
    category = next(iter(open_exploration(tmp_path / "u").categories.values()))
    for label in ("E", "PNI", "position"):
        assert normal_level(category, label) == pytest.approx(level)
    del category.results["E"]
    assert math.isnan(normal_level(category, "PNI"))


# -- against the model -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_category(tmp_path_factory.mktemp("data"), n_train=6)


@pytest.fixture(scope="module")
def fitted(data: Dataset) -> Callable[[str, str], PNI]:
    """The model of the release's steps and the border."""

    @cache
    def fit(released: str, border: str) -> PNI:
        change = dict(released=released, border=border, border_cells=1, patch=3, calibration_images=0)
        return PNI(SCATTERING.replace(**change)).fit(data.train)

    return fit


SETTINGS = [("A", "prob"), ("B", "prob"), ("position", "prob"), ("E", "prob"), ("E", "score"), ("E", "product")]


@pytest.mark.parametrize("border", ["keep", "replicate"])
@pytest.mark.parametrize("released", ["", "emb_bins", "centre_leak"])
def test_every_cell_equals_the_model_s_own_account(
    data: Dataset, fitted: Callable[[str, str], PNI], released: str, border: str
) -> None:
    model = fitted(released, border)
    image = data.test.image(0, SCATTERING.geometry).flip(1)  # upside down: in the wrong place
    with torch.no_grad():
        features = model.embed(image)
    gh, gw = features.shape[:2]
    n_gated = 0
    for setting, combine in SETTINGS:
        config = model.config.replace(setting=setting, combine=combine, temperature=0.3)
        table = model.with_config(**config.to_dict()).explain(image)
        predicted = model.predict_variants(image[None], {"": config})[""]
        for cell in range(0, gh * gw, 11):
            inner = cell_at((cell // gw + 0.5) * 64 / gh, (cell % gw + 0.5) * 64 / gw, 64, (gh, gw), border != "keep")
            found, row = (
                model.explain_cell(features, inner, config),
                table.iloc[cell],
            )  # the border repeats inner cells
            assert found.score == pytest.approx(row["score"], abs=2e-4)
            assert (found.nearest.idx, found.nearest.train_image, found.nearest.train_cell) == (
                row["nearest_idx"], row["nearest_train_image"], row["nearest_train_cell"],
            )  # fmt: skip
            assert found.nearest.distance == pytest.approx(row["nearest_distance"], abs=2e-3)
            assert found.nearest.p_position == pytest.approx(row["p_position"], abs=1e-6)
            assert found.nearest.p_neighborhood == pytest.approx(row["p_neighborhood"], abs=1e-5)
            first = next(iter(found.matches.values()))
            assert (first.idx, first.train_image, first.train_cell) == (
                row["match_idx"], row["match_train_image"], row["match_train_cell"],
            )  # fmt: skip
            shut = {"B": "open_neighborhood", "position": "open_position"}
            if setting in shut:
                assert (next(iter(found.n_shut.values())) == 0) == row[shut[setting]]
            counted = sum(match.distance for match in found.matches.values()) / len(found.matches)
            assert found.score == pytest.approx(counted, abs=1e-6)
            assert found.score == pytest.approx(predicted.patch_scores[0].flat[cell], abs=2e-4)
            assert first.idx == predicted.match_idx[0].flat[cell]
            n_gated += sum(found.n_shut.values()) > 0
    assert n_gated > 10  # gates were shut, so there was something to compare


def slow(model: PNI, features: Tensor, cell: int, config: PNIConfig) -> dict[str, tuple[list[int], int]]:
    """Gate -> (vectors nearer than the nearest allowed one, nearest first; that one): one vector at a time, in double
    precision, from votes and logits."""
    assert model.coreset is not None and model.position is not None and model.mlp is not None
    c, m = model.coreset.embedding.double(), model.coreset.emb_to_dist.tolist()
    n, n_dist = len(c), model.coreset.n_dist
    with torch.no_grad():
        logits = model.mlp.logits_map(features[None])[0].reshape(-1, n_dist)[cell].double().numpy() / config.temperature
    p_nb = np.exp(logits - logits.max())
    p_nb /= p_nb.sum()
    votes = model.position.counts.reshape(-1, model.position.n_bins).astype(float)
    here = votes[cell]
    p_pos = here / here.sum() if here.sum() else np.full(len(here), 1 / len(here))
    prior = (votes.sum(0) + 1) / (votes.sum() + votes.shape[1])
    emb = "emb_bins" in config.released
    if emb:
        joint = np.array([p_nb[m[k]] * p_pos[k] / prior[k] for k in range(n)])
    else:
        joint = np.array([p_nb[b] * p_pos[b] / prior[b] for b in range(n_dist)])
    joint /= joint.sum()
    x = features.reshape(-1, features.shape[2])[cell].double()
    order = sorted(range(n), key=lambda k: (float((x - c[k]).norm()), k))
    limit = 1 / (2 * n)
    found = {}
    names = {"A": ["none"], "B": ["neighborhood"], "position": ["position"]}.get(config.setting) or {
        "prob": ["eq. (6)"], "score": ["neighborhood", "position"], "product": ["product"],
    }[config.combine]  # fmt: skip
    for name in names:
        shut: list[int] = []
        for k in order:
            nb, pos = p_nb[m[k]], p_pos[k if emb else m[k]]
            both = joint[k if emb else m[k]]
            p = {"none": 1.0, "neighborhood": nb, "position": pos, "eq. (6)": (nb + pos) / 2, "product": both}[name]
            if p > limit:
                found[name] = (shut, k)
                break
            shut.append(k)
    return found


@pytest.mark.parametrize("bins", ["", "emb_bins"])
def test_gates_and_shut_vectors_against_a_slow_reader(
    data: Dataset, fitted: Callable[[str, str], PNI], bins: str
) -> None:
    model = fitted(bins, "keep")
    with torch.no_grad():
        features = model.embed(data.test.image(1, SCATTERING.geometry).flip(1))
    n_cells, longest = features.shape[0] * features.shape[1], 0
    for setting, combine in SETTINGS:
        config = model.config.replace(setting=setting, combine=combine, temperature=0.3)
        for cell in range(0, n_cells, 9):
            found = model.explain_cell(features, cell, config, most=1000)
            wanted = slow(model, features, cell, config)
            assert list(found.matches) == list(wanted)
            for name, (shut, match) in wanted.items():
                assert [one.idx for one in found.shut[name]] == shut, (setting, combine, cell)
                assert found.matches[name].idx == match and found.n_shut[name] == len(shut)
                longest = max(longest, len(shut))
    assert longest > 3


def test_the_explained_scores_make_the_run_s_map(tiny_store: Path) -> None:
    """What a click says of each patch, resized and smoothed, is the stored map."""
    category = open_exploration(tiny_store).category("two parts")
    result = category.results["E"]
    model, config = category.model(result), result.config
    with torch.no_grad():
        features = model.embed(category.image(2))
    gh, gw = features.shape[:2]
    scores = [model.explain_cell(features, cell, config, most=1).score for cell in range(gh * gw)]
    found = anomaly_maps(torch.tensor(scores).view(1, gh, gw), config.image_crop, config.sigma)[0]
    maps = result.maps
    assert maps is not None and np.allclose(found.numpy(), maps[2], atol=2e-4)
