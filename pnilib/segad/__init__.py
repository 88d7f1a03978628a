"""SegAD: anomaly maps, a segmentation and a few bad parts become a supervised decision (boosted random forest)."""

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
