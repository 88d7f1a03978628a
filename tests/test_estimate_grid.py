"""Totals are the sums of their parts, and nothing is measured twice."""

import math
from collections import Counter
from typing import Any

import pytest
from test_estimate_refinement import FixedDetector, FixedNetwork
from tiny import SCATTERING

from pnilib.config import PNIConfig
from pnilib.errors import PNIError
from pnilib.estimate import PAPER_COUNTS, Stage, Work, estimate, estimate_grid, estimate_work
from pnilib.estimate import grid as module
from pnilib.estimate.grid import KINDS, Grid

PAPER = PNIConfig()
BACKBONES = [dict(backbone=name) for name in ("wide_resnet101_2", "resnext101_32x8d", "densenet201")]


def test_the_papers_numbers_of_images() -> None:
    sums = {name: tuple(map(sum, zip(*counts.values(), strict=True))) for name, counts in PAPER_COUNTS.items()}
    assert sums["mvtec"] == (3629, 1725) and len(PAPER_COUNTS["mvtec"]) == 15
    assert sums["visa"] == (8659, 2162) and sum(sums["visa"]) == 10_821 and len(PAPER_COUNTS["visa"]) == 12
    assert sums["btad"] == (1799, 741) and len(PAPER_COUNTS["btad"]) == 3


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Speeds by hand; counts which sets of them are asked, by backbone and by size of the network."""
    asked: Counter[str] = Counter()

    class Detector(FixedDetector):
        @property
        def evaluate(self) -> float:  # type: ignore[override]
            if not hasattr(self, "asked"):
                self.asked = True
                asked[self.config.backbone] += 1
            return 0.5

    class Network(FixedNetwork):
        def step(self, batch: int, side: int) -> float:
            if not hasattr(self, "asked"):
                self.asked = True
                asked[f"network {self.config.refine_growth}"] += 1
            return super().step(batch, side)

    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setattr(module, "DetectorSpeeds", Detector)
    monkeypatch.setattr(module, "NetworkSpeeds", Network)
    return asked


def test_each_speed_is_measured_once(used: Counter[str]) -> None:
    counts = {f"{role} {name}": found for role, group in PAPER_COUNTS.items() for name, found in group.items()}
    grid = estimate_grid(PAPER, BACKBONES, counts, n_seeds=3, n_pools=2, n_networks=4)
    assert len(grid.categories) == 30
    assert used == {"wide_resnet101_2": 1, "resnext101_32x8d": 1, "densenet201": 1, "network 48": 1}


def test_seconds_by_hand(used: Counter[str]) -> None:
    """A second an image, 0.25 a map, 0.5 an image's metrics, no MLP: 10 to train, 4 to test, two seeds."""
    config = PAPER.replace(
        setting="A", pool_maps="leave_out", calibration_images=0, pool_images=100, refine_iterations=7
    )
    settings = [{}, dict(tau="dist"), dict(sigma=4.0)]
    grid = estimate_grid(
        config, BACKBONES[:2], {"one": (10, 4), "two": (30, 4)}, n_seeds=2, settings=settings, n_detector_fits=5,
        n_pools=3, n_networks=6,
    )  # fmt: skip
    assert grid.of("one", "features").seconds == 2 * 10
    assert grid.of("one", "fit").seconds == 2 * 2 * 5 * (4 + 4 * 3 * 0.25 + 4 * 3 * 0.5)
    assert grid.of("one", "pool").seconds == 2 * 2 * 3 * 100 * 1.25
    assert grid.of("one", "network").seconds == 2 * 2 * 6 * (7 * 16.5 + 4 * (1.25 + 3) + 4 * 0.5)
    assert grid.of("two", "features").seconds == 2 * 30 and ("one", "folds") not in grid.rows
    kinds = ("features", "fit", "pool", "network")
    assert grid.of("one").seconds == sum(grid.of("one", kind).seconds for kind in kinds)
    assert grid.of().seconds == grid.of("one").seconds + grid.of("two").seconds
    assert grid.of().disk == sum(stage.disk for stage in grid.rows.values())
    assert grid.of().memory == max(stage.memory for stage in grid.rows.values())


def test_held_out_maps_need_folds_once_a_seed(used: Counter[str]) -> None:
    config = PAPER.replace(setting="A")
    one = estimate_grid(config, BACKBONES[:1], {"x": (30, 4)}, n_seeds=1, n_pools=1, n_networks=1)
    many = estimate_grid(config, BACKBONES[:1], {"x": (30, 4)}, n_seeds=2, n_pools=5, n_networks=9)
    assert one.of("x", "folds").seconds > 0 and many.of("x", "folds").seconds == 2 * one.of("x", "folds").seconds
    assert many.of("x", "pool").seconds == 10 * one.of("x", "pool").seconds
    assert many.of("x", "network").disk == 18 * one.of("x", "network").disk
    assert many.of("x", "features") == one.of("x", "features")
    assert estimate_grid(config, BACKBONES[:1], {"x": (30, 4)}, n_networks=0).of("x", "pool").disk == 0


def test_a_fit_is_what_estimate_says() -> None:
    plain = {s.name: s for s in estimate(PAPER, 209, 83, measure=False).stages}
    grid = estimate_work([Work("features", "a", PAPER, 209, 83), Work("fit", "a", PAPER, 209, 83)], measure=False)
    assert grid.of("a", "features").disk == plain["features"].disk == 752_400 * 4096
    assert grid.of("a", "fit").disk == sum(plain[s].disk for s in ("coreset", "position", "neighborhood"))
    assert grid.of("a").memory == max(s.memory for s in plain.values())
    assert math.isnan(grid.of("a", "fit").seconds)


def test_a_smaller_coreset_is_scored_faster(used: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Gates cost by |C_emb|: settings at a half and a quarter of it cost 0.75 of one at all of it."""
    monkeypatch.setattr(FixedDetector, "image", 0.0)
    monkeypatch.setattr(FixedDetector, "smooth", 0.0)
    monkeypatch.setattr(FixedDetector, "gate", 1.0)
    config = PAPER.replace(setting="A", emb_ratio=0.02, calibration_images=0)

    def seconds(*ratios: float) -> float:
        variants = tuple(config.replace(emb_ratio=ratio) for ratio in ratios)
        return estimate_work([Work("fit", "a", config, 50, 1, variants)]).of("a").seconds - 0.5 * len(ratios)

    assert seconds(0.01, 0.005) == pytest.approx(0.75 * seconds(0.02)) and seconds(0.02) == 3600 * 3600


def test_measured_for_real() -> None:
    config = SCATTERING.replace(pool_maps="held_out", pool_images=4, refine_iterations=2, mlp_epochs=1)
    work = [Work(kind, "a", config, 6, 2) for kind in KINDS]
    grid = estimate_work(work)
    assert all(math.isfinite(stage.seconds) and stage.seconds > 0 for stage in grid.rows.values())


def test_the_table_by_hand() -> None:
    rows = {
        ("one", "features"): Stage("features", 90.0, 10**9, 2 * 10**9),
        ("one", "fit"): Stage("fit", 7200.0, 4 * 10**9, 10**6),
        ("two", "fit"): Stage("fit", 864_000.0, 3 * 10**9, 0),
    }
    assert Grid(rows).format().splitlines() == [
        "category    features        fit        all     memory       disk",
        "one             90 s      2.0 h      2.0 h     4.0 GB     2.0 GB",
        "two              0 s     10.0 d     10.0 d     3.0 GB        0 B",
        "all             90 s     10.1 d     10.1 d     4.0 GB     2.0 GB",
    ]
    assert Grid(rows).records()[0] == dict(category="one", kind="features", seconds=90.0, memory=10**9, disk=2 * 10**9)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (dict(backbones=[]), "a backbone and a category"),
        (dict(counts={}), "a backbone and a category"),
        (dict(counts={"x": (0, 3)}), "x: 0 training images"),
        (dict(counts={"x": (3, -1)}), "-1 test images"),
        (dict(n_seeds=-1), "-1 times"),
        (dict(backbones=[dict(bakbone="resnet18")]), "did you mean"),
    ],
)
def test_impossible_grids_are_refused(arguments: dict[str, Any], word: str) -> None:
    usual: dict[str, Any] = dict(backbones=BACKBONES, counts={"x": (10, 3)}, measure=False)
    with pytest.raises(PNIError, match=word):
        estimate_grid(PAPER, **usual | arguments)


def test_unknown_work_is_refused() -> None:
    with pytest.raises(PNIError, match="'sleep' is unknown"):
        estimate_work([Work("sleep", "x", PAPER, 1, 1)], measure=False)
