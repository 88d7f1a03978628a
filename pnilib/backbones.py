"""Backbones: the frozen networks phi whose levels 2 and 3 describe an image (paper sec. 2, 4.1).

`phi_j(x)` is the output of the j-th resolution block; the paper uses WideResNet-101-2 and, for its
ensemble, ResNeXt-101 32x8d and DenseNet-201, all trained on ImageNet.  Computation stops after
level 3.  `scattering` (not in the paper) needs no weights: see pnilib.scattering.
"""

import hashlib
import http.client
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pnilib.config import PNIConfig
from pnilib.errors import PNIError
from pnilib.scattering import Scattering

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Backbone", "grid_side", "load_backbone", "read_weights"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_CHANNELS = {
    "wide_resnet101_2": (512, 1024),
    "wide_resnet50_2": (512, 1024),
    "resnext101_32x8d": (512, 1024),
    "densenet201": (512, 1792),
    "resnet18": (128, 256),
    "resnet50": (512, 1024),
    "scattering": (165, 135),
}
_WAYS_OUT = "set weights=FILE to a state dict (.pth, .safetensors), or backbone=scattering, which needs none"


def grid_side(name: str, side: int) -> int:
    """Cells along a side of `side` px at level 2 (stride 8) of the backbone `name`."""
    if name == "scattering":
        return Scattering.grid(side)
    halves = math.ceil(math.ceil(side / 2) / 2)  # stem and pooling round up
    return halves // 2 if name == "densenet201" else math.ceil(halves / 2)


class Backbone(nn.Module):
    """Frozen stages that turn images into levels; always in evaluation mode.

    `name` and `weights_id` (identifies the weights) describe it; `channels` are those of each level.
    """

    def __init__(
        self,
        name: str,
        weights_id: str,
        stages: nn.ModuleList,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.name = name
        self.weights_id = weights_id
        self.stages = stages
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        self.channels = _CHANNELS[name]
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> "Backbone":
        """Does nothing: the backbone stays in evaluation mode."""
        return self

    def grid(self, side: int) -> int:
        """Cells along a side of `side` px at level 2 (stride 8)."""
        return grid_side(self.name, side)

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Levels [(b, c_2, h_2, w_2), (b, c_3, h_3, w_3)] of images in [0, 1]; strides 8 and 16."""
        values = (images - self.mean) / self.std
        if isinstance(self.stages[0], Scattering):
            return self.stages[0](values)
        levels = []
        for stage in self.stages:
            values = stage(values)
            levels.append(values)
        return levels[1:]


def load_backbone(config: PNIConfig, device: torch.device | str) -> Backbone:
    """The backbone that `config.backbone` and `config.weights` name, on `device`.

    Raises PNIError when the weights cannot be downloaded, or the file is missing, damaged, belongs
    to another network or holds values that are not finite.
    """
    if config.backbone == "scattering":
        if config.weights not in ("imagenet", "random"):
            raise PNIError(f"weights={config.weights}: the scattering backbone has no weights: leave it out")
        stages = nn.ModuleList([Scattering()])
        return Backbone("scattering", "scattering-v1", stages, (0.0,) * 3, (1.0,) * 3).to(device)
    from torchvision.models import get_model  # seconds to import

    if config.weights == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network = get_model(config.backbone, weights=None)
    else:
        with torch.device("meta"):
            network = get_model(config.backbone, weights=None)
        state = read_weights(config.backbone, config.weights, _used(network.state_dict()), "weights", _WAYS_OUT)
        network.load_state_dict(state, strict=False, assign=True)
    weights_id = _digest(_used(network.state_dict()))
    return Backbone(config.backbone, weights_id, _stages(network), IMAGENET_MEAN, IMAGENET_STD).to(device)


def _stages(network: nn.Module) -> nn.ModuleList:
    """Three stages: up to level 1, to level 2, to level 3."""
    if hasattr(network, "features"):  # DenseNet: block outputs, before the transition
        f: Any = network.features
        first = [f.conv0, f.norm0, f.relu0, f.pool0, f.denseblock1, f.transition1]
        parts = [first, [f.denseblock2], [f.transition2, f.denseblock3]]
    else:
        n: Any = network
        parts = [[n.conv1, n.bn1, n.relu, n.maxpool, n.layer1], [n.layer2], [n.layer3]]
    return nn.ModuleList(nn.Sequential(*part) for part in parts)


def _used(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the stages that are computed: no level 4, no classifier."""
    unused = re.compile(r"layer4\.|fc\.|classifier\.|features\.(transition3|denseblock4|norm5)\.")
    return {name: tensor for name, tensor in state.items() if not unused.match(name)}


def read_weights(
    name: str, weights: str, wanted: Mapping[str, Tensor], setting: str, ways_out: str
) -> dict[str, Tensor]:
    """The `wanted` tensors of the network `name`, float32, from torchvision's download ("imagenet") or a file.

    `setting` and `ways_out` word the messages.  Raises PNIError when the weights cannot be downloaded, or the file is
    missing, damaged, belongs to another network or holds values that are not finite.
    """
    if weights == "imagenet":
        origin = f"{setting}=imagenet"
        try:
            state = _download(name)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise PNIError(f"{origin}: {name} could not be downloaded ({reason}): {ways_out}") from None
    else:
        origin = weights
        if not Path(weights).is_file():
            raise PNIError(
                f"{weights}: there is no such file of weights: give a state dict, {setting}=imagenet or random"
            )
        state = _read_file(Path(weights))
    return _checked(state, wanted, origin, name)


def _download(name: str) -> dict[str, Tensor]:
    from torchvision.models import get_model_weights  # seconds to import

    weights = get_model_weights(name)["IMAGENET1K_V1"]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not cached.is_file():
        cached.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(weights.url, str(cached), _hash_prefix(cached))
    with cached.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(_hash_prefix(cached)):
        raise PNIError(f"{cached}: damaged (its hash is not the one in its name): delete it and try again")
    return _read_file(cached)


def _hash_prefix(path: Path) -> str:
    return path.stem.rpartition("-")[2]


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch answers damaged files with whatever its parser stumbles over
        raise PNIError(
            f"{path}: cannot be read as weights: give a complete .safetensors file, or a .pth that holds "
            "nothing but tensors"
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()) or not state:
        raise PNIError(f"{path}: not a state dict (names -> tensors): save `model.state_dict()`")
    return {_modern(str(key)): tensor for key, tensor in state.items()}


def _modern(key: str) -> str:
    """torchvision's DenseNet files say `denselayer1.norm.1.weight` for `denselayer1.norm1.weight`."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key)


def _checked(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], origin: str, name: str) -> dict[str, Tensor]:
    """The wanted tensors as float32; PNIError at the first that is missing, misshapen or not finite."""
    checked = {}
    for key, example in wanted.items():
        if key.endswith("num_batches_tracked"):
            checked[key] = torch.zeros((), dtype=torch.int64)  # unused in evaluation; absent in old files
            continue
        if key not in state:
            raise PNIError(f"{origin}: no tensor {key!r}: these are not weights of {name}")
        tensor = state[key]
        if tensor.shape != example.shape or not tensor.is_floating_point():
            raise PNIError(
                f"{origin}: {key!r} is {tuple(tensor.shape)} {tensor.dtype}, {name} needs "
                f"{tuple(example.shape)} floats: choose the backbone that these weights belong to"
            )
        if not torch.isfinite(tensor).all():
            raise PNIError(f"{origin}: {key!r} holds values that are not finite: use another file")
        checked[key] = tensor.float()
    return checked


def _digest(state: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes and values, hex; independent of the order in the file."""
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].contiguous()
        digest.update(f"{key}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
