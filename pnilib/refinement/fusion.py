r"""The final map: what the trained network makes of an image and its anomaly map, fused with that map.

    A = 0.1 A_tilde + 0.9 A_hat,        A_tilde = f(I, A_hat)

"In inference, we fuse A_tilde at 0.1 ratio with A_hat to obtain the final anomaly map." (PNI sec. 4.1).  A_hat is
normalised by the two numbers that normalised the training pool; the network sees it cut to [0, 1], the fusion takes
it uncut, so that the order of high scores survives.

`refine_geometry=released` (B35) repeats the release: the map loses 11 of 320 px on each side and is stretched back, the
refined one 8 of 256, and the mean is taken at half size and enlarged by nearest neighbor.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor
from torch.nn import functional as F

from pnilib.config import PNIConfig
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
        self, image: Float32[Tensor, "3 h w"], anomaly_map: Float32[Tensor, "h w"], config: PNIConfig
    ) -> Float32[Tensor, "h w"]:
        """The fused map of one image (RGB in [0, 1]) and its map (score units), in normalised units."""
        own = (anomaly_map[None, None] - self.low) / (self.high - self.low)
        released = config.refine_geometry == "released"
        if released:
            own = _stretched(own, 11 / 320)
        refined = self.refined(image, own)
        if not released:
            return (config.refine_weight * refined + (1 - config.refine_weight) * own)[0, 0]
        side = (own.shape[2] // 2, own.shape[3] // 2)
        parts = (_stretched(refined, 8 / 256), own)
        small = [F.interpolate(part, side, mode="bilinear", antialias=True) for part in parts]
        fused = config.refine_weight * small[0] + (1 - config.refine_weight) * small[1]
        return F.interpolate(fused, own.shape[2:], mode="nearest")[0, 0]

    @torch.no_grad()
    def refined(self, image: Float32[Tensor, "3 h w"], own: Float32[Tensor, "1 1 h w"]) -> Float32[Tensor, "1 1 h w"]:
        """A_tilde of one image; `own`: its normalised map."""
        return self.network.refined(standardise(image[None]), own.clamp(0, 1))

    def facts(self) -> dict[str, Any]:
        """What an artefact keeps beside the network's tensors."""
        return {"low": self.low, "high": self.high, "history": self.history, "pool": self.pool}

    @classmethod
    def of(cls, state: dict[str, Tensor], facts: dict[str, Any], config: PNIConfig, device: str) -> "Refinement":
        """Inverse of state dict and `facts`."""
        network = RefineNet(config)
        network.load_state_dict(state)
        network = network.to(device).to(memory_format=torch.channels_last)  # as trained: else it rounds differently
        return cls(network.eval(), **facts)


def _stretched(maps: Float32[Tensor, "1 1 h w"], share: float) -> Float32[Tensor, "1 1 h w"]:
    """Without `share` of the height and width on each side, enlarged to the old size."""
    h, w = maps.shape[2:]
    top, left = round(share * h), round(share * w)
    inner = maps[:, :, top : h - top, left : w - left]
    return F.interpolate(inner, (h, w), mode="bilinear", align_corners=False)
