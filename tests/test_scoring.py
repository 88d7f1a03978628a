"""Every gate and combination equals a literal loop over coreset vectors."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pnilib.config import PNIConfig
from pnilib.coreset import Coreset
from pnilib.detector import steps
from pnilib.errors import PNIError
from pnilib.scoring import (
    gate,
    gated_nearest,
    likelihood_score,
    mean_probability,
    patch_distances,
    product_probability,
    row_minimum,
    tau,
)

M, D, B = 40, 8, 60


def world() -> dict[str, Tensor]:
    """Random features, coreset, sharp distributions, and the map m (identity on the first D)."""
    g = torch.Generator().manual_seed(0)
    vectors, features = torch.randn(M, 5, generator=g), torch.randn(B, 5, generator=g)
    emb_to_dist = torch.cdist(vectors, vectors[:D]).argmin(1)
    emb_to_dist[:D] = torch.arange(D)
    return dict(
        distances=patch_distances(features, vectors),
        p_neighborhood=(6 * torch.randn(B, D, generator=g)).softmax(1),
        p_position=(6 * torch.randn(B, D, generator=g)).softmax(1),
        p_position_emb=(8 * torch.randn(B, M, generator=g)).softmax(1),
        marginal=torch.full((D,), 1 / D),
        marginal_emb=torch.full((M,), 1 / M),
        emb_to_dist=emb_to_dist,
    )


def scores(w: dict[str, Tensor], config: PNIConfig) -> Tensor:
    emb = "emb_bins" in config.released
    position, marginal = (w["p_position_emb"], w["marginal_emb"]) if emb else (w["p_position"], w["marginal"])
    nowhere = torch.zeros(M, dtype=torch.int64)
    coreset = Coreset(torch.zeros(M, 5), D, w["emb_to_dist"], nowhere, nowhere, torch.zeros(M, dtype=torch.float64))
    return steps.score(w["distances"], w["p_neighborhood"], position, marginal, coreset, config).score


def test_equations_by_hand() -> None:
    assert tau(100) == 0.005
    assert gate(torch.tensor([[0.1, 0.25, 0.3]]), 0.25).tolist() == [[False, False, True]]  # strict
    p_nb, p_pos = torch.tensor([[0.8, 0.2]]), torch.tensor([[0.2, 0.8]])
    assert torch.allclose(mean_probability(p_nb, p_pos), torch.tensor([[0.5, 0.5]]))
    # 0.8 * 0.2 / 0.8 = 0.2 against 0.2 * 0.8 / 0.2 = 0.8
    assert torch.allclose(product_probability(p_nb, p_pos, torch.tensor([0.8, 0.2])), torch.tensor([[0.2, 0.8]]))
    distances = torch.tensor([[1.0, 2.0, 3.0]])
    distance, idx = gated_nearest(distances, torch.tensor([[False, True, True]]))
    assert distance.tolist() == [2.0] and idx.tolist() == [1]
    assert gated_nearest(distances, torch.zeros(1, 3, dtype=torch.bool))[0].tolist() == [3.0]
    assert likelihood_score(torch.tensor([2.0]), 0.5).tolist() == [1.0]


def literal(w: dict[str, Tensor], config: PNIConfig) -> list[float]:
    """Setting by setting, one patch and one vector at a time."""
    m, out = w["emb_to_dist"].tolist(), []
    d = w["distances"].tolist()
    p_nb = [[row[m[c]] for c in range(M)] for row in w["p_neighborhood"].tolist()]
    if "emb_bins" in config.released:
        p_pos = w["p_position_emb"].tolist()
    else:
        p_pos = [[row[m[c]] for c in range(M)] for row in w["p_position"].tolist()]
    threshold = 1 / (2 * M)

    def nearest(i: int, allowed: list[bool]) -> float:
        return min(d[i][c] for c in range(M) if allowed[c])

    for i in range(B):
        nb = nearest(i, [p > threshold for p in p_nb[i]])
        pos = nearest(i, [p > threshold for p in p_pos[i]])
        if config.setting == "A":
            out.append(min(d[i]))
        elif config.setting == "B":
            out.append(nb)
        elif config.setting == "position":
            out.append(pos)
        elif config.combine == "score":
            out.append((nb + pos) / 2)
        else:
            out.append(nearest(i, [(a + b) / 2 > threshold for a, b in zip(p_nb[i], p_pos[i], strict=True)]))
    return out


@pytest.mark.parametrize("bins", ["", "emb_bins"])
@pytest.mark.parametrize(
    "choice", [dict(setting="A"), dict(setting="B"), dict(setting="position"), dict(), dict(combine="score")]
)
def test_settings_equal_the_literal_loop(choice: dict[str, str], bins: str) -> None:
    config, w = PNIConfig(released=bins, **choice), world()
    assert torch.allclose(scores(w, config), torch.tensor(literal(w, config)))


def test_eq_6_is_an_or_of_two_gates() -> None:
    """min(S_nb(tau), S_pos(tau)) <= S <= min(S_nb(2 tau), S_pos(2 tau))  ."""
    w, threshold = world(), 1 / (2 * M)
    both = scores(w, PNIConfig())
    m = w["emb_to_dist"]

    def either(t: float) -> Tensor:
        return torch.minimum(
            gated_nearest(w["distances"], (w["p_neighborhood"] > t)[:, m])[0],
            gated_nearest(w["distances"], (w["p_position"] > t)[:, m])[0],
        )

    assert (either(threshold) <= both).all() and (both <= either(2 * threshold)).all()
    assert (scores(w, PNIConfig(setting="A")) <= both).all()
    assert (scores(w, PNIConfig(combine="product")) > both).any()  # a veto that eq. (6) does not have


def test_product_lets_either_source_veto() -> None:
    w = world()
    w["p_position"] = torch.zeros(B, D)
    w["p_position"][:, 3] = 1.0
    only_3 = w["distances"].masked_fill(w["emb_to_dist"] != 3, math.inf).amin(1)
    assert torch.allclose(scores(w, PNIConfig(combine="product")), only_3)
    assert torch.allclose(scores(w, PNIConfig(setting="position")), only_3)


def test_patchcore_baseline_is_the_mean_squared_distance() -> None:
    w = world()
    config = PNIConfig(setting="A", baseline="patchcore", baseline_neighbors=3)
    expected = (w["distances"].sort(1).values[:, :3] ** 2).mean(1)
    assert torch.allclose(scores(w, config), expected)


def test_the_smallest_of_a_row_is_the_first_of_equals() -> None:
    values = torch.tensor([[3.0, 1.0, 1.0], [math.inf, math.inf, 2.0], [math.inf] * 3])
    smallest, idx = row_minimum(values)
    assert smallest.tolist() == [1.0, 2.0, math.inf] and idx.tolist() == [1, 2, 0]
    many = torch.rand(50, 300, generator=torch.Generator().manual_seed(0))
    assert torch.equal(row_minimum(many)[0], many.min(1).values) and torch.equal(row_minimum(many)[1], many.argmin(1))
    turned = many.T  # another layout in memory
    assert torch.equal(row_minimum(turned)[1], turned.argmin(1))


def test_permutation_and_distances() -> None:
    w = world()
    order = torch.randperm(B, generator=torch.Generator().manual_seed(1))
    shuffled = {k: v[order] if v.shape[0] == B else v for k, v in w.items()}
    assert torch.equal(scores(shuffled, PNIConfig()), scores(w, PNIConfig())[order])
    x, c = torch.randn(9, 5) + 30, torch.randn(7, 5) + 30
    exact = torch.cdist(x.double(), c.double(), compute_mode="donot_use_mm_for_euclid_dist")
    assert torch.allclose(patch_distances(x, c).double(), exact, atol=1e-4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(released="rank_transfer"), "use combine=score"),
        (dict(released="reweighted"), "setting=E scores behind gates.*use setting=A"),
        (dict(released="reweighted", setting="B"), "setting=B scores behind gates.*use setting=A"),
        (dict(released="reweighted", setting="position", combine="score"), "use setting=A"),
        (dict(setting="A", baseline="patchcore", lambda_=0.99), "set lambda_=1"),
        (dict(setting="A", baseline="patchcore", released="density"), "leave density out"),
    ],
)
def test_mixtures_that_mean_nothing_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(PNIError, match=message) as caught:
        PNIConfig(**values)
    assert "\n" not in str(caught.value)
    with pytest.raises(PNIError, match=message):  # --set, with_config
        PNIConfig(setting=values.get("setting", "E"), combine="score").replace(**{"combine": "prob"} | values)


def test_another_setting_of_the_same_run() -> None:
    config = PNIConfig(setting="A", released="reweighted", sigma=3.0)
    assert config.under("A") == config and config.under("E") == PNIConfig(sigma=3.0)
    assert PNIConfig(image_score="top1").under("A").image_score == "top1"


@pytest.mark.parametrize(
    ("base", "name", "need"),
    [
        (dict(setting="A"), "combine", "setting=E"),
        (dict(setting="position"), "combine", "setting=E"),
        (dict(setting="A"), "temperature", "setting=E or setting=B"),
        (dict(setting="E"), "baseline", "setting=A"),
        (dict(setting="A"), "baseline_neighbors", "baseline=patchcore"),
        (dict(setting="A"), "patch", "setting=E or setting=B or setting=position"),
        (dict(setting="position"), "mlp_epochs", "setting=E or setting=B"),
        (dict(border="keep"), "border_cells", "border=replicate"),
    ],
)
def test_a_setting_that_is_never_looked_at_is_named(base: dict[str, Any], name: str, need: str) -> None:
    config = PNIConfig(**base)
    assert config.require_used(["sigma", "setting", "image_score"]) is config
    with pytest.raises(PNIError, match=f"^{name} counts for {need} only"):
        config.require_used(["sigma", name])


@pytest.mark.parametrize(
    ("values", "name", "used"),
    [
        (dict(backbone="scattering"), "weights", dict(backbone="resnet18")),
        (dict(backbone="scattering"), "aggregation", dict(backbone="resnet18")),
        (dict(backbone="scattering"), "dim", dict(feature_norm="half_whiten")),
        (dict(aggregation="concat", feature_norm="channel"), "dim", dict(feature_norm="half_whiten")),
        (dict(aggregation="concat"), "dim", dict(aggregation="pool")),
        (dict(calibration_images=0), "calibration_fpr", dict(calibration_images=1)),
    ],
)
def test_a_setting_that_others_switch_off_is_named(values: dict[str, Any], name: str, used: dict[str, Any]) -> None:
    config = PNIConfig(**values)
    assert config.replace(**used).require_used([name]) and config.require_used(["sigma"])
    with pytest.raises(PNIError, match=f"^{name} has no effect with {next(iter(values))}="):
        config.require_used(["sigma", name])


@pytest.mark.parametrize("step", ["rank_transfer", "first_eighth", "dist_threshold"])
def test_a_step_of_the_release_that_is_never_looked_at_is_named(step: str) -> None:
    assert PNIConfig(setting="B", released=step).require_used(["released"]).released == (step,)
    with pytest.raises(PNIError, match=f"^released={step} counts for setting=E or setting=B.* not for setting=A"):
        PNIConfig(setting="A", released=step).require_used(["released"])
