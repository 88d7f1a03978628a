"""The refinement's table: rows, weights, resuming."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny import SCATTERING, write_category

from pnilib.config import REFINED_SETTINGS
from pnilib.errors import PNIError
from pnilib.evaluation import evaluate
from pnilib.pni import PNI
from pnilib.refinement import ablation
from pnilib.refinement.ablation import (
    ROWS,
    WEIGHTS,
    ablate_refinement,
    against,
    by_category,
    by_weight,
    summarise,
    to_markdown,
)

CONFIG = SCATTERING.replace(
    pool_images=6, pool_maps="fitted", refine_iterations=2, refine_batch=2, refine_crop=32, defects="natural"
)
CHOSEN = ["PNI", "PNI, squared error (released)"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("ablation")
    data = write_category(folder / "data")
    return data, folder / "units", ablate_refinement(lambda seed: data, CONFIG, folder / "units", [0, 1], CHOSEN)


def test_every_setting_of_table_s7_is_a_row():
    letters = {name.split(":")[0]: choice for name, choice in ROWS.items() if ":" in name}
    assert letters | {"PNI": ROWS["PNI"]} == REFINED_SETTINGS
    assert REFINED_SETTINGS["I"] == {"defects": "cutpaste,scar"} and REFINED_SETTINGS["L"] == {"refine_grad": "off"}


def test_one_value_for_each_seed_row_weight_and_metric(made: tuple[Any, Path, pd.DataFrame]) -> None:
    table = made[2]
    assert not table.duplicated(["seed", "row", "weight", "metric"]).any()
    units = table.groupby(["seed", "row"])["weight"].unique()
    assert sorted(units.index.get_level_values("row").unique()) == ["E", *CHOSEN]
    assert list(units[0, "E"]) == [0.0] and list(units[1, "PNI"]) == list(WEIGHTS)
    assert set(table["seed"]) == {0, 1}


def test_the_paper_s_generators_count_whatever_the_profile_says(
    made: tuple[Any, Path, pd.DataFrame], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = []
    refine = ablation.refine

    def spy(models: Any, *arguments: Any, **keywords: Any) -> Any:
        seen.extend(model.config for model, _ in models.values())
        return refine(models, *arguments, **keywords)

    monkeypatch.setattr(ablation, "refine", spy)
    ablate_refinement(lambda seed: made[0], CONFIG, tmp_path, [0], ["PNI", "PNI, focal loss"])
    assert [config.defects for config in seen] == ["cutpaste,scar,draem,manual"] * 2
    assert [config.refine_loss for config in seen] == ["l2", "focal"]


def test_row_e_is_the_unrefined_model(made: tuple[Any, Path, pd.DataFrame]) -> None:
    data, _, table = made
    expected = evaluate(PNI(CONFIG.replace(calibration_images=0)).fit(data.train).predict(data.test), data.test)
    found = table[(table["row"] == "E") & (table["seed"] == 0)].set_index("metric")["value"]
    for metric in ("i_auroc", "aupro_30", "p_f1_max"):
        assert found[metric] == pytest.approx(expected.metrics[metric], abs=1e-9)


def test_a_second_run_only_reads(made: tuple[Any, Path, pd.DataFrame], monkeypatch: pytest.MonkeyPatch) -> None:
    data, folder, table = made
    monkeypatch.setattr(ablation, "_unit", lambda *_: pytest.fail("computed again"))
    pd.testing.assert_frame_equal(ablate_refinement(lambda seed: data, CONFIG, folder, [0, 1], CHOSEN), table)
    assert not list(folder.rglob("network-*")), "finished networks are not kept"


def test_summary_by_hand():
    rows = [
        ("PNI", 0, 0.1, 0.5), ("PNI", 1, 0.1, 0.7), ("PNI", 0, 0.5, 0.9), ("E", 0, 0.0, 0.4), ("E", 1, 0.0, 0.4),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["row", "seed", "weight", "value"]).assign(metric="i_auroc")
    found = summarise(table).set_index("row")
    assert found.loc["PNI", "mean"] == pytest.approx(60) and found.loc["PNI", "n"] == 2
    assert found.loc["PNI", "sd"] == pytest.approx(100 * np.sqrt(0.02))
    assert summarise(table, weight=0.5).set_index("row").loc["PNI", "mean"] == pytest.approx(90)
    every = pd.concat([table.assign(metric=metric) for metric in ablation.SHOWN])
    lines = to_markdown(summarise(every)).splitlines()
    assert lines[2].startswith("| PNI | 60.00 ± 14.14 |") and lines[3].startswith("| E | 40.00 ± 0.00 |")


def test_categories_and_weights_by_hand():
    rows = [
        ("a", "E", 0, 0.0, 0.40), ("a", "E", 1, 0.0, 0.42), ("a", "PNI", 0, 0.1, 0.50), ("a", "PNI", 1, 0.1, 0.50),
        ("b", "E", 0, 0.0, 0.60), ("b", "E", 1, 0.0, 0.60), ("b", "PNI", 0, 0.1, 0.58), ("b", "PNI", 1, 0.1, 0.58),
        ("a", "PNI", 0, 0.5, 0.90), ("a", "PNI", 1, 0.5, 0.90), ("b", "PNI", 0, 0.5, 0.70),
        ("b", "PNI, focal loss", 1, 0.1, 0.59),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["category", "row", "seed", "weight", "value"])
    table = pd.concat([table.assign(metric=metric) for metric in ablation.SHOWN])
    lines = by_category(table).splitlines()
    assert lines[2].startswith("| a | 41.00 ± 1.41 | 50.00 ± 0.00 | +9.00 ± 1.41 |")
    assert lines[3].startswith("| b | 60.00 ± 0.00 | 58.00 ± 0.00 | -2.00 ± 0.00 |")
    assert lines[4].startswith("| mean | 50.50 ± 0.71 | 54.00 ± 0.00 | +3.50 ± 0.71 |")
    lines = by_weight(table).splitlines()
    assert lines[2:] == [f"| {w} |" + f" {v} |" * 4 for w, v in (("0", "50.50"), ("0.1", "54.00"), ("0.5", "80.00"))]
    lines = against(table).splitlines()  # focal loss has the better mean, of b alone; where both are, it gains 1 point
    assert lines[2] == "| E | 4: a (2), b (2) |" + " -3.50 |" * 4
    assert lines[3] == "| PNI, focal loss | 1: b (1) |" + " +1.00 |" * 4 and len(lines) == 4


def test_unknown_row_is_refused(made: tuple[Any, Path, pd.DataFrame], tmp_path: Path) -> None:
    with pytest.raises(PNIError, match="row 'M' is unknown: choose from G: CutPaste, "):
        ablate_refinement(lambda seed: made[0], CONFIG, tmp_path, [0], ["M"])
