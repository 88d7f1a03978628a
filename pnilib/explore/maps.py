"""The maps of one test image under all settings: those that the run kept, and what its fitted model can add."""

import numpy as np
import torch
from jaxtyping import Float32
from numpy import ndarray
from torch import Tensor

from pnilib.errors import PNIError
from pnilib.explore.opened import Category, Scored
from pnilib.explore.pictures import scale
from pnilib.pni import PNI

__all__ = ["SIDE_BY_SIDE", "change_of_refinement", "features_of", "maps_of"]

SIDE_BY_SIDE = ("A", "B", "position", "E", "PNI", "PNI (ensemble)", "released")
"""Results whose maps are shown together, in this order."""
COMPUTED = ("A", "B", "position", "E")


def features_of(model: PNI, category: Category, i: int) -> Float32[Tensor, "gh gw d"]:
    """Of test image i, as the model sees it.  Some seconds with the paper's backbone on a CPU."""
    with torch.no_grad():
        return model.embed(category.image(i, model.config.geometry))


def maps_of(category: Category, i: int, extra: tuple[str, ...] = ()) -> dict[str, Float32[ndarray, "h w"]]:
    """Label -> map of test image i, those of SIDE_BY_SIDE and `extra` that the run kept; of A, B, position and E also
    those that the model of E computes, where the run keeps it and the data set is at hand."""
    results, found = category.results, {}
    for label in dict.fromkeys([*SIDE_BY_SIDE, *extra]):
        if label in results and (kept := results[label].maps) is not None:
            found[label] = np.array(kept[i])
    missing = [label for label in COMPUTED if label not in found]
    if missing and (base := base_result(category)) is not None:
        try:
            model = category.model(base)
            names = [name for name in missing if name in model.settings]
            variants = {name: base.config.under(name) for name in names}
            image = category.image(i, model.config.geometry)
            predicted = model.with_config(**base.config.to_dict()).predict_variants(image[None], variants)
            found |= {name: one.maps[0] for name, one in predicted.items()}
        except PNIError:
            pass  # without the model or the image the kept maps must do
    return {label: found[label] for label in dict.fromkeys([*SIDE_BY_SIDE, *extra]) if label in found}


def base_result(category: Category) -> Scored | None:
    """E, or else A: whose fitted model and settings explain pixels."""
    return category.results.get("E") or category.results.get("A")


def change_of_refinement(
    category: Category, maps: dict[str, Float32[ndarray, "h w"]]
) -> Float32[ndarray, "h w"] | None:
    """The map of PNI minus that of E, each in units of its category-wide colour scale (`pictures.scale`: 0 at its low
    end, 1 at its high end), as the refined map has units of its own; None without both."""
    if "PNI" not in maps or "E" not in maps:
        return None
    levels = []
    for label in ("PNI", "E"):
        low, high = scale(category, label)
        levels.append((maps[label] - np.float32(low)) / np.float32(high - low))
    return levels[0] - levels[1]
