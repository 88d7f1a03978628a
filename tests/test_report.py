"""What an evaluation leaves beside what earlier ones left."""

import base64
import dataclasses
import io
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
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


def test_a_page_escapes_its_words_and_holds_its_pictures(tmp_path: Path) -> None:
    for name in ("pictures.png", "scores.png"):
        (tmp_path / "part" / "evaluation").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2200, 100), "teal").save(tmp_path / "part" / "evaluation" / name)
    table = pd.DataFrame({"category": ["a<b"], "I-AUROC": [float("nan")]})
    page = report.write_page(tmp_path, "A & B", table, ["part"], {"seed": "<script>"}).read_text(encoding="utf-8")
    assert "<h1>A &amp; B</h1>" in page and "a&lt;b" in page and "–" in page and "<script" not in page
    urls = re.findall(r'src="([^"]*)"', page)
    assert len(urls) == 2
    for url in urls:
        with Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/webp;base64,")))) as picture:
            assert picture.size == (1100, 50)
