"""Several backbones, one anomaly map: PNI (ensemble) of the paper (sec. 4.1), whose rule the paper does not give.

The release scales each backbone's maps by their minimum and maximum over all test images of the category and takes
the mean (B25): that uses the test set.  The default here takes both limits from the training images, scored
leave-one-image-out (`ens_norm=minmax_train`).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch

from pnilib.config import PNIConfig
from pnilib.data import Dataset
from pnilib.detector.pni import PNI
from pnilib.detector.prediction import Calibration, Prediction
from pnilib.errors import PNIError
from pnilib.maps import ensemble, image_scores, require_map_score

__all__ = ["ensemble_predictions", "predict_members", "require_alike"]

_FREE = ("backbone", "levels", "weights", "aggregation", "agg_patch", "dim", "feature_norm", "seed")
"""What members may differ in: the features, and the seed."""

_REFINED = {f.name for f in dataclasses.fields(PNIConfig) if f.metadata["stage"] in ("defects", "refinement", "fusion")}


def require_alike(names: Sequence[str], configs: Sequence[PNIConfig], *, refined: bool) -> None:
    """What can be checked before anything is scored: one rule for all, and an image score of the map.

    `names`: of the members, for messages.  `refined`: whether the settings of the refinement count.  Raises PNIError
    for a setting outside `_FREE` that differs, and for an image score of the patches.
    """
    free = {*_FREE} if refined else {*_FREE, *_REFINED}
    require_map_score(configs[0], "an ensemble's map")
    for name, config in zip(names, configs, strict=True):
        for setting, value in config.to_dict().items():
            if setting not in free and value != (wanted := configs[0].to_dict()[setting]):
                raise PNIError(
                    f"ensemble: {name} has {setting}={value}, {names[0]} has {wanted}: members may differ in "
                    f"{', '.join(_FREE)} alone"
                )


def predict_members(
    members: Mapping[str, PNI], data: Dataset, *, calibrate: bool = False, refined: bool = False, progress: bool = False
) -> Prediction:
    """The test images as one model sees them, or the mean of several.

    `members`: by the name to use in messages.  `calibrate`: first anew, as after a change of settings.  Raises
    PNIError as `require_alike` and `ensemble_predictions` do.
    """
    models = list(members.values())
    if len(models) > 1:
        require_alike(list(members), [one.config for one in models], refined=refined)
    for one in models:
        if calibrate and one.config.calibration_images > 0:
            one.calibrate(data.train, progress=progress)
    predictions = [one.predict(data.test, refined=refined, progress=progress) for one in models]
    if len(models) == 1:
        return predictions[0]
    calibrations = [one.refined_calibration if refined else one.calibration for one in models]
    return ensemble_predictions(predictions, calibrations, names=list(members))


def ensemble_predictions(
    predictions: Sequence[Prediction],
    calibrations: Sequence[Calibration | None],
    *,
    ens_norm: str | None = None,
    names: Sequence[str] | None = None,
) -> Prediction:
    """The mean of the scaled maps, with image scores from it; patch scores and matches are the first member's.

    `ens_norm`: default that of the members.  `names`: of the members, for messages.  Raises PNIError when members
    differ in images, in `refined` or in a setting that `require_alike` names, or a calibration is missing that
    ens_norm=minmax_train needs.
    """
    first = predictions[0]
    names = [f"member {i + 1}" for i in range(len(predictions))] if names is None else names
    configs = [p.config if ens_norm is None else p.config.replace(ens_norm=ens_norm) for p in predictions]
    require_alike(names, configs, refined=first.refined)
    for name, one in zip(names, predictions, strict=True):
        if one.image_paths != first.image_paths:
            raise PNIError(f"ensemble: {name} scored other images than {names[0]}, or in another order: score the same")
        if one.refined != first.refined:
            raise PNIError(f"ensemble: of {name} and {names[0]} only one is refined: their maps are on other scales")
    limits = []
    for name, one, calibration in zip(names, predictions, calibrations, strict=True):
        if configs[0].ens_norm == "minmax_test":
            limits.append((float(one.maps.min()), float(one.maps.max())))
        elif calibration is not None:
            limits.append((calibration.low, calibration.high))
        else:
            raise PNIError(
                f"ensemble: {name} has no calibration: fit with calibration_images > 0, or set ens_norm=minmax_test"
            )
    maps = ensemble([p.maps for p in predictions], limits)
    patches = torch.from_numpy(first.patch_scores)
    scores = image_scores(torch.from_numpy(maps), patches, configs[0])
    return Prediction(
        configs[0],
        first.image_paths,
        maps,
        scores.numpy(),
        first.patch_scores,
        first.match_idx,
        first.nearest_idx,
        math.nan,
        first.refined,
        "no normal-only threshold: an ensemble has none of its own",
    )
