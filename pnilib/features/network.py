"""What every provider's network becomes: frozen, from images to levels; and how levels are named."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pnilib.config import PNIConfig
from pnilib.errors import PNIError

__all__ = ["WAYS_OUT", "Backbone", "require_levels", "seeded"]

WAYS_OUT = (
    "set weights=FILE to a state dict (.pth, .safetensors), or use backbone=tf_efficientnet_lite0, whose weights pip "
    "installs, or backbone=scattering, which needs none"
)
"""Where weights cannot be had."""


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


def require_levels(config: PNIConfig, known: Sequence[str], default: str) -> list[str]:
    """The names in `config.levels`, or the default's; PNIError for one that is unknown or named twice."""
    wanted = [name.strip() for name in (default if config.levels == "auto" else config.levels).split(",")]
    if unknown := [name for name in wanted if name not in known]:
        raise PNIError(
            f"levels={config.levels}: {config.backbone} has no level {unknown[0]!r}: choose from {', '.join(known)}"
        )
    if len(set(wanted)) < len(wanted):
        raise PNIError(f"levels={config.levels}: names a level twice: name each once")
    return sorted(wanted, key=list(known).index)


def seeded(config: PNIConfig, build: Callable[[], nn.Module]) -> nn.Module:
    """A network whose random weights are those of the configured seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build()
