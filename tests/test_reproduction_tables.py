"""Tables and pages against numbers computed by hand from what runs left behind."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny_grid import few_resamples, tiny_data, tiny_request

from pnilib.apps.reproduce.figures import FIGURES, misclassified
from pnilib.apps.reproduce.outputs import (
    ITEMS,
    chosen_items,
    manifest,
    needed_settings,
    read_request,
    write_outputs,
)
from pnilib.apps.reproduce.plan import Request, build_plan
from pnilib.apps.reproduce.render import marked
from pnilib.apps.reproduce.results import Results
from pnilib.apps.reproduce.schedule import execute
from pnilib.apps.reproduce.store import clean_store, list_units
from pnilib.apps.reproduce.tables import TABLES, Table, make_table
from pnilib.errors import PNIError
from pnilib.metrics import image_auroc
from pnilib.published import load_published

SETTINGS = ["A", "B", "E", "PNI"]


__all__ = ["few_resamples"]
pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Request, Path]:
    """Two categories named as two of MVTec AD's, two seeds; the store."""
    data = tiny_data(tmp_path_factory.mktemp("grid"), ("bottle", "tile"), n_train=4, n_good=3, n_bad=3)
    request = tiny_request(data, seeds=(0, 1))
    store = tmp_path_factory.mktemp("store")
    assert execute(build_plan(request, SETTINGS, switches=False), store) == {}
    return request, store


@pytest.fixture(scope="module")
def results(made: tuple[Request, Path]) -> Results:
    request, store = made
    return Results.from_store(build_plan(request, SETTINGS, switches=False), store)


def value(results: Results, category: str, setting: str, seed: int, metric: str) -> float:
    table = results.tidy().query(
        "category == @category and setting == @setting and seed == @seed and metric == @metric"
    )
    return float(table["value"].iloc[0])


def test_a_metric_is_that_of_the_scores_on_disk(results: Results) -> None:
    for run in results.runs.values():
        table = run.scores()
        assert run.facts["metrics"]["i_auroc"] == pytest.approx(image_auroc(table["score"], table["label"]), abs=1e-12)
        low, high = run.facts["interval"]["i_auroc"]
        assert low <= run.facts["metrics"]["i_auroc"] <= high


def test_cells_by_hand(results: Results) -> None:
    """Averages over categories first, then mean and sd (n - 1) over seeds; difference to the printed number."""
    table = make_table(TABLES["table-3"], results)
    cells = table.cells.set_index(["method", "category", "metric"])
    for setting in SETTINGS:
        seeds = [
            100 * np.mean([value(results, name, setting, seed, "p_f1_max") for name in ("bottle", "tile")])
            for seed in (0, 1)
        ]
        cell = cells.loc[(setting, "average", "p_f1_max")]
        assert cell["ours"] == pytest.approx(np.mean(seeds)) and cell["sd"] == pytest.approx(np.std(seeds, ddof=1))
        assert cell["seeds"] == 2
        assert cells.loc[(setting, "texture", "p_f1_max"), "ours"] == pytest.approx(
            100 * np.mean([value(results, "tile", setting, seed, "p_f1_max") for seed in (0, 1)])
        )
    assert cells.loc[("PNI", "average", "i_auroc"), "paper"] == 99.56
    assert not table.partial and np.isnan(cells.loc[("PNI", "average", "i_auroc"), "difference"])  # 2 of 15 categories
    rows = make_table(TABLES["table-s9"], results).cells.set_index(["method", "category", "metric"])
    cell = rows.loc[("PNI", "tile", "i_auroc")]
    assert cell["paper"] == 100 and cell["difference"] == pytest.approx(cell["ours"] - 100)


def test_intervals_are_those_of_averaged_replicates(results: Results) -> None:
    sources = results.plan.request.sources["mvtec"]
    cell = results.cell(sources, "A", "p_auroc")
    assert cell is not None
    replicates = [
        results.runs[source, "A", seed].arrays["replicates"]["p_auroc"] for source in sources for seed in (0, 1)
    ]
    mean = np.mean(replicates, 0)
    assert [cell.low, cell.high] == pytest.approx(100 * np.nanquantile(mean, [0.025, 0.975]))
    same = results.difference(sources, "A", "A", "p_auroc")
    assert same is not None and (same.mean, same.low, same.high) == (0, 0, 0)
    gain = results.difference(sources, "E", "A", "i_auroc")
    e, a = results.cell(sources, "E", "i_auroc"), results.cell(sources, "A", "i_auroc")
    assert gain is not None and e is not None and a is not None
    assert gain.mean == pytest.approx(e.mean - a.mean)


def test_a_part_of_the_papers_categories_is_compared_one_by_one(results: Results) -> None:
    """Averages over two of fifteen do not stand beside the printed ones."""
    table = make_table(TABLES["table-s9"], results)
    told = " ".join(table.notes)
    assert "The data are 2 of 15 categories (bottle, tile): averages over them are not those of the paper" in told
    assert table.partial and "their settings were not run" in told  # C, D, ...
    shown = table.cells[table.cells["ours"].notna()]
    assert set(shown["category"]) == {"bottle", "tile"} and shown["difference"].notna().all()
    averages = table.cells[table.cells["category"] == "average"]
    assert averages["paper"].notna().any() and averages["ours"].isna().all()


def test_a_stand_in_keeps_the_shape_and_shows_no_difference(made: tuple[Request, Path]) -> None:
    request, store = made
    stand_in = Request(
        request.profile, {role: request.sources["mvtec"] for role in request.sources}, (0, 1), (0,), request.overrides
    )
    found = Results.from_store(build_plan(stand_in, SETTINGS, switches=False), store)
    table = make_table(TABLES["table-6"], found)
    assert table.notes[0].startswith("**Data: mvtec (2 categories), not VisA")
    assert table.cells["difference"].isna().all()
    assert not (table.cells["ours"].notna() & table.cells["paper"].notna()).any()
    text = table.markdown()
    assert "Ours minus" not in text and "| SPD " in text
    assert make_table(TABLES["table-s7"], found).cells["ours"].notna().all()


def test_data_that_were_not_given(results: Results, tmp_path: Path) -> None:
    table = make_table(TABLES["table-5"], results)
    assert table.notes == ["No data: published numbers only.  Give them with --data btad=FOLDER."] and not table.partial
    assert "97.8" in table.markdown()
    written = write_outputs(chosen_items(["figure-s8", "table-5"]), results, tmp_path)
    assert written.no_data == ["figure-s8"] and written.missing == {} and written.partial == []
    assert make_table(TABLES["table-x1"], results).partial  # `released` was not run


def test_table_s7_comes_out_of_the_configurations(results: Results) -> None:
    cells = make_table(TABLES["table-s7"], results).cells
    assert len(cells) == 140 and (cells["ours"] == cells["paper"]).all()


def test_marks_by_rule() -> None:
    cells = pd.DataFrame(
        dict(
            category="all", metric=["a"] * 4 + ["b"] * 3 + ["c"], text=list("pqrstuvw"),
            ours=[1.004, 1.0, 0.5, 0.4, np.nan, 2.0, 1.0, 5.0],
        )
    )  # fmt: skip
    assert marked(cells, "ours")["text"].tolist() == ["**p**", "**q**", "_r_", "s", "t", "**u**", "_v_", "w"]


def test_paper_marks_agree_with_the_printed_ones(results: Results) -> None:
    """Table 3's bold numbers, typed from the paper: PNI everywhere."""
    text = make_table(TABLES["table-3"], results).markdown().split("As published")[1]
    row = next(line for line in text.splitlines() if line.startswith("| PNI "))
    assert row.count("**") == 18


def test_every_item_of_the_paper_is_there() -> None:
    numbers = {f"table-{i}" for i in range(1, 7)} | {f"table-s{i}" for i in range(1, 12)}
    numbers |= {f"figure-{i}" for i in range(1, 9)} | {f"figure-s{i}" for i in range(1, 9)}
    assert numbers == {name for name in ITEMS if "-x" not in name}
    assert needed_settings(chosen_items(["figure-5"])) == ["A", "B", "E", "PNI"]
    with pytest.raises(PNIError, match="tabel-3: no such table or figure: did you mean table-3"):
        chosen_items(["tabel-3"])
    for name, spec in TABLES.items():  # each method name is printed in its table
        if "-x" not in name:
            assert set(spec.methods) <= set(load_published(spec.number)["method"])


@pytest.fixture(scope="module")
def outputs(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("outputs")
    written = write_outputs(chosen_items(None), results, out)
    # ensembles and switches were not asked for; BTAD and VisA are not there
    assert set(written.missing) == set() and set(written.no_data) == {"figure-8", "figure-s8"}
    assert {"table-2", "table-4", "table-x2"} <= set(written.partial) and "table-3" not in written.partial
    return out


def test_every_output_is_a_picture_or_text_and_has_a_manifest(outputs: Path, results: Results) -> None:
    for name in set(FIGURES) - {"figure-8", "figure-s8"}:
        with Image.open(outputs / "figures" / f"{name}.png") as picture:
            assert min(picture.size) > 80 and picture.size[0] < 2200  # a line of text where there is no error to show
            assert len(np.unique(np.asarray(picture.convert("L").resize((60, 60))))) > 5  # not blank
        assert (outputs / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    for name in TABLES:
        text = (outputs / "tables" / f"{name}.tex").read_text()
        assert text.count("\\begin{tabular}") == text.count("\\end{tabular}")
        facts = json.loads((outputs / "manifests" / f"{name}.json").read_text())
        assert facts["config"]["image_crop"] == 64 and facts["made_by"]["versions"]["torch"]
    facts = manifest(TABLES["table-3"], results)
    units = [unit for unit in results.plan.units]
    assert facts["units"] == len(units) and facts["seconds"] > 0 and facts["peak_memory"] > 1e8
    assert facts["seeds"] == {"detector and PNI": [0, 1], "other networks": [0]}
    assert set(facts["data"]) == {"mvtec/bottle", "mvtec/tile"}


def test_twice_the_same_bytes(outputs: Path, results: Results, tmp_path: Path) -> None:
    write_outputs(chosen_items(["table-3", "figure-5", "figure-6"]), results, tmp_path)
    for name in (
        "tables/table-3.csv",
        "tables/table-3.md",
        "figures/figure-5.png",
        "figures/figure-6.pdf",
        "results.csv",
    ):
        assert (tmp_path / name).read_bytes() == (outputs / name).read_bytes(), name


def test_pages(outputs: Path, made: tuple[Request, Path]) -> None:
    index, report = (outputs / "index.html").read_text(), (outputs / "report.html").read_text()
    for name in FIGURES:
        assert (f'href="figures/{name}.png"' in index) == (name not in ("figure-8", "figure-s8"))
    assert report.count("data:image/webp;base64,") == len(FIGURES) - 2
    assert 'src="figures' not in report and "<b>" in report
    assert read_request(outputs) == made[0]
    with pytest.raises(PNIError, match=r"request\.json: is missing"):
        read_request(outputs / "tables")


def test_misclassified_by_hand(results: Results) -> None:
    for run in results.runs.values():
        threshold = run.facts["metrics"]["i_threshold"]
        wrong = misclassified(run)
        table = run.scores()
        called = table["score"].to_numpy(np.float32) >= np.float32(threshold)
        assert len(wrong["false positive"]) == int((called & (table["label"] == 0)).sum()) == run.facts["metrics"]["fp"]
        assert (
            len(wrong["false negative"]) == int((~called & (table["label"] == 1)).sum()) == run.facts["metrics"]["fn"]
        )


def test_a_metric_that_is_undefined_for_a_category(tmp_path: Path) -> None:
    """No normal test image: image metrics are undefined, pixel metrics are not; the average of both is undefined."""
    data = tiny_data(tmp_path, ("bottle", "tile"), n_train=4)
    shutil.rmtree(data / "tile/test/good")
    request = tiny_request(data)
    plan = build_plan(request, ["A"], switches=False)
    assert execute(plan, tmp_path / "store") == {}
    table = make_table(TABLES["table-s8"], Results.from_store(plan, tmp_path / "store"))
    cells = table.cells.set_index(["method", "category", "metric"])
    assert np.isnan(cells.loc[("A", "average", "i_auroc"), "ours"])
    assert np.isfinite(cells.loc[("A", "average", "p_auroc"), "ours"])
    assert np.isfinite(cells.loc[("A", "object", "i_auroc"), "ours"])
    assert "undefined" in table.markdown()


def test_the_store_is_listed_and_cleaned(made: tuple[Request, Path], tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(made[1], store)
    table = list_units(store)
    assert (table["status"] == "done").all() and set(table["category"]) == {"bottle", "tile"}
    assert table["bytes"].sum() > 1e4
    victim = store / table["folder"].iloc[0]
    (victim / "unit.json").unlink()
    (victim / "failed.json").write_text('{"error": "disk is full"}')
    assert list_units(store)["status"].iloc[0] == "failed: disk is full"
    assert clean_store(store, "failed") > 0 and not victim.exists()
    freed = clean_store(store, "maps")
    assert freed >= 4 * 6 * 64 * 64  # float32, six test images: one map file at least
    assert not list(store.rglob("*.maps.npy"))
    assert clean_store(store, "all") > 0 and list_units(store).empty
    with pytest.raises(PNIError, match="is not a folder"):
        list_units(tmp_path / "absent")


def test_a_table_knows_no_method_twice(results: Results) -> None:
    for spec in TABLES.values():
        table = make_table(spec, results)
        assert isinstance(table, Table)
        keys = table.cells[["method", "category", "metric", "dataset"]] if "dataset" in table.cells else None
        assert keys is None or not keys.duplicated().any()
