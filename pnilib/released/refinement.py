"""The release's refinement: network (B30 to B32), colour change (B34), geometry (B35)."""

import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional as F

from pnilib.config import PNIConfig
from pnilib.refinement.fusion import Refinement
from pnilib.refinement.network import RefineNet

__all__ = ["BRIGHTNESSES", "ReleasedNet", "misaligned"]

BRIGHTNESSES = ("adjust_brightness",) * 3
"""Three brightness changes where contrast and saturation were meant (B34)."""


class ReleasedNet(RefineNet):
    """The network with those of its steps that the configuration names: three_map_channels, mean_of_stems, residual."""

    def __init__(self, config: PNIConfig) -> None:
        self.map_channels = 3 if "three_map_channels" in config.released else 1
        super().__init__(config)

    def merge(self, image_features: Float[Tensor, "b c h w"], map_features: Float[Tensor, "b c h w"]) -> Tensor:
        """The mean of both stems instead of their sum (B31)."""
        both = super().merge(image_features, map_features)
        return both / 2 if "mean_of_stems" in self.config.released else both

    def result(self, out: Float32[Tensor, "b 1 h w"], anomaly_map: Float32[Tensor, "b 1 h w"]) -> Tensor:
        """What to add to the map instead of the refined map (B30)."""
        return anomaly_map + out if "residual" in self.config.released else out


@torch.no_grad()
def misaligned(
    refinement: Refinement, image: Float32[Tensor, "3 h w"], anomaly_map: Float32[Tensor, "h w"], weight: float
) -> Float32[Tensor, "h w"]:
    """The fusion out of register (B35): the map loses 11 of 320 px on each side and is stretched back, the refined one
    8 of 256, and the mean is taken at half size and enlarged by nearest neighbor."""
    normalized = _stretched(refinement.normalised(anomaly_map), 11 / 320)
    refined = _stretched(refinement.refined(image, normalized), 8 / 256)
    side = (normalized.shape[2] // 2, normalized.shape[3] // 2)
    small = [F.interpolate(part, side, mode="bilinear", antialias=True) for part in (refined, normalized)]
    fused = weight * small[0] + (1 - weight) * small[1]
    return F.interpolate(fused, normalized.shape[2:], mode="nearest")[0, 0]


def _stretched(maps: Float32[Tensor, "1 1 h w"], share: float) -> Float32[Tensor, "1 1 h w"]:
    """Without `share` of the height and width on each side, enlarged to the old size."""
    h, w = maps.shape[2:]
    top, left = round(share * h), round(share * w)
    inner = maps[:, :, top : h - top, left : w - left]
    return F.interpolate(inner, (h, w), mode="bilinear", align_corners=False)
