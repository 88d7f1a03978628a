"""One rule for what is an image: what lies in a folder, what the kit wrote there, and what every command says of it."""

import os
from pathlib import Path

import pytest
from test_data import mvtec, put

from pnilib.data import check_dataset, load_dataset
from pnilib.data.files import Listing, list_images, refuse_output_around, subfolders
from pnilib.errors import PNIError
from pnilib.store.files import write_json
from pnilib.store.locks import lock_folder, mark_output


def found(listing: Listing) -> list[str]:
    return [path.relative_to(listing.folder).as_posix() for path in listing.images]


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


READ = ["a.PNG", "b.jpeg", "cam1/c.Tiff", "cam1/batch/d.webp", "@2x.png", "__e.bmp", "000.jpg", "000.png", "x y #1.png"]
NOT_READ = {
    "hidden": ["._a.png", ".DS_Store", "Thumbs.db", "desktop.ini", ".ipynb_checkpoints/a.png", "@eaDir/a.png",
               "__MACOSX/a.png", "$RECYCLE.BIN/a.png", "cam1/.hidden.png"],
    ".jp2": ["a.jp2", "cam1/b.JP2"], ".jfif": ["a.jfif"], ".csv": ["table.csv"], "file without ending": ["README"],
    "folder written by pnilib": ["results/a.png", "cam1/old/a.png"],
}  # fmt: skip


def test_what_is_an_image_and_what_is_said_of_the_rest(tmp_path: Path) -> None:
    for name in [*READ, *(name for names in NOT_READ.values() for name in names)]:
        touch(tmp_path / name)
    mark_output(tmp_path / "results")
    write_json(tmp_path / "cam1/old/run.json", {"config": {}, "data": "", "versions": {}})
    write_json(tmp_path / "cam1/run.json", {"run": 7})  # of another program
    touch(tmp_path / "cam1/batch/heatmaps/a.png.png")
    (tmp_path / "cam1/batch/scores.csv").write_text("image,score,defective,problem\na.png,1.0,False,\n")
    listing = list_images(tmp_path, deep=True)
    assert found(listing) == sorted(READ)
    counts = {reason: len(names) for reason, names in NOT_READ.items()} | {".json": 1}
    counts |= {".csv": 2, "folder written by pnilib": 3}
    assert listing.note() == f"{tmp_path}: not read: " + ", ".join(f"{n} {r}" for r, n in sorted(counts.items()))
    shallow = list_images(tmp_path)
    assert found(shallow) == sorted(name for name in READ if "/" not in name)
    assert ("folder", tmp_path / "cam1") in shallow.not_read
    assert [path.name for path in subfolders(tmp_path)] == ["cam1"]
    assert (
        list_images(tmp_path / "absent") == Listing(tmp_path / "absent") and not list_images(tmp_path / "absent").note()
    )


def test_links_are_followed_once(tmp_path: Path) -> None:
    """A real folder wins over a link to it, wherever that comes in the order of names."""
    root = tmp_path / "root"
    for name in ("root/b/1.png", "disk/2.png", "disk/deep/3.png"):
        touch(tmp_path / name)
    (root / "a").mkdir()
    for link, target in {"a/loop": "..", "a/b": "../b", "c": "../disk", "d": "../disk", "e.png": "b/1.png"}.items():
        (root / link).symlink_to(target)
    (root / "gone.png").symlink_to("nowhere.png")
    (root / "self.png").symlink_to("self.png")
    os.mkfifo(root / "pipe.png")
    listing = list_images(root, deep=True)
    assert found(listing) == ["b/1.png", "c/2.png", "c/deep/3.png", "e.png"]
    assert listing.note().endswith("not read: 2 broken link, 3 link to a folder read already, 1 special file")


@pytest.mark.parametrize(
    ("out", "fine"),
    [
        ("new", False), (".", False), ("new/cam1", False), ("new/../new", False), ("link", False), ("disk", False),
        ("new/results", True), ("results", True), ("newer", True), ("new/cam1/x", True),
    ],
)  # fmt: skip
def test_results_beside_images_or_below_but_not_around_them(tmp_path: Path, out: str, fine: bool) -> None:
    touch(tmp_path / "new/cam1/1.png"), touch(tmp_path / "disk/2.png")
    (tmp_path / "link").symlink_to("new")
    (tmp_path / "new/nas").symlink_to("../disk")
    images = list_images(tmp_path / "new", deep=True).images
    assert len(images) == 2
    if not fine:
        with pytest.raises(PNIError, match=r"holds the images of .*: choose another folder to write to"):
            refuse_output_around(images, tmp_path / out)
        return
    refuse_output_around(images, tmp_path / out)
    touch(tmp_path / out / "heatmaps/1.png.png")  # of a version that did not mark them
    assert list_images(tmp_path / "new", deep=True, without=tmp_path / out).images == images
    with lock_folder(tmp_path / out):
        assert list_images(tmp_path / "new", deep=True).images == images


def test_nested_folders_belong_to_their_kind_and_notes_say_what_was_not_read(tmp_path: Path) -> None:
    base = mvtec(tmp_path) / "bolt"
    for name in ("train/good/000.png", "test/good/000.png", "test/crack/000.png", "ground_truth/crack/000_mask.png"):
        (base / name).parent.joinpath("cam1/a").mkdir(parents=True)
        (base / name).rename((base / name).parent / "cam1/a" / Path(name).name)
    for name in (
        "train/good/cam1/x.jp2",
        "train/good/Thumbs.db",
        "test/crack/.x.png",
        "license.txt",
        "ground_truth/x.npy",
    ):
        touch(base / name)
    data = load_dataset("mvtec", tmp_path)
    assert len(data.train) == 3 and data.summary() == "3 training images; 1 normal (good) and 2 defective test images"
    assert list(data.test.samples["defect_type"]) == ["crack", "crack", "good"]
    assert [Path(p).parent.name for p in data.test.samples["mask_path"][:2]] == ["crack", "a"]
    assert data.notes == ("not read: 1 .jp2, 2 hidden",)
    assert {Path(f.path).name for f in check_dataset(data, progress=False)} == {"x.jp2", "x.npy"}


@pytest.mark.parametrize("layout", ["mvtec", "folder"])
def test_folders_without_images_say_what_they_hold(tmp_path: Path, layout: str) -> None:
    place = tmp_path / ("bolt/train/good" if layout == "mvtec" else "")
    touch(place / "a.jp2"), touch(place / "b.jp2")
    with pytest.raises(PNIError, match=r"holds no image \(not read: 2 \.jp2\): put"):
        load_dataset(layout, tmp_path)


@pytest.mark.parametrize("where", ["root", "test_root"])
def test_a_folder_of_results_is_not_a_folder_of_images(tmp_path: Path, where: str) -> None:
    put(tmp_path / "root/1.png"), put(tmp_path / "test_root/1.png")
    mark_output(tmp_path / where)
    with pytest.raises(PNIError, match=f"{where}: holds results of pnilib, not images"):
        load_dataset("folder", tmp_path / "root", test_root=tmp_path / "test_root")
