"""Image and mask files -> tensors."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Geometry"]


@dataclass(frozen=True)
class Geometry:
    """How an image and its mask become a square tensor (paper sec. 4.1)."""

    resize: int = 512
    crop: int = 480
    resize_mode: str = "square"
    mask_resize: str = "nearest"
