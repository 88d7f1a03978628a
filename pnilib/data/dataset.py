"""What the rest of the package sees of a data set: a table of samples and two splits.

A *layout* (pnilib/data/layouts.py) turns a folder into rows; here they become a `Dataset`
whose `train` and `test` are read one image at a time.
"""

import hashlib
import inspect
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pnilib.data.layouts import LAYOUTS
from pnilib.errors import PNIError
from pnilib.images import Geometry, read_image, read_mask

__all__ = ["DATASETS", "Dataset", "Split", "list_categories", "load_dataset"]

DATASETS = tuple(LAYOUTS)
"""Names that `load_dataset` knows."""


class Split:
    """The training or test images of one category, in a fixed order.

    samples: one row an image, with image_path, mask_path (str or None), label (0 normal,
    1 defect, -1 unknown), defect_type, split, category.
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
        return read_mask(row["mask_path"], geometry, image_path=row["image_path"])

    def digest(self, i: int) -> str:
        """SHA-256 (hex) of an image file.  Raises PNIError when it cannot be read."""
        return _sha256(Path(self.samples["image_path"].iloc[i])).hex()

    def fingerprint(self) -> str:
        """SHA-256 (hex) over labels, relative names and contents of images and masks, in order."""
        digest = hashlib.sha256()
        for row in self.samples.to_dict("records"):
            digest.update(f"{row['label']}\0".encode())
            for path in (row["image_path"], row["mask_path"]):
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
    """One category of a data set; `notes` say what a reader of its numbers must know."""

    name: str
    root: Path
    category: str
    samples: pd.DataFrame
    notes: tuple[str, ...] = ()

    @property
    def train(self) -> Split:
        """The normal images to learn from."""
        return self._split("train")

    @property
    def test(self) -> Split:
        """The images to score."""
        return self._split("test")

    def _split(self, which: str) -> Split:
        return Split(self.samples[self.samples["split"] == which], self.root)


def list_categories(name: str, root: str | Path) -> list[str]:
    """Names of the categories below `root`, sorted.

    Raises PNIError when the data set's name is unknown, or nothing of its layout is found.
    """
    layout = _layout(name)
    return layout.categories(layout.locate(_folder(root)))


def load_dataset(name: str, root: str | Path, category: str | None = None, **options: Any) -> Dataset:
    """Table of samples of one category; nothing is read but folder listings and split files.

    `category` may be left out where there is only one.  Options: btad `btad03_half`; mtd `split`,
    `train_list`, `seed`, `train_fraction`; folder `test_root`.

    Raises PNIError when the name, the category or an option is unknown, or the layout is incomplete.
    """
    layout = _layout(name)
    known = [p.name for p in inspect.signature(layout.read).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            raise PNIError(f"data set {name}: has no option {option!r}: it takes {', '.join(known) or 'none'}")
    base = layout.locate(_folder(root))
    category = _choose(name, base, layout.categories(base), category)
    rows, notes = layout.read(base, category, **options)
    samples = pd.DataFrame(rows)
    samples["mask_path"] = samples["mask_path"].astype(object).where(samples["mask_path"].notna(), None)
    for split in ("train", "test"):
        if split == "test" and name == "folder":
            continue  # a folder without images to score is still worth training on
        if not (samples["split"] == split).any():
            raise PNIError(f"{base / category}: has no {split} images: check the folder against data_prep/{name}.md")
    return Dataset(name, base, category, samples, tuple(notes))


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
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as fault:
        raise PNIError(f"{path}: cannot be read ({fault.strerror}): check the file") from None
