"""The maps of one test image: those that the run kept, what its fitted model can add, and which model explains which.

Results of one fit belong together: maps that stand side by side, and the settings that a pixel is explained under, are
of the same run, backbone and seed as the result that is looked at (`SettingResult.suffix`).
"""

import math
from contextlib import suppress

import numpy as np
import torch
from jaxtyping import Float32
from numpy import ndarray
from torch import Tensor

from pnilib.apps.explore.category import Category
from pnilib.apps.explore.pictures import scale
from pnilib.apps.explore.results import SettingResult
from pnilib.config import PNIConfig
from pnilib.detector.pni import PNI
from pnilib.errors import PNIError

__all__ = [
    "SIDE_BY_SIDE",
    "change_of_refinement",
    "explained_by",
    "features_of",
    "maps_of",
    "normal_level",
]

SIDE_BY_SIDE = ("A", "B", "position", "E", "soft", "PNI", "PNI (ensemble)", "released")
"""Results whose maps are shown together, in this order."""
COMPUTED = ("A", "B", "position", "E")


def features_of(model: PNI, category: Category, i: int) -> Float32[Tensor, "gh gw d"]:
    """Of test image i, as the model sees it.  Some seconds with the paper's backbone on a CPU."""
    with torch.no_grad():
        return model.embed(category.image(i, model.config.geometry))


def maps_of(category: Category, i: int, labels: tuple[str, ...] = ()) -> dict[str, Float32[ndarray, "h w"]]:
    """Label -> map of test image i: those of `labels` that the run kept, and beside them those of SIDE_BY_SIDE of the
    same fits (none given: of the first); of A, B, position and E also those that the fit's model computes, where the
    run keeps it and the data set is at hand."""
    maps: dict[str, ndarray] = {}
    suffixes = []
    for label in labels:
        with suppress(PNIError):  # a result that nobody has
            suffixes.append(explained_by(category, label)[0].suffix)
    for suffix in dict.fromkeys(suffixes or [""]):
        beside = {name: name + suffix for name in SIDE_BY_SIDE}
        mine = [label for label in labels if label in category.results and category.results[label].suffix == suffix]
        shown = list(dict.fromkeys([*beside.values(), *mine]))
        kept = {label: all_maps for label in shown if (all_maps := _kept(category, label)) is not None}
        here = {label: np.array(all_maps[i]) for label, all_maps in kept.items()}
        missing = [name for name in COMPUTED if beside[name] not in here]
        if missing and (base := base_result(category, suffix)) is not None:
            own = {name: result.config for name in missing if (result := category.results.get(beside[name]))}
            computed = _compute(category, i, base, {name: own.get(name, base.config.under(name)) for name in missing})
            here |= {beside[name]: anomaly_map for name, anomaly_map in computed.items()}
        maps |= {label: here[label] for label in shown if label in here}
    return maps


def _kept(category: Category, label: str) -> Float32[ndarray, "n h w"] | None:
    return category.results[label].maps if label in category.results else None


def _compute(
    category: Category, i: int, base: SettingResult, configs: dict[str, PNIConfig]
) -> dict[str, Float32[ndarray, "h w"]]:
    try:
        model = category.model(base)
        variants = {name: config for name, config in configs.items() if name in model.settings}
        image = category.image(i, model.config.geometry)
        predicted = model.with_config(**base.config.to_dict()).predict_variants(image[None], variants)
        return {name: prediction.maps[0] for name, prediction in predicted.items()}
    except PNIError:
        return {}  # without the model or the image the kept maps must do


def base_result(category: Category, suffix: str = "") -> SettingResult | None:
    """E, or else A, of one fit: whose fitted model and settings compute what the run did not keep."""
    return category.results.get(f"E{suffix}") or category.results.get(f"A{suffix}")


def explained_by(category: Category, label: str) -> tuple[SettingResult, PNIConfig]:
    """The result whose model explains a pixel under `label`, and the configuration: a result's own, or that of E's
    model under a setting that the run has no result of.  Raises PNIError for neither."""
    if (result := category.results.get(label)) is not None:
        return result, result.config
    for base in category.results.values():
        name = label.removesuffix(base.suffix)
        if base.setting in ("E", "A") and name in COMPUTED and name + base.suffix == label:
            return base, base.config.under(name)
    raise PNIError(f"{category.key}: has no result {label!r}: choose one of {', '.join(category.results)}")


def normal_level(category: Category, label: str) -> float:
    """How far a normal patch is from what counts for it under `label`, feature units: the median of that result's map
    over all test pixels, nearly all of which are normal; NaN where the run has no such map.

    A refined map has units of its own: then E's, of the same fit.
    """
    result = category.results.get(label)
    if result is None or result.refined:
        suffix = explained_by(category, label)[0].suffix
        result = base_result(category, suffix)
    if result is None:
        return math.nan
    score, config = result.facts["limits"][0], result.config
    if config.setting == "A" and config.baseline == "patchcore":
        return math.sqrt(max(score, 0.0))
    offset = math.log(config.lambda_) if "density" in config.released else 0.0
    return (score + offset) / config.lambda_


def change_of_refinement(
    category: Category, maps: dict[str, Float32[ndarray, "h w"]]
) -> Float32[ndarray, "h w"] | None:
    """The map of PNI minus that of E of the same fit, each in units of its category-wide colour scale
    (`pictures.scale`: 0 at its low end, 1 at its high end), as the refined map has units of its own; None without
    both."""
    for label in maps:
        result = category.results.get(label)
        if result is None or result.setting != "PNI" or (base := f"E{result.suffix}") not in maps:
            continue
        levels = []
        for name in (label, base):
            low, high = scale(category, name)
            levels.append((maps[name] - np.float32(low)) / np.float32(high - low))
        return levels[0] - levels[1]
    return None
