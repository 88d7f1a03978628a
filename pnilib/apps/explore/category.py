"""One category of a run: its results, its data set, and the fitted models behind them.

Only listings are read here: names and labels come from the run, pictures from the data set that it was made of.  A
picture whose file is another one than the run scored is refused, and so is a model that was fitted on other training
images than lie there: an explanation would mix two things.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int64
from numpy import ndarray
from torch import Tensor

from pnilib.apps.explore.results import SettingResult, read_unit
from pnilib.apps.reproduce.units import image_names
from pnilib.config.geometry import Geometry
from pnilib.data import Dataset, Split, load_dataset
from pnilib.data.files import images_in, row
from pnilib.detector.pni import PNI
from pnilib.errors import PNIError
from pnilib.store.text import many, shown

__all__ = ["Category", "model_id", "new_images"]

MODELS = 1
"""fitted models that stay in memory; one takes about a gigabyte at the size of the paper."""


@dataclass(eq=False)
class Category:
    """One category of a run.

    results: label -> what is finished.  root: where its data set is looked for.  older: units that newer ones replace.
    images: where the images of a `pni score` are looked for, which are scored in place of the data set's test images.
    """

    dataset: str
    name: str
    root: Path
    options: dict[str, Any]
    results: dict[str, SettingResult]
    older: list[Path] = field(default_factory=list)
    images: Path | None = None

    @property
    def key(self) -> str:
        return f"{self.dataset}/{self.name}"

    @property
    def first(self) -> SettingResult:
        return next(iter(self.results.values()))

    @property
    def names(self) -> list[str]:
        """Of the test images, within the data set."""
        return list(self.first.table["image"])

    @property
    def labels(self) -> Int64[ndarray, " n"]:
        return self.first.table["label"].to_numpy(np.int64)

    @cached_property
    def digests(self) -> list[str]:
        """SHA-256 of each test image as it was scored; empty for a run that did not note them."""
        for result in self.results.values():
            with suppress(PNIError):  # a damaged one; the reader is told when it is looked at
                found = result.facts.get("digests")
                if result.home is self and isinstance(found, list) and len(found) == len(self.names):
                    return [str(one) for one in found]
        return []

    @property
    def geometry(self) -> Geometry:
        return self.first.config.geometry

    # -- the data set --------------------------------------------------------------------------

    @cached_property
    def data(self) -> Dataset:
        """The data set, where the run says it is or `open_exploration(data=...)` points to.

        Raises PNIError, naming the place, when it is not there or holds other test images.
        """
        if not self.root.is_dir():
            raise PNIError(f"{self.root}: the data set of {self.key} is not there: say where it is with --data")
        try:
            data = load_dataset(self.dataset, self.root, self.name, **self.options)
        except PNIError as fault:
            raise PNIError(f"{fault} (looked for {self.key}: say where it is with --data)") from None
        if self.images is None:
            self._require_names(data.test, self.root)
        return data

    @cached_property
    def train(self) -> Split:
        return self.data.train

    @cached_property
    def test(self) -> Split:
        if self.images is None:
            return self.data.test
        if not self.images.is_dir():
            raise PNIError(f"{self.images}: the images of {self.key} are not there: say where they are with --data")
        found = new_images(self.images, self.names, self.name).test
        self._require_names(found, self.images)
        return found

    def _require_names(self, test: Split, place: Path) -> None:
        found = [_written(name) for name in image_names(test)] if len(test) else []
        if found != self.names:
            lost = next((name for name in self.names if name not in found), None)
            why = f"lacks {lost}" if lost is not None else f"has {len(found)}, not {many(len(self.names), 'image')}"
            raise PNIError(f"{place}: is not the data set of {self.key}: it {why}: say where that is with --data")

    def move(self, root: Path) -> None:
        """Look for the pictures in another place from now on."""
        if self.images is None:
            self.root = root
        else:
            self.images = root
        for name in ("data", "train", "test", "_train_fingerprint"):
            self.__dict__.pop(name, None)

    def test_path(self, i: int) -> str:
        """The file of test image i.  Raises PNIError when it is another one than the run scored."""
        path, digests = str(self.test.samples["image_path"].iloc[i]), self.digests
        if digests and self.test.digest(i) != digests[i]:
            raise PNIError(
                f"{shown(path)}: is not the image that was scored, though of its name: run again, or say where that is "
                "with --data"
            )
        return path

    def image(self, i: int, geometry: Geometry | None = None) -> Float[Tensor, "3 h w"]:
        """Test image i, RGB in [0, 1]."""
        self.test_path(i)
        return self.test.image(i, geometry or self.geometry)

    def mask(self, i: int, geometry: Geometry | None = None) -> Bool[Tensor, "h w"] | None:
        """The true defect: all False for a normal image, None where it is unknown."""
        return None if self.labels[i] < 0 else self.test.mask(i, geometry or self.geometry)

    # -- models --------------------------------------------------------------------------------

    def model(self, result: SettingResult) -> PNI:
        """The fitted detector behind a result: its own, or the one that its network or ensemble needs.

        Raises PNIError when the run keeps none (`pni runs --clean models`), when it was fitted again since, and when
        the data set at hand has other training images than it was fitted on.
        """
        folder, home = self.model_folder(result), result.home or self
        identity = model_id(folder)
        if result.unit.get("model", identity) != identity:
            raise PNIError(f"{folder}: was fitted again since these images were scored: open the run again")
        model = _load_model(folder, identity)
        if home.root.is_dir() and not home._was_fitted_on(model):
            raise PNIError(f"{home.root}: its training images are not those of the run: say where they are with --data")
        return model

    def _was_fitted_on(self, model: PNI) -> bool:
        """By their contents; by their names for a model of an older pnilib."""
        if wanted := str(getattr(model, "train_fingerprint", "")):
            return self._train_fingerprint == wanted
        here = [Path(str(path)).name for path in self.train.samples["image_path"]]
        return here == [Path(path).name for path in model.train_paths]

    @cached_property
    def _train_fingerprint(self) -> str:
        return self.train.fingerprint()

    def model_folder(self, result: SettingResult) -> Path:
        """Raises PNIError when the run keeps no model of this result."""
        store, unit, folder = result.store, result.unit, result.folder
        if elsewhere := unit.get("model_folder"):  # of a `pni score`
            if (Path(elsewhere) / "manifest.json").exists():
                return Path(elsewhere)
            raise PNIError(f"{elsewhere}: the model that scored {result.folder.parent} is not there: put it back")
        for _ in range(4):  # ensemble -> network -> fit
            for place in (folder / "model", folder.parent / "model"):
                if (place / "manifest.json").exists():
                    return place
            needs = [need for need in unit.get("needs", []) if "/features-" not in need and "/pool-" not in need]
            if not needs or store is None:
                break
            folder = (store / needs[0]).resolve()
            if not folder.is_relative_to(store):
                break
            unit = read_unit(folder) or {}
        raise PNIError(f"{result.folder}: the fitted model of {result.label} is not there: run again to have it")


def new_images(folder: Path, names: Sequence[str], category: str) -> Dataset:
    """Images of a `pni score` by their names within `folder`, unlabelled, in that order; what is not there (any more)
    is left out."""
    there: dict[str, Path] = {}
    for parent in {PurePosixPath(name).parent for name in names}:
        if not parent.is_absolute() and ".." not in parent.parts:
            there |= {shown(path.relative_to(folder).as_posix()): path for path in images_in(folder / parent)}
    rows = [row(there[name], "test", -1, "unknown", category) for name in names if name in there]
    return Dataset("new images", folder, category, pd.DataFrame(rows, columns=list(row(folder, "", 0, "", ""))))


def model_id(folder: Path) -> str:
    """Of a saved model: its manifest holds the checksums of all its files."""
    try:
        return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    except OSError:
        raise PNIError(f"{folder}: holds no fitted model: fit again") from None


def _written(name: str) -> str:
    """As a name stands in a run's files."""
    return name.encode("utf-8", "backslashreplace").decode()


@lru_cache(maxsize=MODELS)
def _load_model(folder: Path, identity: str) -> PNI:
    """`identity`: of its manifest, so that one that was fitted again is read again."""
    return PNI.load(folder, "cpu")
