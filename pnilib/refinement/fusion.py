r"""The final map: what the trained network makes of an image and its anomaly map, fused with that map.

    A = 0.1 A_tilde + 0.9 A_hat,        A_tilde = f(I, A_hat)

"In inference, we fuse A_tilde at 0.1 ratio with A_hat to obtain the final anomaly map." (PNI sec. 4.1).  A_hat is
normalised by the two numbers that normalised the training pool; the network sees it cut to [0, 1], the fusion takes
it uncut, so that the order of high scores survives.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor

from pnilib.refinement.network import RefineNet, standardise

__all__ = ["Refinement"]


@dataclass(frozen=True)
class Refinement:
    """A trained network.  low, high: what became 0 and 1 in training, score units.  history: see TrainedNetwork.

    pool: what was in the training pool, for the record.
    """

    network: RefineNet
    low: float
    high: float
    history: list[dict[str, float]]
    pool: dict[str, Any]

    @torch.no_grad()
    def __call__(
        self, image: Float32[Tensor, "3 h w"], anomaly_map: Float32[Tensor, "h w"], weight: float
    ) -> Float32[Tensor, "h w"]:
        """The fused map of one image (RGB in [0, 1]) and its map (score units), in normalised units."""
        normalised = self.normalised(anomaly_map)
        return (weight * self.refined(image, normalised) + (1 - weight) * normalised)[0, 0]

    def normalised(self, anomaly_map: Float32[Tensor, "h w"]) -> Float32[Tensor, "1 1 h w"]:
        """A_hat as the pool's maps were normalised."""
        return (anomaly_map[None, None] - self.low) / (self.high - self.low)

    @torch.no_grad()
    def refined(
        self, image: Float32[Tensor, "3 h w"], normalised: Float32[Tensor, "1 1 h w"]
    ) -> Float32[Tensor, "1 1 h w"]:
        """A_tilde of one image and its normalised map."""
        return self.network.refined(standardise(image[None]), normalised.clamp(0, 1))

    def facts(self) -> dict[str, Any]:
        """What an artefact keeps beside the network's tensors."""
        return {"low": self.low, "high": self.high, "history": self.history, "pool": self.pool}

    @classmethod
    def restored(cls, network: RefineNet, state: dict[str, Tensor], facts: dict[str, Any], device: str) -> "Refinement":
        """Inverse of state dict and `facts`, into a new network."""
        network.load_state_dict(state)
        network = network.to(device).to(memory_format=torch.channels_last)  # as trained: else it rounds differently
        return cls(network.eval(), **facts)
