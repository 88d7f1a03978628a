"""A plan in the words of `pnilib.estimate`: what the whole grid will take, before any of it runs."""

from collections.abc import Mapping

from pnilib.estimate import PAPER_COUNTS, Work
from pnilib.reproduction.plan import Plan, Source

__all__ = ["paper_sources", "work_of"]


def paper_sources() -> dict[str, tuple[Source, ...]]:
    """The paper's data sets by role, without files: enough to plan and to estimate."""
    return {role: tuple(Source(role, "", name) for name in found) for role, found in PAPER_COUNTS.items()}


def work_of(plan: Plan, counts: Mapping[Source, tuple[int, int]]) -> list[Work]:
    """One piece of work a unit; counts: source -> (training images, test images).

    With `pool_maps=held_out` the cross-fitted models count once for each fit whose maps need them.
    """
    pieces: list[Work] = []
    folded = set()
    for unit in plan.units:
        n_train, n_test = counts[unit.source]
        name = f"{unit.source.dataset}/{unit.source.category}"
        fits = tuple(unit.variants.values()) if unit.kind == "fit" else ()
        kept = len(unit.keep_maps) if unit.config.calibration_images else 0
        pieces.append(Work(unit.kind, name, unit.config, n_train, n_test, variants=fits, calibrations=kept))
        if unit.kind == "pool" and unit.config.pool_maps == "held_out" and unit.needs[0] not in folded:
            folded.add(unit.needs[0])
            pieces.append(Work("folds", name, unit.config, n_train, n_test))
    return pieces
