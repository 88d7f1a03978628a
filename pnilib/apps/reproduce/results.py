"""Finished runs, read back: one tidy table of metrics, and each run's curves, replicates, maps and scores.

Numbers are fractions here and percent in tables and figures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy import ndarray

from pnilib.apps.reproduce.plan import Plan, Source, Unit, slug
from pnilib.errors import PNIError
from pnilib.metrics.resampling import METRICS
from pnilib.store.artefacts import read_artefact
from pnilib.store.text import read_json

__all__ = ["Cell", "Results", "Run", "misclassified"]


@dataclass(frozen=True)
class Run:
    """One (dataset, category, backbone, setting, seed) that is finished; `place`: folder of its artefact."""

    unit: Unit
    setting: str
    place: Path

    @property
    def key(self) -> tuple[Source, str, int]:
        return self.unit.source, self.setting, self.unit.config.seed

    @cached_property
    def facts(self) -> dict[str, Any]:
        """metrics, interval, by_defect, notes, limits, calibration, images, config."""
        try:
            return read_json(self.place / "meta.json")
        except (OSError, ValueError):
            raise PNIError(f"{self.place}: is missing or damaged: delete {self.place.parent} and run again") from None

    @cached_property
    def arrays(self) -> dict[str, dict[str, ndarray]]:
        """`curves` and `replicates`, by name."""
        return {stem: {k: v.numpy() for k, v in group.items()} for stem, group in read_artefact(self.place)[0].items()}

    def value(self, metric: str) -> float:
        """A fraction; NaN where it is undefined."""
        value = self.facts["metrics"].get(metric)
        return float("nan") if value is None else float(value)

    def replicates(self, metric: str) -> ndarray:
        """The metric on resampled test images."""
        return self.arrays["replicates"][metric]

    def maps(self) -> ndarray | None:
        """float32 (n, h, w) memory map, or None where the plan did not keep them."""
        file = self.place.with_name(self.place.name + ".maps.npy")
        return np.load(file, mmap_mode="r", allow_pickle=False) if file.exists() else None

    def scores(self) -> pd.DataFrame:
        """image, label, defect_type, score."""
        return pd.read_csv(self.place.with_name(self.place.name + ".scores.csv"))


def misclassified(run: Run) -> dict[str, list[int]]:
    """False positives and false negatives at the F1-optimal threshold (score >= threshold: defective), worst first."""
    table, threshold = run.scores(), run.facts["metrics"]["i_threshold"]
    if threshold is None:
        return {"false positive": [], "false negative": []}
    score, label = table["score"].to_numpy(), table["label"].to_numpy()
    # the file holds as many digits as the float32 scores need, so that ties stay ties
    called = score.astype(np.float32) >= np.float32(threshold)
    positive, negative = np.flatnonzero(called & (label == 0)), np.flatnonzero(~called & (label == 1))
    return {
        "false positive": [int(i) for i in positive[np.argsort(-score[positive], kind="stable")]],
        "false negative": [int(i) for i in negative[np.argsort(score[negative], kind="stable")]],
    }


@dataclass(frozen=True)
class Cell:
    """One number of a table, percent.  n: seeds.  low, high: 95 % over images; NaN where undefined."""

    mean: float
    sd: float
    n: int
    low: float
    high: float


@dataclass
class Results:
    """All finished runs of a plan; `wanted`: how many there should be."""

    plan: Plan
    store: Path
    runs: dict[tuple[Source, str, int], Run] = field(default_factory=dict)
    others: list[Run] = field(default_factory=list)
    missing: list[Unit] = field(default_factory=list)

    @classmethod
    def from_store(cls, plan: Plan, store: Path | str) -> "Results":
        """Read what is there.  Runs of the further backbones are in `others`: tables show the first, and ensembles."""
        found = cls(plan, Path(store))
        for unit in plan.units:
            if unit.is_intermediate:
                continue
            if not (found.store / unit.id / "unit.json").exists():
                found.missing.append(unit)
                continue
            for setting in unit.variants:
                run = Run(unit, setting, found.store / unit.id / slug(setting))
                if plan.shows(unit):
                    found.runs[run.key] = run
                else:
                    found.others.append(run)
        return found

    def run(self, source: Source, setting: str, seed: int | None = None) -> Run | None:
        """A finished run; without `seed` that of the first."""
        return self.runs.get((source, setting, self.plan.request.seeds[0] if seed is None else seed))

    def tidy(self) -> pd.DataFrame:
        """Every metric of every run: dataset, category, backbone, setting, seed, metric, value, low, high."""
        rows = []
        for run in [*self.runs.values(), *self.others]:
            for metric, value in run.facts["metrics"].items():
                low, high = run.facts["interval"].get(metric, (None, None))
                rows.append(
                    dict(
                        dataset=run.unit.source.dataset, category=run.unit.source.category, backbone=run.unit.member,
                        setting=run.setting, seed=run.unit.config.seed, metric=metric, value=value, low=low, high=high,
                    )
                )  # fmt: skip
        columns = ["dataset", "category", "backbone", "setting", "seed", "metric", "value", "low", "high"]
        return pd.DataFrame(rows, columns=columns).sort_values(columns[:6], kind="stable", ignore_index=True)

    def cell(self, sources: Sequence[Source], setting: str, metric: str, member: str = "") -> Cell | None:
        """The mean over categories: its mean and sd over seeds, its interval over test images; of the first backbone,
        or of `member`.

        Seeds that some category lacks are left out; None when no seed has every category.  NaN when the metric is
        undefined for one of them.
        """
        other = member and member != next(iter(self.plan.request.members))
        runs = {run.key: run for run in self.others if run.unit.member == member} if other else self.runs
        return self._cell(runs, sources, [setting], metric)

    def difference(self, sources: Sequence[Source], ours: str, base: str, metric: str) -> Cell | None:
        """`ours` minus `base` on the same seeds and the same resampled images, percent points."""
        return self._cell(self.runs, sources, [ours, base], metric)

    def _cell(
        self, runs: dict[tuple[Source, str, int], Run], sources: Sequence[Source], settings: list[str], metric: str
    ) -> Cell | None:
        """Of one setting, or of the first minus the second."""
        whole = [k for k in self.plan.request.seeds if all((s, name, k) in runs for s in sources for name in settings)]
        if not whole or not sources:
            return None

        def read(what: Callable[[Run], Any]) -> ndarray:
            """(seeds, categories, ...)."""
            return np.array(
                [[np.subtract.reduce([what(runs[s, name, k]) for name in settings]) for s in sources] for k in whole]
            )

        means = 100 * read(lambda run: run.value(metric)).mean(1)
        low = high = float("nan")
        if metric in METRICS:
            replicates = 100 * read(lambda run: run.replicates(metric)).mean((0, 1))
            replicates = replicates[np.isfinite(replicates)]
            if len(replicates):
                low, high = (float(q) for q in np.quantile(replicates, [0.025, 0.975]))
        sd = float(means.std(ddof=1)) if len(whole) > 1 else float("nan")
        return Cell(float(means.mean()), sd, len(whole), low, high)
