"""Every defect of a data set at once, before an hour of computing meets the first one.

`check_dataset` decodes each image and mask once and changes nothing.  What it finds:

`unreadable`      missing, empty, truncated or no image
`missing-mask`    a defect image without ground truth (pixel metrics will leave it out)
`mask-size`       mask and image differ in size
`empty-mask`      the mask of a defect image marks nothing
`mask-on-normal`  the mask of a normal image marks something
`duplicate`       the same pixels in training and test
`orphan-mask`     a mask that belongs to no image
`unexpected`      a file that the layout has no place for, or that is in a format that nobody reads
`no-test`         no test image at all: nothing can be evaluated
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from tqdm import tqdm

from pnilib.data.dataset import Dataset
from pnilib.data.files import EXPECTED, IMAGE_SUFFIXES, list_images
from pnilib.data.words import is_normal
from pnilib.errors import PNIError
from pnilib.images import mask_array, open_image

__all__ = ["Finding", "check_dataset"]


@dataclass(frozen=True)
class Finding:
    """One defect: its kind, where it is, what is wrong, what to do."""

    kind: str
    path: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}: {self.remedy}"


def check_dataset(dataset: Dataset, progress: bool = True) -> list[Finding]:
    """All findings, sorted by kind and path; an empty list is a clean data set.

    Time grows with the number of pixels: each file is decoded once.  Reports unreadable files
    instead of raising.
    """
    samples: list[dict[str, Any]] = dataset.samples.to_dict("records")  # type: ignore[assignment]
    findings = []
    seen_in_train: dict[str, str] = {}
    for sample in tqdm(samples, desc="check", unit="image", disable=not progress):
        found, pixels = _check_sample(sample)
        findings += found
        if pixels is None:
            continue
        if sample["split"] == "train":
            seen_in_train.setdefault(pixels, sample["image_path"])
        elif pixels in seen_in_train:
            where = f"shows the same pixels as the training image {seen_in_train[pixels]}"
            findings.append(Finding("duplicate", sample["image_path"], where, "remove one of the two"))
    if dataset.name != "folder":  # that layout has no masks at all
        findings += _missing_masks(samples)
        if len(dataset.test) == 0:
            remedy = "put images in test/good and test/DEFECT_NAME"
            findings.append(Finding("no-test", str(dataset.root / dataset.category), "has no test images", remedy))
    findings += _strays(dataset)
    return sorted(findings, key=lambda f: (f.kind, f.path))


def _check_sample(sample: dict[str, Any]) -> tuple[list[Finding], str | None]:
    """Findings on one image and its mask, and a digest of the image's pixels."""
    image_path, mask_path = sample["image_path"], sample["mask_path"]
    findings, size, pixels = [], None, None
    try:
        with open_image(image_path) as image:
            size = image.size
            pixels = hashlib.sha256(f"{image.mode}{size}".encode() + image.tobytes()).hexdigest()
    except PNIError as fault:
        findings.append(_unreadable(image_path, fault))
    if mask_path is None:
        return findings, pixels
    try:
        findings += _check_mask(mask_path, mask_array(mask_path), size, sample["label"])
    except PNIError as fault:
        findings.append(_unreadable(mask_path, fault))
    return findings, pixels


def _check_mask(
    path: str, mask: Bool[np.ndarray, "h w"], size: tuple[int, int] | None, label: int
) -> Iterator[Finding]:
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


def _strays(dataset: Dataset) -> Iterator[Finding]:
    """Masks without an image, and files that the layout does not read."""
    used = {Path(p) for column in ("image_path", "mask_path") for p in dataset.samples[column] if p is not None}
    base = dataset.root if dataset.name in ("mtd", "folder") else dataset.root / dataset.category
    rule = {"mtd": _stray_of_mtd, "visa": _stray_of_visa, "folder": _stray_of_folder}.get(dataset.name, _stray_of_mvtec)
    around = list_images(base, deep=True)
    unread = dict.fromkeys(set(around.images) - used, "image")
    unread |= {path: reason for reason, path in (*around.not_read, *dataset.not_read)}
    for path, reason in sorted(unread.items()):
        if reason in EXPECTED:
            continue
        kind = rule(path, path.relative_to(base).parts) if path.is_relative_to(base) else "unexpected"
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
    if image and len(parts) > 2 and parts[0] == "ground_truth":
        return "orphan-mask"
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
