"""SegAD from maps to a decision: segments, base maps, protocols, the saved model, and what they refuse."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny import SCATTERING, write_category

from pnilib.config.geometry import Geometry
from pnilib.data import Dataset, Split, load_dataset
from pnilib.demo import make_demo
from pnilib.detector.pni import PNI
from pnilib.errors import PNIError
from pnilib.metrics import image_auroc
from pnilib.segad.base_maps import DetectorMaps, FileMaps, detector_maps, pni_maps, published_splits
from pnilib.segad.generated import generate_defects
from pnilib.segad.model import SegAD, joined, read_manifest
from pnilib.segad.protocols import SEEDS, draw_bad, fpr_at_tpr, run_protocol, summary
from pnilib.segad.segments import Clusters, Foreground, LabelFolder, Whole, check_segments

SQUARE = Geometry(64, 64)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """12 training images, of which 4 are held out; 6 good and 6 bad test images."""
    root = tmp_path_factory.mktemp("segad")
    write_category(root, n_train=12, n_good=6, n_bad=6)
    return load_dataset("mvtec", root, "part", hold_out=0.33)


@pytest.fixture(scope="module")
def pni(data: Dataset) -> PNI:
    return PNI(SCATTERING.replace(setting="E", calibration_images=0)).fit(data.train)


def bad_of(data: Dataset, n: int = 3) -> Split:
    drawn, _ = draw_bad(data.test.samples["label"].to_numpy(), n, 333)
    return Split(data.test.samples.iloc[drawn], data.test.root)


# --- segments ---


def write_labels(folder: Path, split: Split, labels: np.ndarray, suffix: str = ".png") -> None:
    for path in map(Path, split.samples["image_path"]):
        place = folder / Path(*path.parts[-3:]).with_suffix(suffix)
        place.parent.mkdir(parents=True, exist_ok=True)
        if suffix == ".npy":
            np.save(place, labels)
        else:
            Image.fromarray(labels.astype(np.uint8)).save(place)


def halves(height: int = 64, width: int = 80) -> np.ndarray:
    """0 on the left, 1 on the right."""
    return np.repeat(np.arange(width)[None] >= width // 2, height, 0).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".npy"])
def test_label_folder_follows_the_images(data, tmp_path, suffix):
    """At the file's 80 x 64 px, and at the maps' 64 x 64: the boundary lies in the middle of both."""
    for size in ((64, 80), (64, 64)):
        folder = tmp_path / f"{size}"
        write_labels(folder, joined(data.held_out, data.test), halves(*size), suffix)
        found = LabelFolder(folder).fit(data.held_out)
        assert found.names == ("segment 0", "segment 1")
        assert (found.labels(data.test, 0, SQUARE) == halves(64, 64)).all()


def test_label_folder_refuses(data, tmp_path):
    write_labels(tmp_path / "a", data.held_out, halves())
    one = Split(data.held_out.samples.iloc[:1], data.held_out.root)
    file = next((tmp_path / "a").rglob(f"{Path(one.samples['image_path'][0]).stem}.png"))
    fitted = LabelFolder(tmp_path / "a").fit(data.held_out)
    with pytest.raises(PNIError, match=r"label map of .* is missing"):
        fitted.labels(data.test, 0, SQUARE)
    for labels, words in [
        (halves(40, 40), "40 x 40 px, neither"),
        (halves() + 2, "has label 3, the training images only 0 ... 1"),
        (np.zeros((64, 80, 3), np.uint8), "is no label map"),
    ]:
        Image.fromarray(labels).save(file)
        with pytest.raises(PNIError, match=words):
            fitted.labels(one, 0, SQUARE)
    file.write_bytes(b"nothing")
    with pytest.raises(PNIError, match="damaged"):
        fitted.labels(one, 0, SQUARE)
    with pytest.raises(PNIError, match="no folder"):
        LabelFolder(tmp_path / "nowhere")


def test_new_images_take_no_ones_labels(data, tmp_path):
    """An image of unknown label is not looked for among the good ones: another image may have its name there."""
    (tmp_path / "good").mkdir()
    name = Path(data.held_out.samples["image_path"][0]).stem
    np.save(tmp_path / "good" / f"{name}.npy", halves(64, 64))
    new = data.held_out.samples.iloc[:1].assign(image_path=f"/new/{name}.png")
    found = LabelFolder(tmp_path, ["a", "b"])
    assert (found.labels(Split(new), 0, SQUARE) == halves(64, 64)).all()
    with pytest.raises(PNIError, match="is missing"):
        found.labels(Split(new.assign(label=-1)), 0, SQUARE)


def test_demo_parts_have_names(tmp_path):
    root = make_demo(
        tmp_path / "demo", categories=["cable"], n_train=1, n_good=1, n_per_defect=1, size=64, progress=False
    )
    found = LabelFolder(root / "cable/segmentation").fit(load_dataset("demo", root, "cable").train)
    assert "blue wire" in found.names and "background" in found.names


def test_foreground_and_whole(data):
    assert (Whole().labels(data.test, 0, SQUARE) == 0).all()
    image = Image.new("RGB", (64, 64), (200, 200, 200))
    image.paste((20, 20, 20), (20, 20, 44, 44))
    path = Path(data.root) / "disc.png"
    image.save(path)
    split = Split(data.test.samples.iloc[:1].assign(image_path=str(path)))
    assert Foreground().labels(split, 0, SQUARE)[32, [2, 32]].tolist() == [0, 1]


def test_clusters_are_consistent(data, pni):
    """The same label at the same place of every image, stripes being where they are; the same again from its facts."""
    found = Clusters(2, pni.embed, seed=1).fit(data.held_out, SQUARE)
    labels = [found.labels(data.test, i, SQUARE) for i in range(4)]
    assert np.mean([np.mean(one == labels[0]) for one in labels]) > 0.8
    again = Clusters(2, pni.embed, seed=1).restore(found.facts())
    assert (again.labels(data.test, 1, SQUARE) == labels[1]).all()
    with pytest.raises(PNIError, match="not fitted"):
        Clusters(2, pni.embed).labels(data.test, 0, SQUARE)
    with pytest.raises(PNIError, match="2 to 32"):
        Clusters(1, pni.embed)


def test_check_segments_names_what_is_wrong():
    """By hand: `steady` is the left half always; `never` is not there; `moves` changes sides; `rare` is in one."""
    first = np.zeros((10, 10), int)
    second = first.copy()
    first[:, 8:], second[:, :2] = 2, 2
    second[5, 5] = 3
    notes = check_segments([first, second], ["steady", "never", "moves", "rare"])
    assert [note.split(":")[0] for note in notes] == ["never", "moves", "rare"]
    assert "every image" in notes[0] and "drifts" in notes[1] and "1 of 2" in notes[2]
    with pytest.raises(PNIError, match="no label map"):
        check_segments([], ["a"])


# --- base maps ---


def test_maps_of_rules_are_pnis(data, pni, tmp_path):
    source = pni_maps(pni, ["A", "position"], cache=tmp_path)
    found = np.stack(list(source.maps(data.test)))
    for i, rule in enumerate(source.names):
        assert (found[:, i] == pni.with_config(setting=rule).predict(data.test).maps).all()


def test_kept_maps_are_read_not_made(data, pni, tmp_path):
    source = pni_maps(pni, ["A"], cache=tmp_path)
    first = np.stack(list(source.maps(data.test)))
    kept = sorted(tmp_path.rglob("*.npy"))
    assert len(kept) == len(data.test)
    kept[0].unlink()
    calls: list[int] = []

    def counted(split: Split) -> list[np.ndarray]:
        calls.append(len(split))
        return source.predict(split)

    again = DetectorMaps(source.names, counted, source.geometry, source.identity, tmp_path)
    assert (np.stack(list(again.maps(data.test))) == first).all() and calls == [1]
    np.save(kept[1], np.zeros((1, 8, 8), np.float32))
    with pytest.raises(PNIError, match="kept maps of shape"):
        list(again.maps(data.test))
    kept[1].write_bytes(b"half")
    with pytest.raises(PNIError, match="damaged"):
        list(again.maps(data.test))


def test_other_rules_have_another_identity(pni):
    names = [pni_maps(pni, rules).identity for rules in (["A"], ["E"], ["A", "E"])]
    other = pni_maps(pni.with_config(sigma=1.0), ["A"]).identity
    assert len({*names, other}) == 4
    with pytest.raises(PNIError, match="base map 'Z'"):
        pni_maps(pni, ["Z"])


def test_any_detector_with_predict(data):
    class Flat:
        def predict(self, split: Split) -> "Flat":
            self.maps = np.full((len(split), 64, 64), 2.0)
            return self

    source = detector_maps("flat", Flat(), SQUARE, "1" * 64)
    rows = SegAD([source], Whole()).measure(data.test)
    assert rows.shape == (12, 5) and (rows[:, [0, 3, 4]] == 2).all() and np.isnan(rows[:, [1, 2]]).all()
    with pytest.raises(PNIError, match="no detector"):
        detector_maps("none", object(), SQUARE, "1")

    class Broken(Flat):
        def predict(self, split: Split) -> "Broken":
            self.maps = np.full((len(split), 64, 64), np.nan)
            return self

    with pytest.raises(PNIError, match=r"part.*NaN"):
        SegAD([detector_maps("nan", Broken(), SQUARE, "2")], Whole()).measure(data.test)


def write_published(folder: Path, n_good: int = 30, n_bad: int = 25, n_train: int = 20, side: int = 16) -> Path:
    """Noise; bad maps have a hot pixel in the left half."""
    rng, tables = np.random.default_rng(3), {"training": [], "test": []}
    for i in range(n_train + n_good + n_bad):
        label, name = int(i >= n_train + n_good), f"{i:03}"
        values = rng.gamma(2, 1, (side, side)).astype(np.float32)
        values[3, 2] += 4 * label
        kind = "bad" if label else "good"
        for place in ("anomaly_maps", "labels"):
            (folder / place / kind).mkdir(parents=True, exist_ok=True)
        np.save(folder / "anomaly_maps" / kind / f"{name}.npy", values)
        np.save(folder / "labels" / kind / f"{name}.npy", halves(side, side).astype(np.int64))
        row = dict(filepath=f"/elsewhere/{name}.JPG", an_map_path=f"/x/{kind}/{name}.npy", label=label,
                   prediction_an_det=values.max())  # fmt: skip
        tables["training" if i < n_train else "test"].append(row)
    for name, rows in tables.items():
        pd.DataFrame(rows).to_csv(folder / f"df_{name}.csv", index=False)
    return folder


def test_published_layout_end_to_end(tmp_path):
    source = FileMaps(write_published(tmp_path))
    good, test = published_splits(tmp_path)
    model = SegAD([source], LabelFolder(tmp_path / "labels").fit(good))
    rows, labels = model.measure(test), test.samples["label"].to_numpy()
    found = run_protocol(model.columns, model.measure(good), rows, labels, n_bad=10, seeds=SEEDS[:2])
    assert found["method"].tolist() == ["SegAD", tmp_path.name] * 2 and (found["n_test"] == 45).all()
    _, left = draw_bad(labels, 10, SEEDS[1])
    assert found["cl_auroc"].iloc[3] == image_auroc(test.samples["prediction_an_det"].to_numpy()[left], labels[left])
    assert list(summary(found)["seeds"]) == [2, 2]


def test_published_layout_refuses(tmp_path):
    with pytest.raises(PNIError, match="holds no anomaly_maps"):
        FileMaps(tmp_path)
    source, (_, test) = FileMaps(write_published(tmp_path)), published_splits(tmp_path)
    file = tmp_path / "anomaly_maps/good/020.npy"
    for values, words in [
        (np.zeros((8, 8), np.float32), r"020\.npy: has shape \(8, 8\), the other maps \(16, 16\)"),
        (np.full((16, 16), np.nan), r"020\.npy.*NaN"),
        (np.zeros((16, 16), int), "no floating-point map"),
    ]:
        np.save(file, values)
        with pytest.raises(PNIError, match=words):
            list(source.maps(test))
    np.save(file, np.array([{}], object), allow_pickle=True)
    with pytest.raises(PNIError, match="damaged or no array"):
        list(source.maps(test))
    file.unlink()
    with pytest.raises(PNIError, match="is missing"):
        list(source.maps(test))
    table = pd.read_csv(tmp_path / "df_test.csv")
    for changed, words in [(table.drop(columns="label"), "no column 'label'"), (table.assign(label=2), "labels other")]:
        changed.to_csv(tmp_path / "df_test.csv", index=False)
        with pytest.raises(PNIError, match=words):
            published_splits(tmp_path)
    (tmp_path / "df_training.csv").unlink()
    with pytest.raises(PNIError, match=r"df_training\.csv"):
        published_splits(tmp_path)


# --- protocols ---


def test_draw_bad():
    labels = np.array([0, 1] * 30)
    drawn, left = draw_bad(labels, 10, 333)
    assert len(drawn) == 10 and (labels[drawn] == 1).all()
    assert sorted([*drawn, *left]) == list(range(60))
    assert (draw_bad(labels, 10, 333)[0] == drawn).all() and (draw_bad(labels, 10, 576)[0] != drawn).any()
    with pytest.raises(PNIError, match=r"30 bad parts .* has 30.* at most 29"):
        draw_bad(labels, 30, 333)
    with pytest.raises(PNIError, match="has 0"):
        draw_bad(np.zeros(5, int), 1, 333)


def test_fpr_at_tpr_by_hand():
    """Bad 0 ... 20: the 5 % quantile is 1; of the goods 0, 1, 2, 0.5 two reach it."""
    scores = np.r_[np.arange(21.0), 0, 1, 2, 0.5]
    labels = np.repeat([1, 0], [21, 4])
    assert fpr_at_tpr(scores, labels) == 0.5
    with pytest.raises(PNIError, match="no score of a bad part"):
        fpr_at_tpr(scores, np.zeros(25, int))


def test_protocol_refuses(data, pni):
    model = SegAD([pni_maps(pni, ["A"])], Whole())
    rows = model.measure(data.held_out)
    with pytest.raises(PNIError, match="one class only"):
        run_protocol(model.columns, rows, rows, np.zeros(len(rows), int), n_bad=1)
    labels = np.array([0, 1, 1, 1])
    with pytest.raises(PNIError, match="only 4 are given"):
        run_protocol(model.columns, rows, rows, labels, n_bad=5, bad=rows)


def test_generated_defects(data, tmp_path):
    """One defect an image, at the file's size, the same bytes again, inside the drawn segment."""
    write_labels(tmp_path / "labels", data.held_out, halves())
    segmentation = LabelFolder(tmp_path / "labels").fit(data.held_out)
    made = generate_defects(data.held_out, segmentation, SQUARE, tmp_path / "one", seed=5)
    again = generate_defects(data.held_out, segmentation, SQUARE, tmp_path / "two", seed=5)
    assert len(made) == 4 and (made.samples["label"] == 1).all()
    for i, row in enumerate(made.samples.to_dict("records")):
        assert Path(row["image_path"]).read_bytes() == Path(again.samples["image_path"][i]).read_bytes()
        clean, new = (np.array(Image.open(row[key])) for key in ("segments_of", "image_path"))
        changed = (clean != new).any(2)
        assert changed.any() and not changed[halves() != int(row["segment"][-1])].any()
        assert (segmentation.labels(made, i, SQUARE) == halves(64, 64)).all()


# --- the model ---


def test_save_load_equal(data, pni, tmp_path):
    source = pni_maps(pni, ["A", "E"], cache=tmp_path / "maps")
    model = SegAD([source], Foreground(), seed=7).fit(data.held_out, bad_of(data))
    model.save(tmp_path / "one")
    loaded = SegAD.load(tmp_path / "one", [source], Foreground())
    pd.testing.assert_frame_equal(loaded.score(data.test), model.score(data.test))
    loaded.save(tmp_path / "two")
    again = SegAD([pni_maps(pni, ["A", "E"])], Foreground(), seed=7).fit(data.held_out, bad_of(data))
    again.save(tmp_path / "three")
    for name in ("segad.json", "forest.json"):
        blobs = {(tmp_path / folder / name).read_bytes() for folder in ("one", "two", "three")}
        assert len(blobs) == 1, name
    reasons = model.explain(model.measure(data.test))[0]
    assert len(reasons) == len(model.columns) and reasons["shap"].abs().is_monotonic_decreasing


def test_load_refuses(data, pni, tmp_path):
    source = pni_maps(pni, ["A"])
    SegAD([source], Whole()).fit(data.held_out, bad_of(data)).save(tmp_path / "m")
    other = pni_maps(pni.with_config(sigma=1.0), ["A"])
    with pytest.raises(PNIError, match="of another run or setting"):
        SegAD.load(tmp_path / "m", [other], Whole())
    with pytest.raises(PNIError, match="other base maps or segments"):
        SegAD.load(tmp_path / "m", [source], Foreground())
    with pytest.raises(PNIError, match=r"holds no segad\.json"):
        SegAD.load(tmp_path, [source], Whole())
    blob = (tmp_path / "m/forest.json").read_bytes()
    (tmp_path / "m/forest.json").write_bytes(blob[:-9])
    with pytest.raises(PNIError, match="damaged"):
        SegAD.load(tmp_path / "m", [source], Whole())
    for text in ("{", "[]", '{"format": "pnilib-segad", "version": 1}', '{"format": "x", "version": 1}'):
        (tmp_path / "m/segad.json").write_text(text)
        with pytest.raises(PNIError, match=r"segad\.json"):
            read_manifest(tmp_path / "m")


def test_fit_refuses(data, pni):
    model = SegAD([pni_maps(pni, ["A"])], Whole())
    nothing = Split(data.test.samples.iloc[:0])
    with pytest.raises(PNIError, match="no bad parts"):
        model.fit(data.held_out, nothing)
    with pytest.raises(PNIError, match="no good parts"):
        model.fit(nothing, bad_of(data))
    with pytest.raises(PNIError, match="as good and as bad"):
        model.fit(data.held_out, Split(data.held_out.samples.iloc[:1]))
    with pytest.raises(PNIError, match="not fitted"):
        model.score(data.test)


def test_segments_of_another_size_name_the_image(data, pni):
    class Small(Whole):
        def labels(self, split, i, geometry):
            return np.zeros((8, 8), np.int32)

    with pytest.raises(PNIError, match=r"\.png: segmentation of \(8, 8\) for maps of \(64, 64\)"):
        SegAD([pni_maps(pni, ["A"])], Small()).measure(data.test)


def test_thresholds_say_what_they_cannot_promise(data, pni):
    model = SegAD([pni_maps(pni, ["A"])], Whole()).fit(data.held_out, bad_of(data), fpr=0.01)
    assert "20 %" in model.thresholds.note  # 1 / (4 + 1)
    assert dataclasses.is_dataclass(model) is False
