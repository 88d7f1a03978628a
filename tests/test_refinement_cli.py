"""`pni refine`, and `--refined` of score and evaluate: results, resuming, one line for every mistake."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from test_cli import picture_size, pni, refused
from tiny_grid import OVERRIDES

from pnilib.data import load_dataset
from pnilib.demo import make_demo
from pnilib.detector.pni import PNI
from pnilib.evaluation import evaluate
from pnilib.refinement import training
from pnilib.store.locks import lock_folder

SMALL = OVERRIDES | {"calibration_images": 3, "pool_images": 8, "refine_iterations": 3, "refine_batch": 4}
QUIET = ["--device", "cpu", "--quiet"]
NAMES = ("cable", "tiles")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "demo"
    return make_demo(root, categories=list(NAMES), n_train=5, n_good=2, n_per_defect=1, size=64, progress=False)


@pytest.fixture(scope="module")
def fitted(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pni fit` of both categories; copy it before writing to it."""
    out = tmp_path_factory.mktemp("runs")
    changes = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    assert pni("fit", "-d", "demo", "-r", demo, "-o", out, "--profile", "scattering", *changes, *QUIET) == 0
    return out


@pytest.fixture(scope="module")
def run(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Refined too."""
    out = shutil.copytree(fitted, tmp_path_factory.mktemp("refined") / "run")
    assert pni("refine", out, *QUIET) == 0
    return out


@pytest.fixture
def fresh(fitted: Path, tmp_path: Path) -> Path:
    return shutil.copytree(fitted, tmp_path / "run")


def tensors(run: Path, name: str = "cable") -> dict[str, torch.Tensor]:
    held = PNI.load(run / name / "model").refinement
    assert held is not None
    return held.network.state_dict()


def same_network(one: Path, other: Path, name: str = "cable") -> bool:
    mine, theirs = tensors(one, name), tensors(other, name)
    return all(torch.equal(mine[key], theirs[key]) for key in mine)


def stamps(folder: Path) -> dict[str, int]:
    found = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in found}


def test_refine_says_what_it_did(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert pni("refine", run, *QUIET, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["category"] for row in rows] == list(NAMES)
    assert rows[0]["iterations"] == 3 and rows[0]["pool"]["images"] == 8 == sum(rows[0]["pool"]["kinds"].values())
    assert rows[0]["parameters"] == sum(v.numel() for k, v in tensors(run).items() if not is_buffer(k))
    assert pni("refine", run / "tiles", *QUIET) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("tiles: refinement network of 0.0") and "3 iterations on 8 synthetic images" in shown


def is_buffer(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def test_again_does_nothing_new(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: stamp for path, stamp in stamps(run / "refinement").items()}
    network = tensors(run)
    monkeypatch.setattr(training, "refinement_loss", None)  # training would fail
    assert pni("refine", run, *QUIET) == 0
    assert stamps(run / "refinement") == before
    assert all(torch.equal(network[name], value) for name, value in tensors(run).items())


def test_each_category_has_its_own_network(run: Path) -> None:
    assert not torch.equal(tensors(run)["head.weight"], tensors(run, "tiles")["head.weight"])
    assert not list((run / "refinement").rglob("network-*")), "the models hold the networks now"


def test_evaluate_refined(run: Path, demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "cable" / "evaluation").mkdir()  # of the plain maps, earlier
    words = ("evaluate", run / "cable", "--refined", *QUIET, "--json")
    capsys.readouterr()
    assert pni(*words) == 0
    row = json.loads(capsys.readouterr().out)[0]
    place = run / "cable" / "evaluation-refined"
    assert row["i_auroc"] == json.loads((place / "evaluation.json").read_text())["metrics"]["i_auroc"]
    assert not list((run / "cable" / "evaluation").iterdir())  # beside it, not over it
    model, test = PNI.load(run / "cable" / "model"), load_dataset("demo", demo, "cable").test
    expected = model.predict(test, refined=True)
    assert pd.read_csv(place / "scores.csv").score.to_numpy() == pytest.approx(expected.image_scores, rel=1e-6)
    assert row["normal_threshold"] == pytest.approx(expected.threshold) and picture_size(place / "scores.png")[0] > 9

    assert pni(*words, "--set", "refine_weight=0") == 0
    zero, plain = json.loads(capsys.readouterr().out)[0], evaluate(model.predict(test), test).metrics
    for metric in ("i_auroc", "p_auroc", "aupro_30", "p_f1_max", "normal_fp", "normal_fn"):
        assert zero[metric] == pytest.approx(plain[metric], abs=1e-3), metric
    line = refused(capsys, *words, "--set", "combine=product")
    assert "no refinement network of these settings: train one with `pni refine`" in line


def test_score_refined_beside_plain(run: Path, demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = demo / "cable" / "test"
    plain, refined = tmp_path / "plain", tmp_path / "refined"
    assert pni("score", run / "cable", images, "--out", plain, *QUIET) == 0
    assert pni("score", run / "cable", images, "--out", refined, "--refined", *QUIET) == 0
    one, two = (pd.read_csv(place / "scores.csv") for place in (plain, refined))
    assert one.image.tolist() == two.image.tolist() and not np.allclose(one.score, two.score)
    model, test = PNI.load(run / "cable" / "model"), load_dataset("demo", demo, "cable").test
    found = model.predict(test, refined=True)
    names = [Path(path).relative_to(images).as_posix() for path in found.image_paths]
    expected = dict(zip(names, found.image_scores, strict=True))
    assert two.score.tolist() == pytest.approx([expected[name] for name in two.image], rel=1e-6)
    assert two.defective.tolist() == [bool(expected[name] >= found.threshold) for name in two.image]
    assert len(list((refined / "heatmaps").rglob("*.png"))) == len(two)


def test_a_killed_score_does_not_mix_refined_and_plain(
    run: Path, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pnilib.apps import batch as scored

    whole, calls = scored.read_image, []

    def killed(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(*args)

    images = demo / "cable" / "test" / "good"
    words = ("score", run / "cable", demo / "cable" / "test", "--out", tmp_path, *QUIET)
    monkeypatch.setattr(scored, "read_image", killed)
    assert pni(*words) == 130
    assert pni(*words, "--refined") == 0
    total = len(pd.read_csv(tmp_path / "scores.csv"))
    assert len(calls) == 3 + total and images.is_dir()  # the plain rows were not used


def test_only_the_fusion_changes(fresh: Path, run: Path, demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(fresh)
    shutil.copytree(run, fresh)
    before = stamps(fresh / "refinement")
    monkeypatch.setattr(training, "refinement_loss", None)
    assert pni("refine", fresh, *QUIET, "--set", "refine_weight=0.4", "-c", "cable") == 0
    model = PNI.load(fresh / "cable" / "model")
    assert model.config.refine_weight == 0.4 and model.refined_calibration is not None
    assert model.calibration is not None and same_network(fresh, run) and stamps(fresh / "refinement") == before
    assert PNI.load(fresh / "tiles" / "model").config.refine_weight == 0.1
    old = PNI.load(run / "cable" / "model").refined_calibration
    assert old is not None and not np.allclose(old.image_scores, model.refined_calibration.image_scores)


def test_one_network_for_all(fresh: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pni("refine", fresh, *QUIET, "--set", "refine_scope=all") == 0
    one, two = tensors(fresh), tensors(fresh, "tiles")
    assert all(torch.equal(one[name], two[name]) for name in one) and not same_network(fresh, run)
    assert not list((fresh / "refinement").rglob("network-*"))
    assert len(list((fresh / "refinement").glob("*/pool-*"))) == 2
    assert PNI.load(fresh / "tiles" / "model").config.refine_scope == "all"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["patch=5"], "patch: belongs to the fit: `pni refine` sets what `pni config` lists under"),
        (["sigma=5"], "sigma: belongs to the fit"),
        (["refine_wieght=0.2"], "did you mean refine_weight"),
        (["refine_loss=l1"], "l2 | mse | ce | focal"),
        (["defects=cutpast"], "there is no generator 'cutpast'"),
        (["defect_textures={tmp}"], "holds no image"),
        (["defect_patches={tmp}"], "holds no image"),
        (["refine_blocks=many"], "four dense blocks, as 6,12,36,24"),
        (["refine_weights=imagenet"], "only DenseNet-161 has weights"),
        (["refine_batch=1"], "refine_batch=1: batch normalization needs larger batches"),
    ],
)
def test_mistakes_get_one_line(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: list[str], expected: str
) -> None:
    (tmp_path / "empty").mkdir()
    place = shutil.copytree(fitted, tmp_path / "run")
    words = [word for change in changes for word in ("--set", change.format(tmp=tmp_path / "empty"))]
    assert expected in refused(capsys, "refine", place, *QUIET, *words)
    assert PNI.load(place / "cable" / "model").refinement is None
    assert stamps(place / "cable") == stamps(fitted / "cable")


def test_what_is_missing_is_said(fitted: Path, demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = "train one with `pni refine`"
    assert train in refused(capsys, "evaluate", fitted, "--refined", *QUIET)
    images = demo / "cable" / "test"
    assert train in refused(capsys, "score", fitted / "cable", images, "-o", tmp_path / "out", "--refined", *QUIET)
    assert not (tmp_path / "out" / "scores.csv").exists()
    assert "holds no fitted model" in refused(capsys, "refine", tmp_path, *QUIET)
    assert "no category 'gear'" in refused(capsys, "refine", fitted, "-c", "gear", *QUIET)
    assert "say where it is with --root" in refused(capsys, "refine", fitted, "-r", tmp_path / "gone", *QUIET)


def test_a_nan_says_its_iteration(
    fresh: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = training.refinement_loss, []

    def nan(*args: Any) -> Any:
        calls.append(1)
        return whole(*args) * (float("nan") if len(calls) == 2 else 1)

    with monkeypatch.context() as patch:
        patch.setattr(training, "refinement_loss", nan)
        line = refused(capsys, "refine", fresh, "-c", "cable", *QUIET)
    assert "the refinement's loss is not finite at iteration 2: lower refine_lr" in line
    assert PNI.load(fresh / "cable" / "model").refinement is None
    pools = stamps(fresh / "refinement")
    assert pni("refine", fresh, "-c", "cable", *QUIET, "--set", "refine_lr=1e-4") == 0
    assert pools.items() <= stamps(fresh / "refinement").items()
    assert PNI.load(fresh / "cable" / "model").config.refine_lr == 1e-4


def test_two_runs_at_once(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with lock_folder(fresh / "cable"):
        assert "another run is writing there" in refused(capsys, "refine", fresh, *QUIET)
