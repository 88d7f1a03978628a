"""Runs of every kind open: whatever labels and masks there are, images of `pni score`, two runs, changed files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from explorer_screen import no_pictures, numbers, panels, show, taken
from PIL import Image
from test_cli import pni, refused
from test_explore_cli import HERE, data_of, few_replicates, fit, made, served
from tiny import SCATTERING, write_category
from tiny_run import tiny_store, write_unit

from pnilib.apps.explore import category as category_module
from pnilib.apps.explore import open_exploration, prepare
from pnilib.apps.explore.maps import features_of, normal_level
from pnilib.apps.explore.pictures import thumbnail
from pnilib.apps.explore.widgets import Explorer, explore
from pnilib.apps.explore.words import sentence
from pnilib.data import load_dataset
from pnilib.detector.explain import cell_at
from pnilib.detector.pni import PNI
from pnilib.detector.runs import fit_or_load
from pnilib.errors import PNIError

__all__ = ["few_replicates", "fit", "made", "no_pictures", "served", "tiny_store"]
pytestmark = pytest.mark.usefixtures("no_pictures")

QUIET = ["--device", "cpu", "--quiet"]
WHERE = 30, 40
"""the pixel that is asked about."""


def look_at_everything(screen: Explorer, key: str) -> None:
    """Every tab, image and pixel, and what is taken away, without a complaint."""
    assert screen.state.message.value == ""
    for i in range(2):
        screen.show(key, i)
        screen.image.ask(*WHERE)
        assert "this patch scores" in screen.image.answer.words and screen.state.message.value == ""
    screen.tabs.selected_index = 2
    for k in range(3):
        screen.tabs.selected_index = k
        screen.export.click()
        assert taken(screen)[0] == "view.png" and screen.state.message.value == ""
    screen.samples.export.click()
    assert taken(screen)[0] == "selection.html" and screen.state.message.value == ""


# -- labels and masks ------------------------------------------------------------------------------


def normals_only(data: Path) -> None:
    shutil.rmtree(data / "part/test/bad")


def defects_only(data: Path) -> None:
    shutil.rmtree(data / "part/test/good")


def no_masks(data: Path) -> None:
    shutil.rmtree(data / "part/ground_truth")


def unlabelled(data: Path) -> None:
    shutil.move(data / "part/test", data / "new")
    for k, folder in enumerate(sorted((data / "new").iterdir())):
        folder.rename(folder.with_name(f"camera {k}"))


@pytest.mark.parametrize(
    ("change", "labels", "undefined"),
    [
        (normals_only, [0, 0], {"F1", "FNR"}), (defects_only, [1, 1], {"FPR"}), (no_masks, [0, 0, 1, 1], set()),
        (unlabelled, [-1] * 4, {"F1", "FPR", "FNR"}),
    ],
)  # fmt: skip
def test_runs_of_any_labels_open(
    tmp_path: Path, change: Callable[[Path], None], labels: list[int], undefined: set[str], served: list[Any]
) -> None:
    data = tmp_path / "data"
    write_category(data, n_train=6)
    change(data)
    source: dict[str, Any] = dict(dataset="mvtec", root=str(data), category="part", options={})
    if change is unlabelled:
        root = data / "part/train/good"
        source = dict(dataset="folder", root=str(root), category="good", options={"test_root": str(data / "new")})
    loaded = load_dataset(source["dataset"], source["root"], source["category"], **source["options"])
    fit_or_load(loaded.train, SCATTERING, tmp_path / "fit/part", source=source)
    assert pni("explore", tmp_path / "fit", *HERE) == 0 and len(served) == 1
    screen = explore(tmp_path / "fit")
    (category,) = screen.state.opened.categories.values()
    assert sorted(category.labels.tolist()) == labels and len(screen.samples.sheet.cards) == len(labels)
    assert {name for name, rate in numbers(screen).items() if rate == "undefined"} == undefined
    look_at_everything(screen, category.key)
    screen.show(category.key, 0)
    assert ("image; its true defect is not known" in panels(screen)) == (change in (no_masks, unlabelled))


# -- images of `pni score` -------------------------------------------------------------------------


@pytest.fixture
def scored(fit: Path, tmp_path: Path) -> Path:
    """Of six images in two folders, one of them damaged; they lie in tmp_path/new."""
    for k, path in enumerate(sorted((fit.parent / "data/part/test").rglob("*.png"))):
        target = tmp_path / "new" / f"camera {k % 2}" / f"{k // 2}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (tmp_path / "new/broken.png").write_bytes(b"no image")
    shutil.copy(path, tmp_path / "new/last.png")
    assert pni("score", fit / "part", tmp_path / "new", "-o", tmp_path / "scored", *QUIET) == 0
    return tmp_path / "scored"


def test_what_pni_score_wrote_opens(scored: Path, fit: Path, served: list[Any]) -> None:
    assert pni("explore", scored, *HERE) == 0 and len(served) == 1
    screen = explore(scored)
    (category,) = screen.state.opened.categories.values()
    table = pd.read_csv(scored / "scores.csv").dropna(subset=["score"])
    assert category.names == table["image"].tolist() and len(table) == 5
    assert category.results["E"].table["score"].tolist() == pytest.approx(table["score"].tolist())
    assert category.labels.tolist() == [-1] * 5 and screen.state.notes.file == scored / "notes.csv"
    called = int(table["defective"].astype(bool).sum())  # the model's own threshold
    assert f"5 of unknown label, not counted, {called} of them called defective" in screen.samples.plot.words
    look_at_everything(screen, category.key)
    shutil.rmtree(fit.parent / "data")  # explained without pictures of training
    again = explore(scored)
    again.show(category.key, 0)
    again.image.ask(*WHERE)
    assert "this patch scores" in again.image.answer.words and again.image.answer.view is not None
    crops = again.image.answer.view.figure.axes[-1]
    assert {text.get_text() for text in crops.texts} == {"image cannot\nbe read"} and len(crops.images) == 1


def test_scored_images_that_moved_or_changed(
    scored: Path, fit: Path, tmp_path: Path, served: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    moved = (tmp_path / "new").rename(tmp_path / "moved")
    assert f"{tmp_path / 'new'}: the images of {scored} are not there" in refused(capsys, "explore", scored, *HERE)
    assert pni("explore", scored, "--data", moved, *HERE) == 0
    assert open_exploration(scored, data=moved).category("part").image(0).shape == (3, 64, 64)
    one = moved / "camera 0/0.png"
    kept = one.read_bytes()
    Image.open(one).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(one)
    assert "others than were scored: run `pni score` again" in refused(
        capsys, "explore", scored, "--data", moved, *HERE
    )
    one.unlink()
    line = refused(capsys, "explore", scored, "--data", moved, *HERE)
    assert f"{moved}: has 4 of the 5 images of {scored}: run `pni score` again" in line
    one.write_bytes(kept)
    assert pni("explore", scored, "--data", moved, *HERE) == 0
    shutil.rmtree(fit / "part")
    assert "part/model" in refused(capsys, "explore", scored, "--data", moved, *HERE)
    for name in ("score.json", "scores.csv"):
        (scored / name).write_text("{")
        assert "is missing or damaged: run `pni score` again" in refused(capsys, "explore", scored, *HERE)
    assert len(served) == 2


# -- two runs --------------------------------------------------------------------------------------


@pytest.fixture
def second(fit: Path, tmp_path: Path) -> Path:
    """A fit of another size on other training images, with the same test images."""
    data = write_category(tmp_path / "other/data", n_train=6, seed=1)
    shutil.rmtree(data.root / "part/test")
    shutil.copytree(fit.parent / "data/part/test", data.root / "part/test")
    config = SCATTERING.replace(image_resize=48, image_crop=48, combine="score", seed=3)
    source = dict(dataset="mvtec", root=str(data.root), category="part", options={})
    fit_or_load(load_dataset("mvtec", data.root, "part").train, config, tmp_path / "two/part", source=source)
    return tmp_path / "two"


def test_each_of_two_runs_is_explained_by_its_own_model(
    fit: Path, second: Path, tmp_path: Path, served: list[Any]
) -> None:
    assert pni("explore", fit, "--compare", second, *HERE) == 0 and len(served) == 1  # both are prepared
    screen = explore(fit, other=second)
    key, i, answers = "mvtec/part", 2, {}
    for mark, run, size in (("", fit, 64), (" of two", second, 48)):
        label = f"E{mark}"
        screen.result.value = label
        screen.show(key, i)
        assert screen.image.setting.options == tuple(f"{name}{mark}" for name in ("E", "A", "B", "position"))
        assert all(ax.images[0].get_array().shape[:2] == (size, size) for ax in panels(screen).values())
        own = open_exploration(run).category("part")
        model = PNI.load(run / "part/model")
        features = features_of(model, own, i)
        for name in ("E", "B"):
            screen.image.setting.value = f"{name}{mark}"
            screen.image.ask(*WHERE)
            result = own.results[name]
            cell = cell_at(*WHERE, size, (features.shape[0], features.shape[1]))
            found = model.explain_cell(features, cell, result.config)
            maps, limit = result.maps, screen.state.threshold(f"{name}{mark}", key)
            assert maps is not None
            said = sentence(found, float(maps[i][WHERE]), limit, normal_level(own, name))
            assert f"\n{said}\n" in screen.image.answer.words and screen.image.answer.view is not None
            crops = screen.image.answer.view.figure.axes[-1].images[1:]
            answers[name, mark] = {crop.get_array().tobytes() for crop in crops}
        assert own.train.root in (fit.parent / "data", tmp_path / "other/data")
    assert (
        not answers["E", ""] & answers["E", " of two"] and answers["E", ""]
    )  # crops of each one's own training images


def test_the_choice_follows_the_result(fit: Path, second: Path) -> None:
    """One result is looked at: the image, its explanation and the comparison are of that one."""
    screen = explore(fit, other=second)
    assert (screen.state.label, screen.compare.base.value) == ("E", "E of two")  # like with like
    screen.show("mvtec/part", 0)
    screen.image.ask(*WHERE)
    first = screen.image.answer.words
    screen.image.setting.value = "A"
    screen.result.value = "E of two"
    assert (screen.image.setting.value, screen.compare.base.value) == ("E of two", "E")
    assert "this patch scores" in screen.image.answer.words != first  # asked anew
    screen.image.setting.value = "B of two"
    screen.show("mvtec/part", 1)
    assert screen.image.setting.value == "E of two"
    screen.result.value = "position"
    assert (screen.image.setting.value, screen.compare.base.value) == ("position", "position of two")
    screen.compare.base.value = "A"
    screen.tabs.selected_index = 2
    assert screen.compare.sides.words.startswith("position against A: ")
    screen.result.value = "A"
    assert screen.compare.sides.words.startswith("A against A of two: ")


def test_seeds_of_one_run_are_explained_by_their_own_fits(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_unit(tmp_path / f"s{seed}/fit-a-1", [1.0, 2.0], [0, 1], settings=["E", "A"], seed=seed, maps=True)
    screen = show(tmp_path, tmp_path)
    screen.result.value = "A, seed 1"
    screen.show("mvtec/part", 0)
    assert screen.image.setting.options == ("A, seed 1", "E, seed 1")
    assert [title.split(":")[0] for title in panels(screen)][1:] == ["A, seed 1", "E, seed 1"]
    screen.image.ask(3, 4)
    assert "s1/fit-a-1: the fitted model of A, seed 1 is not there" in screen.state.message.value


def test_runs_that_differ_in_images_or_labels_are_not_compared(tmp_path: Path) -> None:
    write_unit(tmp_path / "a/u", [0.0, 1.0], [0, 1])
    for name, labels in (("labels", [0, 0]), ("contents", [0, 1])):
        write_unit(tmp_path / f"{name}/u", [0.0, 1.0], labels)
    for name, digests in (("a", ["1", "2"]), ("contents", ["1", "3"])):
        file = tmp_path / f"{name}/u/E/meta.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"digests": digests}))
    for name, why in (("labels", "other labels"), ("contents", "other test images of the same names")):
        write_unit(tmp_path / f"{name}/v", [0.0], [0], source=dict(dataset="mvtec", category="w", root="/", options=[]))
        write_unit(tmp_path / "a/v", [0.0], [0], source=dict(dataset="mvtec", category="w", root="/", options=[]))
        assert open_exploration(tmp_path / "a", other=tmp_path / name).unfinished == [
            f"{name}: mvtec/part: has {why}, so it is not compared"
        ]


# -- files that changed ----------------------------------------------------------------------------


def test_a_changed_image_is_neither_shown_nor_explained(tiny_store: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(tiny_store.parent / "data", tmp_path / "data"))
    path = data / "one/test/bad/009.png"
    Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    category = open_exploration(tiny_store, data=data).category("one")
    i = category.names.index("one/test/bad/009.png")
    model = category.model(category.results["E"])
    for look in (category.image, lambda i: thumbnail(category, i), lambda i: features_of(model, category, i)):
        with pytest.raises(PNIError, match=r"bad/009\.png: is not the image that was scored, though of its name"):
            look(i)
        look(i - 1)  # the others are as they were
    screen = show(tiny_store, tmp_path, data=data)
    screen.show("mvtec/one", i)
    assert "is not the image that was scored" in screen.state.message.value
    screen.image.ask(*WHERE)
    assert "is not the image that was scored" in screen.state.message.value
    assert "this patch" not in screen.image.answer.words
    for file in tmp_path.glob("data/one/ground_truth/*/*"):  # masks do not say which image it is
        file.unlink()
    assert open_exploration(tiny_store, data=data).category("one").image(i - 1).shape == (3, 64, 64)


def test_changed_training_images_explain_nothing(fit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same names: a model knows what it was fitted on by its contents, an older one by the names."""
    prepare.prepare(fit)
    load, known = category_module._load_model, data_of(fit).train.fingerprint()

    def says(fingerprint: str) -> None:
        def loaded(*where: Any) -> PNI:
            model = load(*where)
            model.train_fingerprint = fingerprint
            return model

        monkeypatch.setattr(category_module, "_load_model", loaded)
        category = open_exploration(fit).category("part")
        category.model(category.results["E"])

    says(known)
    path = min((fit.parent / "data/part/train/good").iterdir())
    Image.open(path).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(path)
    with pytest.raises(PNIError, match="its training images are not those of the run"):
        says(known)
    says("")
    path.rename(path.with_name("other.png"))
    for fingerprint in (known, ""):
        with pytest.raises(PNIError, match="its training images are not those of the run"):
            says(fingerprint)


def test_a_model_that_was_fitted_again(fit: Path) -> None:
    """Numbers of one model are not explained by another one of its place."""
    prepare.prepare(fit)
    category = open_exploration(fit).category("part")
    assert isinstance(category.model(category.results["E"]), PNI)
    shutil.rmtree(fit / "part/model")
    source = json.loads((fit / "part/run.json").read_text())["source"]
    fit_or_load(data_of(fit).train, SCATTERING.replace(seed=5), fit / "part", source=source)
    with pytest.raises(PNIError, match="was fitted again since these images were scored: open the run again"):
        category.model(category.results["E"])
    shutil.move(fit.parent / "data", fit.parent / "away")
    with pytest.raises(PNIError, match="is not there"):  # nor are they the numbers of this model
        prepare.prepare(fit)
    shutil.move(fit.parent / "away", fit.parent / "data")
    prepare.prepare(fit)
    category = open_exploration(fit).category("part")
    maps = category.results["E"].maps
    model = category.model(category.results["E"])
    assert maps is not None and np.array_equal(model.predict(category.test).maps, maps)
