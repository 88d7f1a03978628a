"""`pni segad`: fit, score and evaluate on a tiny category, and one line for what it refuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_segad import write_published
from tiny import SCATTERING, write_category

from pnilib.apps.cli import main
from pnilib.data import Split, load_dataset
from pnilib.detector.runs import fit_or_load
from pnilib.segad.opening import OPENERS

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def pni(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """(status, standard output, standard error) of a command."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["pni", "segad", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main()
        captured = capsys.readouterr()
        return int(left.value.code or 0), captured.out, captured.err

    return run


def fitted(root: Path, out: Path, hold_out: float, **changes: object) -> Path:
    options = {"hold_out": hold_out} if hold_out else {}
    source = {"dataset": "mvtec", "root": str(root), "category": "part", "options": options}
    data = load_dataset("mvtec", root, "part", **options)
    config = SCATTERING.replace(setting="position", calibration_images=0, **changes)
    fit_or_load(data.train, config, out / "part", source=source)
    return out / "part"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUT/part of a fit that holds 4 of 12 images out; 6 good and 6 bad test images."""
    root = tmp_path_factory.mktemp("data")
    write_category(root, n_train=12, n_good=6, n_bad=6)
    return fitted(root, tmp_path_factory.mktemp("run"), 0.33)


def data_of(run: Path) -> Path:
    return Path(json.loads((run / "run.json").read_text(encoding="utf-8"))["source"]["root"])


def test_fit_and_score(pni: Run, run: Path, tmp_path: Path) -> None:
    status, out, err = pni("fit", run, "--bad-parts", 3, "-o", tmp_path / "m", "--fpr", 0.01, "--quiet")
    assert status == 0, err
    assert "4 good and 3 bad parts" in out and "cannot promise fewer than 20 %" in out
    images = data_of(run) / "part/test"
    status, out, err = pni("score", tmp_path / "m", images, "-o", tmp_path / "s", "--quiet", "--pictures", 2)
    assert status == 0, err
    table = pd.read_csv(tmp_path / "s/scores.csv")
    assert len(table) == 12 and table["score"].is_monotonic_decreasing and table["why"].notna().any()
    assert (tmp_path / "s/why.png").read_bytes().startswith(b"\x89PNG")
    first = (tmp_path / "s/scores.csv").read_bytes()
    for name in ("forest.json", "segad.json"):  # the same command, the same bytes
        before = (tmp_path / "m" / name).read_bytes()
        assert pni("fit", run, "--bad-parts", 3, "-o", tmp_path / "m", "--fpr", 0.01, "--quiet")[0] == 0
        assert (tmp_path / "m" / name).read_bytes() == before
    assert pni("score", tmp_path / "m", images, "-o", tmp_path / "s", "--quiet")[0] == 0
    assert (tmp_path / "s/scores.csv").read_bytes() == first


def test_an_image_that_cannot_be_read_has_its_reason(pni: Run, run: Path, tmp_path: Path) -> None:
    assert pni("fit", run, "--bad-parts", 3, "-o", tmp_path / "m", "--quiet")[0] == 0
    new = tmp_path / "new"
    new.mkdir()
    shutil.copy(next((data_of(run) / "part/test/bad").glob("*.png")), new / "fine.png")
    (new / "broken.png").write_bytes(b"no image")
    status, out, err = pni("score", tmp_path / "m", new, "-o", tmp_path / "s", "--quiet")
    assert status == 0 and "1 of 2 images scored" in out and "broken.png: is not an image" in out, err
    table = pd.read_csv(tmp_path / "s/scores.csv")
    assert table["score"].notna().tolist() == [True, False] and "is not an image" in table["problem"].iloc[1]
    (new / "fine.png").unlink()
    status, out, err = pni("score", tmp_path / "m", new, "-o", tmp_path / "t", "--quiet")
    assert status == 1 and "no image could be scored" in err


def test_bad_parts_of_a_folder_and_generated(pni: Run, run: Path, tmp_path: Path) -> None:
    status, out, err = pni("fit", run, "--bad", data_of(run) / "part/test/bad", "-o", tmp_path / "a", "--quiet",
                           "--segments", "clusters:2")  # fmt: skip
    assert status == 0 and "6 bad parts" in out, err
    assert pni("score", tmp_path / "a", data_of(run) / "part/test/good", "-o", tmp_path / "s", "--quiet")[0] == 0
    status, out, err = pni("fit", run, "--generate", "-o", tmp_path / "b", "--segments", "whole", "--quiet")
    assert status == 0 and "4 good and 4 bad parts, 10 statistics" in out, err


@pytest.mark.parametrize("protocol", ["visa", "one-class"])
def test_evaluate(pni: Run, run: Path, tmp_path: Path, protocol: str) -> None:
    words = ["evaluate", run, "--protocol", protocol, "--seeds", 2, "-o", tmp_path, "--maps", "A", "--quiet"]
    status, out, err = pni(*words, *(["--bad-parts", 3] if protocol == "visa" else []))
    assert status == 0, err
    assert "SegAD" in out and "Cl. AUROC" in out and "±" in out
    table = pd.read_csv(tmp_path / "seeds.csv")
    assert table["method"].tolist() == ["SegAD", "A"] * 2 and table["seed"].tolist() == [333, 333, 576, 576]
    assert (table["n_test"] == (9 if protocol == "visa" else 12)).all()
    assert (tmp_path / "summary.csv").exists()


def test_published_layout(pni: Run, tmp_path: Path) -> None:
    place = write_published(tmp_path / "maps")
    status, out, err = pni("evaluate", place, "--segments", place / "labels", "-o", tmp_path / "o", "--seeds", 2)
    assert status == 0, err
    assert "20 good parts" in out and "maps" in out


def test_detectors_together(pni: Run, run: Path, tmp_path: Path) -> None:
    """Two runs of the same images: their base maps side by side, told apart by the folder."""
    other = fitted(data_of(run), tmp_path / "sharper", 0.33, sigma=1.0)
    status, out, err = pni("evaluate", run, other, "--bad-parts", 3, "--seeds", 1, "--maps", "A", "-o", tmp_path / "o")
    assert status == 0, err
    assert f"{run.parent.name}/A" in out and "sharper/A" in out


def test_another_detector(pni: Run, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of another kind joins by its opener; without one its name is in the message."""

    class Blurred:
        config = SCATTERING

        def fingerprint(self) -> str:
            return "2" * 64

        def predict(self, split: Split) -> "Blurred":
            self.maps = np.stack([split.image(i, SCATTERING.geometry).mean(0).numpy() for i in range(len(split))])
            return self

    other = tmp_path / "blurred/part"
    shutil.copytree(run, other)
    record = json.loads((other / "run.json").read_text(encoding="utf-8")) | {"kind": "blurred"}
    (other / "run.json").write_text(json.dumps(record), encoding="utf-8")
    words = ["evaluate", run, other, "--bad-parts", 3, "--seeds", 1, "--maps", "A", "-o", tmp_path / "o", "--quiet"]
    assert "is a run of blurred" in pni(*words)[2]
    monkeypatch.setitem(OPENERS, "blurred", lambda folder, device: Blurred())
    status, out, err = pni(*words)
    assert status == 0 and "blurred/blurred" in out, err


def test_refusals(pni: Run, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    whole = fitted(data_of(run), tmp_path / "whole", 0)
    cases = [
        (["fit", run], "say what bad parts"),
        (["fit", run, "--bad-parts", 6], "at most 5"),
        (["fit", run, "--bad", tmp_path / "none"], "holds no image"),
        (["fit", run, "--bad-parts", 3, "--segments", "halves"], "no folder"),
        (["fit", run, "--bad-parts", 3, "--segments", "clusters:x"], "number of segments"),
        (["fit", run, "--bad-parts", 3, "--maps", "A,B"], "base map 'B'"),
        (["fit", run, "--bad-parts", 3, "--maps", "refined"], "no refinement network"),
        (["fit", run, "--bad-parts", 3, "--variant", "GBM"], "variant=GBM"),
        (["fit", whole, "--bad-parts", 3], "hold_out=0.1"),
        (["fit", run, whole, "--bad-parts", 3], "of another run"),
        (["fit", tmp_path, "--bad-parts", 3], "holds no fitted model"),
        (["evaluate", run, "--protocol", "mine"], "--protocol mine"),
        (["evaluate", run, "--protocol", "vad-low"], "100 bad parts"),
        (["evaluate", run, "--seeds", 11], "1 to 10"),
        (["score", tmp_path / "nothing", data_of(run)], "holds no segad.json"),
    ]
    for words, text in cases:
        status, _, err = pni(*words, "-o", out, "--quiet")
        line = err.strip().splitlines()[-1]
        assert status == 2 and line.startswith("error: ") and text in line, (words, err)


def test_score_after_another_fit(pni: Run, run: Path, tmp_path: Path) -> None:
    """The detector was fitted anew: its maps are of another run."""
    mine = fitted(data_of(run), tmp_path / "mine", 0.33)
    assert pni("fit", mine, "--bad-parts", 3, "-o", tmp_path / "m", "--quiet")[0] == 0
    meta = json.loads((tmp_path / "m/segad.json").read_text(encoding="utf-8"))
    meta["maps"][0]["identity"] = "0" * 64
    (tmp_path / "m/segad.json").write_text(json.dumps(meta), encoding="utf-8")
    status, _, err = pni("score", tmp_path / "m", data_of(run) / "part/test", "-o", tmp_path / "s", "--quiet")
    assert status == 2 and "of another run" in err


def test_help_teaches(pni: Run) -> None:
    status, out, _ = pni("--help")
    assert status == 0 and "hold_out=0.1" in out and "evaluate" in out
    assert np.all([pni(command, "--help")[0] == 0 for command in ("fit", "score", "evaluate")])
