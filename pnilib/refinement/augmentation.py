"""Training images, changed anew each time: "random horizontal flip, rotation, and color change in an online manner"
(PNI sec. 4.1).

Image, map and mask move together; only the image changes colour.  The paper gives no amounts: flip with probability
1/2; rotation U(-r, r), what turns in from outside mirrored; colour factors U(1 - j, 1 + j) for brightness, contrast
and saturation.  `refine_crop` (ours) cuts a random square out of the turned
image.
"""

import math

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor
from torch.nn import functional as F

from pnilib.config import PNIConfig

__all__ = ["COLOUR_CHANGES", "augment"]

COLOUR_CHANGES = ("adjust_brightness", "adjust_contrast", "adjust_saturation")
"""Functions of torchvision."""


def augment(
    images: UInt8[Tensor, "b 3 h w"],
    maps: Float32[Tensor, "b 1 h w"],
    masks: Float32[Tensor, "b 1 h w"],
    config: PNIConfig,
    generator: torch.Generator,
    changes: tuple[str, ...] = COLOUR_CHANGES,
) -> tuple[Float32[Tensor, "b 3 s t"], Float32[Tensor, "b 1 s t"], Float32[Tensor, "b 1 s t"]]:
    """(images in [0, 1], maps, masks in {0, 1}), augmented; `changes`: of colour.  All random numbers come from
    `generator`, on the CPU."""
    from torchvision.transforms.v2 import functional as colours  # seconds to import

    b, _, h, w = images.shape
    flip = torch.where(torch.rand(b, generator=generator) < 0.5, -1.0, 1.0)
    angle = (2 * torch.rand(b, generator=generator) - 1) * math.radians(config.refine_rotation)
    factors = 1 + (2 * torch.rand(b, 3, generator=generator) - 1) * config.refine_jitter_size

    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(b)
    ratio = h / w  # rotation in pixels, not in the unit square of affine_grid
    rows = torch.stack([flip * cos, -sin * ratio, zero, flip * sin / ratio, cos, zero], 1)
    grid = F.affine_grid(rows.view(b, 2, 3), [b, 1, h, w], align_corners=False)
    if 0 < config.refine_crop < max(h, w):
        grid = torch.stack(
            [_crop(*pair, config.refine_crop, generator) for pair in zip(grid, masks[:, 0], strict=True)]
        )
    stacked = torch.cat([images.float() / 255, maps, masks], 1)
    turned = F.grid_sample(
        stacked, grid.to(stacked.device), mode="bilinear", padding_mode="reflection", align_corners=False
    )

    coloured = turned[:, :3].clamp(0, 1)
    parts = []
    for image, factor in zip(coloured, factors.tolist(), strict=True):
        for change, f in zip(changes, factor, strict=True):
            image = getattr(colours, change)(image, f)
        parts.append(image)
    return torch.stack(parts), turned[:, 3:4], (turned[:, 4:5] > 0.5).float()


def _crop(
    grid: Float32[Tensor, "h w 2"], mask: Float32[Tensor, "h w"], side: int, generator: torch.Generator
) -> Float32[Tensor, "s t 2"]:
    """A window of the sampling grid, at a random place around a random pixel of the mask, anywhere if it is empty."""
    (h, w), defect = mask.shape, mask.cpu().nonzero()
    tall, wide = min(side, h), min(side, w)
    rows, columns = (0, h - tall), (0, w - wide)
    if len(defect):
        y, x = defect[int(torch.randint(len(defect), (), generator=generator))].tolist()
        source = torch.tensor([(2 * x + 1) / w - 1, (2 * y + 1) / h - 1])
        y, x = divmod(int((grid - source).square().sum(2).argmin()), w)  # where the turned image shows that pixel
        rows, columns = (max(0, y - tall + 1), min(y, h - tall)), (max(0, x - wide + 1), min(x, w - wide))
    top, left = (int(torch.randint(low, high + 1, (), generator=generator)) for low, high in (rows, columns))
    return grid[top : top + tall, left : left + wide]
