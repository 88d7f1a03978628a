"""One interface to all defect generators: (clean image, kind or mixture, seed) -> (image, mask, what was drawn).

"we create four different types of data for the dataset D with the same ratio. These four methods include Cut-Paste
[17], CutPaste (scar) [17], DRAEM [32], and manual drawing" (PNI sec. 3.3).  `natural`, after NSA, is a fifth that the
paper does not have; `blurred`, `small_rectangle` and `thin_rectangle` are SegAD's.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool
from numpy import ndarray
from torch import Tensor

from pnilib.errors import PNIError
from pnilib.synthesis.cutpaste import cutpaste, scar
from pnilib.synthesis.disturbances import blurred, small_rectangle, thin_rectangle
from pnilib.synthesis.draem import draem
from pnilib.synthesis.manual import manual
from pnilib.synthesis.natural import natural
from pnilib.synthesis.painting import MIN_SIDE, Generator, Materials, exact

__all__ = ["GENERATORS", "Synthetic", "mixture", "synthesize"]

GENERATORS: dict[str, Generator] = {
    "cutpaste": cutpaste,
    "scar": scar,
    "draem": draem,
    "manual": manual,
    "natural": natural,
    "blurred": blurred,
    "small_rectangle": small_rectangle,
    "thin_rectangle": thin_rectangle,
}

ATTEMPTS = 20


class Synthetic(NamedTuple):
    """A defective image, its mask, and what was drawn.

    image: the same kind, dtype, shape and range as the clean one.  mask: (h, w), a boolean tensor if the image is a
    tensor, else an array; True on exactly the pixels where image and clean image differ.  drawn: `kind`, and what the
    generator chose; ready for JSON.
    """

    image: Any
    mask: Any
    drawn: dict[str, Any]


def mixture(text: str) -> dict[str, float]:
    """Shares by generator: "cutpaste,scar" -> halves; "cutpaste:3,scar:1" -> 3 to 1.  Shares add up to 1.

    Raises PNIError for an unknown or repeated generator, or weights that are no positive numbers.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, colon, weight = (piece.strip() for piece in part.partition(":"))
        if name not in GENERATORS:
            raise PNIError(f"defects={text}: there is no generator {name!r}: choose from {', '.join(GENERATORS)}")
        try:
            value = float(weight) if colon else 1.0
        except ValueError:
            value = 0.0
        if name in weights or not 0 < value < float("inf"):
            raise PNIError(f"defects={text}: write each generator once, with a positive weight, as {name}:2")
        weights[name] = value
    total = sum(weights.values())
    return {name: value / total for name, value in weights.items()}


def synthesize(
    image: Any,
    defects: str,
    seed: int,
    *,
    area: Bool[ndarray, "h w"] | None = None,
    materials: Materials | None = None,
) -> Synthetic:
    """Paint one defect on a clean image.

    `image`: (h, w, 3) array or (3, h, w) tensor; uint8, or float in [0, 1]; any size from 16 px.  `defects`: a
    generator, or a mixture of which the seed picks one.  `area`: where defects may lie; default everywhere.  The same
    arguments give the same bytes.  Raises PNIError for an image that is too small or of another kind, an empty or
    misshapen area, and when twenty attempts changed no pixel (pasting a uniform image into itself).
    """
    shares = mixture(defects)
    array = _as_array(image)
    height, width = array.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise PNIError(f"an image of {width} x {height} px is too small for a defect: {MIN_SIDE} px a side at least")
    clean = _as_float(array)
    where = np.ones((height, width), bool) if area is None else area
    if where.shape != (height, width) or where.dtype != bool:
        raise PNIError(f"the area is {where.dtype} {where.shape}, the image {(height, width)}: give one bool a pixel")
    if not where.any():
        raise PNIError("there is no foreground to paint a defect on: allow everywhere (defect_area=all)")
    rng = np.random.default_rng(seed)
    kind = str(rng.choice(list(shares), p=list(shares.values())))
    for _ in range(ATTEMPTS):
        painted = GENERATORS[kind](clean, where, rng, materials or Materials())
        new, mask = exact(clean, painted, where)
        if mask.any():
            break
    else:
        why = "the image or its area is uniform or too small"
        raise PNIError(
            f"{kind}: {ATTEMPTS} attempts changed no pixel, {why}: leave the image out, or set other defects="
        )
    drawn = {"kind": kind} | painted.drawn
    whole, pixels = array.copy(), new[mask]  # where the mask is False, not a bit differs from the original
    whole[mask] = (pixels * 255).round().astype(np.uint8) if whole.dtype == np.uint8 else pixels.astype(whole.dtype)
    if isinstance(image, Tensor):
        planes = torch.from_numpy(whole).movedim(2, 0).contiguous()
        return Synthetic(planes.to(image.device), torch.from_numpy(mask).to(image.device), drawn)
    return Synthetic(whole, mask, drawn)


def _as_array(image: Any) -> ndarray:
    """(h, w, 3), whatever came; a view where possible."""
    array = image
    if isinstance(image, Tensor) and image.ndim == 3 and image.dtype != torch.bfloat16:  # numpy has none
        array = image.detach().cpu().movedim(0, 2).numpy()
    if not isinstance(array, ndarray) or array.ndim != 3 or array.shape[2] != 3:
        raise PNIError("synthesize wants an (h, w, 3) array or a (3, h, w) tensor of uint8, or of floats in [0, 1]")
    return array


def _as_float(array: ndarray) -> ndarray:
    """float32 in [0, 1], contiguous as OpenCV wants it."""
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array) / np.float32(255)
    if array.dtype.kind != "f" or not (array.min() >= 0 and array.max() <= 1):  # NaN is neither
        raise PNIError("synthesize wants uint8, or floats in [0, 1]: rescale the image")
    return np.ascontiguousarray(array, dtype=np.float32)
