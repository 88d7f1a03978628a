"""SegAD as one estimator: base maps and segments -> statistics -> forest; fit, score, explain, save, load.

segad.json    what it was fitted on and with; SHA-256 of the forest; thresholds
forest.json   the booster, in XGBoost's own JSON
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64
from numpy import ndarray

from pnilib.data import Split
from pnilib.errors import PNIError
from pnilib.segad.base_maps import MapSource
from pnilib.segad.forest import BOOSTER, Forest, Thresholds
from pnilib.segad.segments import Segmentation
from pnilib.segad.statistics import MAXIMUM, Column, column_list, image_row
from pnilib.store.files import atomic_write, os_errors, write_json
from pnilib.store.text import read_json, shown
from pnilib.store.version import pnilib_version

__all__ = ["MANIFEST", "SegAD", "joined", "read_manifest"]

MANIFEST = "segad.json"
_FORMAT, _VERSION = "pnilib-segad", 1


class SegAD:
    """A supervised decision on anomaly maps.

    >>> model = SegAD([pni_maps(pni, cache="maps")], Foreground(), seed=333).fit(data.held_out, bad)
    >>> model.score(data.test)[["image", "score", "bad"]]

    good and bad: splits of images that no detector was fitted on, and that `score` is not judged by.  fpr: share of
    good parts that may be called bad at `threshold`.  Raises PNIError as its parts do.
    """

    def __init__(
        self, sources: Sequence[MapSource], segmentation: Segmentation, *, variant: str = "BRF", seed: int = 333
    ) -> None:
        self.sources, self.segmentation = list(sources), segmentation
        bases = [name for source in sources for name in source.names]
        self.columns = column_list(bases, segmentation.names)
        self.forest = Forest([str(column) for column in self.columns], variant=variant, seed=seed)
        self.counts = {"good": 0, "bad": 0}

    def measure(self, split: Split, *, progress: bool = False) -> Float64[ndarray, "n d"]:
        """The statistics of each image; NaN where undefined.  Raises PNIError, naming the image, as they do."""
        blocks = [_measured(split, source, self.segmentation, progress) for source in self.sources]
        return np.concatenate(blocks, 1) if len(split) else np.empty((0, len(self.columns)))

    def base_scores(self, rows: Float64[ndarray, "n d"]) -> dict[str, Float64[ndarray, " n"]]:
        """Image score of each base map, its maximum, from `measure`'s rows."""
        return {c.base: rows[:, i] for i, c in enumerate(self.columns) if c.statistic == MAXIMUM}

    def fit(self, good: Split, bad: Split, *, fpr: float = 0.05, progress: bool = False) -> "SegAD":
        """Learn from good and bad parts.  Raises PNIError when one kind is missing, or an image is on both sides."""
        both = set(map(str, good.samples["image_path"])) & set(map(str, bad.samples["image_path"]))
        if both:
            raise PNIError(f"{shown(min(both))}: is given as good and as bad: decide for one")
        rows = self.measure(joined(good, bad), progress=progress)
        labels = np.repeat([0, 1], [len(good), len(bad)])
        self.forest.fit(rows, labels, fpr=fpr)
        self.counts = {"good": len(good), "bad": len(bad)}
        return self

    def score(self, split: Split, *, progress: bool = False) -> pd.DataFrame:
        """One row an image: image, score, bad (at or above the threshold of the stated false alarms), why (the three
        columns that raised the score most)."""
        rows = self.measure(split, progress=progress)
        scores, values = self.forest.scores(rows), self.forest.shap_values(rows)[:, :-1]
        thresholds = self.thresholds
        table = pd.DataFrame({"image": [str(path) for path in split.samples["image_path"]], "score": scores})
        undecided = np.isnan(thresholds.false_alarms)
        table["bad"] = None if undecided else scores.astype(np.float64) >= thresholds.false_alarms
        table["why"] = [self._reasons(own) for own in values]
        return table

    def explain(self, rows: Float64[ndarray, "n d"]) -> list[pd.DataFrame]:
        """Of each row its columns: base, segment, statistic, value, shap (what it adds to the score), largest first."""
        values = self.forest.shap_values(rows)[:, :-1]
        tables = []
        for row, own in zip(rows, values, strict=True):
            table = pd.DataFrame(self.columns).assign(value=row, shap=own)
            tables.append(table.sort_values("shap", key=np.abs, ascending=False, kind="stable", ignore_index=True))
        return tables

    @property
    def thresholds(self) -> Thresholds:
        """Of the fitted forest.  Raises PNIError before `fit`."""
        if self.forest.thresholds is None:
            raise PNIError("SegAD is not fitted: call fit(good, bad), or load a folder")
        return self.forest.thresholds

    def save(self, folder: Path | str, facts: dict[str, Any] | None = None) -> None:
        """Write segad.json, which also keeps `facts`, and forest.json.  Raises PNIError when not fitted."""
        blob, limits = self.forest.to_json(), self.thresholds
        manifest = {
            "format": _FORMAT, "version": _VERSION, "pnilib": pnilib_version(),
            "variant": self.forest.variant, "seed": self.forest.seed, "counts": self.counts,
            "maps": [{"names": list(source.names), "identity": source.identity} for source in self.sources],
            "segmentation": self.segmentation.facts(),
            "columns": [list(column) for column in self.columns],
            "thresholds": {k: None if v != v else v for k, v in limits._asdict().items()},
            "forest": hashlib.sha256(blob).hexdigest(),
            "facts": facts or {},
        }  # fmt: skip
        with atomic_write(Path(folder) / BOOSTER, "wb") as handle:
            handle.write(blob)
        write_json(Path(folder) / MANIFEST, manifest)

    @classmethod
    def load(cls, folder: Path | str, sources: Sequence[MapSource], segmentation: Segmentation) -> "SegAD":
        """The fitted model over the same maps and segments; the same bytes as before.

        Raises PNIError for a damaged folder, maps of another run, or another segmentation.
        """
        found = read_manifest(folder)
        for source, wanted in zip(sources, found["maps"], strict=False):
            if [list(source.names), source.identity] != [wanted["names"], wanted["identity"]]:
                raise PNIError(
                    f"{folder}: was fitted on maps {', '.join(wanted['names'])} of another run or setting than these "
                    f"({', '.join(source.names)}): give the same, or fit again"
                )
        model = cls(sources, segmentation, variant=found["variant"], seed=found["seed"])
        if [list(column) for column in model.columns] != found["columns"]:
            raise PNIError(f"{folder}: was fitted on other base maps or segments: give the same, or fit again")
        blob = _checked_blob(Path(folder) / BOOSTER, found["forest"])
        model.forest.from_json(blob)
        limits: dict[str, Any] = {k: np.nan if v is None else v for k, v in found["thresholds"].items()}
        model.forest.thresholds, model.counts = Thresholds(**limits), found["counts"]
        return model

    def _reasons(self, shap: ndarray) -> str:
        first = np.argsort(-shap, kind="stable")[:3]
        return "; ".join(f"{self.columns[i]} ({shap[i]:+.2f})" for i in first if shap[i] > 0)


def read_manifest(folder: Path | str) -> dict[str, Any]:
    """segad.json.  Raises PNIError when it is missing, damaged or of another format."""
    path = Path(folder) / MANIFEST
    with os_errors(path):
        try:
            found = read_json(path)
            if (found["format"], found["version"]) != (_FORMAT, _VERSION):
                raise PNIError(f"{path}: is of another format or version: fit again with `pni segad fit`")
            found["columns"] = [list(Column(*column)) for column in found["columns"]]
            Thresholds(**found["thresholds"])
            return {
                k: found[k] for k in (*found, "maps", "segmentation", "forest", "variant", "seed", "counts", "facts")
            }
        except FileNotFoundError:
            raise PNIError(f"{folder}: holds no {MANIFEST}: give the --out folder of `pni segad fit`") from None
        except (ValueError, KeyError, TypeError) as fault:
            raise fault if isinstance(fault, PNIError) else PNIError(f"{path}: is damaged: fit again") from None


def joined(*splits: Split) -> Split:
    """One split of the images of all, in order."""
    there = [split.samples for split in splits if len(split)]
    if not there:
        return splits[0]
    table = pd.concat(there, ignore_index=True).astype(object)
    return Split(table.where(table.notna(), None).astype({"label": int}), splits[0].root)


def _measured(split: Split, source: MapSource, segmentation: Segmentation, progress: bool) -> Float64[ndarray, "n d"]:
    rows = []
    for i, maps in enumerate(source.maps(split, progress)):
        try:
            labels = segmentation.labels(split, i, source.geometry)
            rows.append(image_row(maps, labels, len(segmentation.names)))
        except PNIError as fault:
            name = shown(split.samples["image_path"].iloc[i])
            raise fault if name in str(fault) else PNIError(f"{name}: {fault}") from None
    return np.stack(rows) if rows else np.empty((0, 0))


def _checked_blob(path: Path, sha256: str) -> bytes:
    with os_errors(path):
        blob = path.read_bytes()
    if hashlib.sha256(blob).hexdigest() != sha256:
        raise PNIError(f"{path}: is damaged or of another fit: fit again")
    return blob
