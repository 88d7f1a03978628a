"""Golden values: every number table of the README is what its committed source says, and the arithmetic of every rule,
on a tiny fit, is what it was when those sources were made."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pnilib import PNI, PNIConfig, evaluate, load_dataset
from pnilib.data import Dataset
from pnilib.demo import make_demo
from pnilib.demo.categories import CATEGORIES
from pnilib.detector.ensembles import predict_members
from pnilib.detector.prediction import Prediction
from pnilib.detector.refine import refine
from pnilib.published import load_published

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
THREE = ["i_auroc", "p_auroc", "aupro_30"]
GROUPS = {
    "objects": [name for name, one in CATEGORIES.items() if one.kind == "object"],
    "textures": [name for name, one in CATEGORIES.items() if one.kind == "texture"],
}
NUMBER = re.compile(r"\d+(?:\.\d+)?")
Table = dict[str, list[str]]
"""Cells by the first cell of their row, as text without bold marks; from a source, with digits to spare."""


# -- sources ------------------------------------------------------------------------------------


def source(name: str) -> pd.DataFrame:
    return pd.read_csv(ROOT / "results" / name)


def spread(values: Iterable[float]) -> str:
    """ "mean ± sd" of the seeds."""
    numbers = np.array([*values])
    assert len(numbers) > 1
    return f"{numbers.mean():.6f} ± {numbers.std(ddof=1):.6f}"


def rounds_to(exact: str, shown: str) -> bool:
    """Whether `shown` is `exact` to two decimals; where it lies half-way, both neighbors are."""
    pairs = zip(NUMBER.findall(exact), NUMBER.findall(shown), strict=True)
    return NUMBER.sub("#", exact) == NUMBER.sub("#", shown) and all(
        abs(float(one) - float(other)) < 0.005 + 1e-6 for one, other in pairs
    )


def slashed(values: Iterable[float], digits: int = 2) -> str:
    return " / ".join(f"{value:.{digits}f}" for value in values)


def over_seeds(cells: pd.DataFrame, metric: str, names: list[str]) -> str:
    """Of the mean over some categories, each there in every seed."""
    wide = cells[cells["category"].isin(names)].pivot(index="seed", columns="category", values=metric)
    assert set(wide.columns) == set(names) and not wide.isna().any(axis=None)
    return spread(wide.mean(axis=1))


def small(data: str, **values: str) -> pd.DataFrame:
    """Rows of small.csv under the rule `small`, or another."""
    cells = pd.read_csv(ROOT / "results/readme/small.csv", keep_default_na=False)
    wanted = {"data": data, "rule": "small"} | values
    cells = cells[(cells[[*wanted]] == [*wanted.values()]).all(axis=1)]
    return cells


def reproduced(setting: str, backbone: str = "EfficientNet-Lite0") -> pd.DataFrame:
    """The run of `make reproduce`, %: one row a category and seed, one column a metric."""
    cells = source("paper/results.csv")
    cells = cells[(cells["setting"] == setting) & (cells["backbone"] == backbone)]
    return cells.pivot(index=["category", "seed"], columns="metric", values="value").mul(100).reset_index()


def table_cell(name: str, method: str, category: str, metric: str) -> pd.Series:
    """Of results/paper/tables."""
    cells = source(f"paper/tables/table-{name}.csv")
    keys = ["method", "category", "metric", "dataset"]
    return cells[(cells[keys] == [method, category, metric, "demo"]).all(axis=1)].iloc[0]


def printed(table: str, method: str, metric: str) -> str:
    cells = load_published(table)
    keys = ["method", "category", "metric"]
    return cells[(cells[keys] == [method, "screw", metric]).all(axis=1)]["printed"].item()


# -- the tables of the README, from their sources ---------------------------------------------------


def real_parts() -> Table:
    ours = {metric: table for metric, table in zip(THREE, ("Table S9", "Table S10", "Table S11"), strict=True)}
    a = [printed(table, "A", metric) for metric, table in ours.items()]
    screw = small("mvtec", changes="image_resize=512 image_crop=480")
    whole = small("mvtec", changes="image_resize=512 image_crop=480 emb_ratio=0.01 emb_max=0").iloc[0]
    rules = source("readme/screw_rules.csv").set_index("rule")
    gpu = rules.loc["soft veto (small)"]
    leaking, tiles = small("mtd", options="split=differnet"), small("mtd", options="split=tile")
    first = source("readme/mtd_tile_seed0_excluded.csv").query("row == 'A: nearest neighbor'")
    plain = [first, *(source(f"readme/mtd_tile_A_seed{seed}.csv") for seed in (1, 2))]

    def with_interval(one: pd.Series, low: str, high: str) -> list[str]:
        return [f"{one['i_auroc']} ({one[low]}–{one[high]})", f"{one['p_auroc']}", f"{one['aupro_30']}"]

    return {
        "MVTec AD screw, 480 px: PNI as printed (ensemble)": [
            f"{printed(table, 'PNI', metric)} ({printed(table, 'PNI (ensemble)', metric)})"
            for metric, table in ours.items()
        ],
        "PatchCore as printed; the paper's setting A": [
            f"{printed('Table 1', 'PatchCore', 'i_auroc')}; {a[0]}", f"{a[1]} (A)", f"{a[2]} (A)",
        ],
        r"ours: `small`, \|C_emb\| 5,000, 17-MB network, CPU, three seeds": [spread(screw[name]) for name in THREE],
        r"ours: `small`, \|C_emb\| 1 %, CPU": with_interval(whole, "i_low", "i_high"),
        "ours: the same on a GPU": with_interval(gpu, "i_auroc_low", "i_auroc_high"),
        "MTD, published (leaking) split: PatchCore as printed": ["97.9", "", ""],  # PatchCore's paper, not kept here
        "ours: `small`, three seeds": [spread(leaking[name]) for name in THREE],
        "MTD, whole tiles apart, five splits: ours, `small`": [spread(tiles[name]) for name in THREE],
        "features without weights (scattering, setting A), three splits": [
            spread(100 * one.set_index("metric")["value"][name] for one in plain) for name in THREE
        ],
    }  # fmt: skip


def rule_of_small() -> Table:
    rows = {
        "A: nearest neighbor": "A", "position gate, eq. (5)": "position", "soft veto, no level": "soft",
        "`small`: veto and level": "small",
    }  # fmt: skip
    return {
        label: [over_seeds(small("demo", rule=rule), name, names) for name in THREE for names in GROUPS.values()]
        for label, rule in rows.items()
    }


def worth_of_each_idea() -> Table:
    rows = {
        "A: nearest neighbor": "A", "B: neighborhood gate": "B", "position gate": "position",
        "E, eq. (6) of the paper": "E prob", "E, mean of two scores (the release)": "E score",
        "E, product of the two sources (ours)": "E product", "soft veto of the place (ours, the default)": "soft",
    }  # fmt: skip
    return {
        label: [
            over_seeds(reproduced(setting), name, names)
            for name in ("i_auroc", "aupro_30")
            for names in GROUPS.values()
        ]
        for label, setting in rows.items()
    }


def on_the_demo_data() -> Table:
    rows = {
        "A: nearest neighbor": "A", "B: neighborhood gate": "B", "E: and position": "E",
        "PNI: and refinement": "PNI", "the released code's detector": "released",
    }  # fmt: skip
    return {
        label: [over_seeds(reproduced(setting), name, [*CATEGORIES]) for name in (*THREE, "p_f1_max")]
        for label, setting in rows.items()
    }


SOURCES: list[Callable[[], Table]] = [real_parts, rule_of_small, worth_of_each_idea, on_the_demo_data]
"""Of the README's number tables, in their order."""


def number_tables(text: str) -> list[list[list[str]]]:
    """Markdown tables with a decimal number in a cell, without heads: rows of cells."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block.splitlines()[2:]]
        if any(re.search(r"\d\.\d", cell) for row in rows for cell in row):
            found.append(rows)
    return found


def test_every_number_table_has_a_source() -> None:
    assert len(number_tables(README)) == len(SOURCES), "give the new table a source above"


@pytest.mark.parametrize("place", range(len(SOURCES)), ids=[made.__name__ for made in SOURCES])
def test_a_table_is_its_source_cell_by_cell(place: int) -> None:
    shown = {label: cells for label, *cells in number_tables(README)[place]}
    exact = SOURCES[place]()
    assert shown.keys() == exact.keys()
    for label, cells in exact.items():
        pairs = zip(cells, [cell.replace("**", "") for cell in shown[label]], strict=True)
        wrong = [pair for pair in pairs if not rounds_to(*pair)]
        assert not wrong, f"{label}: what the source says, and the README"


@pytest.mark.parametrize("place", range(1, len(SOURCES)), ids=[made.__name__ for made in SOURCES[1:]])
def test_bold_is_the_best_of_its_column(place: int) -> None:
    """In tables of rules that look at the same images; a best that three share, as A, B and eq. (6), is none."""
    for column in zip(*(row[1:] for row in number_tables(README)[place]), strict=True):
        means = [float(cell.strip("*").split()[0]) for cell in column]
        bold = {mean for mean, cell in zip(means, column, strict=True) if cell.startswith("**")}
        assert bold == {max(means)}
        assert all(cell.startswith("**") == (mean in bold) for mean, cell in zip(means, column, strict=True))


@pytest.mark.parametrize("name", ["x1", "x3"])
def test_a_kept_table_is_the_mean_of_the_kept_run(name: str) -> None:
    """results/paper/tables from results/paper/results.csv, both committed."""
    from pnilib.apps.reproduce.tables import TABLES

    groups = {"object": GROUPS["objects"], "texture": GROUPS["textures"], "average": [*CATEGORIES]}
    for method, setting in TABLES[f"table-{name}"].methods.items():
        for category, names in groups.items():
            for metric in (*THREE, "p_f1_max"):
                cell = table_cell(name, method, category, metric)
                mean, sd = map(float, NUMBER.findall(over_seeds(reproduced(setting), metric, names)))
                assert (cell["ours"], cell["sd"]) == pytest.approx((mean, sd), rel=1e-4)


def prose() -> dict[str, list[str]]:
    """Numbers in the README's sentences, as text that must stand there."""
    rules = source("readme/screw_rules.csv").set_index("rule")[THREE]
    assert slashed(rules.loc["A"]) == slashed(rules.loc["B"]) == slashed(rules.loc["E, eq. (6)"])
    at_scattering = (
        source("readme/mtd_refinement.csv").query("weight in (0, 0.1)").set_index(["row", "metric"])["value"]
    )
    steps = [
        "{:.2f} -> {:.2f}".format(*(100 * at_scattering[row, metric] for row in ("E", "PNI")))
        for metric in ("aupro_30", "aupro_05", "i_auroc", "p_f1_max")
    ]

    def change(method: str, metric: str, sign: int) -> str:
        cell = table_cell("x2", method, "prob", metric)
        low, high = sorted((sign * cell["low"], sign * cell["high"]))
        return f"{sign * cell['ours']:.2f} ({low:.2f} to {high:.2f})"

    mean, border = (
        method
        for method in dict.fromkeys(source("paper/tables/table-x2.csv")["method"])
        if method.startswith(("B5:", "B11:"))
    )
    published = load_published("Table S8").query("category == 'average'").set_index(["method", "metric"])["value"]

    def gain(category: str, metric: str) -> float:
        return table_cell("x1", "PNI", category, metric)["ours"] - table_cell("x1", "E", category, metric)["ours"]

    def cable(setting: str) -> float:
        return reproduced(setting).query("category == 'cable'")["aupro_30"].mean()

    nsa = pd.read_csv(ROOT / "pnilib/measured/nsa.csv", keep_default_na=False)
    drawn = nsa.query("data == 'demo' and epoch == 60").groupby("task")[["i_auroc", "aupro_30"]].mean()
    long = nsa.query("category == 'screw' and epochs == 160")[THREE]
    nsa_printed = [
        printed("NSA Table 7", "NSA (logistic) final", "i_auroc"),
        printed("NSA Table 7", "NSA (logistic) final", "p_auroc"),
        printed("NSA Table 8", "NSA (logistic)", "aupro_30"),
    ]
    segad = pd.read_csv(ROOT / "pnilib/measured/segad.csv")
    by_segments = segad.query("category == 'screw' and n_bad == 20 and variant == 'BRF'").set_index("segments")

    def cl_auroc(segments: str, method: str = "SegAD") -> str:
        found = 100 * by_segments.loc[segments].query("method == @method")["cl_auroc"]
        return f"{found.mean():.2f} ± {found.std():.2f}"

    return {
        "NSA": [
            slashed(long.iloc[0]), " / ".join(nsa_printed),
            *(slashed(drawn.loc[task]) for task in ("nsa-logistic", "PNI", "nsa-logistic + PNI", "fpi", "fpi + PNI")),
        ],
        "SegAD on screw": [
            cl_auroc("whole", "A"), cl_auroc("whole"), cl_auroc("foreground"), cl_auroc("clusters:4"),
        ],
        "screw under every rule": [slashed(row) for _, row in rules.iterrows()],
        "refinement on MTD": steps,
        "refinement on the demo data": [
            f"adds {gain('object', 'p_f1_max'):.2f} points", f"and {gain('texture', 'p_f1_max'):.2f} on textures",
            f"takes {-gain('object', 'i_auroc'):.2f} of",
        ],
        "the release's differences": [
            change(mean, "aupro_30", 1), change(mean, "p_f1_max", 1), change(border, "i_auroc", -1),
            change(border, "aupro_30", -1),
        ],
        "what features are worth": [
            slashed((reproduced("A", backbone)[name].groupby(reproduced("A", backbone)["seed"]).mean().mean()
                     for name in THREE), 1)
            for backbone in ("EfficientNet-Lite0", "EfficientNet-Lite0, one level", "scattering")
        ],
        "what a place is worth": [f"AUPRO {cable('A'):.1f} to {cable('position'):.1f}"],
        "the paper's averages": [slashed(published[row][THREE]) for row in "ABE"],
    }  # fmt: skip


def test_numbers_in_sentences() -> None:
    text = " ".join(README.replace("**", "").split())
    absent = {what: lost for what, said in prose().items() if (lost := [one for one in said if one not in text])}
    assert not absent


# -- the arithmetic of every rule -------------------------------------------------------------------

HARD = PNIConfig.profile("smoke").replace(
    gate="hard", calibration_images=6, temperature=0.1, refine_iterations=1, pool_images=12
)
"""T = 0.1: at 2, hardly a gate closes."""
VARIANTS = {
    "A": dict(setting="A"),
    "B": dict(setting="B"),
    "position gate": dict(setting="position"),
    "E, eq. (6)": {},
    "E, mean of two scores": dict(combine="score"),
    "E, product": dict(combine="product"),
    "soft veto": dict(setting="position", gate="soft"),
    "soft veto, no level": dict(setting="position", gate="soft", level_power=0.0),
    "rank mix-up": dict(combine="score", released="rank_transfer"),
}
GOLDEN = {
    "A": (0.8333, 0.9209, 0.6175, 0.4082, 22.8942),
    "B": (0.8333, 0.8851, 0.5435, 0.3734, 25.4594),
    "position gate": (0.8333, 0.9282, 0.6299, 0.4449, 22.9933),
    "E, eq. (6)": (0.8333, 0.9282, 0.6299, 0.4401, 22.9947),
    "E, mean of two scores": (0.8333, 0.9220, 0.6256, 0.4354, 24.2263),
    "E, product": (0.9286, 0.9043, 0.5905, 0.4259, 25.0857),
    "soft veto": (0.8214, 0.9278, 0.6120, 0.4395, 22.9347),
    "soft veto, no level": (0.8333, 0.9280, 0.6298, 0.4445, 22.9859),
    "rank mix-up": (0.8333, 0.9217, 0.6256, 0.4358, 24.1865),
    "refined": (0.8571, 0.8262, 0.4549, 0.3812, 0.2910),
    "ensemble": (0.7738, 0.9337, 0.6044, 0.4457, 0.3906),
}
"""I-AUROC, P-AUROC, AUPRO, P-F1-max, and the mean of the maps, which also moves where no rank does."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = make_demo(
        tmp_path_factory.mktemp("golden") / "demo", categories=["cable"], n_train=12, n_good=6, n_per_defect=2, size=96,
        progress=False,
    )  # fmt: skip
    return load_dataset("demo", root, "cable")


@pytest.fixture(scope="module")
def found(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Prediction]:
    """One fit, every rule; the mean of two scores refined, and beside another backbone."""
    model = PNI(HARD.replace(gate="soft")).fit(data.train)
    found = model.predict_variants(data.test, {name: HARD.replace(**change) for name, change in VARIANTS.items()})
    one = model.with_config(gate="hard", combine="score")
    one.calibrate(data.train)
    refined = refine({"cable": (one, data.train)}, tmp_path_factory.mktemp("refined"))["cable"]
    found["refined"] = refined.predict(data.test, refined=True)
    features = dict(backbone="scattering", aggregation="pool", feature_norm="half_whiten", dim=32)
    two = PNI(one.config.replace(**features)).fit(data.train)
    found["ensemble"] = predict_members({"one": one, "two": two}, data)
    return found


def measured(prediction: Prediction, data: Dataset) -> list[float]:
    metrics = evaluate(prediction, data.test).metrics
    return [*(metrics[name] for name in (*THREE, "p_f1_max")), float(prediction.maps.mean())]


@pytest.mark.parametrize("name", [*VARIANTS, "refined", "ensemble"])
def test_metrics_of_a_tiny_fit(name: str, found: dict[str, Prediction], data: Dataset) -> None:
    """To 3 decimals: other instructions or threads move the sixth; of refined and ensemble maps, the fourth."""
    values = measured(found[name], data)
    assert values == pytest.approx(GOLDEN[name], abs=5e-4, rel=5e-5), ", ".join(f"{value:.4f}" for value in values)
