r"""What a run will take, before it is started: seconds, memory and disk of each stage.

Memory follows from the sizes (h w cells a grid, d channels, N patches, E = |C_emb|, D = |C_dist|, P weights):

    features        4 N d                              in memory, or on disk with a work folder
    coreset         12 N + 8 E d, pool and blocks
    position        about 14 h w bins
    neighborhood    20 P + 24 P while an epoch is saved; 8 batch (p^2 - 1) d and the activations
    scoring         six arrays of SCORE_BYTES, 4 P, logits, the histogram
    maps            8 bytes a pixel of all test images

Seconds are counts of work divided by rates that the package's own functions reach on this machine, measured for a
few seconds on random numbers.  The greedy selection alone depends on the features: it is taken to look at a
quarter of all pairs.  Whatever else the machine does meanwhile changes them.  Nothing here is from the paper.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from pnilib.backbones import _CHANNELS, grid_side
from pnilib.config import PNIConfig
from pnilib.coreset import BLOCK_BYTES, POOL, coreset_size, greedy_k_center
from pnilib.errors import PNIError
from pnilib.features import Embedder
from pnilib.inference import SCORE_BYTES
from pnilib.maps import anomaly_maps
from pnilib.neighborhood import gather_neighbors
from pnilib.neighbors import nearest
from pnilib.scoring import patch_distances, score_patches

__all__ = ["Estimate", "Sizes", "Stage", "estimate", "sizes"]

_BATCH = 8
"""images whose features are computed at once."""
_PAIRS = 0.25
"""share of all (patch, pick) pairs that greedy k-center looks at: less for structured features, more for noise."""
_LARGE = 4096
"""what is measured is never larger than this in any one direction."""


@dataclass(frozen=True)
class Sizes:
    """Counts that everything follows from: grid side, d, cells an image, N candidates, |C_emb|, |C_dist|, weights."""

    side: int
    d: int
    cells: int
    n_patches: int
    n_emb: int
    n_dist: int
    n_bins: int
    mlp_inputs: int
    mlp_parameters: int


@dataclass(frozen=True)
class Stage:
    """seconds (NaN when not measured); memory: bytes in use at its peak, beyond the libraries; disk: bytes written."""

    name: str
    seconds: float
    memory: int
    disk: int


@dataclass(frozen=True)
class Estimate:
    """One row a stage.  `features_in_memory`: bytes of the training features, 0 with a work folder."""

    config: PNIConfig
    device: str
    stages: list[Stage]
    features_in_memory: int

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def memory(self) -> int:
        """Bytes, of the most demanding stage."""
        return max(stage.memory for stage in self.stages)

    @property
    def disk(self) -> int:
        """Bytes, of all stages."""
        return sum(stage.disk for stage in self.stages)

    def require_memory(self, available: int | None = None) -> "Estimate":
        """This estimate.  Raises PNIError, with what would help, when a stage needs more than is available.

        `available`: bytes; by default what the device has free now.
        """
        if available is None:
            available = _available(self.device)
        worst = max(self.stages, key=lambda stage: stage.memory)
        if worst.memory > available:
            raise PNIError(
                f"{worst.name}: needs {_size(worst.memory)} of memory, {_size(available)} are free: "
                f"{_advice(self, worst)}"
            )
        return self

    def format(self) -> str:
        """A small table as text."""
        rows = [("stage", "seconds", "memory", "disk")]
        rows += [(s.name, _seconds(s.seconds), _size(s.memory), _size(s.disk)) for s in self.stages]
        rows.append(("all", _seconds(self.seconds), _size(self.memory), _size(self.disk)))
        return "\n".join(f"{name:<13}{seconds:>11}{memory:>11}{disk:>11}" for name, seconds, memory, disk in rows)


def sizes(config: PNIConfig, n_train: int) -> Sizes:
    """The sizes of a fit on so many images."""
    side = grid_side(config.backbone, config.image_crop)
    raw = sum(_CHANNELS["scattering"]) if config.backbone == "scattering" else config.dim
    d = min(config.dim, raw) if config.feature_norm == "half_whiten" else raw
    inner = side - 2 * config.border_cells if config.border == "replicate" else side
    candidates = n_train * inner**2
    if inner < 1 or candidates < 2:
        raise PNIError(f"{n_train} training images of {side} x {side} cells leave no patches: check the settings")
    n_emb = min(coreset_size(candidates, config.emb_ratio), candidates)
    n_dist = min(config.dist_size, n_emb)
    inputs = (config.patch**2 - 1) * d
    return Sizes(
        side=side,
        d=d,
        cells=side**2,
        n_patches=candidates,
        n_emb=n_emb,
        n_dist=n_dist,
        n_bins=n_dist if config.pos_bins == "dist" else n_emb,
        mlp_inputs=inputs,
        mlp_parameters=_mlp_parameters(inputs, n_dist, config),
    )


def _mlp_parameters(inputs: int, n_dist: int, config: PNIConfig) -> int:
    total, width = 0, inputs
    for _ in range(config.mlp_layers - 1):
        total += (width + 1) * config.mlp_width + 2 * config.mlp_width  # weights, biases; batch normalization
        width = config.mlp_width
    return total + (width + 1) * n_dist


def estimate(
    config: PNIConfig, n_train: int, n_test: int, device: str = "cpu", measure: bool = True, on_disk: bool = True
) -> Estimate:
    """What fitting on `n_train` and scoring `n_test` images will take.

    `measure` times small pieces of the work for a few seconds, else seconds are NaN.  `on_disk`: with a work
    folder, as `fit_or_load` uses one.  Raises PNIError as the configuration's parts do.
    """
    z = sizes(config, n_train)
    nb = config.setting in ("B", "E")
    memory, disk = _memory(config, z, n_train, n_test, nb), _disk(config, z, n_train, nb)
    kept = 0 if on_disk else 4 * n_train * z.cells * z.d
    seconds = _measured(config, z, n_train, n_test, device, nb) if measure else dict.fromkeys(memory, math.nan)
    fitting = ("features", "coreset", "position", "neighborhood", "calibration")
    on_host = torch.device(device).type == "cpu"
    stages = [
        Stage(name, seconds[name], need + (kept if on_host and name in fitting else 0), disk.get(name, 0) * on_disk)
        for name, need in memory.items()
    ]
    return Estimate(config, device, stages, kept)


def _memory(config: PNIConfig, z: Sizes, n_train: int, n_test: int, nb: bool) -> dict[str, int]:
    """Peak bytes of each stage beyond the features."""
    channels = sum(_CHANNELS[config.backbone])
    image = 4 * (8 * z.cells * channels + 16 * config.image_crop**2)
    weights = 0 if config.backbone == "scattering" else 4 * 50_000_000
    coreset = 4 * z.n_emb * z.d
    labels = 24 * n_train * z.cells + 120 * z.cells * z.d + 4 * z.n_bins * z.d
    votes = 2 if n_train * config.patch**2 < 2**16 else 4
    histogram = votes * z.cells * z.n_bins
    activations = 16 * config.mlp_batch * config.mlp_width * config.mlp_layers
    batch = min(config.mlp_batch, n_train * z.cells)
    mlp = 4 * z.mlp_parameters if nb else 0
    scoring = 6 * min(SCORE_BYTES, 4 * z.cells * z.n_emb) + 2 * coreset + 2 * histogram
    scoring += (4 * z.cells * (3 * z.n_dist + 3 * config.mlp_width) + mlp) if nb else 0
    pixels = 8 * config.image_crop**2
    projected = {"none": 0, "sparse": 1024, "dense128": 512}[config.coreset_proj]
    calibrated = min(config.calibration_images, n_train)
    return {
        "features": weights + _BATCH * image,
        "coreset": weights + (12 + projected) * z.n_patches + 2 * coreset + 12 * POOL * z.d + 4 * BLOCK_BYTES,
        "position": weights + coreset + labels + 10 * z.cells * z.n_bins + 2 * histogram,
        "neighborhood": (weights + coreset + labels + 11 * mlp + 8 * batch * z.mlp_inputs + activations) if nb else 0,
        "calibration": (weights + image + scoring + calibrated * pixels) if calibrated else 0,
        "scoring": weights + image + scoring + n_test * pixels // 2,
        "maps": weights + coreset + histogram + mlp + n_test * pixels,
    }


def _disk(config: PNIConfig, z: Sizes, n_train: int, nb: bool) -> dict[str, int]:
    """Bytes in the work folder and in the model; an epoch is written beside the previous one."""
    return {
        "features": 4 * n_train * z.cells * z.d,
        "coreset": 2 * 4 * z.n_emb * z.d,
        "position": (2 if n_train * config.patch**2 < 2**16 else 4) * z.cells * z.n_bins,
        "neighborhood": (2 * 16 + 4) * z.mlp_parameters if nb else 0,
    }


def _measured(config: PNIConfig, z: Sizes, n_train: int, n_test: int, device: str, nb: bool) -> dict[str, float]:
    """Seconds of each stage, from the speed of its parts."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator).to(device)

    def seconds(work: Callable[[], Any], least: float = 0.2) -> float:
        """Mean of some calls after the first, or of the first alone if it takes long."""
        spent, calls = _time(work, device), 0
        if spent > 1.0:
            return spent
        spent = 0.0
        while spent < least:
            spent, calls = spent + _time(work, device), calls + 1
        return spent / calls

    few = min(z.cells, _LARGE)
    flat = random(few, z.d)
    embedder = Embedder(config if config.backbone == "scattering" else config.replace(weights="random"), device)
    picture = random(1, 3, config.image_crop, config.image_crop)
    image_s = seconds(lambda: embedder.raw(picture))

    left, right = random(512, min(z.mlp_inputs, _LARGE)), random(min(z.mlp_inputs, _LARGE), min(config.mlp_width, 2048))
    flops = 2 * left.numel() * right.shape[1] / seconds(lambda: left @ right)

    some, picks = random(min(z.n_patches, 4 * POOL), z.d), min(64, z.n_patches)
    pick_s = seconds(lambda: greedy_k_center(some.cpu().numpy(), picks, device=device)) / picks
    block_bytes = 8 * some.numel()
    pass_s = seconds(lambda: (some.double() - 1).square().sum()) * 8 * z.n_patches * z.d / block_bytes

    def labels_s(n_vectors: int) -> float:
        vectors = random(min(n_vectors, _LARGE), z.d)
        return seconds(lambda: nearest(flat, vectors)) * (z.cells / few) * (n_vectors / len(vectors)) * n_train

    m = min(z.n_emb, 2 * _LARGE)
    vectors, bins = random(m, z.d), min(z.n_bins, m)
    n_dist = min(z.n_dist, m)
    to_dist = torch.arange(m, device=device) % n_dist
    p_position = random(min(few, 128), bins if config.pos_bins == "dist" else m) / 64
    p_nb, marginal = random(len(p_position), n_dist) / 64, torch.full((p_position.shape[1],), 1e-3, device=device)

    def score() -> Any:
        distances = patch_distances(flat[: len(p_position)], vectors)
        return score_patches(distances, p_nb, p_position, marginal, to_dist, n_dist, config)

    gates_s = seconds(score) * (z.cells / len(p_position)) * (z.n_emb / m)
    network_s = 2 * z.mlp_parameters * z.cells / flops if nb else 0.0
    scored_s = image_s + gates_s + network_s
    patches = random(1, z.side, z.side)
    found = {
        "features": n_train * image_s * (1 if config.feature_norm == "none" else 2),
        "coreset": pass_s + z.n_emb * pick_s + _PAIRS * 2 * z.n_patches * z.n_emb * z.d / flops,
        "position": labels_s(z.n_bins),
        "neighborhood": 0.0,
        "calibration": min(config.calibration_images, n_train) * scored_s,
        "scoring": n_test * scored_s,
        "maps": n_test * seconds(lambda: anomaly_maps(patches, config.image_crop, config.sigma), 0.05),
    }
    if nb:
        maps = random(max(1, min(n_train, 8 * 2**20 // (z.cells * z.d))), z.side, z.side, z.d)
        cells = torch.randint(maps[..., 0].numel(), (256,), generator=generator)
        gather_s = seconds(lambda: gather_neighbors(maps, cells, config)) / len(cells)
        step_s = 16 * z.mlp_parameters / (4 * left.numel() / seconds(lambda: left + left, 0.05)) + 1e-3
        per_epoch = z.n_patches * (gather_s + 6 * z.mlp_parameters / flops)
        per_epoch += math.ceil(z.n_patches / config.mlp_batch) * step_s + 32 * z.mlp_parameters / 0.5e9
        found["neighborhood"] = labels_s(z.n_dist) + config.mlp_epochs * per_epoch
    return found


def _time(work: Callable[[], Any], device: str) -> float:
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    with torch.no_grad():
        work()
    if on_gpu:
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _available(device: str) -> int:
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def _advice(found: Estimate, worst: Stage) -> str:
    ways = {
        "features": "lower image_crop",
        "coreset": "lower emb_ratio or image_crop",
        "position": "lower image_crop, emb_ratio or dist_size",
        "neighborhood": "lower mlp_batch or mlp_width, or use setting=A",
        "calibration": "lower emb_ratio or calibration_images, or use setting=A",
        "scoring": "lower emb_ratio, score fewer images at a time, or use setting=A",
        "maps": "lower image_crop, or score fewer images at a time",
    }
    if found.features_in_memory > worst.memory / 2:
        return "use a work folder (workdir), which keeps the features on disk, or lower image_crop"
    return ways[worst.name]


def _size(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if n_bytes < 999.5:
            return f"{n_bytes:.0f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} GB"


def _seconds(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}" if value < 100 else f"{value:.0f}"
