"""What an evaluation leaves beside what earlier ones left."""

import dataclasses
import shutil
from pathlib import Path

import pytest
from tiny import SCATTERING, write_category

from pnilib.apps import report
from pnilib.apps.report import metrics_table, outdated_evaluations, outdated_tables, write_evaluation
from pnilib.data import Split
from pnilib.detector.pni import PNI
from pnilib.evaluation import evaluate


def test_evaluations_of_another_model_or_other_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_category(tmp_path, n_train=4)
    test, folder = data.test, tmp_path / "run"
    model, other = (PNI(SCATTERING.replace(seed=seed)).fit(data.train) for seed in (0, 1))
    prediction = model.predict(test)
    result = evaluate(prediction, test)
    write_evaluation(folder / "evaluation", prediction, test, result, model=model)
    assert outdated_evaluations(folder, model, test) == []
    assert outdated_evaluations(folder, model.with_config(sigma=1.0), test) == []  # what was learnt is the same
    fewer = Split(test.samples.iloc[1:])
    for now, images in ((other, test), (model, fewer)):
        (line,) = outdated_evaluations(folder, now, images)
        assert line.startswith("evaluation/ is of another model or other test images")
    shutil.copytree(folder / "evaluation", folder / "evaluation-refined")
    (folder / "evaluation-refined/evaluation.json").write_text("{}")
    (line,) = outdated_evaluations(folder, model, test)
    assert line.startswith("evaluation-refined/")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "draw_examples", killed)
    found = dataclasses.replace(result, notes=["today"])
    with pytest.raises(KeyboardInterrupt):
        write_evaluation(folder / "evaluation", prediction, test, found, model=model)
    assert not list((folder / "evaluation").glob("*.png")), "pictures of before beside numbers of today"


def test_tables_that_name_categories_of_before(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("category,i_auroc\n01,0.5\n")
    (tmp_path / "metrics-refined.csv").write_text("category,i_auroc\n01,0.5\ncable,0.6\n")
    (line,) = outdated_tables(tmp_path, ["01", "02"])
    assert "metrics-refined.csv: names cable, which" in line


def test_a_mean_without_one_of_its_values_is_none() -> None:
    row = dict.fromkeys(report.METRICS, 0.25) | {"category": "one"}
    table = metrics_table([row, row | {"category": "two", "p_auroc": float("nan"), "fp": float("nan")}])
    assert table["I-AUROC"].tolist() == ["25.00", "25.00", "25.00"] and table["P-AUROC"].tolist() == ["25.00", "–", "–"]
    assert table.filter(like="FP (").iloc[1, 0] == "– / 0"
