"""Notebooks 09 to 12 on a tiny finished grid, through the runner of `pni reproduce`; one run of it is missing."""

import shutil
from pathlib import Path

import pytest
from tiny_grid import OVERRIDES, resample_little

from pnilib.apps.notebooks.runner import parameter_names, run_notebook
from pnilib.apps.reproduce import viewing
from pnilib.apps.reproduce.outputs import write_outputs
from pnilib.apps.reproduce.plan import ROLES, Plan, Request, build_plan, sources_of
from pnilib.apps.reproduce.results import Cell, Results
from pnilib.apps.reproduce.schedule import execute
from pnilib.demo import make_demo

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = ["09_main_results", "10_ablation", "11_paper_vs_released"]
NAN = float("nan")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A reproduction of one category whose setting G failed; setting K, the losses and ensembles were not asked for."""
    root = tmp_path_factory.mktemp("reproduction")
    make_demo(root / "demo", categories=["grain"], n_train=8, n_good=6, n_per_defect=3, size=64, progress=False)
    sources = tuple(sources_of("demo", root / "demo", ["grain"]))
    request = Request("scattering", {role: sources for role in ROLES}, seeds=(0,), overrides=OVERRIDES)
    plan = build_plan(request, ["A", "B", "C", "D", "E", "F", "G", "PNI", "released"])
    with pytest.MonkeyPatch.context() as patch:
        resample_little(patch)
        assert execute(plan, root / "store", workers=1) == {}
    (broken,) = (unit for unit in plan.units if unit.kind == "network" and unit.name == "G")
    shutil.rmtree(root / "store" / broken.id)
    write_outputs([], Results.from_store(plan, root / "store"), root / "out")
    return {"results_dir": str(root / "out"), "store_dir": str(root / "store")}


@pytest.mark.parametrize("name", NAMES)
def test_parameters(name: str) -> None:
    assert parameter_names(FOLDER / f"{name}.ipynb") == [
        "profile", "categories", "n_seeds", "device", "data_dir", "store_dir", "results_dir", "out_dir",
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_notebook_runs(name: str, places: dict[str, str], tmp_path: Path) -> None:
    """With everything that was not run missing: it says so, and goes on."""
    result = run_notebook(
        FOLDER / f"{name}.ipynb", tmp_path, places | {"out_dir": str(tmp_path)}, timeout_s=900, progress=False
    )
    assert result.ok, f"{result.failing_cell}: {result.error}"
    assert len(list((tmp_path / "figures").glob(f"{name}-*.png"))) >= 6
    executed = (tmp_path / f"{name}.ipynb").read_text()
    assert "units of work are missing" in executed and "in place of MVTec AD, BTAD and VisA" in executed
    assert list(tmp_path.glob("*.png"))  # saved by the last cell


def test_explorer_notebook_runs(places: dict[str, str], tmp_path: Path) -> None:
    """Every view is there without a browser, the widget does no harm to the page, and the run is only read."""
    path = FOLDER / "12_explore_misclassified.ipynb"
    assert parameter_names(path) == [
        "profile", "categories", "device", "data_dir", "store_dir", "run_dir", "run_data", "interactive", "out_dir",
    ]  # fmt: skip
    before = sorted(file for file in Path(places["store_dir"]).rglob("*") if file.is_file())
    parameters = dict(run_dir=places["store_dir"], interactive="always", out_dir=str(tmp_path))
    result = run_notebook(path, tmp_path, parameters, timeout_s=900, progress=False)
    assert result.ok, f"{result.failing_cell}: {result.error}"
    assert len(list((tmp_path / "figures").glob("*.png"))) == 9
    assert sorted(file for file in Path(places["store_dir"]).rglob("*") if file.is_file()) == before
    assert (tmp_path / "explore.png").exists() and (tmp_path / "explore_selection.html").exists()
    page = (tmp_path / "12_explore_misclassified.html").read_text()
    assert "<script" not in page and page.count("data:image/png") >= 8


def test_results_are_only_read(places: dict[str, str]) -> None:
    """A folder of results is opened without doing what is missing; another folder has none."""
    results = viewing.open_results(places["results_dir"], places["store_dir"])
    assert "G" in {unit.name for unit in results.missing} and results.run(results.plan.request.main[0], "G") is None
    assert "units of work are missing" in viewing.missing_text(results)
    with pytest.raises(ValueError, match="run `pni reproduce` first"):
        viewing.open_results(Path(places["results_dir"]) / "nothing", places["store_dir"])


def test_tables_and_figures_of_partial_results(places: dict[str, str]) -> None:
    results = viewing.open_results(places["results_dir"], places["store_dir"])
    assert viewing.table_text("table-3", results).startswith("**Table 3")
    assert "PARTIAL" in viewing.table_text("table-s8", results)
    with pytest.raises(ValueError, match="is a table"):
        viewing.figure_of("table-3", results)
    with pytest.raises(ValueError, match="is a figure"):
        viewing.table_text("figure-5", results)
    assert viewing.figure_of("figure-5", results).axes
    sources = list(results.plan.request.main)
    pairs = {"position": ("E", "B"), "cutpaste": ("G", "E")}
    assert viewing.whole_categories(results, ["A", "B", "no such setting"]) == (sources, "")
    assert viewing.whole_categories(results, ["A", "G"]) == (
        sources,
        "**No category is finished: averages are missing.**",
    )
    found = viewing.differences(results, pairs, "i_auroc", sources)
    facts = {name: results.run(sources[0], name).facts["metrics"]["i_auroc"] for name in ("E", "B")}
    assert found["cutpaste"] is None
    assert found["position"][0] == pytest.approx(100 * (facts["E"] - facts["B"]))


def test_a_number_in_words() -> None:
    assert "runs are missing" in viewing.in_words(None)
    assert viewing.in_words(Cell(NAN, NAN, 1, NAN, NAN)) == "is undefined"
    assert viewing.in_words(Cell(0.0, NAN, 1, 0.0, 0.0)) == "is nothing, to the last digit"
    assert viewing.in_words(Cell(0.0, NAN, 1, -0.2, 0.2)).endswith("not told apart from nothing")
    assert viewing.in_words(Cell(0.001, NAN, 1, 0.0, 0.002)).endswith("less than the tables print")
    assert viewing.in_words(Cell(1.234, NAN, 1, 0.5, 2.0)) == "is +1.23 points (+0.50 to +2.00)"
    assert viewing.in_words(Cell(1.0, NAN, 1, NAN, NAN)).endswith("(no interval)")


def test_whose_data() -> None:
    source = sources_of("mvtec", "anywhere", ["bottle", "cable"])
    mixed = {"mvtec": tuple(source), "btad": tuple(sources_of("btad", "anywhere", ["01"])), "visa": ()}
    text = viewing.data_text(Results(Plan(Request("paper", mixed), ()), Path("nowhere")))
    assert "Data: MVTec AD (2 categories)." in text and "Data: BTAD (1 category)." in text
    assert "VisA was not given." in text and "in place of" not in text
    stand_in = tuple(sources_of("demo", "anywhere", ["cable"]))
    played = Request("smoke", {role: stand_in for role in ROLES})
    text = viewing.data_text(Results(Plan(played, ()), Path("nowhere")))
    assert "demo (1 category) in place of MVTec AD, BTAD and VisA" in text and "not a result" in text
