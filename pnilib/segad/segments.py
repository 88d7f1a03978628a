"""Segmentations of the product: one label a pixel, 0 ... K - 1, the same meaning in all images.

SegAD's own label maps are not at hand (2 to 8 segments a class of VisA, drawn by hand).  Here are four kinds:

`whole`        one segment: SegAD without a segmentation
`foreground`   background and part, image by image (`pnilib.synthesis.foreground_mask`)
FOLDER         label maps of the user, .npy or PNG, named as the images: FOLDER/[split/][kind/]<name>
`clusters:K`   unsupervised (ours): k-means on a detector's embeddings of normal images; one codebook for all images, so
               that a label means the same everywhere; smoothed by a vote of the neighbouring patches
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32, Integer
from numpy import ndarray
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from pnilib.config.geometry import Geometry
from pnilib.data import Split
from pnilib.data.image_files import image_size
from pnilib.data.images import resize_labels
from pnilib.errors import PNIError
from pnilib.store.files import os_errors
from pnilib.store.text import read_json, shown
from pnilib.synthesis import foreground_mask

__all__ = ["KINDS", "Clusters", "Embed", "Foreground", "LabelFolder", "Segmentation", "Whole", "check_segments"]

KINDS = "whole, foreground, clusters:K, or a folder of label maps"

Embed = Callable[[Float[Tensor, "3 h w"]], Float[Tensor, "gh gw d"]]
"""Features of one image, as `PNI.embed`."""


@runtime_checkable
class Segmentation(Protocol):
    """names: one a segment, in the order of labels."""

    names: tuple[str, ...]

    def labels(self, split: Split, i: int, geometry: Geometry) -> Integer[ndarray, "h w"]:
        """Labels of image i at the size of its maps."""

    def facts(self) -> dict[str, Any]:
        """What tells it apart and restores it, ready for JSON."""


class Whole:
    """The whole image is one segment."""

    names: tuple[str, ...] = ("image",)

    def labels(self, split: Split, i: int, geometry: Geometry) -> Integer[ndarray, "h w"]:
        return np.zeros((geometry.crop, geometry.crop), np.int32)

    def facts(self) -> dict[str, Any]:
        return {"kind": "whole"}


class Foreground:
    """Background and part of each image, by its border's colour."""

    names: tuple[str, ...] = ("background", "part")

    def labels(self, split: Split, i: int, geometry: Geometry) -> Integer[ndarray, "h w"]:
        image = np.ascontiguousarray(split.image(i, geometry).permute(1, 2, 0).numpy())
        return foreground_mask(image).astype(np.int32)

    def facts(self) -> dict[str, Any]:
        return {"kind": "foreground"}


class LabelFolder:
    """Label maps on disk, at the size of their image file (then resized and cropped as it is) or of the maps.

    n_segments: K; None: the largest label in `split` and one.  Of the demo data's segmentation/ folders the parts'
    names are known.  Raises PNIError for a map that is missing, of another size, no grey picture, or has labels beyond
    K.
    """

    def __init__(self, folder: Path | str, names: Sequence[str] = ()) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise PNIError(f"{self.folder}: is no folder of label maps: choose {KINDS}")
        self.names = tuple(names)

    def fit(self, split: Split) -> "LabelFolder":
        """Count the segments in the label maps of these (normal) images."""
        highest = max((int(self._read(split, i).max()) for i in range(len(split))), default=-1)
        known = _demo_parts(self.folder)
        self.names = tuple(known.get(label, f"segment {label}") for label in range(highest + 1))
        return self

    def labels(self, split: Split, i: int, geometry: Geometry) -> Integer[ndarray, "h w"]:
        found, side = self._read(split, i), geometry.crop
        path = Path(split.samples["image_path"].iloc[i])
        if found.max() >= len(self.names):
            raise PNIError(
                f"{self.folder}: the label map of {shown(path)} has label {found.max()}, the training images only "
                f"0 ... {len(self.names) - 1}: correct it"
            )
        size = image_size(path)[::-1] if path.is_file() else None
        if found.shape == size:
            return resize_labels(found, geometry)
        if found.shape != (side, side):
            raise PNIError(
                f"{self.folder}: the label map of {shown(path)} is {found.shape[1]} x {found.shape[0]} px, neither its "
                f"image's size nor {side} x {side} px, that of its maps: draw it at one of them"
            )
        return found

    def facts(self) -> dict[str, Any]:
        return {"kind": "folder", "folder": str(self.folder.resolve()), "names": list(self.names)}

    def _read(self, split: Split, i: int) -> Int32[ndarray, "h w"]:
        path = self._file(split.samples.iloc[i])
        with os_errors(path):
            try:
                found = np.load(path, allow_pickle=False) if path.suffix == ".npy" else _pixels(path)
            except (ValueError, UnidentifiedImageError, SyntaxError):
                raise PNIError(f"{path}: is damaged, or no label map: save labels as .npy or grey PNG") from None
        if found.ndim != 2 or found.dtype.kind not in "iub" or found.size == 0 or found.min() < 0:
            raise PNIError(f"{path}: is no label map: give whole numbers from 0 on as .npy or grey PNG")
        return found.astype(np.int32)

    def _file(self, record: Any) -> Path:
        """The file that shares most of the image's path: folders that repeat within a data set keep apart."""
        image = Path(str(record.get("segments_of") or record["image_path"]))
        places = [Path(*image.parts[-depth:]) for depth in range(min(4, len(image.parts)), 0, -1)]
        if record["label"] in (0, 1):  # the release's
            places.insert(-1, Path("bad" if record["label"] else "good", image.name))
        for place in places:
            for suffix in (".npy", ".png"):
                if (found := (self.folder / place).with_suffix(suffix)).is_file():
                    return found
        wanted = (self.folder / Path(*image.parts[-2:])).with_suffix(".png")
        raise PNIError(f"{wanted}: the label map of {shown(image)} is missing: add it as .png or .npy")


class Clusters:
    """k-means of patch embeddings, a vote of 3 x 3 patches, enlarged to the maps' size.

    `fit` draws at most SAMPLE patches of normal images; features are standardised channel by channel first.
    """

    SAMPLE = 20_000

    def __init__(self, k: int, embed: Embed, *, seed: int = 0) -> None:
        if not 2 <= k <= 32:
            raise PNIError(f"clusters:{k}: give 2 to 32 segments")
        self.k, self.embed, self.seed = k, embed, seed
        self.names = tuple(f"segment {i}" for i in range(k))
        self.centres: Float32[ndarray, "k d"] | None = None
        self.scale: Float32[ndarray, "2 d"] | None = None

    def fit(self, split: Split, geometry: Geometry) -> "Clusters":
        """Learn the codebook.  Segments are numbered from the commonest on."""
        from sklearn.cluster import KMeans

        rng, share, drawn = np.random.default_rng(self.seed), max(1, self.SAMPLE // max(1, len(split))), []
        for i in range(len(split)):
            patches = self.embed(split.image(i, geometry)).flatten(0, 1).cpu().numpy()
            drawn.append(patches[rng.permutation(len(patches))[:share]])
        if sum(map(len, drawn)) < self.k:
            raise PNIError(f"clusters:{self.k}: there are fewer patches of normal images: give more images")
        sample = np.concatenate(drawn).astype(np.float64)
        mean, spread = sample.mean(0), np.maximum(sample.std(0), 1e-6)
        found = KMeans(self.k, n_init=4, random_state=self.seed).fit((sample - mean) / spread)
        order = np.argsort(-np.bincount(found.labels_, minlength=self.k), kind="stable")
        self.centres = found.cluster_centers_[order].astype(np.float32)
        self.scale = np.stack([mean, spread]).astype(np.float32)
        return self

    def labels(self, split: Split, i: int, geometry: Geometry) -> Integer[ndarray, "h w"]:
        if self.centres is None or self.scale is None:
            raise PNIError("the clusters are not fitted: call fit(normal images, geometry)")
        features = self.embed(split.image(i, geometry)).cpu()
        mean, spread = torch.from_numpy(self.scale)
        nearest = torch.cdist(((features - mean) / spread).flatten(0, 1), torch.from_numpy(self.centres)).argmin(1)
        votes = F.one_hot(nearest.view(*features.shape[:2]), self.k).permute(2, 0, 1).float()[None]
        votes = F.avg_pool2d(votes, 3, 1, 1, count_include_pad=False)
        side = geometry.crop
        larger = F.interpolate(votes, (side, side), mode="bilinear", align_corners=False)
        return larger[0].argmax(0).numpy().astype(np.int32)

    def facts(self) -> dict[str, Any]:
        assert self.centres is not None and self.scale is not None
        return {
            "kind": "clusters", "k": self.k, "seed": self.seed, "centres": self.centres.tolist(),
            "scale": self.scale.tolist(),
        }  # fmt: skip

    def restore(self, facts: dict[str, Any]) -> "Clusters":
        """Inverse of `facts`."""
        self.centres, self.scale = (np.array(facts[name], np.float32) for name in ("centres", "scale"))
        return self


def check_segments(labels: Sequence[Integer[ndarray, "h w"]], names: Sequence[str]) -> list[str]:
    """What a reader must know of these label maps of normal images, a line a segment: missing in all or some images,
    or drifting: its share of the image varies by more than half of its mean, or its centre by a fifth of the side.

    A product that may lie anywhere drifts by right; the statistics do not mind, but a bad segmentation looks the same.
    """
    if not labels:
        raise PNIError("no label map to check: give some normal images")
    notes = []
    for label, name in enumerate(names):
        shares = np.array([(one == label).mean() for one in labels])
        there = shares > 0
        if not there.any():
            notes.append(f"{name}: empty in every image; its statistics are 0 throughout: leave it out")
            continue
        if not there.all():
            notes.append(f"{name}: empty in {(~there).sum()} of {len(labels)} images; its statistics are 0 there")
        centres = np.array(
            [np.argwhere(one == label).mean(0) / one.shape for one, found in zip(labels, there, strict=True) if found]
        )
        spread = shares[there].std() / shares[there].mean()
        moved = float(centres.std(0).max())
        if spread > 0.5 or moved > 0.2:
            notes.append(
                f"{name}: drifts: its share of the image varies by {100 * spread:.0f} % of its mean, its centre by "
                f"{100 * moved:.0f} % of the side"
            )
    return notes


def _pixels(path: Path) -> ndarray:
    with Image.open(path) as image:
        return np.array(image)


def _demo_parts(folder: Path) -> dict[int, str]:
    """Names of the parts, where `folder` is ROOT/<category>/segmentation of the demo data."""
    manifest = folder.resolve().parents[1] / "manifest.json" if re.search(r"segmentation$", folder.name) else None
    try:
        parts = read_json(manifest)["categories"][folder.resolve().parent.name]["parts"] if manifest else {}
        return {int(label): str(name) for label, name in parts.items()}
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return {}
