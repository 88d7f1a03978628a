"""One setting's result as a run keeps it: scores, metrics and maps, read when they are asked for.

A unit is a folder with a unit.json, and for each setting <setting>.scores.csv, <setting>/meta.json and perhaps
<setting>.maps.npy (pnilib.apps.reproduce.units).
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float32
from numpy import ndarray

from pnilib.apps.reproduce.plan import slug
from pnilib.config import PNIConfig
from pnilib.errors import PNIError
from pnilib.store.text import read_json

if TYPE_CHECKING:
    from pnilib.apps.explore.category import Category

__all__ = ["SettingResult", "read_unit"]

COLUMNS = ["image", "label", "defect_type", "score"]


@dataclass(frozen=True)
class SettingResult:
    """One setting's result on all test images of a category.

    label: the setting; with the seed, backbone or run it came from where that is not the first.  artefact: its folder,
    beside which its other files lie.
    unit: what unit.json says.  folder: of the unit.  suffix: what its label says beyond the setting; results of one
    fit share it.  home: the category of the run that it came from, with that run's data set.
    """

    label: str
    setting: str
    artefact: Path
    folder: Path
    unit: dict[str, Any]
    suffix: str = ""
    home: "Category | None" = field(default=None, repr=False, compare=False)

    @cached_property
    def table(self) -> pd.DataFrame:
        """image, label (0, 1, or -1: unknown), defect_type, score (float64 of the stored float32).

        Raises PNIError when the file is missing, damaged, empty, or holds a score that is no number.
        """
        file = self.artefact.with_name(self.artefact.name + ".scores.csv")
        try:
            table = pd.read_csv(file, keep_default_na=False, dtype={"image": str, "defect_type": str})
            scores = table["score"].astype(np.float32).astype(np.float64)
            table = table.assign(score=scores, label=table["label"].astype(int))[COLUMNS]
        except (OSError, ValueError, KeyError):
            raise PNIError(f"{file}: is missing or damaged: delete {self.folder} and run again") from None
        if table.empty or not np.isfinite(scores).all() or not table["label"].isin([-1, 0, 1]).all():
            raise PNIError(f"{file}: holds no images, or scores or labels that are none: delete {self.folder}")
        return table

    @cached_property
    def facts(self) -> dict[str, Any]:
        """metrics (None where undefined), notes, limits: as the tables of the run have them."""
        try:
            facts = read_json(self.artefact / "meta.json")
            metrics = {name: None if value is None else float(value) for name, value in facts["metrics"].items()}
            low, high = map(float, facts["limits"])
            return facts | {"metrics": metrics, "limits": (low, high), "config": dict(facts["config"])}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise PNIError(f"{self.artefact}: is missing or damaged: delete {self.folder} and run again") from None

    def metric(self, name: str) -> float:
        """Of `pnilib.evaluation.METRICS`; NaN where undefined."""
        value = self.facts["metrics"].get(name)
        return math.nan if value is None else float(value)

    @property
    def maps(self) -> Float32[ndarray, "n h w"] | None:
        """Memory-mapped, anew each time, so that what was read leaves the memory; or None where the run did not keep
        them.  Raises PNIError for a file of another size."""
        file = self.artefact.with_name(self.artefact.name + ".maps.npy")
        if not file.exists():
            return None
        try:
            maps = np.lib.format.open_memmap(file, mode="r")  # never unpickles, and opens nothing but .npy
        except (OSError, ValueError):
            raise PNIError(f"{file}: is damaged: delete {self.folder} and run again") from None
        wanted = (len(self.table), self.config.image_crop, self.config.image_crop)
        if maps.shape != wanted or maps.dtype != np.float32:
            found = f"{maps.dtype} {maps.shape}, not float32 {wanted}"
            raise PNIError(f"{file}: holds {found}: delete {self.folder} and run again")
        return maps

    @cached_property
    def config(self) -> PNIConfig:
        return PNIConfig.from_dict(self.facts["config"])

    @property
    def refined(self) -> bool:
        """Whether its maps went through a network, or are a mean of such maps: then they are on a scale of their own,
        and the detector below them explains them."""
        return self.unit["kind"] in ("network", "ensemble") or self.setting == "PNI"

    @property
    def store(self) -> Path | None:
        """The folder that ids of units are relative to; None for a scored fit, and for a unit taken out of its
        store."""
        folder, unit = self.folder.resolve(), self.unit
        parts = (unit["source"]["dataset"], unit["source"]["category"], unit["member"], f"seed{unit['seed']}")
        store = folder.parents[min(4, len(folder.parents) - 1)]
        return store if folder.parent == store.joinpath(*map(slug, parts)) and unit["kind"] != "scored" else None


def read_unit(folder: Path) -> dict[str, Any] | None:
    """unit.json, its form checked; None where it is missing or damaged."""
    try:
        unit = read_json(folder / "unit.json")
        source = unit["source"]
        str(source["dataset"]), str(source["category"]), str(source["root"])
        options = [(str(name), value) for name, value in source["options"]]
        texts = {name: str(unit[name]) for name in ("kind", "name", "member")}
        lists = {name: [str(entry) for entry in unit[name]] for name in ("settings", "needs")}
        return unit | texts | lists | {"seed": int(unit["seed"]), "source": source | {"options": options}}
    except (OSError, ValueError, KeyError, TypeError):
        return None
