"""Magnetic Tile Defects as published: MT_<type>/Imgs/<stem>.jpg with a mask <stem>.png beside it.

Each tile was photographed about six times, so a random split, the published one included, puts
the same tile into training and test.  Sorted by the number in the file name
(`exp3_num_2074` -> 2074), a gap above 60 starts a new tile: 263 tiles, 182 of which have
defect-free images.  Two splits, never to be mixed up in a table:

`tile`       whole tiles are kept apart.  A seeded choice of the tiles with defect-free images
             trains; the test set is every image of all other tiles.  Defect images of a training
             tile are left out altogether: the model would know the rest of their surface.
`differnet`  the list of 761 training images that the literature uses; it leaks.
"""

import itertools
import re
from pathlib import Path, PureWindowsPath

import numpy as np

from pnilib.data.files import Samples, list_images, row, subfolders
from pnilib.errors import PNIError
from pnilib.store.text import many, read_text

__all__ = ["TILE_GAP", "is_mtd", "read_mtd", "tile_numbers"]

TILE_GAP = 60
"""A larger step between neighbouring file numbers starts a new tile."""

_LIST_NAMES = ("mtd_train_filenames.txt", "differnet_train_filenames.txt")


def is_mtd(root: Path) -> list[str]:
    """["mtd"].  Raises PNIError when `root` has no MT_Free folder."""
    if not (root / "MT_Free").is_dir():
        raise PNIError(f"{root}: has no folder MT_Free: give the folder that holds the six MT_ folders")
    return ["mtd"]


def tile_numbers(file_numbers: list[int]) -> list[int]:
    """The tile, 0, 1, 2 ... in file-number order, of each image."""
    tiles: dict[int, int] = {}
    for previous, number in itertools.pairwise([None, *sorted(set(file_numbers))]):
        if number is not None:
            tiles[number] = 0 if previous is None else tiles[previous] + int(number - previous > TILE_GAP)
    return [tiles[number] for number in file_numbers]


def read_mtd(
    root: Path, category: str, *, split: str = "tile", train_list: str | Path | None = None,
    seed: int = 0, train_fraction: float = 0.8,
) -> Samples:  # fmt: skip
    """Samples of either split, with one more column, `tile`.

    train_list: text file of one training image name a line (`differnet`; default:
    mtd_train_filenames.txt in `root`).  train_fraction: share of the tiles with
    defect-free images that train (`tile`; at least one trains and one is tested).

    Raises PNIError when an option is out of range, or the list is missing or names other images.
    """
    listings = [list_images(f / "Imgs") for f in subfolders(root) if f.name.startswith("MT_")]
    images = [p for found in listings for p in found.images if p.suffix.lower() != ".png"]
    masks = {p.with_suffix(""): p for found in listings for p in found.images if p.suffix.lower() == ".png"}
    tiles = tile_numbers([_file_number(p) for p in images])
    free = {p: t for p, t in zip(images, tiles, strict=True) if p.parent.parent.name == "MT_Free"}
    if not free:
        raise PNIError(f"{root / 'MT_Free' / 'Imgs'}: holds no .jpg image: extract the whole archive")
    left_out = set[Path]()
    if split == "differnet":
        names = _differnet_names(root, train_list, {p.name for p in free})
        training = {p for p in free if p.name in names}
        both = {free[p] for p in training} & {t for p, t in zip(images, tiles, strict=True) if p not in training}
        leaking = many(len(both), "tile is", "tiles are")
        note = f"split differnet leaks: {leaking} in training and test; compare with split tile"
    elif split == "tile":
        chosen = _training_tiles(sorted(set(free.values())), seed, train_fraction)
        training = {p for p, t in free.items() if t in chosen}
        left_out = {p for p, t in zip(images, tiles, strict=True) if t in chosen} - training
        note = (
            f"split tile, seed {seed}: {len(chosen)} of {len(set(tiles))} tiles train, none is in both; "
            f"{many(len(left_out), 'defect image')} of training tiles left out"
        )
    else:
        raise PNIError(f"split={split!r}: unknown: choose tile or differnet")
    rows = []
    for path, tile in zip(images, tiles, strict=True):
        if path in left_out:
            continue
        kind = "good" if path in free else path.parent.parent.name.removeprefix("MT_").lower()
        which = "train" if path in training else "test"
        sample = row(path, which, int(path not in free), kind, category, masks.get(path.with_suffix("")))
        rows.append(sample | {"tile": tile})
    rows.sort(key=lambda r: r["split"] == "test")  # stable: names stay sorted
    return Samples(rows, [note], [entry for found in listings for entry in found.not_read])


def _file_number(path: Path) -> int:
    found = re.fullmatch(r"exp\d+_num_(\d+)", path.stem)
    if found is None:
        raise PNIError(f"{path}: is not named exp<N>_num_<N>.jpg: move files of your own elsewhere")
    return int(found.group(1))


def _training_tiles(tiles: list[int], seed: int, fraction: float) -> set[int]:
    if not 0 < fraction < 1:
        raise PNIError(f"train_fraction={fraction}: must lie between 0 and 1, for instance 0.8")
    if len(tiles) < 2:
        raise PNIError(f"split tile: only {len(tiles)} tile has defect-free images: two are needed")
    n_train = min(max(round(fraction * len(tiles)), 1), len(tiles) - 1)
    return {tiles[i] for i in np.random.default_rng(seed).permutation(len(tiles))[:n_train]}


def _differnet_names(root: Path, train_list: str | Path | None, known: set[str]) -> set[str]:
    if train_list is None:
        train_list = next((root / name for name in _LIST_NAMES if (root / name).is_file()), root / _LIST_NAMES[0])
    path = Path(train_list).expanduser()
    if not path.is_file():
        raise PNIError(
            f"{path}: does not exist: get it from the repository marco-rudolph/differnet (its name there) "
            "and give train_list=, or use split=tile"
        )
    spelt = {name.casefold(): name for name in known}  # Windows heeds no case
    names = {PureWindowsPath(line.strip()).name for line in read_text(path).splitlines() if line.strip()}
    strange = sorted(name for name in names if name.casefold() not in spelt)
    if strange or not names:
        raise PNIError(f"{path}: names {strange[0] if strange else 'no image'}, which is no image of MT_Free: check it")
    return {spelt[name.casefold()] for name in names}
