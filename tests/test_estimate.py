"""The sizes are those of the real tensors; more of anything needs more; a plan is the sum of its units."""

import math
import shutil
from pathlib import Path

import pytest
from tiny import RESNET, SCATTERING, write_category

from pnilib.apps import estimate as module
from pnilib.apps.estimate import Cost, Free, Speeds, costs_of, estimate, estimate_plan, require, table_text, total
from pnilib.apps.reproduce.plan import Plan, Request, build_plan, paper_sources
from pnilib.config import NEEDS, PNIConfig
from pnilib.detector.dimensions import sizes
from pnilib.detector.pni import PNI
from pnilib.errors import PNIError
from pnilib.published import PAPER_COUNTS

PAPER = PNIConfig()
PLENTY = Free(10**12, 10**12, Path())


def test_the_papers_sizes_by_hand() -> None:
    """209 images (MVTec's bottle) of 60 x 60 cells; sec. 3.2's network has 205 M weights."""
    z = sizes(PAPER, 209)
    assert (z.side, z.d, z.cells, z.n_patches) == (60, 1024, 3600, 752_400)
    assert (z.n_emb, z.n_dist, z.mlp_inputs) == (7524, 2048, 81_920)
    assert z.mlp_parameters == 81_921 * 2048 + 8 * 2049 * 2048 + 9 * 2 * 2048 + 2049 * 2048
    found = estimate(PAPER, 209, 100)
    assert found["features"].disk == 752_400 * 1024 * 4  # 3.1 GB
    assert found["neighborhood"].memory > 16 * z.mlp_parameters + 2 * 2048 * 81_920 * 4
    assert math.isnan(total(found.values()).seconds)


@pytest.mark.parametrize(
    "config",
    [
        SCATTERING,
        RESNET.replace(border="replicate", border_cells=1),
        RESNET.replace(released="emb_bins", mlp_layers=1),
        SCATTERING.replace(dist_size=5000),
    ],
)
def test_sizes_are_those_of_a_fitted_model(config: PNIConfig, tmp_path: Path) -> None:
    train = write_category(tmp_path, n_train=4).train
    model, z = PNI(config.replace(mlp_epochs=1)).fit(train, workdir=tmp_path / "work"), sizes(config, 4)
    assert model.coreset is not None and model.position is not None and model.mlp is not None
    assert model.embedder.grid == (z.side, z.side) and z.cells == z.side**2
    assert model.coreset.embedding.shape == (z.n_emb, z.d) and model.coreset.n_dist == z.n_dist
    assert model.position.n_bins == z.n_bins
    assert sum(p.numel() for p in model.mlp.parameters()) == z.mlp_parameters
    file = next((tmp_path / "work").glob("features-*/features.npy"))
    assert 0 < file.stat().st_size - estimate(config, 4, 1)["features"].disk <= 4096  # the header


@pytest.mark.parametrize("setting", list(NEEDS))
def test_only_stages_of_the_setting(setting: str) -> None:
    found = estimate(PAPER.replace(setting=setting), 20, 5)
    assert [name for name in ("position", "neighborhood") if name in found] == list(NEEDS[setting])
    assert "calibration" not in estimate(PAPER.replace(calibration_images=0), 20, 5)
    assert ("veto" in estimate(PAPER.replace(setting=setting, gate="soft"), 20, 5)) == ("position" in NEEDS[setting])


class Fixed(Speeds):
    """Rates that are not measured: each a round number."""

    image, flops, pair, gather, step = 1.0, 1e9, 1e-6, 1e-3, 1e-6


def fixed(config: PNIConfig, n_train: int) -> Speeds:
    return Fixed(config, n_train, "cpu")


def test_seconds_by_hand() -> None:
    config = PNIConfig(setting="A", calibration_images=2)
    z, speeds = sizes(config, 10), fixed(config, 10)
    found = estimate(config, 10, 5, speeds, variants=3)
    assert found["features"].seconds == 10.0 == estimate(PAPER, 10, 5, fixed(PAPER, 10))["features"].seconds
    pairs = z.cells * z.n_emb * 1e-6
    assert found["calibration"].seconds == pytest.approx(2 * (1.0 + pairs))
    assert found["scoring"].seconds == pytest.approx(5 * (1.0 + 3 * (pairs + module.METRICS * 480**2)))
    twice = estimate(config, 20, 10, fixed(config, 20))
    assert twice["features"].seconds == 20.0 and twice["coreset"].seconds > 2 * found["coreset"].seconds
    two = estimate(PAPER, 10, 5, fixed(PAPER, 10), networks=2)["neighborhood"].seconds
    assert two == 2 * estimate(PAPER, 10, 5, fixed(PAPER, 10))["neighborhood"].seconds > 0


def test_every_rate_can_be_measured() -> None:
    speeds = Speeds(SCATTERING, 4, "cpu")
    rates = [getattr(speeds, rate) for rate in ("image", "flops", "pair", "gather", "step")]
    assert min(rates) > 0 and sorted(speeds.timed.values()) == sorted(rates)
    other = Speeds(SCATTERING.replace(mlp_width=8, seed=3), 4, "cpu", speeds.timed)
    assert other.image == speeds.image and other.step == speeds.step  # measured once for all that share it
    assert len(speeds.timed) == 5 and other.flops > 0 and len(speeds.timed) == 6


def test_what_will_not_fit_is_refused_with_advice(tmp_path: Path) -> None:
    found = estimate(PAPER, 209, 100)
    require(found, PLENTY)
    with pytest.raises(PNIError, match=r"neighborhood: needs \S+ GB of memory, 1.0 GB are free: lower image_crop"):
        require(found, Free(10**9, 10**12, tmp_path))
    with pytest.raises(PNIError, match=r"^disk: \S+ GB are needed, 1.0 MB are free in .*: make room"):
        require(found, Free(10**12, 10**6, tmp_path))
    with pytest.raises(PNIError, match="no patch is left"):
        estimate(RESNET.replace(border="replicate", border_cells=16), 1, 1)


def test_free_is_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    free = Free.now("cpu", tmp_path / "not" / "yet")
    assert abs(free.disk - shutil.disk_usage(tmp_path).free) < 1e9 and free.memory > 0
    (tmp_path / "there").write_bytes(bytes(10**8))
    resumed = Free.now("cpu", tmp_path, resumed=True).disk
    assert resumed > shutil.disk_usage(tmp_path).free + 0.9e8  # what lies there need not be written again
    with pytest.raises(PNIError, match="does not say what is free"):
        Free.now("cpu", tmp_path / ("x" * 300))


def test_tables_as_people_read_them() -> None:
    costs = {"features": Cost(7300.0, 2e9, 5e6), "scoring": Cost(math.nan, 3e9, 0)}
    text = table_text(costs, Free(4 * 10**9, 10**9, Path("out")))
    lines = [line.split() for line in text.splitlines()]
    assert lines[1] == ["features", "2.0", "h", "2.0", "GB", "5.0", "MB"]
    assert lines[3] == ["all", "-", "3.0", "GB", "5.0", "MB"]
    assert lines[4][:3] == ["memory:", "3.0", "GB"]
    grid = table_text(
        {("a", "fit"): Cost(30, 1, 1), ("b", "fit"): Cost(60, 1, 1), ("b", "pool"): Cost(90, 1, 1)}, PLENTY
    )
    rows = [line.split() for line in grid.splitlines()]
    assert rows[0][-2:] == ["fit", "pool"] or rows[0] == ["fit", "pool"]
    assert ["b", "60", "s", "90", "s"] in rows and ["all", "90", "s", "90", "s"] in rows


# -- a plan -------------------------------------------------------------------------------------


def plan_of(names: tuple[str, ...], **changes: object) -> Plan:
    sources = tuple(source for source in paper_sources()["mvtec"] if source.category in names)
    request = Request("small", {"mvtec": sources, "btad": (), "visa": ()}, (0,), overrides=dict(changes))
    return build_plan(request, ["A", "E", "PNI"], switches=False)


def counted(plan: Plan) -> dict[object, tuple[int, int]]:
    return {source: PAPER_COUNTS["mvtec"][source.category] for source in plan.request.sources["mvtec"]}


def test_a_plan_is_the_sum_of_its_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Speeds", lambda config, n_train, device, timed: fixed(config, n_train))
    plan = plan_of(("bottle", "screw"), pool_maps="leave_out")
    found = estimate_plan(plan, counted(plan))
    assert {category for category, _ in found} == {"mvtec/bottle", "mvtec/screw"}
    by_kind: dict[tuple[str, str], list[Cost]] = {}
    for unit in plan.units:
        n_train, n_test = counted(plan)[unit.source]
        for kind, cost in costs_of(unit, fixed(unit.config, n_train), n_train, n_test).items():
            by_kind.setdefault((f"mvtec/{unit.source.category}", kind), []).append(cost)
    assert found.keys() == by_kind.keys() and ("mvtec/screw", "folds") not in found
    for at, costs in by_kind.items():
        assert found[at].seconds == pytest.approx(sum(cost.seconds for cost in costs)), at
        assert found[at].memory == max(cost.memory for cost in costs)


def test_cross_fitted_models_count_once_a_fit() -> None:
    plan = plan_of(("bottle",), pool_maps="held_out", pool_folds=3)
    pools = [unit for unit in plan.units if unit.kind == "pool"]
    found = estimate_plan(plan, counted(plan), measure=False)
    once = estimate(pools[0].config.replace(calibration_images=0), 209 - math.ceil(209 / 3), 0)
    assert found["mvtec/bottle", "folds"].disk == 3 * len(pools) * total(once.values()).disk
