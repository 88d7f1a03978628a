"""A supervised decision on anomaly maps, from a segmentation and a few bad parts (SegAD)."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from pnilib.segad.forest import Forest
    from pnilib.segad.model import SegAD
    from pnilib.segad.statistics import segment_statistics

__all__ = ["Forest", "SegAD", "segment_statistics"]
__getattr__, _, _ = lazy_loader.attach(
    __name__,
    submod_attrs={"forest": ["Forest"], "model": ["SegAD"], "statistics": ["segment_statistics"]},
)
