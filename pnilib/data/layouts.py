"""How each data set lies on disk: one function a layout, from (root, category) to sample rows.

`mvtec`  <category>/{train/good, test/<type>, ground_truth/<type>/<stem>_mask.png}; more names: pnilib/data/masks.py
`demo`   the same, written by `pnilib.demo`
`btad`   <category>/{train/ok, test/{ok,ko}, ground_truth/ko/<stem>.{png,bmp}}
`visa`   split_csv/1cls.csv: object, split, label, image, mask
`mtd`    MT_<type>/Imgs/<stem>.{jpg,png}: see pnilib/data/mtd.py
`folder` images anywhere below root, all normal; `test_root` another such folder to score

Rows come in the order of their names, so that a run can be repeated.  A defect image without a
mask file gets mask_path None: image metrics use it, pixel metrics leave it out, `pni check` names it.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pnilib.data.files import images_in, row, subfolders
from pnilib.data.masks import match_masks
from pnilib.data.mtd import is_mtd, read_mtd
from pnilib.errors import PNIError

__all__ = ["LAYOUTS", "Layout", "read_btad", "read_folder", "read_mvtec", "read_visa"]

Rows = tuple[list[dict[str, Any]], list[str]]
"""Rows of the table, and notes for whoever reads numbers made from them."""

_GOOD = ("good", "ok")


def read_mvtec(root: Path, category: str) -> Rows:
    """MVTec AD and everything of its shape.

    Raises PNIError when there is no training or no test image.
    """
    return _folders(root / category, category, "good"), []


def read_btad(root: Path, category: str, *, btad03_half: bool = False) -> Rows:
    """BTAD.  `btad03_half` keeps the first half of category 03's training images (B27, released).

    Raises PNIError when there is no training or no test image.
    """
    rows = _folders(root / category, category, "ok")
    if not (btad03_half and category == "03"):
        return rows, []
    train = [r for r in rows if r["split"] == "train"]
    dropped = {r["image_path"] for r in train[len(train) // 2 :]}
    note = f"btad03_half: {len(dropped)} of {len(train)} training images left out, as the released code does"
    return [r for r in rows if r["image_path"] not in dropped], [note]


def _folders(base: Path, category: str, good: str) -> list[dict[str, Any]]:
    train = [row(p, "train", 0, good, category) for p in images_in(base / "train" / good)]
    if not train:
        raise PNIError(f"{base / 'train' / good}: holds no image: put the normal training images there")
    images = {folder: images_in(folder) for folder in subfolders(base / "test")}
    masks = match_masks(base, [path for paths in images.values() for path in paths])
    test = []
    for folder, paths in images.items():
        label = int(folder.name not in _GOOD)
        test += [row(path, "test", label, folder.name, category, masks.get(path)) for path in paths]
    if not test:
        raise PNIError(f"{base / 'test'}: holds no image: put images in test/{good} and test/DEFECT_NAME")
    return train + test


def read_visa(root: Path, category: str) -> Rows:
    """VisA's own one-class split, split_csv/1cls.csv.

    Raises PNIError when the file lacks a column, has an unknown value, or points outside `root`.
    """
    table = root / "split_csv" / "1cls.csv"
    rows = []
    for number, line in enumerate(_visa_lines(root), start=2):
        if line["object"] != category:
            continue
        labels = {"normal": 0, "anomaly": 1}
        if line["split"] not in ("train", "test") or line["label"] not in labels:
            raise PNIError(f"{table}: line {number}: unknown split or label: restore the published file")
        image, mask = (_inside(root, line[c], table, number) if line[c] else None for c in ("image", "mask"))
        if image is None:
            raise PNIError(f"{table}: line {number}: names no image: restore the published file")
        if mask is not None and not mask.is_file():
            mask = None
        rows.append(row(image, line["split"], labels[line["label"]], line["label"], category, mask))
    rows.sort(key=lambda r: (r["split"] == "test", r["label"], r["image_path"]))
    return rows, []


def _visa_lines(root: Path) -> list[dict[str, str]]:
    table = root / "split_csv" / "1cls.csv"
    if not table.is_file():
        raise PNIError(f"{table}: does not exist: extract the whole VisA archive below {root}")
    wanted = ("object", "split", "label", "image", "mask")
    with open(table, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [c for c in wanted if c not in (reader.fieldnames or ())]
        if missing:
            raise PNIError(f"{table}: lacks the column {missing[0]!r}: restore the published file")
        return [{c: (line[c] or "").strip() for c in wanted} for line in reader]


def _inside(root: Path, name: str, table: Path, number: int) -> Path:
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise PNIError(f"{table}: line {number}: {name!r} lies outside the data set: restore the published file")
    return path


def read_folder(root: Path, category: str, *, test_root: str | Path | None = None) -> Rows:
    """Every image below `root` trains; those below `test_root` are scored, without masks.

    Where `test_root` has a folder `good`, its folders' names are the labels; else the labels are
    unknown (-1): there are maps and scores, but no metrics.

    Raises PNIError when either folder holds no image, or one lies within the other.
    """
    rows = [row(p, "train", 0, "good", category) for p in images_in(root, deep=True)]
    if not rows:
        raise PNIError(f"{root}: holds no image: put the normal images there")
    if test_root is None:
        return rows, []
    test = Path(test_root).expanduser()
    here, there = root.resolve(), test.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise PNIError(f"{test}: test_root overlaps the training folder {root}: keep the two apart")
    labelled = (test / "good").is_dir()
    for path in images_in(test, deep=True):
        kind = path.relative_to(test).parts[0] if labelled else "unknown"
        rows.append(row(path, "test", int(kind not in _GOOD) if labelled else -1, kind, category))
    if rows[-1]["split"] == "train":
        raise PNIError(f"{test}: holds no image: put the images to score there")
    return rows, [] if labelled else ["test images are unlabelled: scores but no metrics"]


def _folder_categories(root: Path) -> list[str]:
    names = [p.name for p in subfolders(root) if any((p / s).is_dir() for s in ("train", "test"))]
    if names:
        return names
    if (root / "train").is_dir():
        raise PNIError(f"{root}: is itself a category: give its parent as root and category={root.name!r}")
    raise PNIError(f"{root}: holds no category folder with train/ and test/ inside: check the path")


@dataclass(frozen=True)
class Layout:
    """categories(root) lists them; read(root, category, **options) gives the rows.

    `inner` is the folder that the published archive wraps everything in.
    """

    categories: Callable[[Path], list[str]]
    read: Callable[..., Rows]
    inner: tuple[str, ...] = ()

    def locate(self, root: Path) -> Path:
        """`root`, or the archive's own folder within it."""
        return next((p for name in self.inner for p in sorted(root.glob(name)) if p.is_dir()), root)


LAYOUTS = {
    "mvtec": Layout(_folder_categories, read_mvtec, ("mvtec_anomaly_detection",)),
    "demo": Layout(_folder_categories, read_mvtec),
    "btad": Layout(_folder_categories, read_btad, ("BTech_Dataset_transformed",)),
    "visa": Layout(lambda root: sorted({line["object"] for line in _visa_lines(root)}), read_visa, ("VisA",)),
    "mtd": Layout(is_mtd, read_mtd, ("Magnetic-tile-defect-datasets.-*",)),
    "folder": Layout(lambda root: [root.resolve().name or "folder"], read_folder),
}
