"""Where the part is: a simple background rule, so that defects are painted on the part and not beside it.

    foreground = { x : max over channels | I(x) - median of the border pixels | > threshold },  7 x 7 median

NSA's background constraint has the same form with one brightness a class (its supplement, Table 4); here the brightness
is the image's own border, so no class needs a number.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray

__all__ = ["foreground_mask"]

QUIET = 0.02
"""Grey levels in [0, 1]; a border that spreads less is one colour, with a camera's noise."""
LEAST_PART = 0.01
"""Share of the image."""


def foreground_mask(image: Float32[ndarray, "h w 3"], threshold: float = 0.12) -> Bool[ndarray, "h w"]:
    """True on the part.  `threshold`: in [0, 1] grey levels.

    An image whose border is not uniform (spread over half of the threshold: a texture, or a part that fills the
    image) has no background: all True.  So has one where less than 1 % stands out from a border that is not quite
    uniform either (spread over 0.02: a texture of low contrast).  A uniform image is all background: all False.

    The rule sees one image; near the limits two images of one category may fall on different sides.
    """
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    background = np.median(border, axis=0)
    spread = np.median(np.abs(border - background).max(axis=1))
    if spread > threshold / 2:
        return np.ones(image.shape[:2], bool)
    part = (np.abs(image - background).max(axis=2) > threshold).astype(np.uint8)
    mask = cv2.medianBlur(part, 7).astype(bool)
    return np.ones_like(mask) if spread > QUIET and mask.mean() < LEAST_PART else mask
