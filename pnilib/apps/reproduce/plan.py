"""The grid as units of work: which run needs which, and what a unit is called on disk.

A run is (dataset, category, backbone, setting, seed).  Runs that share their work are one unit:

    features   of the training images                                    one a category and backbone
    fit        coreset, distributions; scores settings A-F, or others    + seed
    pool       synthetic images for the refinement                       + generators
    network    one refinement network, one setting                       + setting
    ensemble   the mean of the backbones' maps                           one a category and seed

A unit's folder carries the hash of everything that its numbers depend on: configuration, images, pnilib's version, the
units that it needs.  Other data or settings are other folders; nothing stale is ever read.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pnilib.apps.reproduce.request import ROLES, Request, Source, fingerprint, paper_sources, sources_of
from pnilib.apps.reproduce.settings import (
    BACKBONES,
    COMBINED,
    DETECTOR,
    ENSEMBLES,
    OFFLINE,
    REFINED,
    RELEASED,
    RULES,
    SINGLE,
    SOFT,
    SWITCHES,
)
from pnilib.config import PNIConfig, released_names
from pnilib.errors import PNIError
from pnilib.store.version import pnilib_version

__all__ = ["ROLES", "Plan", "Request", "Source", "Unit", "build_plan", "paper_sources", "slug", "sources_of", "to_json"]

RESULTS_VERSION = 4
"""Raise it when a change makes finished units wrong."""


@dataclass(frozen=True)
class Unit:
    """Work that is done as a whole.  member: backbone by its name in MEMBERS.  variants: setting -> configuration of
    what is scored.  keep_maps: settings whose maps of all test images stay on disk.  needs: ids of other units."""

    kind: str
    name: str
    source: Source
    member: str
    config: PNIConfig
    variants: dict[str, PNIConfig] = field(default_factory=dict)
    keep_maps: tuple[str, ...] = ()
    needs: tuple["Unit", ...] = ()

    @cached_property
    def data(self) -> str:
        """Fingerprint of the images that it was planned for; goes along to the worker that does it."""
        return fingerprint(self.source)

    @cached_property
    def id(self) -> str:
        """Path of the unit's folder below the store; ends in the hash of what it depends on."""
        identity = [
            RESULTS_VERSION, pnilib_version(), self.kind, self.name, self.member, self.data,
            self.config.to_dict(), {name: config.to_dict() for name, config in self.variants.items()},
            list(self.keep_maps), [unit.id for unit in self.needs],
        ]  # fmt: skip
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
        place = [self.source.dataset, self.source.category, self.member, f"seed{self.config.seed}"]
        return "/".join(slug(part) for part in place) + f"/{self.kind}-{slug(self.name)}-{key}"

    @property
    def group(self) -> str:
        """Folder that units of one category and backbone share for intermediate work (features, pools)."""
        return "/".join(slug(part) for part in (self.source.dataset, self.source.category, self.member)) + "/work"

    @property
    def is_intermediate(self) -> bool:
        """Leaves nothing but intermediate work: needed only while another unit is."""
        return self.kind in ("features", "pool")

    def describe(self) -> str:
        return f"{self.source.category}, {self.member}, seed {self.config.seed}: {self.kind} {self.name}"

    def __hash__(self) -> int:
        return hash(self.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unit) and self.id == other.id


def slug(text: str) -> str:
    """Letters, digits, - and _ only: a name for files."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in text)


@dataclass(frozen=True)
class Plan:
    """Units in an order in which each comes after what it needs; category by category."""

    request: Request
    units: tuple[Unit, ...]

    def shows(self, unit: Unit) -> bool:
        """Whether tables and figures show its settings: those of the first backbone, and of the ensembles."""
        return not unit.is_intermediate and unit.member in (next(iter(self.request.members)), "ensemble")

    def needed(self, finished: Sequence[Unit]) -> list[Unit]:
        """What is still to do: unfinished units, and intermediate ones that some of them need."""
        done = set(finished)
        todo = {unit for unit in self.units if unit not in done and not unit.is_intermediate}
        for unit in reversed(self.units):
            if unit.is_intermediate and any(unit in other.needs for other in todo):
                todo.add(unit)
        return [unit for unit in self.units if unit in todo]


def build_plan(request: Request, settings: Sequence[str] | None = None, switches: bool = True) -> Plan:
    """All units that `settings` need (default: all of them; none: only the switches) for every category of the request.

    `switches`: also the audit's switches, one at a time (notebook 11); on the first seed and the first backbone.
    Raises PNIError for an unknown setting.
    """
    fingerprint.cache_clear()  # images may have changed since this process planned last
    known = [*DETECTOR, *COMBINED, *REFINED, *ENSEMBLES, RELEASED, SOFT, BACKBONES]
    for name in settings or ():
        if name not in known:
            raise PNIError(f"setting {name!r} is unknown: choose from {', '.join(known)}")
    wanted = set(known if settings is None else settings)
    if request.profile in OFFLINE:
        wanted = {SINGLE.get(name, name) for name in wanted}
    units: dict[Unit, None] = {}

    def add(unit: Unit) -> None:
        for needed in unit.needs:
            add(needed)
        units[unit] = None

    main = list(dict.fromkeys(request.sources["mvtec"]))
    for source in dict.fromkeys(source for role in ROLES for source in request.sources[role]):
        whole = source in main
        for unit in _category(request, source, wanted if whole else wanted & {"PNI", "E"}, switches and whole):
            add(unit)
    return Plan(request, tuple(units))


def _category(request: Request, source: Source, wanted: set[str], switches: bool) -> Iterator[Unit]:
    members, first = list(request.members), request.seeds[0]
    ensembled = {ENSEMBLES[name] for name in wanted & set(ENSEMBLES)}
    for seed in request.seeds:
        parts: dict[str, list[Unit]] = {}
        for member in members:
            alone = member == members[0]
            refined = [name for name in REFINED if name in ensembled or (alone and name in wanted)]
            if seed not in request.network_seeds:
                refined = [name for name in refined if alone and name == "PNI"]
            compared = BACKBONES in wanted and seed == first
            if not refined and not compared and not (alone and wanted & {*DETECTOR, *COMBINED}):
                continue
            yield (detector := _detector(request, source, member, seed, keep=alone and seed == first))
            for name in refined:
                keep = name in ensembled or (alone and seed == first and name == "PNI")
                yield (network := _network(detector, name, keep))
                parts.setdefault(name, []).append(network)
        for name in sorted(wanted & set(ENSEMBLES), key=list(ENSEMBLES).index):
            together = parts.get(ENSEMBLES[name], [])
            if len(together) == len(members) > 1:
                yield _ensemble(name, together, keep=seed == first and name == next(iter(ENSEMBLES)))
        for name, change in ((RELEASED, _released_code()), (SOFT, dict(setting="position", gate="soft"))):
            if name in wanted:
                yield _alone(name, change, request, source, members[0], seed, keep=seed == first)
    if switches:
        yield from _switches(request, source, members[0], first)


def _detector(request: Request, source: Source, member: str, seed: int, keep: bool) -> Unit:
    base = request.config(member, seed)
    variants = {
        name: base.replace(emb_ratio=min(1.0, ratio * base.emb_ratio), **change)
        for name, (ratio, change) in DETECTOR.items()
    } | {name: _changed(base, change) for name, change in COMBINED.items()}
    if member != next(iter(request.members)):  # its networks need E; Table X4 shows these
        variants = {name: variants[name] for name in ("A", "position", "E")}
    fitted = base.replace(emb_ratio=max(config.emb_ratio for config in variants.values()))
    return Unit(
        "fit", "settings", source, member, fitted, variants, ("A", "B", "E") * keep, (_features(source, member, base),)
    )


def _features(source: Source, member: str, config: PNIConfig) -> Unit:
    stages = {row["name"]: row["stage"] for row in PNIConfig.describe()}
    seed = config.seed if config.weights == "random" and config.backbone != "scattering" else 0
    own = {name: value for name, value in config.to_dict().items() if stages[name] == "features"}
    return Unit("features", "train", source, member, PNIConfig(**own, seed=seed))


def _network(detector: Unit, name: str, keep: bool) -> Unit:
    config = detector.variants["E"].replace(**REFINED[name])
    if not keep:
        config = config.replace(calibration_images=0)
    generators = detector.variants["E"].replace(defects=config.defects)
    pool = Unit("pool", config.defects, detector.source, detector.member, generators, needs=(detector,))
    return Unit(
        "network", name, detector.source, detector.member, config, {name: config}, (name,) * keep, (detector, pool)
    )


def _ensemble(name: str, parts: list[Unit], keep: bool) -> Unit:
    config = parts[0].config
    return Unit("ensemble", name, parts[0].source, "ensemble", config, {name: config}, (name,) * keep, tuple(parts))


def _alone(
    name: str, change: dict[str, Any], request: Request, source: Source, member: str, seed: int, keep: bool
) -> Unit:
    """A setting with a fit of its own."""
    config = request.config(member, seed).replace(**change)
    return Unit(
        "fit", name, source, member, config, {name: config}, (name,) * keep, (_features(source, member, config),)
    )


def _released_code() -> dict[str, Any]:
    released, paper = PNIConfig.profile("released").to_dict(), PNIConfig().to_dict()
    return {name: value for name, value in released.items() if value != paper[name] and name != "seed"}


def _switches(request: Request, source: Source, member: str, seed: int) -> list[Unit]:
    """One fit for each switch that changes what is fitted; the others are scored on the unswitched fit."""
    own = request.config(member, seed)
    base, rules = _changed(own, RULES["prob"]), {rule: _changed(own, values) for rule, values in RULES.items()}
    groups: dict[str, tuple[PNIConfig, dict[str, PNIConfig]]] = {
        "paper": (base, {f"paper/{k}": v for k, v in rules.items()})
    }
    for name, (_, change, on) in SWITCHES.items():
        change = change or dict(sigma=base.sigma / 2)
        variants = {f"{name}/{rule}": _changed(rules[rule], change) for rule in on}
        fitted = next(iter(variants.values())).under("E")
        if all(fitted.stage_key(stage) == base.stage_key(stage) for stage in ("position", "neighborhood")):
            groups["paper"][1].update(variants)
        else:
            groups[name] = fitted, variants
    features = _features(source, member, base)
    return [
        Unit("fit", f"switch {name}", source, member, config, variants, (), (features,))
        for name, (config, variants) in groups.items()
    ]


def _changed(config: PNIConfig, change: dict[str, Any]) -> PNIConfig:
    """With some values changed; steps of the release are added to those that are there."""
    if change.get("combine") in ("prob", "product"):
        config = config.but("rank_transfer")  # a gate by rank has no probability to combine
    steps = [*config.released, *released_names(change.get("released", ()))]
    return config.replace(**change | {"released": steps})


def to_json(unit: Unit) -> dict[str, Any]:
    """What `unit.json` says of the unit itself."""
    return {
        "kind": unit.kind, "name": unit.name, "member": unit.member, "seed": unit.config.seed,
        "source": dataclasses.asdict(unit.source), "config": unit.config.to_dict(),
        "settings": list(unit.variants), "keep_maps": list(unit.keep_maps), "needs": [need.id for need in unit.needs],
        "data": unit.data,
    }  # fmt: skip
