"""A plan in the words of `pnilib.estimate`: what the whole grid will take, before any of it runs."""

from collections.abc import Mapping

from pnilib.config import PNIConfig
from pnilib.estimate import PAPER_COUNTS, Work, sizes
from pnilib.reproduction.plan import Plan, Source, Unit

__all__ = ["paper_sources", "work_of"]


def paper_sources() -> dict[str, tuple[Source, ...]]:
    """The paper's data sets by role, without files: enough to plan and to estimate."""
    return {role: tuple(Source(role, "", name) for name in found) for role, found in PAPER_COUNTS.items()}


def work_of(plan: Plan, counts: Mapping[Source, tuple[int, int]]) -> list[Work]:
    """One piece of work a unit; counts: source -> (training images, test images).

    A fit unit counts once more for each C_emb smaller than `dist_size`, which needs its own C_dist and MLP.
    With `pool_maps=held_out` the cross-fitted models count once for each fit whose maps need them.
    """
    pieces: list[Work] = []
    folded = set()
    for unit in plan.units:
        n_train, n_test = counts[unit.source]
        name = f"{unit.source.dataset}/{unit.source.category}"
        kept = len(unit.keep_maps) if unit.config.calibration_images else 0
        if unit.kind == "fit":
            for config, variants in _fits(unit, n_train):
                pieces.append(Work("fit", name, config, n_train, n_test, variants, calibrations=kept))
                kept = 0
        else:
            pieces.append(Work(unit.kind, name, unit.config, n_train, n_test, calibrations=kept))
        if unit.kind == "pool" and unit.config.pool_maps == "held_out" and unit.needs[0] not in folded:
            folded.add(unit.needs[0])
            pieces.append(Work("folds", name, unit.config, n_train, n_test))
    return pieces


def _fits(unit: Unit, n_train: int) -> list[tuple[PNIConfig, tuple[PNIConfig, ...]]]:
    """(configuration of a fit, what is scored on it), the unit's own first."""
    found: dict[int, tuple[PNIConfig, list[PNIConfig]]] = {sizes(unit.config, n_train).n_dist: (unit.config, [])}
    for config in unit.variants.values():
        n_dist = sizes(config, n_train).n_dist
        if n_dist not in found:
            found[n_dist] = config.replace(setting=unit.config.setting), []
        found[n_dist][1].append(config)
    return [(config, tuple(scored)) for config, scored in found.values() if scored]
