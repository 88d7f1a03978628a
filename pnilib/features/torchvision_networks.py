"""torchvision's networks: the paper's three and their smaller relatives."""

import torch
from torch import Tensor, nn

from pnilib.config import PNIConfig
from pnilib.features.network import WAYS_OUT, Backbone, require_levels, seeded
from pnilib.features.weights import digest_of_weights, read_weights

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "TORCHVISION", "from_torchvision", "torchvision_levels"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
TORCHVISION = ("wide_resnet101_2", "wide_resnet50_2", "resnext101_32x8d", "densenet201", "resnet18", "resnet50")
"""Names that mean torchvision's networks."""
_STRIDES = ("4", "8", "16")
"""Of levels 1, 2 and 3."""


class Levels(nn.Module):
    """A network up to the last wanted level; DenseNet's levels are block outputs, before the transition."""

    def __init__(self, whole: nn.Module, wanted: list[str]) -> None:
        from torchvision.models.feature_extraction import create_feature_extractor  # seconds to import

        super().__init__()
        block = "features.denseblock" if hasattr(whole, "features") else "layer"
        nodes = {f"{block}{1 + _STRIDES.index(stride)}": stride for stride in wanted}
        self.extractor = create_feature_extractor(whole.eval(), nodes)

    def forward(self, values: Tensor) -> list[Tensor]:
        """The finest first."""
        return list(self.extractor(values).values())


def torchvision_levels(config: PNIConfig) -> Levels:
    """The configured network up to its last level, with random weights, or none on the `meta` device."""
    from torchvision.models import get_model

    wanted = require_levels(config, _STRIDES, "8,16")
    return Levels(get_model(config.backbone, weights=None), wanted)


def from_torchvision(config: PNIConfig) -> Backbone:
    """The network with the configured weights."""
    if config.weights == "random":
        network = seeded(config, lambda: torchvision_levels(config))
        used = dict(network.extractor.state_dict())  # type: ignore[operator, union-attr]
    else:
        with torch.device("meta"):
            network = torchvision_levels(config)
        wanted = network.extractor.state_dict()
        used = read_weights(config.backbone, config.weights, wanted, "weights", WAYS_OUT)
        network.extractor.load_state_dict(used, assign=True)
    return Backbone(config.backbone, digest_of_weights(used), network, IMAGENET_MEAN, IMAGENET_STD)
