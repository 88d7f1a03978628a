"""How SegAD is measured: which bad parts it learns from, which images test it, and two numbers (supplement D, E).

- VisA: good: the 10 % of the normal training images that the detectors are not fitted on (`hold_out=0.1`); bad: 10 of
  the test set's, drawn with each of ten seeds; test: all normal test images and the bad ones left.
- MVTec AD: "20 random bad images from the test set are selected for training SegAD over ten different seeds"; the seeds
  are not published, so VisA's.
- VAD: 1,000 (high shot) or 100 bad parts (low shot) of a training folder; without one they are drawn from the test set.
- one-class: no bad part; every held-out normal image once more with a generated defect (`pnilib.segad.generated`).

The release draws by its data frame; which call is not written down in the audit: here `DataFrame.sample`.  So seed
333 need not be the authors' draw.  Base maps are judged on the same draws, by their maximum.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int64, Integer
from numpy import ndarray

from pnilib.errors import PNIError
from pnilib.metrics import image_auroc
from pnilib.segad.forest import Forest, threshold_at_tpr
from pnilib.segad.statistics import MAXIMUM, Column

__all__ = ["PROTOCOLS", "SEEDS", "Protocol", "draw_bad", "fpr_at_tpr", "run_protocol", "summary"]

SEEDS = (333, 576, 725, 823, 831, 902, 226, 598, 874, 589)
"""The release's ten."""


class Protocol(NamedTuple):
    """n_bad: bad training parts a seed.  meaning: for `--help`."""

    n_bad: int
    meaning: str


PROTOCOLS = {
    "visa": Protocol(10, "10 bad parts of the test set a seed"),
    "mvtec": Protocol(20, "20 bad parts of the test set a seed"),
    "vad-high": Protocol(1000, "1,000 bad parts of --bad"),
    "vad-low": Protocol(100, "100 bad parts of --bad"),
    "one-class": Protocol(0, "none: a defect is generated on each held-out normal image"),
}


def draw_bad(
    labels: Integer[ndarray, " n"], n_bad: int, seed: int
) -> tuple[Int64[ndarray, " k"], Int64[ndarray, " r"]]:
    """(indices of `n_bad` bad parts, sorted; indices of all others).

    Raises PNIError when fewer are there, or none would be left to test.
    """
    bad = np.flatnonzero(labels == 1)
    if not 0 <= n_bad < max(len(bad), 1):
        raise PNIError(
            f"{n_bad} bad parts to learn from, but the test set has {len(bad)}, and one must be left to test: ask for "
            f"fewer (--bad-parts), at most {max(len(bad) - 1, 0)}"
        )
    drawn = np.sort(pd.Series(bad).sample(n_bad, random_state=seed).to_numpy(np.int64))
    return drawn, np.setdiff1d(np.arange(len(labels)), drawn)


def fpr_at_tpr(scores: Float[ndarray, " n"], labels: Integer[ndarray, " n"]) -> float:
    """FPR@95TPR: share of good parts that score at least the 5 % quantile (linear) of the bad ones (the release's).

    NaN without good parts.  Raises PNIError without bad ones.
    """
    good = scores[labels == 0].astype(np.float64)
    return float(np.mean(good >= threshold_at_tpr(scores[labels == 1]))) if len(good) else np.nan


def run_protocol(
    columns: Sequence[Column],
    good: Float[ndarray, "g d"],
    test: Float[ndarray, "n d"],
    labels: Integer[ndarray, " n"],
    *,
    n_bad: int,
    bad: Float[ndarray, "b d"] | None = None,
    variant: str = "BRF",
    seeds: Sequence[int] = SEEDS,
) -> pd.DataFrame:
    """One row a seed and method: SegAD, and each base map by its maximum, on the same test images.

    good, test: rows of `SegAD.measure`; labels: of the test.  bad: training parts that are not of the test set, of
    which `n_bad` are drawn a seed (all, where there are just as many).  Columns: seed, method, n_bad, n_test,
    cl_auroc and fpr_95 (both in [0, 1]).  Raises PNIError as `draw_bad` does, and when the test has one class only.
    """
    if len(set(labels.tolist()) & {0, 1}) < 2:
        raise PNIError("the test images are of one class only: SegAD is judged by good and bad ones")
    found = []
    for seed in seeds:
        if bad is None:
            drawn, left = draw_bad(labels, n_bad, seed)
            learnt = test[drawn]
        else:
            if n_bad > len(bad):
                raise PNIError(
                    f"{n_bad} bad parts to learn from, but only {len(bad)} are given: ask for fewer (--bad-parts)"
                )
            learnt = bad[np.sort(pd.Series(range(len(bad))).sample(n_bad, random_state=seed).to_numpy(np.int64))]
            left = np.arange(len(labels))
        scores: dict[str, ndarray] = {}
        if n_bad:
            forest = Forest([str(column) for column in columns], variant=variant, seed=seed)
            forest.fit(np.concatenate([good, learnt]), np.repeat([0, 1], [len(good), len(learnt)]), folds=0)
            scores["SegAD"] = forest.scores(test[left])
        scores |= {c.base: test[left, i] for i, c in enumerate(columns) if c.statistic == MAXIMUM}
        for method, own in scores.items():
            metrics = {"cl_auroc": image_auroc(own, labels[left]), "fpr_95": fpr_at_tpr(own, labels[left])}
            found.append({"seed": seed, "method": method, "n_bad": n_bad, "n_test": len(left)} | metrics)
    return pd.DataFrame(found)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and sd (of the sample, ddof 1) over seeds, in percent, a row a method in order of appearance."""
    rows = []
    for method, own in table.groupby("method", sort=False):
        row: dict[str, object] = {"method": method, "bad parts": int(own["n_bad"].iloc[0]), "seeds": len(own)}
        for name, label in (("cl_auroc", "Cl. AUROC"), ("fpr_95", "FPR@95TPR")):
            row[label] = f"{100 * own[name].mean():.2f} ± {100 * own[name].std():.2f}"
        rows.append(row)
    return pd.DataFrame(rows)
