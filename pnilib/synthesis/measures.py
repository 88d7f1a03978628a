"""What a painted defect is like, in numbers: how large, how ragged, how strong, how abrupt, how visible.

With d(x) = largest change of a channel at pixel x, M the mask, and sigma(x) the clean surface's own standard deviation
(grey, 9 x 9 px):

    area        |M| / |image|                               contrast    mean of d over M
    boundary    pixel edges between M and the rest,         rim         mean of d over M's outermost pixels
                in image sides                              visible     mean of d over M / mean of sigma over M

Ours; the paper describes its generators in words only (sec. 3.3: "rectangular defects in larger areas", "more detailed
and thinner").
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray

from pnilib.synthesis.painting import LEVEL

__all__ = ["measure"]

WINDOW = 9
"""px; where the surface's own variation is taken."""


def measure(
    clean: Float32[ndarray, "h w 3"], image: Float32[ndarray, "h w 3"], mask: Bool[ndarray, "h w"]
) -> dict[str, float]:
    """The five numbers of the module docstring.

    area: percent of the image; boundary: image sides; contrast, rim: grey levels of 255; visible: a ratio, above 1
    where the change exceeds the surface's own variation (at least one grey level).  All zero for an empty mask.
    """
    if not mask.any():
        return dict.fromkeys(("area", "boundary", "contrast", "rim", "visible"), 0.0)
    change = np.abs(image - clean).max(axis=2)
    edges = (mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum()
    inner = cv2.erode(
        mask.astype(np.uint8), np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8), borderType=cv2.BORDER_REPLICATE
    ).astype(bool)
    rim = mask & ~inner
    grey = clean.mean(axis=2)
    spread = cv2.blur(grey * grey, (WINDOW, WINDOW)) - cv2.blur(grey, (WINDOW, WINDOW)) ** 2
    own = float(np.sqrt(np.maximum(spread, 0))[mask].mean())
    contrast = float(change[mask].mean())
    return {
        "area": 100 * float(mask.mean()),
        "boundary": float(edges / np.sqrt(mask.size)),
        "contrast": 255 * contrast,
        "rim": 255 * float(change[rim].mean()) if rim.any() else 0.0,
        "visible": contrast / max(own, LEVEL),
    }
