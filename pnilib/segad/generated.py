"""One-class SegAD: each normal image once more, with one generated defect, as a file that detectors score as any other.

The defects are those of `pnilib.synthesis.disturbances`; a segment is drawn first, evenly, then the kind and its place
within the segment.  A segment called background is not drawn while there are others (ours: dirt beside the part is no
defect).
"""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from pnilib.config.geometry import Geometry
from pnilib.data import Split
from pnilib.data.image_files import as_rgb, decode
from pnilib.data.images import kept_box
from pnilib.errors import PNIError
from pnilib.segad.segments import Segmentation
from pnilib.store.files import atomic_write
from pnilib.store.locks import mark_output
from pnilib.store.text import shown
from pnilib.synthesis import synthesize

__all__ = ["KINDS", "generate_defects"]

KINDS = "blurred,small_rectangle,thin_rectangle"


def generate_defects(
    split: Split, segmentation: Segmentation, geometry: Geometry, folder: Path | str, *, seed: int = 333
) -> Split:
    """Write FOLDER/000.png ... at the size of the images of `split`, one defect each, and return them as bad parts.

    Column `segments_of` names the clean image, whose label map holds for the defective one.  The same arguments give
    the same bytes.  Raises PNIError as `synthesize` does, naming the image.
    """
    folder, rows = Path(folder), []
    mark_output(folder)
    for i in range(len(split)):
        path = split.samples["image_path"].iloc[i]
        clean = _pixels(path)
        labels, rng = segmentation.labels(split, i, geometry), np.random.default_rng([seed, i])
        there = [k for k in range(len(segmentation.names)) if (labels == k).any()]
        inner = [k for k in there if segmentation.names[k] != "background"] or there
        chosen = int(rng.choice(inner))
        left, top, right, bottom = kept_box((clean.shape[1], clean.shape[0]), geometry)
        left, top = max(left, 0), max(top, 0)
        right, bottom = min(right, clean.shape[1]), min(bottom, clean.shape[0])
        area = np.zeros(clean.shape[:2], bool)
        segment = (labels == chosen).astype(np.uint8)
        area[top:bottom, left:right] = cv2.resize(
            segment, (right - left, bottom - top), interpolation=cv2.INTER_NEAREST
        ).astype(bool)
        try:
            made = synthesize(clean, KINDS, int(rng.integers(2**31)), area=area)
        except PNIError as fault:
            raise PNIError(f"{shown(path)}: {fault}") from None
        file = folder / f"{i:04}.png"
        with atomic_write(file, "wb") as handle:
            Image.fromarray(made.image).save(handle, format="PNG")
        rows.append({"image_path": str(file), "mask_path": None, "label": 1, "defect_type": made.drawn["kind"],
                     "segments_of": str(path), "segment": segmentation.names[chosen], "split": "generated",
                     "category": folder.name})  # fmt: skip
    if not rows:
        raise PNIError("there is no normal image to generate a defect on: hold some out (--option hold_out=0.1)")
    return Split(pd.DataFrame(rows), folder)


def _pixels(path: str) -> np.ndarray:
    found = decode(path)
    if isinstance(found, Image.Image):
        return np.array(as_rgb(found, shown(path)))
    raise PNIError(f"{shown(path)}: defects are generated on images of 8 bits: save it as such")
