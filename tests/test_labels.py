"""What test images may lack - labels, a class, masks, or they themselves - against every command that scores them."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_cli import picture_size, pni, refused
from tiny_grid import OVERRIDES, few_resamples, tiny_data

from pnilib.apps.explore.prepare import prepare
from pnilib.apps.explore.run import open_exploration
from pnilib.errors import PNIError
from pnilib.store.files import write_json

SMALL = ["--profile", "scattering", "--device", "cpu", "--quiet"]
SMALL += [word for name, value in OVERRIDES.items() for word in ("--set", f"{name}={value}")]
IMAGE, PIXEL = {"i_auroc", "i_f1_max", "fp", "fn"}, {"p_auroc", "aupro_30", "p_f1_max"}
UNDEFINED = {"normals": IMAGE | PIXEL, "defects": IMAGE, "maskless": PIXEL, "unlabelled": IMAGE | PIXEL}
"""Kind of test images -> metrics without a value."""
WHY = {
    "normals": "no defective", "defects": "no normal", "maskless": "no defective pixel", "unlabelled": "no image at all"
}  # fmt: skip
LACKS = {"normals": "no defective", "defects": "no normal", "maskless": "no mask", "unlabelled": "unlabelled"}
"""The reasons, as seen by the metrics and by the labels alone."""
N_TEST = {"normals": 2, "defects": 2, "maskless": 4, "unlabelled": 4}


__all__ = ["few_resamples"]
pytestmark = pytest.mark.usefixtures("few_resamples")


def words_for(kind: str, root: Path) -> list[str]:
    """A data set of one kind below `root`, as the options that open it."""
    data = tiny_data(root, ("part",), n_train=4)
    part = data / "part"
    if kind in ("unlabelled", "no test"):
        (root / "new").mkdir()
        for i, path in enumerate(sorted(part.glob("test/*/*.png"))):
            shutil.copy(path, root / "new" / f"{i}.png")
        words = ["--dataset", "folder", "--root", str(part / "train/good")]
        return words if kind == "no test" else [*words, "--option", f"test_root={root / 'new'}"]
    for gone in {"normals": ["test/bad", "ground_truth"], "defects": ["test/good"], "maskless": ["ground_truth"]}[kind]:
        shutil.rmtree(part / gone)
    return ["--dataset", "mvtec", "--root", str(data)]


class Case:
    """A kind of test images and a model fitted beside them."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder, self.words = kind, folder, words_for(kind, folder)
        self.run = folder / "run"
        assert pni("fit", *self.words, "--out", self.run, *SMALL) == 0
        (self.category,) = (path.name for path in self.run.iterdir() if path.is_dir())

    def reproduce(self, out: Path) -> list[str]:
        """The options of `pni reproduce` for the same data."""
        _, name, _, root, *options = self.words
        return ["--data", f"{name}={root}", *options, "--seeds", "1", "--workers", "1", "--settings", "A,E",
                "--store", str(out / "store"), "--out", str(out / "out")]  # fmt: skip


@pytest.fixture(scope="module", params=list(UNDEFINED))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def no_test(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case("no test", tmp_path_factory.mktemp("no-test"))


def undefined(values: dict[str, float | None]) -> set[str]:
    return {name for name in IMAGE | PIXEL if (value := values[name]) is None or math.isnan(value)}


def test_evaluate(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert pni("evaluate", case.run, "--device", "cpu", "--quiet") == 0
    shown = capsys.readouterr().out
    assert "–" in shown.splitlines()[1] and "nan" not in shown.splitlines()[1] and WHY[case.kind] in shown
    place = case.run / case.category / "evaluation"
    saved = json.loads((place / "evaluation.json").read_text(encoding="utf-8"))
    assert undefined(saved["metrics"]) == UNDEFINED[case.kind] and any(
        WHY[case.kind] in note for note in saved["notes"]
    )
    scores = pd.read_csv(place / "scores.csv")
    assert len(scores) == N_TEST[case.kind] and scores["score"].notna().all()
    assert all(picture_size(place / name)[0] > 300 for name in ("pictures.png", "scores.png"))


def test_reproduce(case: Case, tmp_path: Path) -> None:
    assert pni("reproduce", "table-x1", *case.reproduce(tmp_path), *SMALL) == 1  # B, PNI: not asked for
    table = pd.read_csv(tmp_path / "out/tables/table-x1.csv")
    ours = table[table["method"].isin(["A", "E"]) & table["seeds"].notna()]
    found = ours.groupby("metric")["ours"].apply(lambda values: values.isna().all())
    assert set(found[found].index) == UNDEFINED[case.kind] & {"i_auroc", "p_auroc", "aupro_30", "p_f1_max"}
    text = (tmp_path / "out/tables/table-x1.md").read_text(encoding="utf-8")
    assert WHY[case.kind] in text and "undefined" in text
    (scores,) = (tmp_path / "store").rglob("E.scores.csv")
    assert len(pd.read_csv(scores)) == N_TEST[case.kind]


def test_explore(case: Case) -> None:
    prepare(case.run)
    (category,) = open_exploration(case.run).categories.values()
    scored = category.results["E"]
    assert len(category.names) == N_TEST[case.kind] and scored.maps is not None and np.isfinite(scored.maps).all()
    assert {name for name in ("i_auroc", "p_auroc") if math.isnan(scored.metric(name))} == UNDEFINED[case.kind] & {
        "i_auroc", "p_auroc",
    }  # fmt: skip


def test_no_test_image(no_test: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command says so in one line and at once; what needs no test image works."""
    assert pni("refine", no_test.run, "--device", "cpu", "--quiet") == 0
    quiet = ["--device", "cpu", "--quiet"]
    for words in (
        ["evaluate", no_test.run, *quiet],
        ["evaluate", no_test.run, *quiet, "--refined", "--json"],
        ["ablation", *no_test.words, "--out", tmp_path / "a", *SMALL],
        ["ablation", *no_test.words, "--out", tmp_path / "b", *SMALL, "--refined"],
        ["reproduce", *no_test.reproduce(tmp_path), *SMALL],
    ):
        assert "no test images" in refused(capsys, *words), words
    assert not list(tmp_path.rglob("*.csv")) and not (tmp_path / "store").exists()
    with pytest.raises(PNIError, match="no test images"):
        prepare(no_test.run)
    images = no_test.folder / "new"
    assert pni("score", no_test.run, images, "--out", tmp_path / "scored", *quiet) == 0  # the run's only category
    assert pd.read_csv(tmp_path / "scored/scores.csv")["score"].notna().sum() == 4


@pytest.mark.parametrize("what", ["mask", "image"])
def test_a_bad_file_is_found_before_scoring(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any category, by any command; nothing is scored, nothing is deleted."""
    data = tiny_data(tmp_path, ("one", "two"), n_train=4)
    words = ["--dataset", "mvtec", "--root", data]
    assert pni("fit", *words, "--out", tmp_path / "run", *SMALL) == 0
    bad = next((data / "two").glob("ground_truth/bad/*.png" if what == "mask" else "test/bad/*.png"))
    bad.write_bytes(bad.read_bytes()[:60])
    kept = tmp_path / "run/two/scored-old/unit.json"
    write_json(kept, {})
    monkeypatch.setattr("pnilib.detector.pni.PNI._predict", lambda *_, **__: pytest.fail("scored"))
    monkeypatch.setattr("pnilib.detector.pni.PNI.fit", lambda *_, **__: pytest.fail("fitted"))
    assert bad.name in refused(capsys, "evaluate", tmp_path / "run", "--device", "cpu", "--quiet")
    with pytest.raises(PNIError, match=bad.name):
        prepare(tmp_path / "run/two")
    assert kept.exists()
    store = tmp_path / "store"
    more = ["--store", store, "--out", tmp_path / "paper", "--seeds", "1", "--workers", "1", "--category", "two"]
    assert pni("reproduce", "table-3", "--data", f"mvtec={data}", *SMALL, *more) == 1
    assert bad.name in capsys.readouterr().err and not list(store.rglob("unit.json"))
