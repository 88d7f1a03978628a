"""The steps that the authors' code replaces: each equals a literal loop or a value worked by hand."""

import importlib.util
import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from test_coreset import grid_features
from test_neighborhood import CONFIG, maps, predictable
from test_scoring import D, M, scores, world

from pnilib.config import PROFILES, RELEASED_STEPS, PNIConfig
from pnilib.coreset import Coreset, select_coreset
from pnilib.detector import steps
from pnilib.errors import PNIError
from pnilib.maps import anomaly_maps, repeat_inner
from pnilib.neighborhood import gather_neighbors, train_neighborhood
from pnilib.released.coreset import sparse_projection
from pnilib.released.differences import DIFFERENCES, markdown
from pnilib.released.neighborhood import leaked_offsets
from pnilib.released.scoring import rank_transfer

ROOT = Path(__file__).parents[1]


# -- names ------------------------------------------------------------------------------------


def test_names_in_pipeline_order_from_text_or_several() -> None:
    config = PNIConfig(released="density, centre_leak")
    assert config.released == ("centre_leak", "density") == PNIConfig(released=["density", "centre_leak"]).released
    assert PNIConfig.from_dict(config.to_dict()) == config and PNIConfig(released="").released == ()
    assert config.but("density").released == ("centre_leak",)
    assert PNIConfig.parse_overrides(["released=density,emb_bins"]) == {"released": "density,emb_bins"}
    with pytest.raises(PNIError, match="released=densities: there is no such step of the release: sparse_projection"):
        PNIConfig(released="densities")
    with pytest.raises(PNIError, match="released=densities"):
        config.but("densities")


def test_a_step_changes_the_keys_of_its_stage_and_of_those_built_on_it() -> None:
    for name, stage in RELEASED_STEPS.items():
        changed = PNIConfig(setting="A" if name == "reweighted" else "E", combine="score", released=name)
        same = changed.but(name)
        assert changed.stage_key(stage) != same.stage_key(stage), name
        assert changed.stage_key("features") == same.stage_key("features")
    late = PNIConfig(released="density")
    assert late.stage_key("neighborhood") == PNIConfig().stage_key("neighborhood")


# -- the table ----------------------------------------------------------------------------------


def test_the_page_is_made_from_the_table() -> None:
    spec = importlib.util.spec_from_file_location("paper_vs_released", ROOT / "docs" / "paper_vs_released.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = script.PAGE.read_text(encoding="utf-8")
    assert script.page(text) == text, "run python docs/paper_vs_released.py"
    rows = [line for line in text.splitlines() if re.match(r"\| B\d+ \|", line)]
    assert len(rows) == 38 and all(row.count("|") == 7 for row in rows), "six columns"
    names = set(re.findall(r"`([a-z]\w*)`", text))
    assert len(names) > 25 and names <= {*PNIConfig.names(), *RELEASED_STEPS}


def test_every_difference_once_every_step_and_value_in_the_table() -> None:
    assert [one.number for one in DIFFERENCES] == [f"B{k}" for k in range(1, 39)]
    assert {name for one in DIFFERENCES for name in one.steps} == set(RELEASED_STEPS)
    told = {name for one in DIFFERENCES for name in one.settings}
    assert set(PROFILES["released"]) - {"released"} <= told <= set(PNIConfig.names())
    assert {*RELEASED_STEPS} - {*PROFILES["released"]["released"]} == {"dist_threshold", "reweighted"}
    rows = {one.number: {*one.settings} for one in DIFFERENCES}
    for field in PNIConfig.describe():
        for first, last in re.findall(r"\bB(\d+)(?:-B(\d+))?\b", field["meaning"]):
            for number in range(int(first), int(last or first) + 1):
                assert field["name"] in rows[f"B{number}"], f"{field['name']} says B{number}"


def test_a_row_by_hand() -> None:
    switch = {one.number: one.switch() for one in DIFFERENCES}
    assert switch["B1"] == "`released`: centre_leak" and switch["B15"] == "`nb_pad`: zero; silent: as released"
    assert switch["B10"] == "`released`: density; `lambda_`: 1, *0.99*"
    assert switch["B20"] == "`resize`: square, *short*"
    table = markdown({"B2": "+0.50 / 0.00"}).splitlines()
    assert table[3] == (
        "| B2 | dropout in the MLP | none | 0.5 after each of the nine hidden layers | `mlp_dropout`: 0, *0.5* | "
        "+0.50 / 0.00 |"
    )


# -- scoring ------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 8])
def test_rank_transfer_equals_the_released_loop(parts: int) -> None:
    """Literal emulation: rank j of C_dist tested, column j of the rank-ordered likelihood opened."""
    w, threshold = world(), 1 / (2 * M)
    is_open = w["p_neighborhood"] > threshold
    names = "rank_transfer,first_eighth" if parts == 8 else "rank_transfer"
    got = scores(w, PNIConfig(setting="B", released=names))
    assert torch.equal(got, rank_transfer(w["distances"], is_open, parts)[0])
    for i in range(len(got)):
        ordered = sorted(w["distances"][i].tolist())
        by_distance = sorted(range(D), key=lambda j: w["distances"][i, j].item())
        mask = [False] * M
        for k in range(math.ceil(D / parts)):
            if is_open[i, by_distance[k]]:
                mask[k] = True
        mask[-1] = True  # the released fallback
        assert got[i].item() == pytest.approx(next(d for d, on in zip(ordered, mask, strict=True) if on))


def test_first_eighth_equals_the_released_loop() -> None:
    w, threshold = world(), 1 / (2 * M)
    config = PNIConfig(setting="position", released="emb_bins,first_eighth")
    for i, got in enumerate(scores(w, config).tolist()):
        by_distance = sorted(range(M), key=lambda c: w["distances"][i, c].item())
        mask = [k < M / 8 and bool(w["p_position_emb"][i, c] > threshold) for k, c in enumerate(by_distance)]
        mask[-1] = True
        winner = by_distance[mask.index(True)]
        assert got == pytest.approx(w["distances"][i, winner].item())


def test_density_and_threshold_by_hand() -> None:
    released = PNIConfig.profile("released")
    assert steps.plus_density(torch.tensor([0.99 * 2.0]), released).item() == pytest.approx(1.99005, abs=1e-5)
    assert steps.plus_density(torch.tensor([2.0]), PNIConfig()).item() == 2.0
    assert steps.threshold(100, 10, PNIConfig()) == 0.005
    assert steps.threshold(100, 10, PNIConfig(released="dist_threshold")) == 0.05


def reweighted(distances: torch.Tensor, **values: object) -> torch.Tensor:
    """Of ascending distances (b, gh, gw, k); a patch score of lambda d - log(lambda) must not enter."""
    names = "reweighted," + str(values.pop("released", ""))
    config = PNIConfig(setting="A", released=names, **values)  # type: ignore[arg-type]
    patches = steps.plus_density(config.lambda_ * distances[..., 0], config)
    return steps.image_scores(anomaly_maps(patches, 24, 0.0), patches, distances, config)


@pytest.mark.parametrize(("d", "expected"), [((5.0, 5.5, 5.5), 3.84), ((5.4, 5.5, 5.5), 3.72)])
@pytest.mark.parametrize("values", [{}, dict(lambda_=0.99, released="density"), dict(baseline="patchcore")])
def test_reweighting_by_hand(d: tuple[float, ...], expected: float, values: dict[str, object]) -> None:
    """It falls when the nearest distance alone grows: the neighbors are then no farther than it."""
    assert reweighted(torch.tensor([[[d]]]), **values).item() == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("border", ["keep", "replicate"])
def test_reweighting_grows_with_all_distances_and_stays_below_the_largest(border: str) -> None:
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-3, 1.0, 100.0):  # exp(100) overflows in float32
        distances = scale * torch.rand(200, 6, 5, 3, generator=generator).cumsum(3)
        base = reweighted(distances, border=border)
        for farther in (distances * 1.5, distances + 0.1 * scale):
            assert (reweighted(farther, border=border) > base).all()
        inner = distances[:, 2:-2, 2:-2] if border == "replicate" else distances
        largest = inner[..., 0].flatten(1).amax(1)
        assert (base >= 0).all() and (base <= largest).all()
        assert (reweighted(distances * 0, border=border) == 0).all()


def test_the_worst_cell_is_never_one_that_the_border_overwrites() -> None:
    """Hand-made: the border cell is farthest by itself, and the map shows an inner cell there."""
    distances = torch.ones(1, 5, 5, 3)
    distances[0, 0, 0] = 90.0
    distances[0, 2, 2] = torch.tensor([5.0, 5.5, 5.5])
    for given in (distances, repeat_inner(distances, 2)):
        assert reweighted(given, border="replicate").item() == pytest.approx(3.84, abs=0.005)
    assert reweighted(distances).item() == pytest.approx(60.0)  # kept: three equal distances, 90 (1 - 1/3)


# -- fitting ------------------------------------------------------------------------------------


def test_leaked_window_by_hand() -> None:
    assert (0, 0) in leaked_offsets(3) and (0, 1) not in leaked_offsets(3)
    # The released list index 41 of 81 (row-major, p = 9) is the right-hand neighbor.
    everything = [(h, w) for h in range(-4, 5) for w in range(-4, 5)]
    assert everything[41] == (0, 1)
    assert leaked_offsets(9) == everything[:41] + everything[42:]


def test_the_leak_sees_the_centre() -> None:
    x = maps()
    middle = torch.tensor([24])
    seen = gather_neighbors(x, middle, leaked_offsets(3)).view(-1, 5)
    assert torch.equal(seen[4], x[0, 3, 3]) and not any(torch.equal(row, x[0, 3, 4]) for row in seen)


def test_best_epoch_is_kept() -> None:
    """Of 1, 2, ... epochs, which begin alike: the weights change with those epochs only that are better than all."""
    x, target = predictable()
    config = CONFIG.replace(released="best_epoch", mlp_lr=0.5, mlp_lr_step=100)
    trained = [
        train_neighborhood(x, target, 4, shorter, **steps.training_of_mlp(shorter))
        for shorter in (config.replace(mlp_epochs=n) for n in range(1, 7))
    ]
    losses = [row["val_loss"] for row in trained[-1].history]
    better = [losses[k] < min(losses[:k]) for k in range(1, 6)]
    assert any(better) and not all(better)
    weights = [torch.cat([p.detach().flatten() for p in one.mlp.parameters()]) for one in trained]
    assert [not torch.equal(a, b) for a, b in itertools.pairwise(weights)] == better


def chosen(x: np.ndarray, names: str) -> Coreset:
    config = PNIConfig(emb_ratio=0.1, released=names)
    return select_coreset(x, config, **steps.selection(config))


def test_the_start_is_dropped() -> None:
    kept, dropped = chosen(grid_features(), ""), chosen(grid_features(), "start_dropped")
    assert torch.equal(kept.embedding[1:], dropped.embedding[:-1]) and len(kept.embedding) == len(dropped.embedding)


def test_projection_changes_the_choice_but_not_the_vectors() -> None:
    x = np.random.default_rng(1).normal(size=(4, 8, 8, 600)).astype(np.float32)
    plain, found = chosen(x, ""), chosen(x, "sparse_projection")
    assert found.embedding.shape == plain.embedding.shape
    assert not torch.equal(found.embedding, plain.embedding)
    assert torch.equal(found.embedding, chosen(x, "sparse_projection").embedding)
    flat = x.reshape(-1, 600)
    rows = (found.image_idx * 64 + found.cell_idx).numpy()
    assert torch.equal(found.embedding, torch.from_numpy(flat[rows]))
    assert sparse_projection(flat, 0).shape[1] < 600 and sparse_projection(flat[:, :20], 0) is not None
    assert np.array_equal(sparse_projection(flat[:, :20], 0), flat[:, :20]), "never upwards"
