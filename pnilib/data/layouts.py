"""How each data set lies on disk: one function a layout, from (root, category) to sample rows.

`mvtec`  <category>/{train/good, test/<type>, ground_truth/<type>/<stem>_mask.png}; more names: pnilib/data/masks.py
`demo`   the same, written by `pnilib.demo`
`btad`   <category>/{train/ok, test/{ok,ko}, ground_truth/ko/<stem>.{png,bmp}}
`visa`   split_csv/1cls.csv: object, split, label, image, mask; see pnilib/data/visa.py
`mtd`    MT_<type>/Imgs/<stem>.{jpg,png}: see pnilib/data/mtd.py
`folder` images anywhere below root, all normal; `test_root` another such folder to score

Which folders are normal: see pnilib/data/labels.py.

Rows come in the order of their names, so that a run can be repeated.  A defect image without a
mask file gets mask_path None: image metrics use it, pixel metrics leave it out, `pni check` names it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pnilib.data.files import Samples, list_images, no_image, refuse_output, row, subfolders
from pnilib.data.labels import (
    all_images,
    kind_of,
    label_note,
    labelled_images,
    parse_normal,
    refuse_unmasked,
    require_folders,
    training_images,
)
from pnilib.data.masks import match_masks, refuse_masks_among
from pnilib.data.mtd import is_mtd, read_mtd
from pnilib.data.visa import read_visa, visa_categories
from pnilib.errors import PNIError

__all__ = ["LAYOUTS", "Layout", "read_btad", "read_folder", "read_mvtec"]


def read_mvtec(root: Path, category: str, *, normal: object = None) -> Samples:
    """MVTec AD and everything of its shape; `normal`: which folders of train/ and test/ are (`pnilib.data.labels`).

    Raises PNIError when there is no training image, or a folder's name could be meant either way.
    """
    return _folders(root / category, category, "good", normal)


def read_btad(root: Path, category: str, *, btad03_half: bool = False, normal: object = None) -> Samples:
    """BTAD.  `btad03_half` keeps the first half of category 03's training images (B27, released).

    Raises PNIError as `read_mvtec` does.
    """
    found = _folders(root / category, category, "ok", normal)
    if btad03_half and category == "03":
        train = [r for r in found.rows if r["split"] == "train"]
        dropped = {r["image_path"] for r in train[len(train) // 2 :]}
        found.rows = [r for r in found.rows if r["image_path"] not in dropped]
        found.notes.append(
            f"btad03_half: {len(dropped)} of {len(train)} training images left out, as the released code does"
        )
    return found


def _folders(base: Path, category: str, good: str, normal: object) -> Samples:
    """Folders within train/ and test/ are kinds; whatever lies deeper in them belongs to them."""
    told = parse_normal(normal)
    require_folders(told, [base / "train", base / "test"])
    train, test = (list_images(base / split, deep=True) for split in ("train", "test"))
    rows = [row(p, "train", 0, kind_of(train, p) or good, category) for p in training_images(train, told)]
    if not rows:
        raise no_image(train, f"put the normal training images in train/{good}, or name their folder in normal=")
    refuse_masks_among(Path(sample["image_path"]) for sample in rows)
    masks = match_masks(base, test.images)
    for path, label, kind in sorted(labelled_images(test, told), key=lambda found: found[2]):
        rows.append(row(path, "test", label, kind, category, masks.get(path)))
    if told is None:
        refuse_unmasked(base, rows)
    return Samples(rows, label_note(rows, good, told is not None), [*train.not_read, *test.not_read])


def read_folder(root: Path, category: str, *, test_root: str | Path | None = None, normal: object = None) -> Samples:
    """Every image below `root` trains, or below the folders in it that `normal` names; those below `test_root` are
    scored, without masks.

    The names of the folders in `test_root` are the labels where one of them, or `normal`, says which are normal; else
    the labels are unknown (-1): there are maps and scores, but no metrics.

    Raises PNIError when either folder holds no image, or one lies within the other, and when a folder in them has a
    name that speaks against it (`train`, `masks`, `NG`).
    """
    told = parse_normal(normal)
    test_root = None if test_root is None else Path(test_root).expanduser()
    require_folders(told, [root] if test_root is None else [root, test_root])
    refuse_output(root)
    train = list_images(root, deep=True)
    rows = [row(p, "train", 0, (told and kind_of(train, p)) or "good", category) for p in all_images(train, told)]
    if not rows:
        raise no_image(train, "put the normal images there")
    refuse_masks_among(Path(sample["image_path"]) for sample in rows)
    if test_root is None:
        return Samples(rows, label_note(rows, "good", told is not None), train.not_read)
    here, there = root.resolve(), test_root.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise PNIError(f"{test_root}: test_root overlaps the training folder {root}: keep the two apart")
    refuse_output(test_root)
    test = list_images(test_root, deep=True)
    found = [
        row(p, "test", label, kind, category) for p, label, kind in labelled_images(test, told, maybe_unlabelled=True)
    ]
    if not found:
        raise no_image(test, "put the images to score there")
    refuse_masks_among(Path(sample["image_path"]) for sample in found)
    notes = label_note(found if told is None else [*rows, *found], "good", told is not None)
    if all(r["label"] == -1 for r in found):
        notes.append("test images are unlabelled: scores but no metrics")
    return Samples([*rows, *found], notes, [*train.not_read, *test.not_read])


def _folder_categories(root: Path) -> list[str]:
    names = [p.name for p in subfolders(root) if any((p / s).is_dir() for s in ("train", "test"))]
    if names:
        return names
    if (root / "train").is_dir():
        raise PNIError(f"{root}: is itself a category: give its parent as root and category={root.name!r}")
    raise PNIError(f"{root}: holds no category folder with train/ and test/ inside: check the path")


@dataclass(frozen=True)
class Layout:
    """categories(root) lists them; read(root, category, **options) gives the samples.

    `inner` is the folder that the published archive wraps everything in.
    """

    categories: Callable[[Path], list[str]]
    read: Callable[..., Samples]
    inner: tuple[str, ...] = ()

    def locate(self, root: Path) -> Path:
        """`root`, or the archive's own folder within it."""
        return next((p for name in self.inner for p in sorted(root.glob(name)) if p.is_dir()), root)


LAYOUTS = {
    "mvtec": Layout(_folder_categories, read_mvtec, ("mvtec_anomaly_detection",)),
    "demo": Layout(_folder_categories, read_mvtec),
    "btad": Layout(_folder_categories, read_btad, ("BTech_Dataset_transformed",)),
    "visa": Layout(visa_categories, read_visa, ("VisA",)),
    "mtd": Layout(is_mtd, read_mtd, ("Magnetic-tile-defect-datasets.-*",)),
    "folder": Layout(lambda root: [root.resolve().name or "folder"], read_folder),
}
