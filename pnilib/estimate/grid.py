"""What many runs will take together, category by category.

A piece of work is what is done as a whole (`Work`): features, a fit with the settings scored on it, the cross-fitted
models, a pool, a refinement network.  Each machine speed is measured once for each backbone or network, however many
categories and seeds there are.  Pieces run one after another: divide by the number of workers that share them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pnilib.config import PNIConfig
from pnilib.errors import PNIError
from pnilib.estimate.detector import stages_of
from pnilib.estimate.dimensions import sizes
from pnilib.estimate.refinement import NetworkSpeeds, refinement_stages
from pnilib.estimate.speeds import DetectorSpeeds
from pnilib.estimate.stages import Stage, bytes_text, span_text

__all__ = ["KINDS", "Grid", "Work", "estimate_grid", "estimate_work"]

KINDS = {
    "features": "backbone features of the training images",
    "fit": "coreset, histogram and MLP; scoring of the settings that share them",
    "folds": "cross-fitted models, with pool_maps=held_out; once for all pools of a fit",
    "pool": "synthetic images and their maps",
    "network": "a refinement network, and scoring with it",
    "ensemble": "the mean of several backbones' maps",
}

_STAGES = {
    "features": ("features",),
    "fit": ("coreset", "position", "neighborhood", "calibration", "scoring", "maps"),
    "folds": ("folds",),
    "pool": ("pool",),
    "network": ("refinement", "refined calibration", "refined scoring"),
    "ensemble": (),
}


@dataclass(frozen=True)
class Work:
    """A piece of work of one category.  kind: one of KINDS.  variants: settings scored on a fit, default its own.
    calibrations: of how many of them.  times: how often it is done, for seeds."""

    kind: str
    category: str
    config: PNIConfig
    n_train: int
    n_test: int
    variants: tuple[PNIConfig, ...] = ()
    calibrations: int = 1
    times: int = 1


@dataclass(frozen=True)
class Grid:
    """rows: (category, kind) -> seconds of all its work, peak bytes of memory, bytes written if nothing is deleted."""

    rows: dict[tuple[str, str], Stage] = field(default_factory=dict)

    def of(self, category: str | None = None, kind: str | None = None) -> Stage:
        """Added up over a category, a kind, or everything; memory is the largest."""
        parts = [stage for (c, k), stage in self.rows.items() if category in (None, c) and kind in (None, k)]
        name = category or kind or "all"
        seconds, disk = sum(part.seconds for part in parts), sum(part.disk for part in parts)
        return Stage(name, float(seconds), max((part.memory for part in parts), default=0), disk)

    @property
    def categories(self) -> list[str]:
        """In the order of the work."""
        return list(dict.fromkeys(category for category, _ in self.rows))

    def records(self) -> list[dict[str, Any]]:
        """One tidy row for each category and kind: category, kind, seconds, memory, disk."""
        return [
            dict(category=category, kind=kind, seconds=stage.seconds, memory=stage.memory, disk=stage.disk)
            for (category, kind), stage in self.rows.items()
        ]

    def format(self) -> str:
        """A table as text: a row a category, times by kind, all time, peak memory, disk if nothing is deleted."""
        kinds = [kind for kind in KINDS if any(kind == found for _, found in self.rows)]
        lines = [["category", *kinds, "all", "memory", "disk"]]
        for category in [*self.categories, None]:
            whole = self.of(category)
            times = [span_text(self.of(category, kind).seconds) for kind in kinds]
            lines.append(
                [category or "all", *times, span_text(whole.seconds), bytes_text(whole.memory), bytes_text(whole.disk)]
            )
        width = max(len(line[0]) for line in lines) + 1
        return "\n".join(line[0].ljust(width) + "".join(cell.rjust(11) for cell in line[1:]) for line in lines)


def estimate_work(work: Iterable[Work], *, device: str = "cpu", measure: bool = True) -> Grid:
    """What all of it takes.  `measure`: time pieces for some seconds a backbone, else seconds are NaN.

    Raises PNIError for an unknown kind or impossible numbers, and as the configurations' parts do.
    """
    detectors: dict[str, DetectorSpeeds] = {}
    networks: dict[str, NetworkSpeeds] = {}
    rows: dict[tuple[str, str], Stage] = {}
    for piece in work:
        _require(piece)
        detector = network = None
        if measure:
            config = piece.config
            speeds = DetectorSpeeds(config, sizes(config, piece.n_train), device)  # measures nothing yet
            detector = detectors.setdefault(_detector_key(config), speeds)
            network = networks.setdefault(_network_key(config), NetworkSpeeds(config, device))
        stages = _stages(piece, detector, network)
        if piece.kind in ("fit", "network", "ensemble"):
            scored = piece.n_test * max(1, len(piece.variants))
            stages.append(Stage("evaluation", scored * (detector.evaluate if detector else math.nan), 0, 0))
        past = rows.get((piece.category, piece.kind), Stage(piece.kind, 0.0, 0, 0))
        rows[piece.category, piece.kind] = Stage(
            piece.kind,
            past.seconds + piece.times * sum(stage.seconds for stage in stages),
            max([past.memory, *(stage.memory for stage in stages)]),
            past.disk + piece.times * sum(stage.disk for stage in stages),
        )
    return Grid(rows)


def estimate_grid(
    config: PNIConfig,
    backbones: Sequence[Mapping[str, Any]],
    counts: Mapping[str, tuple[int, int]],
    *,
    n_seeds: int = 1,
    settings: Sequence[Mapping[str, Any]] = ({},),
    n_detector_fits: int = 1,
    n_pools: int = 1,
    n_networks: int = 1,
    device: str = "cpu",
    measure: bool = True,
) -> Grid:
    """A full grid: each category with each backbone (overrides of `config`) and seed.

    counts: category -> (training images, test images), as in PAPER_COUNTS.  Features are computed once for all seeds;
    for each seed there are `n_detector_fits` fits, each scored under all `settings` (overrides), the first with
    `n_pools` pools and `n_networks` refinement networks.  Raises PNIError for no backbone or category, negative
    numbers, and as the configurations' parts do.
    """
    if not backbones or not counts:
        raise PNIError("estimate: a grid needs a backbone and a category: give at least one of each")
    work = []
    for category, (n_train, n_test) in counts.items():
        for backbone in backbones:
            chosen = config.replace(**backbone)
            scored = tuple(chosen.replace(**setting) for setting in settings)
            largest = max((variant.emb_ratio for variant in scored), default=chosen.emb_ratio)
            base = Work("features", category, chosen, n_train, n_test)
            fit = Work(
                "fit", category, chosen.replace(emb_ratio=largest), n_train, n_test, scored,
                times=n_seeds * n_detector_fits,
            )  # fmt: skip
            work += [base, fit]
            if n_networks > 0:
                if chosen.pool_maps == "held_out":
                    work.append(Work("folds", category, chosen, n_train, n_test, times=n_seeds))
                work.append(Work("pool", category, chosen, n_train, n_test, times=n_seeds * n_pools))
            work.append(Work("network", category, chosen, n_train, n_test, times=n_seeds * n_networks))
    return estimate_work(work, device=device, measure=measure)


def _stages(piece: Work, detector: DetectorSpeeds | None, network: NetworkSpeeds | None) -> list[Stage]:
    names = _STAGES[piece.kind]
    if piece.kind in ("features", "fit"):
        variants = piece.variants or (piece.config,)
        found = stages_of(
            piece.config, piece.n_train, piece.n_test, detector, variants=variants, calibrations=piece.calibrations
        )
    else:
        found = refinement_stages(piece.config, piece.n_train, piece.n_test, detector, network)
    return [stage for stage in found if stage.name in names]


def _detector_key(config: PNIConfig) -> str:
    """Of what is alike for the detector's speeds, or near enough."""
    return config.replace(seed=0, emb_ratio=0.01).stage_key("scoring")


def _network_key(config: PNIConfig) -> str:
    """Likewise for the refinement network's."""
    slow = ("blocks", "crop", "batch", "decoder", "decoder_norm", "growth", "out", "precision", "skips", "stem_width")
    return str([config.image_crop, *(getattr(config, f"refine_{name}") for name in slow)])


def _require(piece: Work) -> None:
    if piece.kind not in KINDS:
        raise PNIError(f"estimate: work {piece.kind!r} is unknown: choose from {', '.join(KINDS)}")
    if piece.n_train < 1 or piece.n_test < 0 or piece.times < 0:
        raise PNIError(
            f"estimate: {piece.category}: {piece.n_train} training images, {piece.n_test} test images, {piece.times} "
            "times: give numbers of images from 1 and 0, and times from 0"
        )
