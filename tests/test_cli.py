"""The command line: every command on small data, and one clear line for every mistake."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny_grid import OVERRIDES

from pnilib.apps import cli
from pnilib.apps import estimate as estimates
from pnilib.config import PNIConfig
from pnilib.data import check_dataset, load_dataset
from pnilib.demo import make_demo
from pnilib.detector.pni import PNI
from pnilib.detector.runs import fit_or_load
from pnilib.store.locks import lock_folder

SMOKE = ["--profile", "scattering", "--device", "cpu", "--quiet"]
SMOKE += [word for name, value in OVERRIDES.items() if name != "combine" for word in ("--set", f"{name}={value}")]


def pni(*words: object) -> int:
    """Run the command in this process; its exit status."""
    before, sys.argv = sys.argv, ["pni", *map(str, words)]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)  # type: ignore[call-overload]
    finally:
        sys.argv = before
    return 0


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line that a mistake is answered with, after checking that it is one."""
    capsys.readouterr()
    assert pni(*words) == 2
    shown = capsys.readouterr().err
    lines = [line for line in shown.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in shown, shown
    return lines[0]


def picture_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "demo"
    make_demo(root, categories=["cable"], n_train=6, n_good=3, n_per_defect=1, size=96, progress=False)
    for name in ("a.jp2", "b.jp2", "._000.png"):  # what nobody reads, and every command says so
        (root / "cable/train/good" / name).touch()
    return root


NOT_READ = "not read: 2 .jp2, 1 hidden"


@pytest.fixture(scope="module")
def run(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    assert pni("fit", "--dataset", "demo", "--root", demo, "--out", out, *SMOKE) == 0
    return out


def test_fit_again_loads_and_another_configuration_is_refused(
    demo: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "cable" / "model" / "manifest.json").stat().st_mtime_ns
    assert pni("fit", "--dataset", "demo", "--root", demo, "--out", run, *SMOKE) == 0
    line = refused(capsys, "fit", "--dataset", "demo", "--root", demo, "--out", run, *SMOKE, "--set", "sigma=5")
    assert "sigma=3.0 (now 5.0)" in line and "another output folder" in line
    assert (run / "cable" / "model" / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "-d", "folder", "-r", "{data}/cable", "-o", "{data}", "--option", "normal=train/good"],
        ["fit", "-d", "demo", "-r", "{data}", "-o", "{data}"],
        ["fit", "-d", "folder", "-r", "{data}/cable/train/good", "-o", "{out}", "--option", "test_root={out}/good"],
        ["ablation", "-d", "demo", "-r", "{data}", "-o", "{data}"],
        ["ablation", "-d", "demo", "-r", "{data}", "-o", "{data}/.."],
        ["reproduce", "table-1", "--data", "mvtec={data}", "--out", "{data}/cable", "--store", "{out}"],
        ["reproduce", "table-1", "--data", "mvtec={data}", "--out", "{out}", "--store", "{data}"],
        ["score", "{run}/cable", "{data}/cable/test/good", "-o", "{data}/cable/test/good"],
        ["score", "{run}/cable", "{data}/cable/test", "-o", "{data}"],
    ],
)
def test_results_are_not_written_around_images(
    words: list[str], demo: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (demo / "cable/test/good").iterdir():
        (tmp_path / "good").mkdir(exist_ok=True)
        os.link(path, tmp_path / "good" / path.name)
    before = sorted(demo.rglob("*"))
    profile = [] if words[0] == "score" else ["--profile", "smoke"]
    places = {"data": demo, "run": run, "out": tmp_path}
    line = refused(capsys, *[word.format(**places) for word in words], *profile, "--device", "cpu", "--quiet")
    assert "holds the images" in line
    assert sorted(demo.rglob("*")) == before and sorted(p.name for p in tmp_path.iterdir()) == ["good"]


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "-d", "demo", "-r", "{data}", "-o", "{run}", *SMOKE],
        ["score", "{run}/cable", "{data}/cable/train/good", "-o", "{out}", "--device", "cpu", "--quiet"],
        ["evaluate", "{run}", "--device", "cpu", "--quiet"],
        ["data", "check", "-d", "demo", "-r", "{data}"],
        ["data", "check", "-d", "folder", "-r", "{data}/cable/train"],
    ],
)
def test_every_command_says_what_it_did_not_read(
    words: list[str], demo: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = pni(*[word.format(data=demo, run=run, out=tmp_path) for word in words])
    shown = capsys.readouterr()
    assert NOT_READ in shown.out + shown.err and status == (words[0] == "data")  # the check counts two findings


def test_options_of_the_layout_are_kept_with_the_run(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that evaluate takes the same images as normal, from whatever folder it is called."""
    for kind in ("good", "good_2", "cut"):
        (tmp_path / "new" / kind).mkdir(parents=True)
        os.link(
            demo / "cable/test" / ("cut" if kind == "cut" else "good") / "000.png", tmp_path / "new" / kind / "0.png"
        )
    words = [
        "fit",
        "-d",
        "folder",
        "-r",
        demo / "cable/train/good",
        "-o",
        tmp_path / "out",
        *SMOKE,
        "--option",
        "test_root=new",
    ]
    monkeypatch.chdir(tmp_path)
    assert "--option normal=good,good_2" in refused(capsys, *words)
    assert pni(*words, "--option", "normal=good,good_2") == 0
    assert "2 normal (good, good_2) and 1 defective" in capsys.readouterr().err
    monkeypatch.chdir(demo)
    assert pni("evaluate", tmp_path / "out", "--device", "cpu", "--quiet") == 0
    assert "defects: cut (1)" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "out/good/evaluation/scores.csv").label.sum() == 1


def test_evaluate_writes_tables_and_pictures(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert pni("evaluate", run, "--device", "cpu", "--quiet", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    folder = run / "cable" / "evaluation"
    saved = json.loads((folder / "evaluation.json").read_text())
    assert shown[0]["i_auroc"] == saved["metrics"]["i_auroc"]
    scores = pd.read_csv(folder / "scores.csv")
    assert len(scores) == saved["n_normal"] + saved["n_defective"]
    normal, defective = scores[scores.label == 0].score, scores[scores.label == 1].score
    by_hand = np.mean([(d > n) + 0.5 * (d == n) for d in defective for n in normal])
    assert saved["metrics"]["i_auroc"] == pytest.approx(by_hand)
    for name in ("pictures.png", "scores.png"):
        assert picture_size(folder / name)[0] > 300
    before = (folder / "scores.csv").read_bytes()
    assert pni("evaluate", run / "cable", "--device", "cpu", "--quiet", "--set", "combine=product") == 0
    shown = capsys.readouterr().out
    assert "I-AUROC" in shown and "with combine=product: kept in evaluation-combine=product/" in shown
    assert (folder / "scores.csv").read_bytes() == before
    assert (folder.with_name("evaluation-combine=product") / "scores.csv").exists()


def test_what_masks_mean_goes_with_the_run(
    demo: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Inverted masks, and one of no image, are told by fit and evaluate; fit notes the option, evaluate goes by it."""
    root, out = shutil.copytree(demo, tmp_path / "demo"), shutil.copytree(run, tmp_path / "run")
    masks = sorted(root.glob("cable/ground_truth/*/*.png"))
    for path in masks:
        Image.fromarray(255 - np.array(Image.open(path).convert("L"))).save(path)
    shutil.copy(masks[0], masks[0].with_name("999_mask.png"))

    def evaluated() -> dict[str, object]:
        capsys.readouterr()
        assert pni("evaluate", out, "--device", "cpu", "--quiet", "--json") == 0
        return json.loads(capsys.readouterr().out)[0]

    expected, fit = evaluated(), ["fit", "--dataset", "demo", "--root", root, "--out", out, *SMOKE]
    assert pni(*fit) == 0
    told, found = capsys.readouterr().err, evaluated()
    assert f"{len(masks)} of {len(masks)} masks mark over half" in told and "--option masks=inverted" in told
    assert "1 file belongs to no image" in told and "999_mask.png" in told
    orphans, large = (next(note for note in found["notes"] if word in note) for word in ("999_mask.png", "over half"))
    assert "no image" in orphans and "inverted" in large
    assert found["p_auroc"] != expected["p_auroc"]
    assert pni(*fit, "--option", "masks=inverted") == 0
    again = evaluated()
    assert again["p_auroc"] == expected["p_auroc"] and not any("over half" in note for note in again["notes"])


def test_ensemble_of_two_runs(demo: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Plain, and with a change that every member must make."""
    other, plain = tmp_path / "other", run / "metrics.csv"
    assert pni("fit", "-d", "demo", "-r", demo, "-o", other, *SMOKE, "--set", "dim=16") == 0
    assert pni("evaluate", run, "--device", "cpu", "--quiet") == 0
    before, data = plain.read_bytes(), load_dataset("demo", demo)
    for change in ({}, {"combine": "product"}):
        sets = [word for name, value in change.items() for word in ("--set", f"{name}={value}")]
        assert pni("evaluate", run, "--with", other, *sets, "--device", "cpu", "--quiet") == 0
        shown = capsys.readouterr()
        assert "ensemble of 2 models, scaled by minmax_train" in shown.err
        assert "an ensemble has none of its own" in shown.out
        changed = "".join(f"-{name}={value}" for name, value in change.items())
        both = pd.read_csv(run / "cable" / f"evaluation-ensemble{changed}" / "scores.csv").score
        scaled = []
        for folder in (run, other):
            model = PNI.load(folder / "cable" / "model").with_config(**change)
            found = model.calibrate(data.train)
            scaled.append((model.predict(data.test).maps - found.low) / (found.high - found.low))
        by_hand = np.mean(scaled, axis=0).reshape(len(data.test), -1).max(1)
        assert both.to_numpy() == pytest.approx(by_hand, rel=1e-5)
    assert plain.read_bytes() == before and (run / "metrics-ensemble.csv").exists()


def test_what_is_no_ensemble_is_refused_before_anything_is_scored(
    demo: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = dict(categories=["cable"], n_train=6, n_good=3, n_per_defect=1, size=96, progress=False)
    changed = make_demo(tmp_path / "changed", **size, seed=1)  # type: ignore[arg-type]
    for name, root in (("ungated", demo), ("elsewhere", changed)):
        config = PNIConfig.profile("scattering").replace(**OVERRIDES | {"setting": "A", "combine": "prob"})
        fit_or_load(load_dataset("demo", root, "cable").train, config, tmp_path / name / "cable")
    monkeypatch.setattr(PNI, "_predict", lambda *_, **__: pytest.fail("scored before it was refused"))
    for other, change, expected in (
        (tmp_path / "ungated", "sigma=4", "ungated/cable has setting=A, "),
        (tmp_path / "ungated", "image_score=raw_max", "image_score=raw_max is of the patches"),
        (tmp_path / "ungated", "baseline=patchcore", "baseline counts for setting=A only"),
        (tmp_path / "elsewhere", "sigma=4", "was fitted on other training images"),
        (run / "cable", "sigma=4", "name each once"),
    ):
        words = ("evaluate", run, "--with", other, "--device", "cpu", "--quiet", "--set", change)
        assert expected in refused(capsys, *words)


def test_evaluate_refuses_what_was_fitted(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "fit again" in refused(capsys, "evaluate", run, "--device", "cpu", "--set", "patch=5")
    assert "no category 'gear'" in refused(capsys, "evaluate", run, "--category", "gear")


def test_moved_and_changed_data(demo: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = make_demo(
        tmp_path / "other", categories=["cable"], n_train=6, n_good=3, n_per_defect=1, size=96, seed=1, progress=False
    )
    assert "fit again" in refused(capsys, "evaluate", run, "--root", other, "--quiet")
    assert "--root" in refused(capsys, "evaluate", run, "--root", tmp_path / "gone", "--quiet")


def test_score_new_images_and_resume(
    demo: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tmp_path / "neue Bilder ü"
    images.mkdir()
    for i, path in enumerate(sorted((demo / "cable" / "test").rglob("*.png"))[:3]):
        (images / f"{i}.png").write_bytes(path.read_bytes())
    (images / "text.png").write_text("not a picture")
    words = ("score", run / "cable", images, "--out", tmp_path / "out", "--device", "cpu", "--quiet")

    from pnilib.apps import batch as scored

    whole, calls = scored.read_image, []

    def killed_at_the_third(path: Path, *args: object) -> object:
        calls.append(path.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(path, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(scored, "read_image", killed_at_the_third)
    assert pni(*words) == 130
    assert "resumes" in capsys.readouterr().err
    assert pni(*words) == 0
    assert calls == ["0.png", "1.png", "2.png", "2.png", "text.png"]  # nothing done twice
    table = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert table.image.tolist() == ["0.png", "1.png", "2.png", "text.png"]
    assert table.score.notna().tolist() == [True, True, True, False]
    assert "text.png" in table.problem.iloc[3]
    assert picture_size(tmp_path / "out" / "heatmaps" / "0.png.png") == (64, 64)


def test_ablation_is_a_view_of_reproduce(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("ablation", "--dataset", "demo", "--root", demo, "--out", tmp_path, *SMOKE, "--seeds", 1, "--workers", 1)
    assert pni(*words) == 0
    table = (tmp_path / "tables" / "table-x3.md").read_text()
    shown = capsys.readouterr()
    assert table in shown.out and NOT_READ in shown.err
    for row in (
        "A: neither",
        "B: neighborhood gate",
        "E: eq. (6)",
        "E: product (ours)",
        "soft veto of the place (ours)",
    ):
        assert row in table
    stamps = {file: file.stat().st_mtime_ns for file in (tmp_path / "units").rglob("unit.json")}
    assert pni(*words) == 0 and len(stamps) == 3  # features, the detector, the soft veto's own fit
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "units").rglob("unit.json")} == stamps


def test_config_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert pni("config", "--profile", "released") == 0
    assert "released = sparse_projection,start_dropped,emb_bins,centre_leak" in capsys.readouterr().out
    for words in (["--help"], ["data", "--help"], ["fit", "-h"]):
        assert pni(*words) == 0
    assert "--set" in capsys.readouterr().out


def test_estimate_says_what_is_free_and_refuses_what_does_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = estimates.estimate
    monkeypatch.setattr(
        estimates, "estimate", lambda config, n_train, n_test, speeds=None: whole(config, n_train, n_test)
    )
    words = ["estimate", "--profile", "smoke", "--device", "cpu", "--out", tmp_path / "runs"]
    assert pni(*words, "--n-train", 10) == 0
    assert re.search(rf"disk: \S+ \S+ needed, \S+ \S+ free in {tmp_path / 'runs'}$", capsys.readouterr().out, re.M)
    assert pni(*words, "--n-train", 10, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["free"]["disk"] > shown["total"]["disk"] > 0 and shown["free"]["folder"] == str(tmp_path / "runs")
    assert "disk: " in refused(capsys, *words, "--n-train", 10**9)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--dataset", "mvtek", "--root", "{data}"], "choose one of mvtec"),
        (["--dataset", "mvtec", "--root", "{data}/none"], "is not a folder"),
        (["--dataset", "mvtec", "--root", "{data}", "--category", "cabel"], "choose one of cable"),
        (["--dataset", "mvtec", "--root", "{data}", "--profile", "papre"], "profile 'papre' is unknown"),
        (["--dataset", "mvtec", "--root", "{data}", "--set", "sigm=4"], "did you mean sigma"),
        (["--dataset", "mvtec", "--root", "{data}", "--set", "sigma"], "is not NAME=VALUE"),
        (["--dataset", "mvtec", "--root", "{data}", "--set", "sigma=-1"], "0 ... 200"),
        (["--dataset", "mvtec", "--root", "{data}", "--set", "nb_pad=out"], "zero | replicate"),
        (["--dataset", "mvtec", "--root", "{data}", "--set", "released=density,out"], "released=out: there is no such"),
        (["--dataset", "mvtec", "--root", "{data}", "--option", "split=tile"], "has no option 'split'"),
        (["--dataset", "mvtec", "--root", "{data}", "--device", "cuda:7"], "device cuda:7"),
        (["--root", "{data}"], "Missing option '--dataset'"),
    ],
)
def test_mistakes_get_one_line(
    words: list[str], expected: str, demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "fit", "--out", tmp_path / "out", *[word.format(data=demo) for word in words])
    assert expected in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["metrics.csv", "Refinement"])
def test_a_category_with_a_name_that_the_run_needs(
    name: str, demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for category in ("a", name):
        (tmp_path / "data").mkdir(exist_ok=True)
        os.symlink(demo / "cable", tmp_path / "data" / category)
    line = refused(capsys, "fit", "-d", "mvtec", "-r", tmp_path / "data", "-o", tmp_path / "out", *SMOKE)
    assert name in line and "rename its folder" in line and not (tmp_path / "out").exists()


def test_weights_that_cannot_be_had(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "weights.pth"
    bad.write_bytes(b"junk")
    line = refused(
        capsys, "fit", "-d", "demo", "-r", demo, "-o", tmp_path / "out", *SMOKE,
        "--set", "backbone=resnet18", "--set", f"weights={bad}", "--set", "feature_norm=none",
    )  # fmt: skip
    assert str(bad) in line
    assert not (tmp_path / "out" / "cable" / "model").exists()


def test_output_that_cannot_be_written(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    line = refused(capsys, "fit", "-d", "demo", "-r", demo, "-o", tmp_path / "file", *SMOKE)
    assert "file" in line and (tmp_path / "file").read_text() == "mine"


def test_two_runs_into_one_folder(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with lock_folder(tmp_path / "out" / "cable"):
        line = refused(capsys, "fit", "-d", "demo", "-r", demo, "-o", tmp_path / "out", *SMOKE)
    assert "another run is writing there" in line


def test_damaged_training_image(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "data"
    for path in (demo / "cable").rglob("*.png"):
        target = root / "Kategorie ß 1" / path.relative_to(demo / "cable")
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target)
    victim = root / "Kategorie ß 1" / "train" / "good" / "002.png"
    content = victim.read_bytes()
    victim.unlink()
    victim.write_bytes(content[: len(content) // 2])
    line = refused(capsys, "fit", "-d", "mvtec", "-r", root, "-o", tmp_path / "out", *SMOKE)
    assert "002.png" in line
    findings = check_dataset(load_dataset("mvtec", root), progress=False)
    assert any("002.png" in finding.path for finding in findings)
    capsys.readouterr()
    assert pni("data", "check", "-d", "mvtec", "-r", root) == 1
    assert "002.png" in capsys.readouterr().out


def test_not_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no fitted model" in refused(capsys, "score", tmp_path, tmp_path, "-o", tmp_path / "out")
    assert "holds no fitted model" in refused(capsys, "evaluate", tmp_path)


def test_notebooks_refuses_unknown_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = Path(__file__).parents[1] / "notebooks"
    line = refused(capsys, "notebooks", "--folder", here, "-o", tmp_path, "-P", "profil=smoke")
    assert "profil" in line and "profile" in line
    assert "no such notebook" in refused(capsys, "notebooks", "99", "--folder", here, "-o", tmp_path)
    assert "holds no notebooks" in refused(capsys, "notebooks", "--folder", tmp_path, "-o", tmp_path / "out")
