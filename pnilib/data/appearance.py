"""What pre-processing makes of a data set: images that it treats unequally, masks that it may misread or cut away.

`mixed-sizes`    images of several sizes: what is resized by different factors differs in sharpness, or in shape
`mixed-kinds`    grey and colour, 8 and 16 bits in one data set
`dark`           16-bit images that use an eighth of their range or less: a 12-bit camera
`large-mask`     masks that mark more than half of the image: inverted, perhaps
`unsure-mask`    masks with values that may count as a defect or not (rule: pnilib/data/mask_values.py)
`cut-defect`     defects that the centre crop cuts away whole: the image is a defect that the model never sees
`lost-defect`    defects that resizing makes smaller than a pixel
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy import ndarray
from PIL import Image

from pnilib.config.geometry import Geometry
from pnilib.data.dataset import Split
from pnilib.data.findings import Finding
from pnilib.data.image_files import Header, decode, read_header
from pnilib.data.images import kept_box, resize_mask
from pnilib.data.mask_values import flat_spots, mask_threshold, united_mask
from pnilib.data.masks import mask_files
from pnilib.errors import PNIError
from pnilib.store.text import shown

__all__ = [
    "dark_images", "kind_of_loss", "large_masks", "lost_defects", "mask_doubt", "mixtures", "notes_on_images",
    "notes_on_masks", "notes_on_new_images", "notes_on_truth", "peak", "unsure_masks",
]  # fmt: skip

_SAMPLE = 8
"""Files that `notes_on_images` and `notes_on_masks` decode: a fit should not wait for them."""

_SAME_SHAPE = 1.01
"""Aspect ratios (width : height) that differ by less are the same."""


def mixtures(headers: Mapping[str, Header], geometry: Geometry, place: str) -> Iterator[Finding]:
    """Findings on images of several sizes, and of several kinds; `place`: the data set's folder."""
    sizes = {path: (h.width, h.height) for path, h in headers.items()}
    if len(set(sizes.values())) > 1:
        shapes = [width / height for width, height in sizes.values()]
        remedy = "what is resized by different factors differs in sharpness: take them at one size"
        if max(shapes) > _SAME_SHAPE * min(shapes):
            fate = f"is squeezed to {geometry.resize} x {geometry.resize} px"
            if geometry.resize_mode == "short":
                fate = f"loses what the crop of {geometry.crop} px leaves over"
            remedy = f"each {fate}, whatever its shape: cut them alike" + (
                ", or set resize=short" if geometry.resize_mode == "square" else ""
            )
        named = {path: f"{width} x {height} px" for path, (width, height) in sizes.items()}
        yield Finding("mixed-sizes", place, f"images of several sizes: {_listing(named)}", remedy)
    kinds = {path: _kind(header) for path, header in headers.items()}
    if len(set(kinds.values())) > 1:
        remedy = "the model takes the difference for a property of the parts: convert them alike"
        yield Finding("mixed-kinds", place, f"images of several kinds: {_listing(kinds)}", remedy)


def _listing(values: Mapping[str, str]) -> str:
    """`38 of 64 x 64 px, 2 of 80 x 64 px (FIRST ONE)`: the most frequent first, an example of the rarest."""
    counts = Counter(values.values()).most_common()
    rarest = counts[-1][0]
    example = shown(next(path for path, value in values.items() if value == rarest))
    listed = [f"{n} of {value}" for value, n in counts[:3]]
    more = [f"and {len(counts) - 3} more"] if len(counts) > 3 else []
    return ", ".join(listed + more) + f" ({example}: {rarest})"


def peak(pixels: Image.Image | ndarray) -> int | None:
    """The largest value of an image of 16 bits; None for others."""
    values = np.asarray(pixels) if isinstance(pixels, ndarray) or pixels.mode[0] == "I" else np.zeros(0)
    return int(values.max()) if values.dtype.kind in "iu" and values.size else None


def dark_images(peaks: Mapping[str, int], geometry: Geometry, place: str) -> Iterator[Finding]:
    """A finding where 16-bit images (path -> largest value) leave seven eighths of their range empty."""
    largest = max(peaks.values(), default=0)
    if 0 < largest <= (geometry.white + 1) // 8:
        bits = max(8, math.ceil(math.log2(largest + 1)))
        used = f"the largest value is {largest} of {geometry.white}"
        problem = f"images of 16 bits ({len(peaks)} looked at) use little of their range: {used}"
        yield Finding("dark", place, problem, f"the model sees them nearly black: --set bit_depth={bits}")


def mask_doubt(values: ndarray) -> str:
    """Which values of a mask might have been meant otherwise than the rule reads them; "" for a clear one."""
    low, high, threshold = float(values.min()), float(values.max()), mask_threshold(values)
    if low == high:
        return ""
    doubts = [f"its darkest value, {low:g}, counts as background"] if low > 0 else []
    if high >= 32 or values.dtype.kind == "f":
        faint = float(np.mean((values > low) & (values <= high / 16)))
        if faint > 0.01:
            doubts.append(f"values up to {high / 16:g} cover {faint:.0%} of it and count as background")
        dim = values[flat_spots(values) & (values > max(high / 16, low)) & (values <= threshold)]
        if len(dim) > 3:
            doubts.append(f"values of {dim.min():g} ... {dim.max():g} lie below its threshold of {threshold:g}")
    return ", ".join(doubts)


def unsure_masks(doubts: Mapping[str, str], n_masks: int, place: str) -> Iterator[Finding]:
    """One finding on all masks in doubt (path -> `mask_doubt`)."""
    doubtful = {path: doubt for path, doubt in doubts.items() if doubt}
    if doubtful:
        path, doubt = next(iter(doubtful.items()))
        problem = f"{len(doubtful)} of {n_masks} masks can be read in two ways, e.g. {shown(path)}: {doubt}"
        remedy = "save masks as PNG of 0 and 255, or say what they mean with --option masks=nonzero (or bright)"
        yield Finding("unsure-mask", place, problem, remedy)


def large_masks(shares: Mapping[str, float], place: str) -> Iterator[Finding]:
    """One finding on all masks (path -> marked share of the image) that mark more than half."""
    large = {path: share for path, share in shares.items() if share > 0.5}
    if large:
        path = max(large, key=lambda name: large[name])
        problem = (
            f"{len(large)} of {len(shares)} masks mark over half of the image, e.g. {shown(path)}: {large[path]:.0%}"
        )
        yield Finding("large-mask", place, problem, "if they are inverted, say so with --option masks=inverted")


def kind_of_loss(mask: ndarray, geometry: Geometry) -> str:
    """`cut-defect`, `lost-defect`, or "" where something of the mask (h, w, at the file's size) is left."""
    if not mask.any() or resize_mask(mask, geometry).any():
        return ""
    left, top, right, bottom = kept_box((mask.shape[1], mask.shape[0]), geometry)
    return "lost-defect" if mask[top:bottom, left:right].any() else "cut-defect"


def lost_defects(kinds: Mapping[str, str], geometry: Geometry, place: str) -> Iterator[Finding]:
    """Findings on the images (path -> `kind_of_loss`) of whose defect nothing is left."""
    for kind, why, remedy in (
        (
            "cut-defect",
            f"lies outside the crop of {geometry.crop} of {geometry.resize} px",
            "the model never sees it, yet it counts as missed: raise image_crop, or cut the images",
        ),
        (
            "lost-defect",
            f"has a mask of less than a pixel at {geometry.resize} px",
            "pixel metrics take it for normal: raise image_resize",
        ),
    ):
        paths = [path for path, found in kinds.items() if found == kind]
        if paths:
            problem = f"{len(paths)} of {len(kinds)} defect images: the defect {why}, e.g. {shown(paths[0])}"
            yield Finding(kind, place, problem, remedy)


def notes_on_images(samples: pd.DataFrame, geometry: Geometry) -> list[str]:
    """Lines on images treated unequally: from all headers, and a few decoded images of 16 bits.

    Files that cannot be read are left to whoever reads them.
    """
    headers = _headers(samples["image_path"])
    dark = dark_images(_peaks(headers), geometry, "")
    return [finding.note for finding in [*mixtures(headers, geometry, ""), *dark]]


def notes_on_new_images(paths: Iterable[Path], geometry: Geometry, train_paths: Sequence[str] = ()) -> list[str]:
    """Lines where images that a fitted model is to score are nearly black to it, or of other kinds or shapes than those
    of a few training images, as far as these are still there."""
    new, trained = _headers(map(str, paths)), _headers(_spread(train_paths))
    remedy = "save them as the training images are, or fit with"
    notes = [
        f"{finding.problem}: {finding.remedy.replace(': ', f': {remedy} ')}"
        for finding in dark_images(_peaks(new), geometry, "")
    ]
    kinds = {_kind(header) for header in trained.values()}
    other = {path: _kind(header) for path, header in new.items() if _kind(header) not in kinds}
    if kinds and other:
        notes.append(
            f"unlike the training images ({', '.join(sorted(kinds))}): {_listing(other)}: the model takes the "
            "difference for a defect: convert them alike"
        )
    shapes = [header.width / header.height for header in trained.values()]
    squeezed = {
        path: f"{h.width} x {h.height} px"
        for path, h in new.items()
        if shapes and not min(shapes) / _SAME_SHAPE <= h.width / h.height <= max(shapes) * _SAME_SHAPE
    }
    if squeezed:
        like = next(iter(trained.values()))
        notes.append(
            f"of another shape than the training images ({like.width} x {like.height} px): {_listing(squeezed)}: their "
            "scores say little: cut them alike"
        )
    return notes


def _headers(paths: Iterable[str]) -> dict[str, Header]:
    """Of the files that can be read."""
    headers: dict[str, Header] = {}
    for path in paths:
        with suppress(PNIError):
            headers[path] = read_header(path)
    return headers


def _kind(header: Header) -> str:
    return f"{'colour' if header.colour else 'grey'} of {header.bits} bits"


def _peaks(headers: Mapping[str, Header]) -> dict[str, int]:
    """Path -> largest value, of a few images of 16 bits."""
    peaks: dict[str, int] = {}
    for path in _spread([path for path, header in headers.items() if header.bits == 16]):
        with suppress(PNIError):
            peaks[path] = peak(decode(path)) or 0
    return peaks


def notes_on_truth(test: Split, shares: Mapping[int, float], geometry: Geometry) -> list[str]:
    """Lines on large masks, and on defects of which the pre-processing leaves nothing.

    shares: of each defect image (its index) with ground truth, what its mask marks of the crop.
    """
    masks = {mask_files(test.samples["mask_path"].iloc[i])[0]: share for i, share in shares.items()}
    losses = {test.samples["image_path"].iloc[i]: "" for i in shares}
    for i, share in shares.items():
        if share == 0 and (whole := test.whole_mask(i)) is not None:
            losses[test.samples["image_path"].iloc[i]] = kind_of_loss(whole, geometry)
    return [finding.note for finding in [*large_masks(masks, ""), *lost_defects(losses, geometry, "")]]


def notes_on_masks(samples: pd.DataFrame) -> list[str]:
    """A line on large masks, from a few of them."""
    shares: dict[str, float] = {}
    rows = samples[samples["mask_path"].notna() & (samples["label"] == 1)].to_dict("records")
    for row in _spread(rows):
        paths = mask_files(row["mask_path"])
        with suppress(PNIError):
            shares[paths[0]] = float(united_mask(paths, masks=row.get("masks", "auto")).mean())
    return [finding.note for finding in large_masks(shares, "")]


def _spread(items: Sequence[Any]) -> list[Any]:
    """At most _SAMPLE of them, evenly spread."""
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, _SAMPLE).round().astype(int))] if items else []
