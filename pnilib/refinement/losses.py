r"""Losses between the network's output and the ground truth (PNI eqs. 9-11, Table 4).

    l = (l_reg + l_grad) / 2,    l_reg = ||A~ - A||_2 / (HW)                                      (10)

    l_grad = (||d_h A~ - d_h A||_2 + ||d_w A~ - d_w A||_2) / (2HW)                                (11)

The norm is taken image by image and averaged over the batch.  d_h, d_w: forward differences, none across the border
(the paper says "partial derivative operations").  Deviations, as switches: B33 `mse` squares the norms, as the release
does; `ce` and `focal` (gamma 2, no class weight: the paper gives none) replace the whole of l and take logits; without
`refine_grad` (setting L) l is l_reg / 2.
"""

import torch
from jaxtyping import Float32
from torch import Tensor
from torch.nn import functional as F

from pnilib.config import PNIConfig

__all__ = ["gradient_loss", "refinement_loss", "regression_loss"]


def _size(difference: Tensor, squared: bool, pixels: int) -> Tensor:
    """||difference||_2 / HW of each image, or its square: (b,)."""
    flat = difference.flatten(1)
    return (flat.square().sum(1) if squared else torch.linalg.vector_norm(flat, dim=1)) / pixels


def regression_loss(
    out: Float32[Tensor, "b 1 h w"], truth: Float32[Tensor, "b 1 h w"], squared: bool = False
) -> Float32[Tensor, ""]:
    """Eq. (10), mean over the batch."""
    return _size(out - truth, squared, out[0].numel()).mean()


def gradient_loss(
    out: Float32[Tensor, "b 1 h w"], truth: Float32[Tensor, "b 1 h w"], squared: bool = False
) -> Float32[Tensor, ""]:
    """Eq. (11), mean over the batch."""
    error, pixels = out - truth, out[0].numel()
    vertical = _size(error.diff(dim=2), squared, pixels)
    horizontal = _size(error.diff(dim=3), squared, pixels)
    return (vertical + horizontal).mean() / 2


def refinement_loss(
    out: Float32[Tensor, "b 1 h w"], truth: Float32[Tensor, "b 1 h w"], config: PNIConfig
) -> Float32[Tensor, ""]:
    """The loss that `refine_loss` and `refine_grad` name, of the network's raw output."""
    if config.refine_loss == "ce":
        return F.binary_cross_entropy_with_logits(out, truth)
    if config.refine_loss == "focal":
        from torchvision.ops import sigmoid_focal_loss  # seconds to import

        return sigmoid_focal_loss(out, truth, alpha=-1, gamma=2.0, reduction="mean")
    squared = config.refine_loss == "mse"
    loss = regression_loss(out, truth, squared)
    if config.refine_grad == "on":
        loss = loss + gradient_loss(out, truth, squared)
    return loss / 2
