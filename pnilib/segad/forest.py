"""The final classifier: XGBoost's boosted random forest on the statistics (SegAD supplement, A.1).

"BRF in all experiments uses 10 estimators and 200 parallel trees with a learning rate of 0.3 and binary:logitraw
objective.  Maximum depth is set to 5 ... colsample_bytree ... 0.6, the same as the subsample ratio per node
(colsample_bynode) and subsample.  We also use the L1 regularization with a value of 1.  For RF, the learning rate is
1.0, the number of estimators is 1, and the number of trees is 2000.  For BT, the number of estimators is 2000, the
number of trees is 1, colsample_bytree is default."

From the release, where A.1 is silent: scale_pos_weight = training rows / bad rows, and the seed.  (Whether its rows
include the bad ones is not clear; leaving them out would make the weight smaller by one.)  The score is the margin, in
log-odds by the objective but, with so few trees, L1 and weights, no probability: only its order means something.
The library's other defaults are those of the installed XGBoost; since version 2 it fits the intercept.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Integer
from numpy import ndarray

from pnilib.errors import PNIError
from pnilib.metrics import normal_threshold, threshold_note

__all__ = ["BOOSTER", "TPR", "VARIANTS", "Forest", "Thresholds", "permutation_importance", "threshold_at_tpr"]

_COMMON: dict[str, Any] = dict(
    objective="binary:logitraw", max_depth=5, colsample_bytree=0.6, colsample_bynode=0.6, subsample=0.6, reg_alpha=1.0,
    learning_rate=0.3, num_parallel_tree=200, rounds=10,
)  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "BRF": _COMMON,
    "RF": _COMMON | dict(learning_rate=1.0, num_parallel_tree=2000, rounds=1),
    "BT": _COMMON | dict(num_parallel_tree=1, rounds=2000, colsample_bytree=1.0),
}
"""Parameters of XGBoost, and `rounds` of boosting (scikit-learn's n_estimators)."""

BOOSTER = "forest.json"
TPR = 0.95
FOLDS = 5


class Thresholds(NamedTuple):
    """tpr95: reached by 95 % of the bad training parts; false_alarms: exceeded by good ones at the stated rate; both
    from scores out of fold.  note: what they cannot promise, "" for nothing."""

    tpr95: float
    false_alarms: float
    fpr: float
    note: str


def threshold_at_tpr(bad_scores: Float[ndarray, " n"], tpr: float = TPR) -> float:
    """The (1 - tpr) quantile (linear) of the bad parts' scores: the release's threshold.  Raises PNIError for none."""
    if len(bad_scores) == 0:
        raise PNIError("there is no score of a bad part: a threshold for a share of them needs some")
    return float(np.quantile(bad_scores.astype(np.float64), round(1 - tpr, 12)))  # 1 - 0.95 is above 0.05


class Forest:
    """XGBoost's forest over named columns.

    >>> forest = Forest(columns, seed=333).fit(rows, labels)
    >>> forest.scores(rows)

    variant: one of VARIANTS.  NaN in a row is XGBoost's "missing".  The same seed gives the same bytes on any number of
    threads.  thresholds: None until `fit` with `folds`.
    """

    def __init__(self, columns: Sequence[str], *, variant: str = "BRF", seed: int = 333, threads: int = 1) -> None:
        if variant not in VARIANTS:
            raise PNIError(f"variant={variant}: unknown: choose one of {', '.join(VARIANTS)}")
        self.columns, self.variant, self.seed, self.threads = list(columns), variant, seed, threads
        self.booster: Any = None
        self.thresholds: Thresholds | None = None

    def fit(
        self, rows: Float[ndarray, "n d"], labels: Integer[ndarray, " n"], *, fpr: float = 0.05, folds: int = FOLDS
    ) -> "Forest":
        """Learn from rows (NaN = missing) and labels, 0 good, 1 bad; thresholds by `folds`, 0 for none.

        Raises PNIError when one class is missing, labels are others, or rows and labels differ in number.
        """
        self._require(rows)
        n_bad = _checked(labels, len(rows))
        self.booster = self._trained(rows, labels, n_bad)
        self.thresholds = self._thresholds(rows, labels, fpr, folds) if folds else None
        return self

    def scores(self, rows: Float[ndarray, "n d"]) -> Float32[ndarray, " n"]:
        """Margins, higher = more likely bad.  Raises PNIError before `fit`, and for another number of columns."""
        return self._fitted().predict(self._matrix(rows))

    def shap_values(self, rows: Float[ndarray, "n d"]) -> Float32[ndarray, "n d_plus_1"]:
        """What each column adds to each score (XGBoost's exact TreeSHAP), the intercept last; a row sums to its score.

        Raises PNIError as `scores` does.
        """
        return self._fitted().predict(self._matrix(rows), pred_contribs=True)

    def out_of_fold(
        self, rows: Float[ndarray, "n d"], labels: Integer[ndarray, " n"], folds: int = FOLDS
    ) -> Float32[ndarray, " n"]:
        """Each row's score by a forest that did not see it; fewer folds where a class has fewer rows.

        Raises PNIError when a class has fewer than two rows.
        """
        from sklearn.model_selection import StratifiedKFold

        n_bad = _checked(labels, len(rows))
        least = min(n_bad, len(labels) - n_bad)
        if least < 2:
            raise PNIError(f"{n_bad} bad and {len(labels) - n_bad} good parts: scores out of fold need two of each")
        found = np.empty(len(rows), np.float32)
        for train, test in StratifiedKFold(min(folds, least), shuffle=True, random_state=self.seed).split(rows, labels):
            booster = self._trained(rows[train], labels[train], int(labels[train].sum()))
            found[test] = booster.predict(self._matrix(rows[test]))
        return found

    def to_json(self) -> bytes:
        """The booster in XGBoost's own JSON.  Raises PNIError before `fit`."""
        return bytes(self._fitted().save_raw("json"))

    def from_json(self, blob: bytes) -> "Forest":
        """Inverse of `to_json`.  Raises PNIError when it is none, or of other columns."""
        import xgboost

        booster = xgboost.Booster({"nthread": self.threads})
        try:
            booster.load_model(bytearray(blob))
        except (xgboost.core.XGBoostError, ValueError):
            raise PNIError(f"{BOOSTER}: is no forest of XGBoost: fit again") from None
        if booster.feature_names != self.columns:
            raise PNIError(f"{BOOSTER}: is of other columns than its manifest says: fit again")
        self.booster = booster
        return self

    def _trained(self, rows: ndarray, labels: ndarray, n_bad: int) -> Any:
        import xgboost

        parameters = dict(VARIANTS[self.variant])
        rounds = parameters.pop("rounds")
        parameters |= {"seed": self.seed, "scale_pos_weight": len(rows) / n_bad, "nthread": self.threads}
        return xgboost.train(parameters, self._matrix(rows, labels), rounds)

    def _matrix(self, rows: ndarray, labels: ndarray | None = None) -> Any:
        import xgboost

        self._require(rows)
        return xgboost.DMatrix(rows.astype(np.float32), labels, feature_names=self.columns, nthread=self.threads)

    def _require(self, rows: ndarray) -> None:
        if rows.ndim != 2 or rows.shape[1] != len(self.columns):
            raise PNIError(f"rows of shape {rows.shape}: the forest has {len(self.columns)} columns: measure again")

    def _fitted(self) -> Any:
        if self.booster is None:
            raise PNIError("the forest is not fitted: call fit(rows, labels), or load a folder")
        return self.booster

    def _thresholds(self, rows: ndarray, labels: ndarray, fpr: float, folds: int) -> Thresholds:
        """NaN with a note where there are too few parts.

        Out of fold the score is that of a forest of fewer rows, so the promise of `normal_threshold` holds as for
        cross-conformal rules, nearly, not exactly.
        """
        n_bad = int(labels.sum())
        if min(n_bad, len(labels) - n_bad) < 2:
            return Thresholds(np.nan, np.nan, fpr, "no threshold: scores out of fold need two parts of each kind")
        scores = self.out_of_fold(rows, labels, folds)
        good = scores[labels == 0]
        return Thresholds(
            threshold_at_tpr(scores[labels == 1]), normal_threshold(good, fpr), fpr, threshold_note(len(good), fpr)
        )


def permutation_importance(
    forest: Forest,
    rows: Float[ndarray, "n d"],
    labels: Integer[ndarray, " n"] | Bool[ndarray, " n"],
    groups: Sequence[str],
    *,
    repeats: int = 5,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Cl. AUROC lost when a group of columns is shuffled over the images: group -> (mean, sd over repeats).

    groups: one name a column; the columns of a group are shuffled together, by one permutation.
    Raises PNIError unless there is one group a column.
    """
    from pnilib.metrics import image_auroc

    if len(groups) != rows.shape[1]:
        raise PNIError(f"{len(groups)} groups for {rows.shape[1]} columns: give one a column")
    rng = np.random.default_rng(seed)
    whole = image_auroc(forest.scores(rows), labels)
    lost: dict[str, tuple[float, float]] = {}
    for group in dict.fromkeys(groups):
        own = np.array([name == group for name in groups])
        drops = []
        for _ in range(repeats):
            shuffled = rows.copy()
            shuffled[:, own] = rows[rng.permutation(len(rows))][:, own]
            drops.append(whole - image_auroc(forest.scores(shuffled), labels))
        lost[group] = float(np.mean(drops)), float(np.std(drops))
    return lost


def _checked(labels: ndarray, n: int) -> int:
    """The number of bad parts."""
    if labels.shape != (n,) or not np.isin(labels, (0, 1)).all():
        raise PNIError(f"labels of shape {labels.shape} for {n} rows: give one a row, 0 good or 1 bad")
    n_bad = int((labels == 1).sum())
    if n_bad == 0:
        raise PNIError("there are no bad parts to learn from: give some, or generate defects (protocol one-class)")
    if n_bad == n:
        raise PNIError("there are no good parts to learn from: hold some normal images out (--option hold_out=0.1)")
    return n_bad
