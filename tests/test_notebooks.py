"""Every notebook runs from a fresh kernel at smoke size, through the runner that `pni reproduce` uses."""

from pathlib import Path

import pytest

from pnilib.apps.notebooks.runner import parameter_names, run_notebook

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9]*.ipynb"))
OF_RESULTS = ("09", "10", "11", "12")
"""read finished runs: tests/test_result_notebooks.py makes a tiny one."""


@pytest.fixture(scope="module")
def places(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("notebooks")
    (root / "out").mkdir()
    return {
        "profile": "smoke",
        "data_dir": str(demo_data),
        "model_dir": str(root / "models"),
        "out_dir": str(root / "out"),
    }


def test_all_are_there() -> None:
    names = [path.stem for path in NOTEBOOKS]
    assert names == [
        "00_tour", "01_features", "02_coresets", "03_neighborhood", "04_position", "05_anomaly_map",
        "06_defect_synthesis", "07_refinement", "08_published", "09_main_results", "10_ablation",
        "11_paper_vs_released", "12_explore_misclassified", "13_segad", "14_nsa",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "path", [path for path in NOTEBOOKS if not path.stem.startswith(OF_RESULTS)], ids=lambda path: path.stem
)
def test_notebook_runs(path: Path, places: dict[str, str], tmp_path: Path) -> None:
    assert {"profile", "category", "seed", "device", "data_dir", "model_dir"} <= set(parameter_names(path))
    result = run_notebook(path, tmp_path, places, timeout_s=600, progress=False)
    assert result.ok, f"{result.failing_cell}: {result.error}"
    assert list((tmp_path / "figures").glob("*.png"))
