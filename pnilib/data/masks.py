"""Which mask belongs to which image, by place and name.

Masks lie in a tree `ground_truth` (or `masks`) beside `test`, in the same folders.  Letters of either case, any image
format, and these names belong to the image 000.png:

`000.bmp` `000_mask.png` `000-GT.png` `mask_000.png`    one mask; `label`, `seg`, `annotation` likewise
`000_mask_1.png` `000_1_mask.png` `000/anything.png`    one of several masks, which are united (MVTec LOCO: the folder)
`000.png_mask.png`                                      for 000.png only, where 000.jpg lies beside it

A mask that two images could claim, two masks of one name (`000.png` and `000_mask.png`) and masks among the images
stop with a line; masks that no image claims are found by `orphan_masks`.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from pnilib.data.files import images_in, subfolders
from pnilib.errors import PNIError
from pnilib.store.text import many, shown

__all__ = ["mask_files", "match_masks", "orphan_masks", "orphan_note", "refuse_masks_among", "without_masks"]

_TREES = ("ground_truth", "groundtruth", "masks")
_TAG = r"(?:masks?|gt|labels?|seg|segmentation|annotations?|ground_?truth)"
_ONE = (re.compile(rf"(.+?)[ _.-]*{_TAG}"), re.compile(rf"{_TAG}[ _.-]*(.+)"))
_NUMBERED = (re.compile(rf"(.+?)[ _.-]*{_TAG}[ _.-]*\(?\d+\)?"), re.compile(rf"(.+?)[ _.-]+\d+[ _.-]*{_TAG}"))
_BESIDE = re.compile(r"(.+?)[ _.-]+(?:masks?|gt)")


def mask_files(mask_path: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The files that a cell of the samples' column `mask_path` names: none, one, or several to be united."""
    return () if mask_path is None else (mask_path,) if isinstance(mask_path, str) else tuple(mask_path)


def match_masks(base: Path, images: Iterable[Path]) -> dict[Path, list[Path]]:
    """The masks of each of the `images`, which lie below base/test; images without one are left out.

    Raises PNIError for a mask that could belong to two images, two masks of one image that are not numbered, two
    trees of masks, and a mask among the images.
    """
    images = list(images)
    refuse_masks_among(images)
    known: dict[str, list[Path]] = {}
    for image in images:
        place = image.relative_to(base / "test")
        for named in (place, place.with_suffix("")):
            known.setdefault(_plain(named), []).append(image)
    masks: dict[Path, list[Path]] = {}
    tree = _tree(base)
    if tree is None:
        return masks
    single: dict[Path, Path] = {}
    for mask in images_in(tree, deep=True):
        candidates = _names(_plain(mask.relative_to(tree).with_suffix("")))
        name, numbered = next((found for found in candidates if found[0] in known), ("", False))
        if not name:
            continue
        first, *others = known[name]
        if others:
            raise PNIError(
                f"{shown(mask)}: could be the mask of {shown(first.name)} or of {shown(others[0].name)}: name it "
                f"{shown(first.name)}_mask{mask.suffix} or {shown(others[0].name)}_mask{mask.suffix}"
            )
        if not numbered and single.setdefault(first, mask) != mask:
            raise PNIError(
                f"{shown(mask)}: {shown(first.name)} has another mask, {shown(single[first].name)}: remove one, or "
                f"call them {shown(first.stem)}_mask_1 and {shown(first.stem)}_mask_2 to unite them"
            )
        masks.setdefault(first, []).append(mask)
    return masks


def refuse_masks_among(images: Iterable[Path]) -> None:
    """Raise PNIError where one image is by its name the mask of another beside it: `000_mask.png`, `000.png`."""
    known: dict[str, Path] = {}
    for image in images:
        known |= {_plain(image): image, _plain(image.with_suffix("")): image}
    for name, image in known.items():
        if (found := _BESIDE.fullmatch(name)) and found[1] in known:
            raise PNIError(
                f"{shown(image)}: is by its name the mask of {shown(known[found[1]].name)}, which lies beside it: move "
                "masks to a folder of their own (ground_truth, in a data set with masks), or rename the image"
            )


def without_masks(images: Iterable[Path], base: Path) -> tuple[list[Path], list[str]]:
    """Images below `base`, but for masks and label maps, in a tree of theirs beside a folder `test`; a line on these.

    Raises PNIError where `base` is such a tree of masks itself, or a folder in one.
    """
    for folder in (base.resolve(), base.resolve().parent):
        if folder.name.lower() in _TREES[:2] and (folder.parent / "test").is_dir():
            raise PNIError(f"{shown(base)}: holds the masks of {shown(folder.parent / 'test')}: give the images")

    def is_map(image: Path) -> bool:
        above = list(image.relative_to(base).parents)[:-1]
        return any(tree.name.lower() in (*_TREES, "segmentation") and (base / tree.parent / "test").is_dir()
                   for tree in above)  # fmt: skip

    images = list(images)
    maps = [image for image in images if is_map(image)]
    if not maps:
        return images, []
    count = many(len(maps), "mask or label map is", "masks and label maps are")
    return [image for image in images if image not in set(maps)], [f"{count} left out, e.g. {shown(maps[0])}"]


def orphan_masks(base: Path, used: Iterable[Path]) -> list[Path]:
    """Images in the tree of masks of the category folder `base` that are not `used`, sorted."""
    tree, taken = _tree(base), set(used)
    return [] if tree is None else [path for path in images_in(tree, deep=True) if path not in taken]


def orphan_note(base: Path, used: Iterable[Path]) -> list[str]:
    """One line on them for whoever reads numbers, or none."""
    orphans = orphan_masks(base, used)
    if not orphans:
        return []
    tree = base / orphans[0].relative_to(base).parts[0]
    count = many(len(orphans), "file belongs", "files belong")
    example = shown(orphans[0].relative_to(tree))
    return [f"{count} to no image in {shown(tree)}, e.g. {example}: `pni data check` lists them"]


def _tree(base: Path) -> Path | None:
    """The folder that holds the masks.  Raises PNIError where there are two."""
    found = [p for p in subfolders(base) if p.name.lower() in _TREES and images_in(p, deep=True)]
    if len(found) > 1:
        raise PNIError(f"{shown(base)}: holds masks in {shown(found[0].name)} and in {shown(found[1].name)}: keep one")
    return found[0] if found else None


def _plain(place: Path) -> str:
    """Compares names as people do: macOS may store letters decomposed."""
    return unicodedata.normalize("NFC", place.as_posix()).casefold()


def _names(mask: str) -> Iterator[tuple[str, bool]]:
    """Images that a mask, `folder/stem`, may belong to, the likeliest first; whether it is one of several."""
    folder, slash, stem = mask.rpartition("/")
    yield mask, False
    for patterns, numbered in ((_ONE, False), (_NUMBERED, True)):
        for pattern in patterns:
            if found := pattern.fullmatch(stem):
                yield f"{folder}{slash}{found[1]}", numbered
    if folder:
        yield folder, True
        above, slash, name = folder.rpartition("/")
        if found := _ONE[0].fullmatch(name):
            yield f"{above}{slash}{found[1]}", True
