r"""What the refinement adds to a fit: cross-fitted models, pool, network, scoring with it.

    folds                 pool_folds fits on the other folds' images, kept until the pool is full
    pool                  n images of 6 bytes a pixel; a defect and a scored image each, in threads
    refinement            16 P bytes (weights, gradients, Adam) and the activations; iterations x a step
    refined calibration   training images scored twice, without and with the network
    refined scoring       a test image, its map and the network

The activations are counted exactly, on tensors without memory ("meta").  The step is a real one, with augmentation,
loss and Adam, of as many images as `_PIXELS` on a CPU, half the free memory on a GPU allow, of a smaller side if one
image is too large; forward and backward then scale with the number of pixels: the network is fully convolutional.
"""

import math
import os
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from pnilib.config import PNIConfig
from pnilib.estimate.detector import (
    FITTING,
    model_bytes,
    scored_seconds,
    scoring_bytes,
    sizes,
    stages_of,
    weights_bytes,
)
from pnilib.estimate.speeds import DetectorSpeeds, seconds_of
from pnilib.estimate.stages import Stage
from pnilib.refinement.augmentation import augment
from pnilib.refinement.losses import refinement_loss
from pnilib.refinement.network import STRIDE, RefineNet, standardise
from pnilib.refinement.pool import WORKERS, pool_size
from pnilib.synthesis import Materials, synthesize

__all__ = ["NetworkSpeeds", "activation_bytes", "estimate_refinement", "network_parameters", "refinement_stages"]

_PIXELS = 480**2
"""pixels of the training step that is measured on a CPU: one image of the paper's."""
_BYTES_A_PIXEL = 3 + 2 + 1
"""of a pool file: image, half-precision map, mask."""
_HEADER = 400
"""bytes of a pool file beside the pixels: names, and what was drawn."""


def estimate_refinement(
    config: PNIConfig, n_train: int, n_test: int = 1, *, device: str = "cpu", measure: bool = True
) -> list[Stage]:
    """What refining a model of `n_train` images and scoring `n_test` with it will take, beyond fitting it.

    `measure` times pieces of the work, one real training step among them, else seconds are NaN.  Raises PNIError as
    the configuration's parts do.
    """
    speeds = DetectorSpeeds(config, sizes(config, n_train), device) if measure else None
    return refinement_stages(config, n_train, n_test, speeds, NetworkSpeeds(config, device) if measure else None)


def refinement_stages(
    config: PNIConfig, n_train: int, n_test: int, speeds: DetectorSpeeds | None, network: "NetworkSpeeds | None"
) -> list[Stage]:
    """One row a stage; seconds are NaN without speeds."""
    z, n_pool = sizes(config, n_train), pool_size(config)
    side, batch = _side(config), min(config.refine_batch, n_pool)
    whole = config.image_crop
    parameters = network_parameters(config)
    calibrated = min(config.calibration_images, n_train)
    one = scoring_bytes(config, z, n_train)
    model = model_bytes(config, z, n_train)
    folds = min(config.pool_folds, n_train) if config.pool_maps == "held_out" else 0
    rest = n_train - math.ceil(n_train / folds) if folds else 0
    fold_stages = []
    if folds and rest:
        plain = config.replace(calibration_images=0)
        fold_stages = [s for s in stages_of(plain, rest, 0, speeds) if s.name in FITTING]
    fold_model = model_bytes(config, sizes(config, rest), rest) if folds and rest else 0
    loaded = weights_bytes(config) * (1 + folds) + model + folds * fold_model
    forward = weights_bytes(config) + model + one + 4 * parameters + activation_bytes(config, whole) // 8
    seconds = dict.fromkeys(("folds", "pool", "refinement", "refined calibration", "refined scoring"), math.nan)
    if speeds is not None and network is not None:
        scored = scored_seconds(config, z, speeds, [config]) + speeds.smooth
        threads = min(WORKERS, os.cpu_count() or 1)
        seconds = {
            "folds": folds * sum(stage.seconds for stage in fold_stages),
            "pool": n_pool * (network.defect(config.defects) / threads + scored * _share(network.device, threads)),
            "refinement": config.refine_iterations * network.step(batch, side),
            "refined calibration": calibrated * (2 * scored + network.forward),
            "refined scoring": n_test * (scored + network.forward),
        }
    memory = {
        "folds": max((stage.memory for stage in fold_stages), default=0) + folds * fold_model,
        "pool": loaded + WORKERS * (one + 60 * whole**2) + min(256, n_train) * 3 * whole**2,
        "refinement": weights_bytes(config)
        + model
        + 16 * parameters
        + batch * int(1.25 * activation_bytes(config, side)),
        "refined calibration": (forward + calibrated * 4 * whole**2) if calibrated else 0,
        "refined scoring": forward + n_test * 4 * whole**2,
    }
    disk = {
        "folds": sum(stage.disk for stage in fold_stages) + folds * fold_model,
        "pool": n_pool * (_BYTES_A_PIXEL * whole**2 + _HEADER),
        "refinement": 2 * 12 * parameters,
    }
    return [Stage(name, seconds[name], memory[name], disk.get(name, 0)) for name in memory]


def _share(device: str, threads: int) -> float:
    """Of the time of scoring alone that is left when so many threads, of one core each, score."""
    return min(1.0, torch.get_num_threads() / threads) if torch.device(device).type == "cpu" else 1.0


def _side(config: PNIConfig) -> int:
    """Side of what trains, px."""
    return min(config.refine_crop or config.image_crop, config.image_crop)


_SHAPE = ("growth", "blocks", "stem_width", "decoder", "decoder_norm", "stem", "fuse", "skips", "out")


def network_parameters(config: PNIConfig) -> int:
    """Weights of the refinement network, without building it."""
    return _parameters(*(getattr(config, f"refine_{name}") for name in _SHAPE))


@lru_cache(maxsize=64)
def _parameters(*shape: int | str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in _network(shape).parameters())


def activation_bytes(config: PNIConfig, side: int) -> int:
    """Bytes that one image of `side` px leaves for the backward pass."""
    return _activations(side, *(getattr(config, f"refine_{name}") for name in _SHAPE))


@lru_cache(maxsize=64)
def _activations(side: int, *shape: int | str) -> int:
    """Counted at two images, for batch normalization; storages that several operations keep count once."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.device("meta"):
        network = _network(shape).train()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = network(torch.empty(2, 3, side, side), torch.empty(2, 1, side, side))
    n_bytes = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) // 2
    del out
    return n_bytes


def _network(shape: tuple[int | str, ...]) -> RefineNet:
    values = dict(zip(_SHAPE, shape, strict=True))
    return RefineNet(PNIConfig(**{f"refine_{name}": value for name, value in values.items()}))  # type: ignore[arg-type]


class NetworkSpeeds:
    """Of synthetic defects and of the refinement network, each measured when it is first asked for."""

    def __init__(self, config: PNIConfig, device: str) -> None:
        self.config, self.device = config, device
        self._defects: dict[str, float] = {}

    def defect(self, defects: str) -> float:
        """Seconds a synthetic defect, in one thread; mean over the mixture."""
        if defects not in self._defects:
            self._defects[defects] = self._defect(defects)
        return self._defects[defects]

    def _defect(self, defects: str) -> float:
        side = self.config.image_crop
        y, x = np.mgrid[:side, :side]
        texture = np.random.default_rng(0).normal(0, 20, (side, side, 3))
        pixels = (120 + 60 * np.sin(x / 7 + y / 11))[..., None] + texture
        image = pixels.clip(0, 255).astype(np.uint8)
        materials = Materials(donors=[image.astype(np.float32) / 255])

        def sixteen() -> None:
            for seed in range(16):
                synthesize(image, defects, seed, materials=materials)

        return seconds_of(sixteen, "cpu", 0.05) / 16

    @cached_property
    def measured(self) -> tuple[int, int]:
        """Images and side, px, of the measured step."""
        side, batch = _side(self.config), self.config.refine_batch
        if torch.device(self.device).type == "cuda":
            room = torch.cuda.mem_get_info(self.device)[0] // 2 - 16 * network_parameters(self.config)
            fit = int(room / (1.25 * activation_bytes(self.config, side)))
        else:
            fit = _PIXELS // side**2
        if fit < 1:
            return 1, max(2 * STRIDE, int(_PIXELS**0.5) // STRIDE * STRIDE)
        least = 2 if side <= STRIDE else 1  # batch normalization has no variance of one value
        return max(least, min(fit, batch)), side

    @cached_property
    def _passes(self) -> tuple[float, float]:
        """Seconds of forward and backward pass of the measured step, and of Adam's."""
        config, device = self.config, self.device
        n, side = self.measured
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = RefineNet(config).to(device).to(memory_format=torch.channels_last).train()
        adam = torch.optim.Adam(network.parameters(), lr=1e-6)
        whole = config.image_crop
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(256, (n, 3, whole, whole), dtype=torch.uint8, generator=generator).to(device)
        maps = torch.rand(n, 1, whole, whole, generator=generator).to(device)
        crop = config.replace(refine_crop=side)

        def passes() -> None:
            some, own, truth = augment(images, maps, (maps > 0.9).float(), crop, generator)
            bf16 = config.refine_precision == "bf16"
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
                out = network(standardise(some).to(memory_format=torch.channels_last), own)
            adam.zero_grad(set_to_none=True)
            refinement_loss(out.float(), truth, config).backward()

        return seconds_of(passes, device), seconds_of(adam.step, device, 0.05)

    def step(self, batch: int, side: int) -> float:
        """Seconds of a training step of `batch` images of `side` px."""
        n, measured = self.measured
        passes, adam = self._passes
        return passes * (batch * side**2) / (n * measured**2) + adam

    @cached_property
    def forward(self) -> float:
        """Seconds of the trained network on one whole image."""
        side = self.config.image_crop
        network = RefineNet(self.config).to(self.device).to(memory_format=torch.channels_last).eval()
        image, own = (torch.rand(1, channels, side, side).to(self.device) for channels in (3, 1))

        @torch.no_grad()
        def work() -> None:
            network.refined(image, own)

        return seconds_of(work, self.device)
