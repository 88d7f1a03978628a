"""What the rest of the package sees of a data set: a table of samples and two splits.

A *layout* (pnilib/data/layouts.py) turns a folder into rows; here they become a `Dataset`
whose `train` and `test` are read one image at a time.
"""

import hashlib
import inspect
import math
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from pnilib.config.geometry import Geometry
from pnilib.data.files import unread_note
from pnilib.data.images import read_image, read_mask
from pnilib.data.layouts import LAYOUTS
from pnilib.data.mask_values import MASKS, united_mask
from pnilib.data.masks import mask_files, orphan_note
from pnilib.errors import PNIError
from pnilib.store.text import many, shown

__all__ = ["HELD_OUT", "HOLD_OUT_SEED", "Dataset", "Split", "list_categories", "load_dataset"]

HELD_OUT = "held_out"
HOLD_OUT_SEED = 333
"""SegAD's release: `train_test_split(train_goods, test_size=.1, random_state=333)`."""


class Split:
    """The training or test images of one category, in a fixed order.

    samples: one row an image, with image_path, mask_path (str, several as a tuple, or None), label (0 normal,
    1 defect, -1 unknown), defect_type, split, category; masks: what their values mean (`pnilib.data.mask_values.MASKS`;
    without the column `auto`).
    """

    def __init__(self, samples: pd.DataFrame, root: str | Path = "") -> None:
        self.samples = samples.reset_index(drop=True)
        self.root = Path(root)

    def __len__(self) -> int:
        return len(self.samples)

    def image(self, i: int, geometry: Geometry) -> Float[Tensor, "3 crop crop"]:
        """RGB in [0, 1].  Raises PNIError when the file is missing, damaged or no image."""
        return read_image(self.samples["image_path"].iloc[i], geometry)

    def mask(self, i: int, geometry: Geometry) -> Bool[Tensor, "crop crop"] | None:
        """Defect pixels: none for a normal image; None where no ground truth exists.

        Raises PNIError when the file is damaged or differs in size from its image.
        """
        row = self.samples.iloc[i]
        if row["label"] == 0:
            return torch.zeros(geometry.crop, geometry.crop, dtype=torch.bool)
        if row["mask_path"] is None:
            return None
        return read_mask(mask_files(row["mask_path"]), geometry, row["image_path"], row.get("masks", "auto"))

    def whole_mask(self, i: int) -> Bool[ndarray, "h w"] | None:
        """Defect pixels at the file's own size; None without a mask.  Raises PNIError as `mask` does."""
        row = self.samples.iloc[i]
        if row["mask_path"] is None:
            return None
        return united_mask(mask_files(row["mask_path"]), row["image_path"], row.get("masks", "auto"))

    def digest(self, i: int) -> str:
        """SHA-256 (hex) of an image file.  Raises PNIError when it cannot be read."""
        return _sha256(Path(self.samples["image_path"].iloc[i])).hex()

    def fingerprint(self) -> str:
        """SHA-256 (hex) over labels, relative names and contents of images and masks, in order.

        A file is read once a process, and again when its size or times say that it was changed.
        """
        digest = hashlib.sha256()
        for row in self.samples.to_dict("records"):
            digest.update(f"{row['label']}\0".encode())
            masks = mask_files(row["mask_path"])
            if masks and row.get("masks", "auto") != "auto":
                digest.update(f"masks={row['masks']}\0".encode())
            for path in (row["image_path"], *(masks or [None])):
                if path is None:
                    digest.update(b"-\0")
                    continue
                name = Path(path)
                name = name.relative_to(self.root) if name.is_relative_to(self.root) else Path(name.name)
                digest.update(unicodedata.normalize("NFC", name.as_posix()).encode("utf-8", "surrogateescape") + b"\0")
                digest.update(_sha256(Path(path)))
        return digest.hexdigest()


@dataclass(frozen=True)
class Dataset:
    """One category of a data set; `notes` say what a reader of its numbers must know, what was not read at the end."""

    name: str
    root: Path
    category: str
    samples: pd.DataFrame
    notes: tuple[str, ...] = ()
    not_read: tuple[tuple[str, Path], ...] = ()
    """What lies among the images and is none, by reason; `notes` sum it up."""

    @property
    def train(self) -> Split:
        """The normal images to learn from."""
        return self._split("train")

    @property
    def test(self) -> Split:
        """The images to score."""
        return self._split("test")

    @property
    def held_out(self) -> Split:
        """Normal training images that no detector is fitted on; empty but with the option `hold_out`."""
        return self._split(HELD_OUT)

    def summary(self) -> str:
        """`8 training images; 3 normal (OK) and 6 defective test images`."""
        test = self.test.samples
        parts = []
        for label, name in ((0, "normal"), (1, "defective"), (-1, "unlabelled")):
            found = test[test["label"] == label]
            kinds = ", ".join(shown(kind) for kind in sorted(set(found["defect_type"])))
            if len(found):
                parts.append(f"{len(found)} {name}" + (f" ({kinds})" if label == 0 else ""))
        return f"{many(len(self.train), 'training image')}; {' and '.join(parts) or 'no'} test images"

    def _split(self, which: str) -> Split:
        return Split(self.samples[self.samples["split"] == which], self.root)


def list_categories(name: str, root: str | Path) -> list[str]:
    """Names of the categories below `root`, sorted.

    Raises PNIError when the data set's name is unknown, or nothing of its layout is found.
    """
    layout = _layout(name)
    return layout.categories(layout.locate(_folder(root)))


def load_dataset(
    name: str,
    root: str | Path,
    category: str | None = None,
    *,
    masks: str = "auto",
    hold_out: Any = 0.0,  # from a command line, so of any type
    **options: Any,
) -> Dataset:
    """Table of samples of one category; nothing is read but folder listings and split files.

    `category` may be left out where there is only one.  `masks`: what the values of mask files mean, one of
    `data.mask_values.MASKS`.  `hold_out`: share of the training images that becomes `Dataset.held_out`, for what is
    learnt from a detector's maps (SegAD), drawn with HOLD_OUT_SEED.
    More options: mvtec, demo, btad, folder `normal`, which of their folders are normal
    (`pnilib.data.labels`); btad `btad03_half`; mtd `split`, `train_list`, `seed`, `train_fraction`; folder
    `test_root`.  There may be no test images: the notes say so.

    Raises PNIError when the name, the category or an option is unknown, there is no training image, or it is not
    clear which images are normal.
    """
    layout = _layout(name)
    known = [p.name for p in inspect.signature(layout.read).parameters.values() if p.kind is p.KEYWORD_ONLY]
    known += ["hold_out"] + (["masks"] if name != "folder" else [])
    if masks not in MASKS:
        raise PNIError(f"masks={masks}: unknown: choose one of {', '.join(MASKS)}")
    options |= {} if masks == "auto" else {"masks": masks}
    for option in options:
        if option not in known:
            raise PNIError(f"data set {name}: has no option {option!r}: it takes {', '.join(known) or 'none'}")
    base = layout.locate(_folder(root))
    category = _choose(name, base, layout.categories(base), category)
    options.pop("masks", None)
    found = layout.read(base, category, **options)
    samples = pd.DataFrame(found.rows).assign(masks=masks)
    samples["mask_path"] = samples["mask_path"].astype(object).where(samples["mask_path"].notna(), None)
    if not (samples["split"] == "train").any():
        raise PNIError(f"{base / category}: has no training images: check the folder against data_prep/{name}.md")
    if hold_out:
        _hold_out(samples, hold_out, base / category)
    notes = list(found.notes)
    notes += orphan_note(base / category, (Path(p) for cell in samples["mask_path"] for p in mask_files(cell)))
    if name != "folder" and not (samples["split"] == "test").any():  # a folder to learn from is all that is asked for
        notes.append("no test images: it can be fitted and score others, but not be evaluated")
    if found.not_read:
        notes.append(unread_note(found.not_read))
    return Dataset(name, base, category, samples, tuple(notes), tuple(found.not_read))


def _hold_out(samples: pd.DataFrame, share: Any, place: Path) -> None:
    """Give a share of the training rows, drawn in their order, the split HELD_OUT."""
    from sklearn.model_selection import train_test_split

    train = samples.index[samples["split"] == "train"]
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise PNIError(f"hold_out={share}: not between 0 and 1: it is a share of the training images, as 0.1")
    if not 0 < math.ceil(share * len(train)) < len(train):
        raise PNIError(
            f"{place}: hold_out={share} leaves none of its {len(train)} training images to fit on: hold less out"
        )
    samples.loc[train_test_split(train, test_size=share, random_state=HOLD_OUT_SEED)[1], "split"] = HELD_OUT


def _layout(name: str) -> Any:
    if name not in LAYOUTS:
        raise PNIError(f"data set {name!r}: is unknown: choose one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def _folder(root: str | Path) -> Path:
    root = Path(root).expanduser()
    if not root.is_dir():
        raise PNIError(f"{root}: is not a folder: give the folder that holds the data set")
    return root


def _choose(name: str, root: Path, available: list[str], wanted: str | None) -> str:
    if wanted is None and len(available) == 1:
        return available[0]
    for category in available:  # macOS may store names decomposed: compare composed
        if wanted and unicodedata.normalize("NFC", category) == unicodedata.normalize("NFC", wanted):
            return category
    fault = "no category given" if wanted is None else f"has no category {wanted!r}"
    raise PNIError(f"{root} ({name}): {fault}: choose one of {', '.join(available)}")


def _sha256(path: Path) -> bytes:
    try:
        found = path.stat()
        return _sha256_of(path, (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))
    except OSError as fault:
        raise PNIError(f"{path}: cannot be read ({fault.strerror}): check the file") from None


@lru_cache(maxsize=2**16)
def _sha256_of(path: Path, stamp: tuple[int, ...]) -> bytes:
    """`stamp`: another one when the file was changed."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
