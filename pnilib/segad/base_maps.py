"""Where base anomaly maps come from: fitted detectors of this kit, or files that another program wrote.

A source gives, image by image, m maps (m, h, w) on one geometry, and an `identity` that tells other maps apart.
SegAD takes several sources at once ("All AD"); their maps need not be of one size.

Maps of detectors are kept, one file an image, CACHE/<identity>/<SHA-256 of the image>.npy: a killed run resumes, and
ten seeds score each image once.  Nothing here is in the supplement; the layout of files is the release's:

    FOLDER/anomaly_maps/{good,bad}/<name>.npy, df_training.csv, df_test.csv
    (columns filepath, an_map_path, label, prediction_an_det)
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32
from numpy import ndarray
from tqdm.auto import tqdm

from pnilib.config.geometry import Geometry
from pnilib.data import Split
from pnilib.detector.pni import PNI
from pnilib.errors import PNIError
from pnilib.store.files import atomic_write, os_errors
from pnilib.store.text import shown

__all__ = ["REFINED", "DetectorMaps", "FileMaps", "MapSource", "detector_maps", "pni_maps", "published_splits"]

REFINED = "refined"
"""Name of the base map that is PNI's fused with its refinement network's."""
_CHUNK = 8
_COLUMNS = ("filepath", "an_map_path", "label")


@runtime_checkable
class MapSource(Protocol):
    """m base maps of each image of a split."""

    names: tuple[str, ...]
    geometry: Geometry
    identity: str

    def maps(self, split: Split, progress: bool = False) -> Iterator[Float32[ndarray, "m h w"]]:
        """One array an image, in the split's order; finite."""


class DetectorMaps:
    """Maps of a fitted detector.

    predict: a split -> for each of `names` the maps (n, h, w).  geometry: how the detector cuts images.  identity:
    another one for other maps.  cache: folder, or None to keep nothing.
    """

    def __init__(
        self,
        names: Sequence[str],
        predict: Callable[[Split], Sequence[ndarray]],
        geometry: Geometry,
        identity: str,
        cache: Path | str | None = None,
    ) -> None:
        self.names, self.predict, self.geometry, self.identity = tuple(names), predict, geometry, identity
        self.cache = None if cache is None else Path(cache) / identity[:16]

    def maps(self, split: Split, progress: bool = False) -> Iterator[Float32[ndarray, "m h w"]]:
        """Kept maps are read, the others made, a few images at a time.  Raises PNIError for NaN and a damaged file."""
        with tqdm(total=len(split), desc="base maps", unit="image", disable=not progress) as bar:
            for start in range(0, len(split), _CHUNK):
                part = Split(split.samples.iloc[start : start + _CHUNK], split.root)
                files = [None if self.cache is None else self.cache / f"{part.digest(i)}.npy" for i in range(len(part))]
                lacking = [i for i, file in enumerate(files) if file is None or not file.exists()]
                made: dict[int, ndarray] = {}
                if lacking:
                    found = np.stack(self.predict(Split(part.samples.iloc[lacking], split.root)), 1).astype(np.float32)
                    made = dict(zip(lacking, found, strict=True))
                for i, file in enumerate(files):
                    name = shown(part.samples["image_path"].iloc[i])
                    if i in made:
                        values = _finite(made[i], name)
                        if file is not None:
                            with atomic_write(file, "wb") as handle:
                                np.save(handle, values, allow_pickle=False)
                    else:
                        assert file is not None
                        values = _finite(_array(file), str(file))
                        if values.shape != (len(self.names), self.geometry.crop, self.geometry.crop):
                            raise PNIError(f"{file}: kept maps of shape {values.shape}: delete the file")
                    bar.update()
                    yield values


def detector_maps(
    name: str, model: Any, geometry: Geometry, identity: str, cache: Path | str | None = None
) -> DetectorMaps:
    """Any detector with `.predict(split).maps` (n, h, w) as a source of one base map.

    Raises PNIError when it has no `predict`.
    """
    if not hasattr(model, "predict"):
        raise PNIError(f"{type(model).__name__}: is no detector: SegAD calls its predict(split).maps")
    return DetectorMaps([name], lambda split: [np.asarray(model.predict(split).maps)], geometry, identity, cache)


def pni_maps(
    model: PNI, rules: Sequence[str] | None = None, *, cache: Path | str | None = None, prefix: str = ""
) -> DetectorMaps:
    """Base maps of a fitted PNI, one a rule: settings as `A`, `position`, `E`, and `refined`; default: all it has.

    `prefix` goes before the names, where several runs are used.  Raises PNIError for a rule that the model lacks.
    """
    chosen = list(rules or model.settings)
    if unknown := [rule for rule in chosen if rule not in (*model.settings, REFINED)]:
        raise PNIError(
            f"base map {unknown[0]!r}: this model has {', '.join(model.settings)}: fit with --set setting=E for all "
            f"settings, and `pni refine` for {REFINED}"
        )
    variants = {rule: model.config.replace(setting=rule) for rule in chosen if rule != REFINED}

    def predict(split: Split) -> list[ndarray]:
        found = model.predict_variants(split, variants) if variants else {}
        if REFINED in chosen:
            found[REFINED] = model.predict(split, refined=True)
        return [found[rule].maps for rule in chosen]

    identity = hashlib.sha256(model.fingerprint(refined=REFINED in chosen).encode())
    for rule in chosen:
        config = variants.get(rule, model.config)
        identity.update(f"{rule} {config.stage_key('decision')} {config.stage_key('fusion')}\0".encode())
    names = [prefix + rule for rule in chosen]
    return DetectorMaps(names, predict, model.config.geometry, identity.hexdigest(), cache)


class FileMaps:
    """Maps of the published layout.  Their side is that of the first file.

    Raises PNIError when there is no map, and, in `maps`, for one that is missing, of another shape, not square, or
    not finite.
    """

    def __init__(self, folder: Path | str, name: str | None = None) -> None:
        self.folder = Path(folder)
        files = sorted((self.folder / "anomaly_maps").glob("*/*.npy"))
        if not files:
            raise PNIError(f"{self.folder}: holds no anomaly_maps/{{good,bad}}/<name>.npy: check the folder")
        first = _array(files[0])
        if first.ndim != 2 or first.shape[0] != first.shape[1]:
            raise PNIError(f"{files[0]}: has shape {first.shape}: base maps are square (h, h)")
        self.names: tuple[str, ...] = (name or self.folder.name,)
        self.geometry = Geometry(len(first), len(first))
        digest = hashlib.sha256()
        for file in files:
            found = file.stat()
            digest.update(f"{file.parent.name}/{file.name} {found.st_size} {found.st_mtime_ns}\0".encode())
        self.identity = digest.hexdigest()

    def maps(self, split: Split, progress: bool = False) -> Iterator[Float32[ndarray, "1 h w"]]:
        side = self.geometry.crop
        for record in split.samples.to_dict("records"):
            kind = "bad" if record["label"] == 1 else "good"
            name = Path(str(record.get("an_map_path") or record["image_path"])).stem
            file = self.folder / "anomaly_maps" / kind / f"{name}.npy"
            if not file.is_file():
                raise PNIError(f"{file}: the map of {shown(record['image_path'])} is missing: make it, or drop its row")
            values = _array(file)
            if values.shape != (side, side):
                raise PNIError(f"{file}: has shape {values.shape}, the other maps {(side, side)}: make it anew")
            yield _finite(values, str(file)).astype(np.float32)[None]


def published_splits(folder: Path | str) -> tuple[Split, Split]:
    """(normal images to train on, test images) of df_training.csv and df_test.csv.

    The bad rows of df_training.csv, if any, are left out: the protocol draws them from the test.  Raises PNIError for a
    missing or damaged table, or labels other than 0 and 1.
    """
    found = []
    for name in ("df_training.csv", "df_test.csv"):
        path = Path(folder) / name
        with os_errors(path):
            try:
                table = pd.read_csv(path)
            except ValueError:
                raise PNIError(f"{path}: is no CSV table: write it as the release does") from None
        if missing := [column for column in _COLUMNS if column not in table]:
            raise PNIError(f"{path}: has no column {missing[0]!r}: the release's has {', '.join(_COLUMNS)}")
        if not table["label"].isin((0, 1)).all():
            raise PNIError(f"{path}: holds labels other than 0 (good) and 1 (bad): correct them")
        rows = table.assign(image_path=table["filepath"], mask_path=None, category=Path(folder).name)
        rows["defect_type"] = rows["label"].map({0: "good", 1: "bad"})
        found.append(rows.assign(split=name[3:-4]))
    train = found[0][found[0]["label"] == 0]
    return Split(train, Path(folder)), Split(found[1], Path(folder))


def _array(path: Path) -> Float[ndarray, "..."]:
    with os_errors(path):
        try:
            values = np.load(path, allow_pickle=False)
        except ValueError:
            raise PNIError(f"{path}: is damaged or no array of numbers: make it anew") from None
    if not isinstance(values, ndarray) or values.dtype.kind != "f":
        raise PNIError(f"{path}: holds no floating-point map: save one as .npy")
    return values


def _finite(values: Float[ndarray, "..."], name: str) -> Float[ndarray, "..."]:
    if not np.isfinite(values).all():
        raise PNIError(f"{name}: its anomaly map holds NaN or infinity: make it anew")
    return values
