"""What a field of the configuration carries, and how a value is checked against it."""

import dataclasses
from typing import Any

from pnilib.errors import PNIError

__all__ = ["allowed", "param", "validated"]


def param(
    default: Any,
    doc: str,
    stage: str,
    source: str,
    *,
    choices: tuple[Any, ...] | None = None,
    low: float | None = None,
    high: float | None = None,
    odd: bool = False,
) -> Any:
    meta = dict(doc=doc, stage=stage, source=source, choices=choices, low=low, high=high, odd=odd)
    return dataclasses.field(default=default, metadata=meta)


def allowed(field: Any) -> str:
    meta = field.metadata
    if meta["choices"]:
        return " | ".join(str(c) for c in meta["choices"])
    if field.name == "released":
        return "none, or names with commas between"
    if meta["low"] is None:
        return "text"
    return f"{meta['low']:g} ... {meta['high']:g}" + (", odd" if meta["odd"] else "")


def validated(field: Any, value: Any) -> Any:
    meta, name = field.metadata, field.name
    if name == "released":  # `released_names` has looked at it
        return value
    if field.type is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, field.type) or isinstance(value, bool):
        raise PNIError(f"{name}={value!r} is not of type {field.type.__name__}")  # type: ignore[union-attr]
    bad = (
        (meta["choices"] is not None and value not in meta["choices"])
        or (meta["low"] is not None and not (meta["low"] <= value <= meta["high"]))  # also refuses NaN
        or (meta["odd"] and value % 2 == 0)
        or value == ""
    )
    if bad:
        raise PNIError(f"{name}={value!r} is not allowed: {allowed(field)} ({meta['doc']})")
    return value
