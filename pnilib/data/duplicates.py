"""Images that show almost the same: one photograph saved twice, or a part photographed twice without moving.

Compared are grey thumbnails of 64 x 64 px, each less its own mean.  Two of them are near-duplicates when they differ
by at most 1.5 grey levels (root mean square), and by at most a tenth of their own contrast.  JPEG at quality 50,
halving and noise of 5 levels stay below (0.4 to 1.1), different parts in one pose do not (screw of MVTec AD: 3.5, the
demo's 6.4 and more).
Thumbnails without contrast are left out: nothing is on them to compare.
"""

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import pandas as pd
from jaxtyping import Float32
from numpy import ndarray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pnilib.data.findings import Finding
from pnilib.data.image_files import as_rgb, decode
from pnilib.errors import PNIError
from pnilib.store.text import many, shown

__all__ = ["near_duplicates", "notes_on_repeats", "repeated_images", "thumbnail"]

_SIDE = 64
_DIFFERENCE = 1.5
_OF_CONTRAST = 0.1
_LEAST_CONTRAST = 1.0
_MOST = 10
"""Groups that are named one by one."""


def thumbnail(pixels: Image.Image | ndarray) -> Float32[ndarray, " 4096"]:
    """Grey levels, 0 ... 255, of a decoded image, less their mean."""
    if isinstance(pixels, ndarray) or pixels.mode[0] in "IF":
        values = np.asarray(pixels, np.float32)
        values = values if values.ndim == 2 else values.mean(axis=2)
        grey = Image.fromarray(values * (255 / max(float(values.max()), 1e-6)))
    else:
        grey = as_rgb(pixels, "").convert("L")
    small = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), np.float32).ravel()
    return np.asarray(small - small.mean(), np.float32)


def near_duplicates(thumbnails: Float32[ndarray, "n 4096"], n_train: int) -> list[list[int]]:
    """Groups of near-duplicates, indices ascending, with at least one of the first `n_train` (training) images each."""
    squares = (thumbnails**2).mean(axis=1)
    contrast = np.sqrt(squares)
    limit = np.minimum(_DIFFERENCE, _OF_CONTRAST * contrast)
    limit[contrast < _LEAST_CONTRAST] = -1
    pairs: list[tuple[int, int]] = []
    for start in range(0, n_train, 256):
        block = thumbnails[start : min(start + 256, n_train)]
        mean_square = squares[start : start + len(block), None] + squares - 2 * (block @ thumbnails.T) / _SIDE**2
        bound = np.minimum(limit[start : start + len(block), None], limit)
        close = (mean_square <= bound**2) & (bound > 0)
        pairs += [(start + int(i), int(j)) for i, j in np.argwhere(close) if start + i < j]
    if not pairs:
        return []
    first, second = np.array(pairs).T
    graph = coo_array((np.ones(len(pairs)), (first, second)), shape=(len(thumbnails),) * 2)
    labels = connected_components(graph, directed=False)[1]
    groups = [np.flatnonzero(labels == label).tolist() for label in np.unique(labels[first])]
    return sorted(groups)


def repeated_images(
    paths: Sequence[str], thumbnails: Sequence[ndarray], n_train: int, place: str, most: int = _MOST
) -> list[Finding]:
    """Findings on near-duplicates among the training images, which come first, and between these and the test images:
    one a group, the first `most` of either kind, and one that counts the rest."""
    within, across = [], []
    for group in near_duplicates(np.stack(thumbnails), n_train) if len(thumbnails) else []:
        test = [i for i in group if i >= n_train]
        first, *others = [paths[i] for i in (test or group)]
        if test:
            twins = [paths[i] for i in group if i < n_train]
            more = f" (and {many(len(others), 'more test image')})" if others else ""
            also = f" (and {len(twins) - 1} more)" if len(twins) > 1 else ""
            problem = f"shows{more} almost the same as the training image {shown(twins[0])}{also}"
            across.append(Finding("near-duplicate", first, problem, "keep all photographs of a part on one side"))
        else:
            also = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
            problem = f"shows almost the same as the training image {shown(others[0])}{also}"
            within.append(Finding("near-duplicate", first, problem, "keep one: repeats teach nothing new"))
    findings = []
    for found, what in ((across, "test images like training images"), (within, "training images alike")):
        findings += found[:most]
        if len(found) > most:
            problem = f"{len(found) - most} more groups of {what}"
            findings.append(Finding("near-duplicate", place, problem, found[0].remedy))
    return findings


def notes_on_repeats(samples: pd.DataFrame) -> list[str]:
    """A line or two on near-duplicates among the training images, and one or two on those between training and test.

    Decodes every image; those that cannot be read are left to whoever reads them.
    """
    found: dict[str, dict[str, ndarray]] = {"train": {}, "test": {}}
    for path, split in zip(samples["image_path"], samples["split"], strict=True):
        with suppress(PNIError):
            found[split][path] = thumbnail(decode(path))
    train, test = found["train"], found["test"]
    paths, thumbnails = [*train, *test], [*train.values(), *test.values()]
    return [
        str(finding) if finding.path else finding.note
        for finding in repeated_images(paths, thumbnails, len(train), "", most=1)
    ]
