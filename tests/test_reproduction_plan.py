"""The grid: which units there are, what names them, what is still to do."""

import json
from collections import Counter
from pathlib import Path

import pytest
from tiny_grid import tiny_data, tiny_request

from pnilib.apps.reproduce.plan import Plan, Request, Source, Unit, build_plan
from pnilib.apps.reproduce.settings import COMBINED, DETECTOR, MEMBERS, REFINED, SWITCHES, kinds
from pnilib.detector.ensembles import require_alike
from pnilib.errors import PNIError

FIRST = next(iter(MEMBERS["scattering"]))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_data(tmp_path_factory.mktemp("grid"), n_train=4)


@pytest.fixture(scope="module")
def plan(data: Path) -> Plan:
    return build_plan(tiny_request(data, seeds=(0, 1)))


def test_counts_by_hand(plan: Plan) -> None:
    """First backbone: A-F at two seeds, release and soft veto too, seven fits of switches; six pools, nine networks at
    the first seed, one of each at the second.  Two more backbones: a fit, a pool and a network each."""
    kinds_of = Counter((unit.kind, unit.member) for unit in plan.units)
    first, *others = MEMBERS["scattering"]
    assert kinds_of["fit", first] == 2 + 2 + 2 + 7
    assert kinds_of["pool", first] == 6 + 1 and kinds_of["network", first] == 9 + 1
    assert kinds_of["features", first] == 2  # the release resizes otherwise; seeds share them
    for member in others:
        assert [kinds_of[kind, member] for kind in ("features", "fit", "pool", "network")] == [1, 1, 1, 1]
    assert kinds_of["ensemble", "ensemble"] == 1
    assert len({unit.id for unit in plan.units}) == len(plan.units)


def test_every_setting_of_table_s7_is_there_once_a_seed(plan: Plan) -> None:
    main = [unit for unit in plan.units if unit.member == FIRST and unit.config.seed == 0]
    settings = Counter(name for unit in main for name in unit.variants if "/" not in name)
    assert settings == Counter([*DETECTOR, *COMBINED, *REFINED, "released", "soft"])
    thrown = {name: config for unit in main for name, config in unit.variants.items() if "/" in name}
    assert {name.split("/")[0] for name in thrown} == {"paper", *SWITCHES}
    for name, (_, change, rules) in SWITCHES.items():
        for rule in rules:  # a pair differs in its switch and in nothing else
            values, without = thrown[f"{name}/{rule}"].to_dict(), thrown[f"paper/{rule}"].to_dict()
            changed = {key: value for key, value in values.items() if value != without[key]}
            assert changed == (change or dict(sigma=without["sigma"] / 2))
    assert [name for name, config in thrown.items() if "reweighted" in config.released] == ["B23 reweight/A"]


@pytest.mark.parametrize("profile", MEMBERS)
def test_backbones_of_an_ensemble_may_be_averaged(profile: str) -> None:
    request = Request(profile, {"mvtec": (), "btad": (), "visa": ()})
    configs = [request.config(member, 0) for member in request.members]
    require_alike(list(request.members), configs, refined=True)
    assert len({(one.backbone, one.levels, one.agg_patch) for one in configs}) == len(configs) == 3


@pytest.mark.parametrize("profile", MEMBERS)
def test_the_soft_veto_is_fitted_where_it_is_looked_at(profile: str) -> None:
    sources = (Source("mvtec", "", "bottle"),)
    plan = build_plan(Request(profile, {"mvtec": sources, "btad": (), "visa": ()}, (0,)))
    every = [(unit, name, config) for unit in plan.units for name, config in unit.variants.items()]
    assert {name for _, name, config in every if config.gate == "soft"} == {"soft"}
    assert {unit.name for unit, _, _ in every if unit.config.gate == "soft"} == {"soft"}


def test_what_is_needed_comes_first(plan: Plan) -> None:
    seen: set[Unit] = set()
    for unit in plan.units:
        assert set(unit.needs) <= seen
        seen.add(unit)


def test_settings_of_the_paper_share_one_fit(plan: Plan) -> None:
    fit = next(unit for unit in plan.units if unit.name == "settings")
    base = fit.variants["E"].emb_ratio
    ratios = {name: fit.variants[name].emb_ratio / base for name in DETECTOR}
    assert ratios == pytest.approx({"A": 1, "B": 1, "C": 0.25, "D": 0.5, "E": 1, "F": 2})
    assert fit.config.emb_ratio == pytest.approx(2 * base)
    first = [unit for unit in plan.units if unit.kind == "network" and unit.config.seed == 0 and unit.member == FIRST]
    pool = {unit.name: unit.needs[1].id for unit in first}
    assert len({pool[name] for name in ("L", "PNI", "cross-entropy", "focal")}) == 1
    assert len(set(pool.values())) == 6


def test_a_name_carries_data_configuration_and_needs(data: Path, plan: Plan, tmp_path: Path) -> None:
    again = build_plan(tiny_request(data, seeds=(0, 1)))
    assert [unit.id for unit in again.units] == [unit.id for unit in plan.units]
    moved = tiny_data(tmp_path, n_train=4)  # the same bytes elsewhere
    assert [unit.id for unit in build_plan(tiny_request(moved, seeds=(0, 1))).units] == [unit.id for unit in plan.units]
    changed = tiny_request(data, seeds=(0, 1))
    changed = Request(changed.profile, changed.sources, (0, 1), (0,), changed.overrides | dict(sigma=2.0))
    sharper = {unit.id for unit in build_plan(changed).units}
    same = {unit.kind for unit in plan.units if unit.id in sharper}
    assert same == {"features"}
    other = tiny_data(tmp_path / "other", n_train=5)
    assert not {unit.id for unit in build_plan(tiny_request(other)).units} & {unit.id for unit in plan.units}


def test_passing_work_is_needed_only_for_something_unfinished(plan: Plan) -> None:
    whole = [unit for unit in plan.units if not unit.is_intermediate]
    assert plan.needed(whole) == []
    assert plan.needed([]) == list(plan.units)
    lacking = next(unit for unit in whole if unit.name == "J")
    assert plan.needed([unit for unit in whole if unit != lacking]) == [lacking.needs[1], lacking]


def test_only_what_is_asked_for(data: Path) -> None:
    plan = build_plan(tiny_request(data), ["A", "PNI"], switches=False)
    assert [(unit.kind, unit.name) for unit in plan.units] == [
        ("features", "train"), ("fit", "settings"), ("pool", "cutpaste,scar,draem,manual"), ("network", "PNI"),
    ]  # fmt: skip
    compared = [
        unit for unit in build_plan(tiny_request(data), ["A", "backbones"], switches=False).units if unit.variants
    ]
    assert [unit.member for unit in compared] == list(MEMBERS["scattering"])  # Table X4
    assert [list(unit.variants) for unit in compared[1:]] == [["A", "position", "E"]] * 2
    alone = build_plan(tiny_request(data), [], switches=True)  # Table X2 alone
    assert {(unit.kind, unit.name.split()[0]) for unit in alone.units} == {("features", "train"), ("fit", "switch")}
    with pytest.raises(PNIError, match="setting 'Q' is unknown: choose from A, B"):
        build_plan(tiny_request(data), ["Q"])


def test_a_request_survives_json(data: Path) -> None:
    request = tiny_request(data, seeds=(0, 1))
    assert Request.from_dict(json.loads(json.dumps(request.to_dict()))) == request
    with pytest.raises(PNIError, match="request: is damaged"):
        Request.from_dict({"profile": "demo"})


def test_kinds_of_categories() -> None:
    assert kinds(["bottle", "tile"]) == {"object": ["bottle"], "texture": ["tile"], "average": ["bottle", "tile"]}
    assert kinds(["01", "02"]) == {"average": ["01", "02"]}
    assert kinds(["pcb1", "candle"]) == {
        "multiple_instances": ["candle"], "complex_structure": ["pcb1"], "average": ["pcb1", "candle"],
    }  # fmt: skip
    assert kinds(["mtd"]) == {"texture": ["mtd"], "average": ["mtd"]}


def test_data_that_are_not_at_hand_can_be_planned() -> None:
    sources = (Source("mvtec", "", "bottle"),)
    plan = build_plan(Request("paper", {"mvtec": sources, "btad": (), "visa": ()}))
    assert Counter(unit.kind for unit in plan.units)["network"] == (9 + 2 * 3) + 2 * 1
