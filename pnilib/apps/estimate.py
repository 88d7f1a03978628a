"""What runs take before they are started: seconds, memory and disk, within a factor two where the machine is quiet.

Memory and disk follow from the counts of a fit (`pnilib.detector.dimensions`); seconds are counts of work divided by
rates that the package's own functions reach here, timed in a few seconds.  How many of all (patch, pick) pairs the
greedy selection looks at depends on the features: a quarter is a guess for structured ones.
"""

import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import psutil
import torch
from matplotlib.ticker import EngFormatter
from torch import Tensor

from pnilib.apps.reproduce.plan import Plan, Source, Unit
from pnilib.config import NEEDS, PNIConfig
from pnilib.detector import steps, veto
from pnilib.detector.dimensions import refinement_weights, sizes, training_side
from pnilib.detector.inference import SCORE_BYTES
from pnilib.detector.training_pool import WORKERS
from pnilib.errors import PNIError
from pnilib.features.extraction import Embedder
from pnilib.k_center import POOL
from pnilib.neighborhood import gather_neighbors, neighbor_offsets
from pnilib.refinement.augmentation import augment
from pnilib.refinement.losses import refinement_loss
from pnilib.refinement.network import standardise
from pnilib.refinement.pool import pool_size
from pnilib.scoring import gated_nearest, patch_distances

__all__ = ["Cost", "Free", "Speeds", "estimate", "estimate_plan", "require", "table_text", "total"]

METRICS, DEFECT = 3e-7, 4e-7
"""Seconds a pixel on one core: of the pixel metrics of a test image, and of a synthetic defect."""
bytes_text: Callable[[float], str] = EngFormatter("B", places=1)
LARGEST = 4096
"""What is timed is never larger than this in any one direction."""


@dataclass(frozen=True)
class Free:
    """What is free now, bytes: memory of the device, and disk below a folder, which need not exist yet."""

    memory: int
    disk: int
    folder: Path

    @classmethod
    def now(cls, device: str, folder: Path | str, resumed: bool = False) -> "Free":
        """`resumed`: what the folder holds already counts as free, for it need not be written again.  Raises PNIError
        where the file system does not answer."""
        folder, on_gpu = Path(folder), torch.device(device).type == "cuda"
        try:
            there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
            disk = shutil.disk_usage(there).free
            disk += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if resumed else 0
        except (OSError, StopIteration):
            raise PNIError(f"{folder}: its file system does not say what is free: choose another folder") from None
        memory = torch.cuda.mem_get_info(device)[0] if on_gpu else psutil.virtual_memory().available
        return cls(int(memory), disk, folder)


class Cost(NamedTuple):
    """seconds: NaN where nothing was timed.  memory: bytes at its peak, beyond the libraries.  disk: bytes written."""

    seconds: float
    memory: float
    disk: float


def total(costs: Iterable[Cost]) -> Cost:
    """Seconds and disk added up, memory of the most demanding one."""
    seconds, memory, disk = zip(*costs, strict=True)
    return Cost(sum(seconds), max(memory), sum(disk))


def require(stages: dict[str, Cost], free: Free) -> None:
    """Raises PNIError, with what would help, when memory or disk will not suffice."""
    worst, whole, lacking = max(stages, key=lambda name: stages[name].memory), total(stages.values()), []
    if whole.memory > free.memory:
        says = f"needs {bytes_text(whole.memory)} of memory, {bytes_text(free.memory)} are free"
        lacking.append(f"{worst}: {says}: lower image_crop, emb_ratio or mlp_width, or use setting=A")
    if whole.disk > free.disk:
        says = f"{bytes_text(whole.disk)} are needed, {bytes_text(free.disk)} are free in {free.folder}"
        lacking.append(f"disk: {says}: make room, give --out on another disk, or lower image_crop or dim")
    if lacking:
        raise PNIError("; ".join(lacking))


def table_text(costs: Mapping[Any, Cost], free: Free) -> str:
    """One row a stage, or of (category, kind) pairs one a category with each kind's time; and what is free."""
    whole = total(costs.values())
    frame = pd.DataFrame(costs, index=Cost._fields).T
    if frame.index.nlevels > 1:
        table = frame["seconds"].unstack(sort=False).fillna(0)
        table.loc["all"] = table.sum()
        text = f"{table.map(span_text).to_string()}\n{span_text(whole.seconds)} in all"
    else:
        frame.loc["all"] = whole
        words = {"seconds": span_text, "memory": bytes_text, "disk": bytes_text}
        text = pd.DataFrame({name: frame[name].map(said) for name, said in words.items()}).to_string()
    return (
        f"{text}\nmemory: {bytes_text(whole.memory)} needed, {bytes_text(free.memory)} free; disk: "
        f"{bytes_text(whole.disk)} needed, {bytes_text(free.disk)} free in {free.folder}"
    )


def span_text(seconds: float) -> str:
    """ "12 s", "3.4 min", "5.6 h"; - for NaN."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return "-" if math.isnan(seconds) else f"{seconds:.0f} s"


def rate(depends: Callable[["Speeds"], Any]) -> Callable[[Callable[["Speeds"], float]], property]:
    """A property of `Speeds` that is timed once for each value of what it depends on."""

    def decorate(measure: Callable[["Speeds"], float]) -> property:
        def value(speeds: "Speeds") -> float:
            key = measure.__name__, depends(speeds)
            return speeds.timed[key] if key in speeds.timed else speeds.timed.setdefault(key, measure(speeds))

        return property(value)

    return decorate


class Speeds:
    """Rates of the package's own functions, each timed on random numbers when asked for; `timed`: already, here."""

    def __init__(self, config: PNIConfig, n_train: int, device: str, timed: dict[Any, float] | None = None) -> None:
        self.config, self.z, self.device = config, sizes(config, n_train), device
        self.timed = {} if timed is None else timed
        self.generator = torch.Generator().manual_seed(0)

    def random(self, *shape: int) -> Tensor:
        """On the device, no side larger than LARGEST."""
        return torch.rand([min(side, LARGEST) for side in shape], generator=self.generator).to(self.device)

    def seconds(self, work: Callable[[], Any]) -> float:
        """Of a call: the least of three after the first, or the first alone where it takes long."""
        spent: list[float] = []
        while len(spent) < 4 and (not spent or spent[0] < 1.0):
            began = time.perf_counter()
            work()
            if torch.device(self.device).type == "cuda":
                torch.cuda.synchronize(self.device)
            spent.append(time.perf_counter() - began)
        return min(spent[1:] or spent)

    @rate(lambda self: self.config.replace(seed=0).stage_key("features"))
    @torch.no_grad()
    def image(self) -> float:
        """Seconds an image, to its features; weights do not matter, so random ones do."""
        config = self.config if self.config.backbone == "scattering" else self.config.replace(weights="random")
        embedder, picture = Embedder(config, self.device), self.random(1, 3, config.image_crop, config.image_crop)
        return self.seconds(lambda: embedder.raw(picture))

    @rate(lambda self: (self.z.mlp_inputs, self.config.mlp_width))
    def flops(self) -> float:
        """Floating-point operations a second, in matrix products as wide as the MLP's."""
        left, right = self.random(512, self.z.mlp_inputs), self.random(self.z.mlp_inputs, self.config.mlp_width)
        return 2 * left.numel() * right.shape[1] / self.seconds(lambda: left @ right)

    @rate(lambda self: (self.z.d, min(self.z.n_emb, LARGEST)))
    def pair(self) -> float:
        """Seconds a (cell, vector) pair in distances and gates."""
        flat, vectors = self.random(256, self.z.d), self.random(self.z.n_emb, self.z.d)
        is_open = self.random(len(flat), len(vectors)) > 0.5
        spent = self.seconds(lambda: gated_nearest(patch_distances(flat, vectors), is_open))
        return spent / (len(flat) * len(vectors))

    @rate(lambda self: (self.z.side, self.z.d, self.config.patch))
    def gather(self) -> float:
        """Seconds a cell, to collect its neighborhood."""
        maps, offsets = self.random(2, self.z.side, self.z.side, self.z.d), neighbor_offsets(self.config.patch)
        cells = torch.randint(maps.shape[0] * maps.shape[1] ** 2, (256,), generator=self.generator)
        return self.seconds(lambda: gather_neighbors(maps, cells, offsets)) / len(cells)

    @rate(
        lambda self: (
            self.config.image_crop,
            self.config.released,
            *(v for k, v in self.config.to_dict().items() if k.startswith("refine")),
        )
    )
    def step(self) -> float:
        """Seconds a pixel of a training step of the refinement network: forward, backward and Adam."""
        config, side = self.config, min(training_side(self.config), 256)
        network = steps.network_class(config)(config).to(self.device).to(memory_format=torch.channels_last).train()
        adam = torch.optim.Adam(network.parameters(), lr=1e-6)
        images = torch.randint(256, (2, 3, side, side), dtype=torch.uint8, generator=self.generator).to(self.device)
        maps = self.random(2, 1, side, side)

        def train() -> None:
            some, own, truth = augment(images, maps, (maps > 0.9).float(), config, self.generator)
            adam.zero_grad(set_to_none=True)
            refinement_loss(network(standardise(some), own).float(), truth, config).backward()
            adam.step()

        return self.seconds(train) / (2 * side**2)


def estimate(
    config: PNIConfig, n_train: int, n_test: int, speeds: Speeds | None = None, variants: int = 1, networks: int = 1
) -> dict[str, Cost]:
    """A fit on `n_train` images with a work folder, and the scoring of `n_test` under some variants, by stage.

    `networks`: trained, where variants need several.  Raises PNIError as the configuration's parts do.
    """
    z, calibrated = sizes(config, n_train), min(config.calibration_images, n_train)
    nb, position = "neighborhood" in NEEDS[config.setting], "position" in NEEDS[config.setting]
    mlp, coreset, histogram = 4 * z.mlp_parameters * nb, 4 * z.n_emb * z.d, 4 * z.cells * z.n_bins * position
    weights = 0 if config.backbone == "scattering" else 200_000_000
    image = 4 * (8 * z.cells * z.channels + 16 * config.image_crop**2)
    labels = weights + coreset + 24 * n_train * z.cells + 120 * z.cells * z.d
    batch, projected = min(config.mlp_batch, z.n_patches), 1024 * ("sparse_projection" in config.released)
    logits = 4 * z.cells * (3 * z.n_dist + 3 * config.mlp_width) * nb
    scoring = weights + 2 * coreset + 2 * histogram + mlp + image + 6 * min(SCORE_BYTES, 4 * z.cells * z.n_emb) + logits
    maps, training = 8 * config.image_crop**2, 8 * batch * (z.mlp_inputs + 2 * config.mlp_width * config.mlp_layers)
    image_s = mlp_s = pairs_s = pick_s = labels_s = epoch_s = selection_s = math.nan
    if speeds is not None:
        pairs_s, pick_s = z.cells * z.n_emb * speeds.pair, z.n_emb * (1e-4 + 8 * POOL * z.d / speeds.flops)
        image_s, mlp_s = speeds.image, 2 * z.mlp_parameters * z.cells * nb / speeds.flops
        labels_s = n_train * z.cells * z.n_bins * speeds.pair
        selection_s = 0.25 * 2 * z.n_patches * z.n_emb * z.d / speeds.flops
        epoch_s = z.n_patches * (speeds.gather + 6 * z.mlp_parameters / speeds.flops) if nb else 0.0
    passes = 1 if config.feature_norm == "none" else 2
    metrics = METRICS * config.image_crop**2
    embed_s, soft = image_s + mlp_s, position and config.gate == "soft"
    stages = {
        "features": Cost(n_train * passes * image_s, weights + 8 * image, 4 * n_train * z.cells * z.d),
        "coreset": Cost(pick_s + selection_s, weights + (12 + projected) * z.n_patches + 2 * coreset, 2 * coreset),
        "position": Cost(labels_s, labels + 10 * z.cells * z.n_bins + 2 * histogram, histogram),
        "neighborhood": Cost(networks * config.mlp_epochs * epoch_s, labels + 11 * mlp + training, 9 * mlp),
        "veto": Cost(1.5 * min(veto.IMAGES, n_train) * pairs_s, scoring, 4 * z.cells),
        "calibration": Cost(calibrated * (embed_s + pairs_s), scoring + calibrated * maps, 0),
        "scoring": Cost(n_test * (embed_s + variants * (pairs_s + metrics)), scoring + n_test * maps * variants, 0),
    }
    unused = {"position": position, "neighborhood": nb, "calibration": calibrated > 0, "veto": soft}
    return {name: cost for name, cost in stages.items() if unused.get(name, True)}


def estimate_plan(
    plan: Plan, counts: Mapping[Source, tuple[int, int]], device: str = "cpu", measure: bool = True
) -> dict[tuple[str, str], Cost]:
    """All units of a plan by (category, kind); counts: source -> (training images, test images).  Cross-fitted models
    (`folds`) count once for each fit whose maps need them.  `measure`: time the work, else seconds are NaN."""
    timed: dict[Any, float] = {}
    found: dict[tuple[str, str], Cost] = {}
    folded: set[Unit] = set()
    for unit in plan.units:
        n_train, n_test = counts[unit.source]
        rates = Speeds(unit.config, n_train, device, timed) if measure else None
        for kind, cost in costs_of(unit, rates, n_train, n_test).items():
            if kind == "folds" and unit.needs[0] in folded:
                continue
            at = f"{unit.source.dataset}/{unit.source.category}", kind
            found[at] = total([cost, found[at]]) if at in found else cost
        if unit.kind == "pool":
            folded.add(unit.needs[0])
    return found


def costs_of(unit: Unit, speeds: Speeds | None, n_train: int, n_test: int) -> dict[str, Cost]:
    """Of a unit, by kind of work; a pool has its cross-fitted models beside it."""
    config, pixels, n_pool = unit.config, unit.config.image_crop**2, pool_size(unit.config)
    networks = {sizes(one, n_train).n_dist for one in unit.variants.values()}  # another C_dist needs another network
    fit = estimate(config, n_train, n_test, speeds, max(1, len(unit.variants)), max(1, len(networks)))
    features, scoring = fit.pop("features"), fit["scoring"]
    one = scoring.seconds / max(1, n_test)
    if unit.kind == "features":
        return {"features": features}
    if unit.kind == "fit":
        return {"fit": total(fit.values())}
    if unit.kind == "ensemble":
        return {"ensemble": Cost(n_test * METRICS * pixels, n_test * 8 * pixels, 0)}
    if unit.kind == "pool":
        seconds = n_pool / WORKERS * (DEFECT * pixels + one * torch.get_num_threads())
        found = {"pool": Cost(seconds, scoring.memory + WORKERS * 60 * pixels, n_pool * (6 * pixels + 400))}
        folds = min(config.pool_folds, n_train)
        if config.pool_maps == "held_out" and n_train > 1:
            rest = n_train - math.ceil(n_train / folds)
            once = estimate(config.replace(calibration_images=0), rest, 0, speeds)
            found["folds"] = total([total(once.values())] * folds)
        return found
    weights = refinement_weights(config.replace(seed=0))
    trained = min(config.refine_batch, n_pool) * training_side(config) ** 2
    seconds = config.refine_iterations * trained * (speeds.step if speeds else math.nan)
    seconds += (2 * min(config.calibration_images, n_train) + n_test) * one
    activations = 4 * trained * (12 * config.refine_stem_width + 24 * config.refine_growth)  # of the first levels
    return {"network": Cost(seconds, scoring.memory + 16 * weights + activations, 24 * weights)}
