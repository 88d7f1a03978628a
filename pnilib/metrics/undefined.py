"""What a metric returns when it has no value: NaN, and one warning that says why.

An AUROC without defective images is not 0, not 1 and not an error: the other columns of
a table are still wanted.  So every metric of this package returns NaN and issues one
`UndefinedMetricWarning` whose text is "metric: reason".  A caller that prefers to stop writes
`warnings.simplefilter("error", UndefinedMetricWarning)`.
"""

import warnings

__all__ = ["UndefinedMetricWarning", "undefined", "why_undefined"]


class UndefinedMetricWarning(UserWarning):
    """A metric is NaN; the text names the metric and the reason."""


def undefined(metric: str, reason: str) -> float:
    """NaN, after a warning "metric: reason"."""
    warnings.warn(UndefinedMetricWarning(f"{metric} is undefined (NaN): {reason}"), stacklevel=4)
    return float("nan")


def why_undefined(n_normal: int, n_defective: int, what: str) -> str | None:
    """The reason why two classes cannot be compared, or None; `what` is "image" or "pixel"."""
    if n_normal == n_defective == 0:
        return f"no {what} at all"
    if n_defective == 0:
        return f"no defective {what}"
    if n_normal == 0:
        return f"no normal {what}"
    return None
