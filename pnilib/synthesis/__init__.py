"""Synthetic defects on normal images, with exact masks (paper sec. 3.3, Fig. 3, supplement S2)."""

from pnilib.synthesis.foreground import foreground_mask
from pnilib.synthesis.generate import GENERATORS, Synthetic, mixture, synthesize
from pnilib.synthesis.painting import Materials

__all__ = ["GENERATORS", "Materials", "Synthetic", "foreground_mask", "mixture", "synthesize"]
