"""Every defect of a data set at once, before an hour of computing meets the first one.

`check_dataset` decodes each image and mask once and changes nothing.  What it finds:

`unreadable`      missing, empty, truncated or no image
`missing-mask`    a defect image without ground truth (pixel metrics will leave it out)
`mask-size`       mask and image differ in size
`empty-mask`      the mask of a defect image marks nothing
`mask-on-normal`  the mask of a normal image marks something
`duplicate`       the same pixels in training and test
`near-duplicate`  almost the same: pnilib/data/duplicates.py
`orphan-mask`     a mask that belongs to no image
`unexpected`      a file that the layout has no place for, or that is in a format that nobody reads
`no-test`         no test image at all: nothing can be evaluated

and what pre-processing makes of them (pnilib/data/appearance.py): `mixed-sizes`, `mixed-kinds`, `dark`, `large-mask`,
`unsure-mask`, `cut-defect`, `lost-defect`.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import Bool
from numpy import ndarray
from PIL import Image
from tqdm import tqdm

from pnilib.config.geometry import Geometry
from pnilib.data import appearance
from pnilib.data.dataset import Dataset
from pnilib.data.duplicates import repeated_images, thumbnail
from pnilib.data.files import EXPECTED, IMAGE_SUFFIXES, list_images
from pnilib.data.findings import Finding
from pnilib.data.image_files import Header, decode, read_header
from pnilib.data.mask_values import marked, mask_values
from pnilib.data.masks import mask_files, orphan_masks
from pnilib.data.words import is_normal
from pnilib.errors import PNIError

__all__ = ["Finding", "check_dataset"]


def check_dataset(dataset: Dataset, progress: bool = True, geometry: Geometry | None = None) -> list[Finding]:
    """All findings, sorted by kind and path; an empty list is a clean data set.

    `geometry`: the pre-processing that images and masks are to survive; default: the paper's.
    Time grows with the number of pixels: each file is decoded once.  Reports unreadable files
    instead of raising.
    """
    samples: list[dict[str, Any]] = dataset.samples.to_dict("records")  # type: ignore[assignment]
    findings: list[Finding] = []
    seen = _Seen(geometry or Geometry())
    for sample in tqdm(samples, desc="check", unit="image", disable=not progress):
        size = None
        try:
            size, found = _check_image(sample, seen)
            findings += found
        except PNIError as fault:
            findings.append(_unreadable(sample["image_path"], fault))
        findings += _check_masks(sample, size, seen)
    if dataset.name != "folder":  # that layout has no masks at all
        findings += _missing_masks(samples)
        if len(dataset.test) == 0:
            remedy = "put images in test/good and test/DEFECT_NAME"
            findings.append(Finding("no-test", str(dataset.root / dataset.category), "has no test images", remedy))
    findings += seen.findings(str(_base(dataset)))
    findings += _strays(dataset)
    return sorted(findings, key=lambda f: (f.kind, f.path))


@dataclass
class _Seen:
    """What only all files together tell, by path."""

    geometry: Geometry
    headers: dict[str, Header] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    thumbnails: dict[str, dict[str, ndarray]] = field(default_factory=lambda: {"train": {}, "test": {}})
    shares: dict[str, float] = field(default_factory=dict)
    doubts: dict[str, str] = field(default_factory=dict)
    losses: dict[str, str] = field(default_factory=dict)

    def findings(self, place: str) -> Iterator[Finding]:
        """Findings on the whole data set, which lies in the folder `place`."""
        yield from appearance.mixtures(self.headers, self.geometry, place)
        yield from appearance.dark_images(self.peaks, self.geometry, place)
        yield from appearance.large_masks(self.shares, place)
        yield from appearance.unsure_masks(self.doubts, len(self.shares), place)
        yield from appearance.lost_defects(self.losses, self.geometry, place)
        train, test = self.thumbnails["train"], self.thumbnails["test"]
        yield from repeated_images([*train, *test], [*train.values(), *test.values()], len(train), place)


def _check_image(sample: dict[str, Any], seen: _Seen) -> tuple[tuple[int, int], list[Finding]]:
    """Its size, and whether the training images hold the same pixels.  Raises PNIError when it cannot be read."""
    path, train = sample["image_path"], sample["split"] == "train"
    pixels = decode(path)
    seen.headers[path] = header = read_header(path)
    if (largest := appearance.peak(pixels)) is not None:
        seen.peaks[path] = largest
    size = (header.width, header.height)
    mode = pixels.mode if isinstance(pixels, Image.Image) else str(pixels.dtype)
    digest = hashlib.sha256(f"{mode}{size}".encode() + pixels.tobytes()).hexdigest()
    if not train and digest in seen.digests:
        where = f"shows the same pixels as the training image {seen.digests[digest]}"
        return size, [Finding("duplicate", path, where, "remove one of the two")]
    if train:
        seen.digests.setdefault(digest, path)
    seen.thumbnails["train" if train else "test"][path] = thumbnail(pixels)
    return size, []


def _check_masks(sample: dict[str, Any], size: tuple[int, int] | None, seen: _Seen) -> Iterator[Finding]:
    meaning, united = sample.get("masks", "auto"), None
    for path in mask_files(sample["mask_path"]):
        try:
            values, white = mask_values(path, meaning)
        except PNIError as fault:
            yield _unreadable(path, fault)
            continue
        mask = marked(values, white, meaning)
        if meaning in ("auto", "inverted"):
            seen.doubts[path] = appearance.mask_doubt(values)
        yield from _check_mask(path, mask, size, sample["label"])
        if united is None or united.shape == mask.shape:
            united = mask if united is None else united | mask
    if united is not None and sample["label"] == 1:
        seen.shares[mask_files(sample["mask_path"])[0]] = float(united.mean())
        seen.losses[sample["image_path"]] = appearance.kind_of_loss(united, seen.geometry)


def _check_mask(path: str, mask: Bool[ndarray, "h w"], size: tuple[int, int] | None, label: int) -> Iterator[Finding]:
    height, width = mask.shape
    if size is not None and size != (width, height):
        problem = f"mask is {width} x {height} px, its image {size[0]} x {size[1]} px"
        yield Finding("mask-size", path, problem, "redraw the mask at the image's size")
    if label == 1 and not mask.any():
        yield Finding("empty-mask", path, "marks no pixel of a defect image", "draw the defect, or relabel the image")
    if label == 0 and mask.any():
        problem = f"marks {int(mask.sum())} pixels of a normal image"
        yield Finding("mask-on-normal", path, problem, "empty the mask, or relabel the image")


def _unreadable(path: str, fault: PNIError) -> Finding:
    """The reader's line, `path: problem: remedy`, taken apart."""
    problem, _, remedy = str(fault).removeprefix(f"{path}: ").rpartition(": ")
    return Finding("unreadable", path, problem, remedy)


def _missing_masks(samples: list[dict[str, Any]]) -> Iterator[Finding]:
    """One finding an image, or one a defect type where none of its images has a mask."""
    types: dict[str, list[dict[str, Any]]] = {}
    for sample in samples:
        if sample["label"] == 1:
            types.setdefault(sample["defect_type"], []).append(sample)
    remedy = "add masks, or do without pixel metrics on these images"
    for kind, members in types.items():
        without = [s["image_path"] for s in members if s["mask_path"] is None]
        if len(without) == len(members) > 1:
            folder = str(Path(without[0]).parent)
            problem = f"defect type {kind!r}: none of its {len(members)} images has a mask"
            yield Finding("missing-mask", folder, problem, remedy)
        else:
            for path in without:
                yield Finding("missing-mask", path, "defect image without a mask", remedy)


def _base(dataset: Dataset) -> Path:
    """The folder of the category."""
    return dataset.root if dataset.name in ("mtd", "folder") else dataset.root / dataset.category


def _strays(dataset: Dataset) -> Iterator[Finding]:
    """Masks without an image, and files that the layout does not read."""
    used = {Path(path) for path in dataset.samples["image_path"]}
    used |= {Path(path) for cell in dataset.samples["mask_path"] for path in mask_files(cell)}
    base = _base(dataset)
    rule = {"mtd": _stray_of_mtd, "visa": _stray_of_visa, "folder": _stray_of_folder}.get(dataset.name, _stray_of_mvtec)
    orphans = set(orphan_masks(base, used))
    around = list_images(base, deep=True)
    unread = dict.fromkeys(set(around.images) - used, "image")
    unread |= {path: reason for reason, path in (*around.not_read, *dataset.not_read)}
    for path, reason in sorted(unread.items()):
        if reason in EXPECTED:
            continue
        parts = path.relative_to(base).parts if path.is_relative_to(base) else None
        kind = "orphan-mask" if path in orphans else "unexpected" if parts is None else rule(path, parts)
        if kind == "orphan-mask":
            yield Finding(kind, str(path), "mask without an image", "add the image, or remove the mask")
        elif kind is not None and path.suffix.lower() in IMAGE_SUFFIXES:
            yield Finding(kind, str(path), "the layout has no place for this file", "move it elsewhere")
        elif kind is not None:
            yield Finding(
                kind, str(path), f"{reason}: is not read as an image", "convert it to PNG, or move it elsewhere"
            )


def _stray_of_mvtec(path: Path, parts: tuple[str, ...]) -> str | None:
    image = path.suffix.lower() in IMAGE_SUFFIXES
    if len(parts) == 1 and not image:
        return None  # licence and readme files
    if parts[0] == "segmentation":
        return None  # the demo's part labels
    trains = image and len(parts) > 2 and parts[0] == "train" and is_normal(parts[1])
    return None if trains else "unexpected"  # unused training images: option btad03_half


def _stray_of_mtd(path: Path, parts: tuple[str, ...]) -> str | None:
    if len(parts) == 1 or not parts[0].startswith("MT_"):
        return None  # the repository's own files
    if len(parts) == 3 and parts[1] == "Imgs" and path.suffix.lower() in (".jpg", ".png"):
        return "orphan-mask" if path.suffix.lower() == ".png" and not path.with_suffix(".jpg").is_file() else None
    return "unexpected"


def _stray_of_visa(path: Path, parts: tuple[str, ...]) -> str | None:
    if len(parts) == 1 and path.suffix == ".csv":
        return None
    return "orphan-mask" if "Masks" in parts else "unexpected"


def _stray_of_folder(path: Path, parts: tuple[str, ...]) -> str | None:
    return "unexpected"
