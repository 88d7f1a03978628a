"""A run is opened as it lies on disk; what is unfinished, damaged, moved, stale or hostile is said and left out."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny_run import CATEGORIES, ODD, tiny_store, write_data, write_unit

from pnilib.apps.explore import Category, open_exploration
from pnilib.apps.reproduce.settings import COMBINED, DETECTOR
from pnilib.detector.pni import PNI
from pnilib.errors import PNIError
from pnilib.evaluation import METRICS

__all__ = ["tiny_store"]


@pytest.fixture
def store(tiny_store: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(tiny_store, tmp_path / "store"))


def age(folder: Path, order: int) -> Path:
    os.utime(folder / "unit.json", ns=(10**18 + order, 10**18 + order))
    return folder


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def only(run: Path) -> Category:
    return next(iter(open_exploration(run).categories.values()))


# -- a whole run -----------------------------------------------------------------------------------


def test_a_finished_run_has_what_its_files_say(tiny_store: Path) -> None:
    opened = open_exploration(tiny_store)
    assert list(opened.categories) == [f"mvtec/{name}" for name in CATEGORIES] and opened.unfinished == []
    assert opened.labels[:5] == ["PNI", "E", "position", "B", "A"]
    assert set(opened.labels) == {*DETECTOR, *COMBINED, "PNI"}
    files = 0
    for category in opened.categories.values():
        assert category.older == []
        for result in category.results.values():
            kept = pd.read_csv(f"{result.artefact}.scores.csv")
            assert result.table["image"].tolist() == kept["image"].tolist() == category.names
            assert result.table["score"].tolist() == kept["score"].astype(np.float32).tolist()
            assert result.table["label"].tolist() == kept["label"].tolist() == category.labels.tolist()
            said = json.loads((result.artefact / "meta.json").read_text())["metrics"]
            assert set(said) == set(METRICS)
            for name, value in said.items():
                assert np.array_equal(result.metric(name), np.nan if value is None else value, equal_nan=True)
            files += 1
            maps = result.maps
            if result.setting in ("A", "B", "E", "PNI"):
                assert maps is not None and maps.shape == (8, 64, 64) and maps.dtype == np.float32
                if result.setting == "E":  # image_score=max
                    assert maps.max((1, 2)).tolist() == result.table["score"].tolist()
            else:
                assert maps is None
    assert files == 2 * 11
    assert opened.categories["mvtec/two parts"].names[3] == f"two parts/test/bad/{ODD}"


@pytest.mark.parametrize("depth", range(1, 6))
def test_any_folder_of_a_store_opens(tiny_store: Path, depth: int) -> None:
    unit = next(path for path in sorted(tiny_store.rglob("unit.json")) if path.parent.name.startswith("fit-"))
    part = unit.parents[5 - depth]
    opened = open_exploration(part)
    assert len(opened.categories) == (2 if depth == 1 else 1)
    category = opened.categories["mvtec/one"]
    assert isinstance(category.model(category.results["E"]), PNI)


def test_pictures_masks_and_model_are_those_of_the_run(tiny_store: Path) -> None:
    opened = open_exploration(tiny_store)
    category = opened.category("two parts")
    assert category is opened.category("mvtec/two parts")
    assert len(category.train) == 4 and category.image(3).shape == (3, 64, 64)
    mask = category.mask(3)
    assert mask is not None and 0 < int(mask.sum()) < 64 * 64
    normal = category.mask(7)
    assert normal is not None and not bool(normal.any())
    detector = category.model(category.results["E"])
    # the refined result names the detector below its network; the same map comes out of it
    assert category.model(category.results["PNI"]) is detector
    found = detector.with_config(**category.results["B"].config.to_dict()).predict(category.image(3)[None]).maps[0]
    maps = category.results["B"].maps
    assert maps is not None and np.array_equal(found, maps[3])
    with pytest.raises(PNIError, match="category 'three': choose one of mvtec/one, mvtec/two parts"):
        opened.category("three")


# -- bad runs --------------------------------------------------------------------------------------


def test_nothing_to_open(tmp_path: Path, tiny_store: Path) -> None:
    with pytest.raises(PNIError, match="is not a folder: give the --store"):
        open_exploration(tmp_path / "absent")
    with pytest.raises(PNIError, match="holds no finished run: `pni reproduce` or `pni fit` make them"):
        open_exploration(tmp_path)
    (tmp_path / "mvtec/one/scattering/seed0/fit-settings-abc").mkdir(parents=True)
    with pytest.raises(PNIError, match=r"holds no finished run \(1 not finished\)"):
        open_exploration(tmp_path)
    passing = next(path for path in tiny_store.rglob("features-*") if path.is_dir())
    with pytest.raises(PNIError, match="holds no finished run:"):
        open_exploration(passing)


def test_half_finished_failed_and_damaged_units_are_listed(store: Path) -> None:
    network = next(store.glob("mvtec/one/*/seed0/network-PNI-*"))
    (network / "unit.json").unlink()
    fit = next(store.glob("mvtec/two parts/*/seed0/fit-*")) if list(store.glob("mvtec/two parts")) else None
    fit = fit or next(store.glob("mvtec/two_parts/*/seed0/fit-*"))
    (fit / "unit.json").write_text('{"kind": "fit", "name"')
    for name, why in (("fit-x-1", '{"error": "no <b>disk</b>"}'), ("fit-y-1", "[]"), ("fit-z-1", "{")):
        (fit.parent / name).mkdir()
        (fit.parent / name / "failed.json").write_text(why)
    opened = open_exploration(store)
    assert "PNI" not in opened.categories["mvtec/one"].results and "E" in opened.categories["mvtec/one"].results
    assert set(opened.categories["mvtec/two parts"].results) == {"PNI"}
    said = dict(line.split(": ", 1) for line in opened.unfinished)
    place = fit.parent.relative_to(store).as_posix()
    assert said == {
        network.relative_to(store).as_posix(): "not finished: the same command goes on with it",
        fit.relative_to(store).as_posix(): "its unit.json is damaged: delete the folder and run again",
        f"{place}/fit-x-1": "failed: no <b>disk</b>",
        f"{place}/fit-y-1": "not finished: the same command goes on with it",
        f"{place}/fit-z-1": "not finished: the same command goes on with it",
    }
    two = opened.categories["mvtec/two parts"]
    with pytest.raises(PNIError, match="the fitted model of PNI is not there: run again to have it"):
        shutil.rmtree(fit / "model")
        two.model(two.results["PNI"])


@pytest.mark.parametrize(
    "damage",
    ["", "[]", "null", '{"kind": "fit"}', b"\xff\xfe", dict(needs=None), dict(options=3), dict(seed="x"), dict(kind=0)],
)
def test_a_damaged_unit_does_not_hide_the_others(store: Path, damage: Any) -> None:
    file = next(store.rglob("network-PNI-*")) / "unit.json"
    if damage == dict(options=3):
        edit(file, source=json.loads(file.read_text())["source"] | damage)
    elif damage == dict(kind=0):
        edit(file, name=None, settings=7)
    elif isinstance(damage, dict):
        edit(file, **damage)
    else:
        file.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    opened = open_exploration(store)
    assert len(opened.unfinished) == 1 and "unit.json is damaged" in opened.unfinished[0]
    assert [("PNI" in category.results) for category in opened.categories.values()].count(True) == 1


@pytest.mark.parametrize(
    "text",
    [
        "", "image,label\na,0\n", "image,label,defect_type,score\n", "image,label,defect_type,score\na,0,good,nan\n",
        "image,label,defect_type,score\na,0,good,inf\n", "image,label,defect_type,score\na,0,good,high\n",
        "image,label,defect_type,score\na,2,good,1\n", "image,label,defect_type,score\na,,good,1\n",
        'image,label,defect_type,score\n"a,0,good,1\n', "image,label,defect_type,score\na,0,good,1,5,6\nb,0\n",
    ],
)  # fmt: skip
def test_damaged_scores_say_which_file(tmp_path: Path, text: str) -> None:
    category = only(write_unit(tmp_path / "fit-a-1", [0.0, 1.0], [0, 1]))
    (tmp_path / "fit-a-1/E.scores.csv").write_text(text)
    with pytest.raises(PNIError, match=r"fit-a-1/E.scores.csv: (is missing or damaged|holds no images)"):
        category.results["E"].table  # noqa: B018


def test_scores_survive_the_file(tmp_path: Path) -> None:
    """Names that look like numbers or nothing, unknown labels, and every bit of a float32."""
    scores = np.float32([0.1, 1 / 3, 1e-30, np.nextafter(np.float32(2), np.float32(3))])
    names = ["001", "NA", "nan.png", 'a "b"\n,c.png']
    table = only(write_unit(tmp_path / "u", [float(s) for s in scores], [0, 1, -1, 1], names=names)).first.table
    assert table["image"].tolist() == names and table["label"].tolist() == [0, 1, -1, 1]
    assert table["score"].dtype == np.float64 and table["score"].tolist() == scores.tolist()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"metrics": [], "limits": [0, 1], "config": {}}',
                                  '{"metrics": {}, "limits": [0], "config": {}}',
                                  '{"metrics": {"fp": "many"}, "limits": [0, 1], "config": {}}',
                                  '{"metrics": {}, "limits": [0, 1]}'])  # fmt: skip
def test_damaged_facts(tmp_path: Path, text: str) -> None:
    category = only(write_unit(tmp_path / "u", [0.0], [0]))
    (tmp_path / "u/E/meta.json").write_text(text)
    with pytest.raises(PNIError, match="u/E: is missing or damaged: delete"):
        category.first.metric("fp")


def test_undefined_metrics_are_nan(tmp_path: Path) -> None:
    result = only(write_unit(tmp_path / "u", [0.0], [0], metrics=dict(i_auroc=None, fp=2.0))).first
    assert np.isnan(result.metric("i_auroc")) and np.isnan(result.metric("fn")) and result.metric("fp") == 2.0


class Trap:
    """Says so when a pickle of it is read."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return pytest.fail, ("the pickle ran",)


def test_maps_of_another_kind_are_refused(tmp_path: Path) -> None:
    folder = write_unit(tmp_path / "u", [0.0, 1.0], [0, 1], maps=True)
    file = folder / "E.maps.npy"

    def maps() -> Any:
        return only(folder).first.maps

    assert maps().shape == (2, 64, 64)
    whole = file.read_bytes()
    for blob in (b"", whole[:40], whole[:-4], b"PK\x03\x04" + whole):
        file.write_bytes(blob)
        with pytest.raises(PNIError, match=r"E\.maps\.npy: is damaged: delete"):
            maps()
    np.save(file, np.array([Trap(), Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(PNIError, match="is damaged"):
        maps()
    for wrong in (np.zeros((3, 64, 64), np.float32), np.zeros((2, 32, 32), np.float32), np.zeros((2, 64, 64)),
                  np.zeros((2, 64), np.float32)):  # fmt: skip
        np.save(file, wrong)
        with pytest.raises(PNIError, match=r"not float32 \(2, 64, 64\): delete"):
            maps()
    file.unlink()
    assert maps() is None


# -- where the data set is --------------------------------------------------------------------------


def test_a_data_set_that_moved(tiny_store: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(tiny_store, tmp_path / "store"))
    moved = Path(shutil.copytree(tiny_store.parent / "data", tmp_path / "elsewhere"))
    for file in store.rglob("unit.json"):
        edit(file, source=json.loads(file.read_text())["source"] | {"root": str(tmp_path / "gone")})
    category = open_exploration(store).category("one")
    assert len(category.first.table) == 8  # the numbers are there
    with pytest.raises(PNIError, match=rf"{tmp_path / 'gone'}: the data set of mvtec/one is not there.*--data"):
        category.image(0)
    assert open_exploration(store, data=moved).category("one").image(0).shape == (3, 64, 64)


def test_the_wrong_data_set_is_refused(tiny_store: Path, tmp_path: Path) -> None:
    def says(data: Path) -> str:
        with pytest.raises(PNIError) as fault:
            open_exploration(tiny_store, data=data).category("one").image(0)
        assert str(data) in str(fault.value) and "--data" in str(fault.value) and "mvtec/one" in str(fault.value)
        return str(fault.value)

    assert "holds no category" in says(tmp_path)
    other = write_data(tmp_path / "other")
    shutil.move(other / "one", other / "three")
    assert "has no category 'one'" in says(other)
    shutil.move(other / "three", other / "one")
    (other / "one/test/bad/009.png").rename(other / "one/test/bad/9.png")
    assert "it lacks one/test/bad/009.png" in says(other)
    shutil.copy(other / "one/test/bad/9.png", other / "one/test/bad/009.png")
    assert "it has 9, not 8 images" in says(other)


def test_a_listed_name_is_never_opened(store: Path) -> None:
    """Pictures come from the data set's own listing; a name in scores.csv is no path."""
    for file in store.glob("mvtec/one/*/*/*/*.scores.csv"):
        file.write_text(file.read_text().replace("one/test/bad/009.png", "../../etc/passwd"))
    category = open_exploration(store).category("one")
    assert category.names[1] == "../../etc/passwd"
    for read in (category.image, category.mask):
        with pytest.raises(PNIError, match=r"it lacks ../../etc/passwd"):
            read(1)


@pytest.mark.parametrize("need", ["../outside/fit-a-1", "/", "{outside}/fit-a-1"])
def test_a_model_outside_the_run_is_never_opened(store: Path, tiny_store: Path, tmp_path: Path, need: str) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(next(tiny_store.rglob("fit-*")), outside / "fit-a-1")
    network = next(store.glob("mvtec/one/*/seed0/network-PNI-*"))
    edit(network / "unit.json", needs=[need.format(outside=outside)])
    category = open_exploration(store).category("one")
    with pytest.raises(PNIError, match="the fitted model of PNI is not there"):
        category.model(category.results["PNI"])


def test_a_part_taken_out_of_its_store_looks_nowhere_else(tiny_store: Path, tmp_path: Path) -> None:
    """The ids that a unit needs are relative to a store; a copied part has none, not some folder above it."""
    part = next(tiny_store.glob("mvtec/one/*"))
    lone = shutil.copytree(part, tmp_path / "deep/er/part")
    shutil.copytree(tiny_store / "mvtec", tmp_path / "mvtec")
    category = open_exploration(lone).category("one")
    assert isinstance(category.model(category.results["E"]), PNI)  # its own
    with pytest.raises(PNIError, match="the fitted model of PNI is not there"):
        category.model(category.results["PNI"])
    whole = open_exploration(tmp_path / "mvtec/one").category("one")  # still in its place
    assert whole.model_folder(whole.results["PNI"]) == whole.model_folder(whole.results["E"])


def test_several_data_sets_take_no_data(tmp_path: Path) -> None:
    write_unit(tmp_path / "a/u", [0.0], [0])
    source = dict(dataset="demo", category="part", root="/nowhere", options=[])
    write_unit(tmp_path / "b/u", [0.0], [0], source=source)
    opened = open_exploration(tmp_path)
    assert list(opened.categories) == ["demo/part", "mvtec/part"]
    with pytest.raises(PNIError, match="category 'part': choose one of demo/part, mvtec/part"):
        opened.category("part")
    with pytest.raises(PNIError, match="the run has several data sets: open one of them"):
        open_exploration(tmp_path, data=tmp_path)


def test_without_masks_or_labels(store: Path, tmp_path: Path) -> None:
    """None where the true defect is unknown; all False where there is none to know."""
    data = write_data(tmp_path)
    shutil.rmtree(data / "one/ground_truth")
    for file in store.glob("mvtec/one/*/*/*/*.scores.csv"):
        file.write_text(file.read_text().replace("one/test/good/007.png,0,", "one/test/good/007.png,-1,"))
    category = open_exploration(store, data=data).category("one")
    assert category.mask(0) is None and category.mask(7) is None
    normal = category.mask(5)
    assert normal is not None and not bool(normal.any())


# -- several units of one name -----------------------------------------------------------------------


def test_the_newest_counts_and_a_network_on_an_older_fit_does_not(tmp_path: Path) -> None:
    place = tmp_path / "mvtec/part/scattering/seed0"
    old = age(write_unit(place / "fit-settings-ff", [1.0], [0]), 1)
    stale = age(write_unit(place / "network-PNI-aa", [1.0], [0], settings=["PNI"], kind="network", name="PNI",
                           needs=["mvtec/part/scattering/seed0/fit-settings-ff"]), 2)  # fmt: skip
    together = age(write_unit(tmp_path / "mvtec/part/ensemble/seed0/ensemble-e-1", [1.0], [0],
                              settings=["PNI (ensemble)"], kind="ensemble", name="e", member="ensemble",
                              needs=["mvtec/part/scattering/seed0/network-PNI-aa"]), 3)  # fmt: skip
    assert list(only(tmp_path).results) == ["PNI", "PNI (ensemble)", "E"] and only(tmp_path).older == []
    source = dict(dataset="mvtec", category="part", root="/newer", options=[])
    new = age(write_unit(place / "fit-settings-00", [2.0], [0], source=source), 4)
    category = only(tmp_path)
    assert list(category.results) == ["E"] and category.results["E"].folder == new
    assert set(category.older) == {old, stale, together}
    assert category.root == Path("/newer")  # of the newest, not of the last by name
    age(new, 0)
    assert list(only(tmp_path).results) == ["PNI", "PNI (ensemble)", "E"] and only(tmp_path).older == [new]


def test_results_on_other_images_are_not_mixed_in(tmp_path: Path) -> None:
    age(write_unit(tmp_path / "fit-released-1", [1.0, 2.0], [0, 1], settings=["released"], name="released"), 1)
    age(write_unit(tmp_path / "fit-settings-1", [3.0], [0], names=["part/test/new.png"], data="d2"), 2)
    category = only(tmp_path)
    assert list(category.results) == ["E"] and category.names == ["part/test/new.png"]
    assert category.older == [tmp_path / "fit-released-1"]


def test_seeds_and_backbones_get_labels_of_their_own(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_unit(tmp_path / f"s{seed}/u", [float(seed)], [0], settings=["A", "E"], seed=seed)
    write_unit(tmp_path / "r/u", [9.0], [0], settings=["E"], member="resnet18 random", seed=1)
    results = only(tmp_path).results
    assert list(results) == ["E", "A", "A, seed 2", "E, resnet18 random", "E, seed 2"]
    assert {label: result.table["score"][0] for label, result in results.items()} == {
        "E": 1.0, "A": 1.0, "A, seed 2": 2.0, "E, resnet18 random": 9.0, "E, seed 2": 2.0,
    }  # fmt: skip


def test_labels_come_best_known_first_whichever_category_has_them(tmp_path: Path) -> None:
    write_unit(tmp_path / "a/u", [0.0], [0], settings=["A"])
    source = dict(dataset="mvtec", category="z", root="/nowhere", options=[])
    write_unit(tmp_path / "z/u", [0.0], [0], settings=["PNI", "C"], source=source)
    assert open_exploration(tmp_path).labels == ["PNI", "A", "C"]


# -- a second run ----------------------------------------------------------------------------------


def test_a_second_run_of_the_same_images(tiny_store: Path, store: Path) -> None:
    second = store.rename(store.with_name("second <run>"))
    shutil.rmtree(next(second.glob("mvtec/one/*/seed0/network-PNI-*")) / "PNI")
    opened = open_exploration(tiny_store, other=second)
    category = opened.category("one")
    assert {f"{label} of second <run>" for label in ("A", "E", "PNI")} < set(category.results)
    result = category.results["B of second <run>"]
    assert result.label == "B of second <run>" and result.setting == "B"
    assert result.folder.is_relative_to(second) and category.results["B"].folder.is_relative_to(tiny_store)
    assert category.model_folder(result).is_relative_to(second)
    assert category.root == tiny_store.parent / "data"


def test_a_second_run_of_other_images(tmp_path: Path) -> None:
    write_unit(tmp_path / "a/u", [0.0, 1.0], [0, 1])
    write_unit(tmp_path / "b/u", [0.0, 1.0, 2.0], [0, 1, 1])
    (tmp_path / "b/seed0/fit-x-1").mkdir(parents=True)
    with pytest.raises(PNIError, match="shares no category with the same test images"):
        open_exploration(tmp_path / "a", other=tmp_path / "b")
    write_unit(tmp_path / "b/u", [5.0, 4.0], [0, 1])
    opened = open_exploration(tmp_path / "a", other=tmp_path / "b")
    assert opened.labels == ["E", "E of b"]
    assert opened.unfinished == ["b: seed0/fit-x-1: not finished: the same command goes on with it"]
