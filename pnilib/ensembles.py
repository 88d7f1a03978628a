"""Several backbones, one anomaly map: PNI (ensemble) of the paper (sec. 4.1), whose rule the paper does not give.

The release scales each backbone's maps by their minimum and maximum over all test images of the category and takes
the mean (B25): that uses the test set.  The default here takes both limits from the training images, scored
leave-one-image-out (`ens_norm=minmax_train`).
"""

import math

import torch

from pnilib.errors import PNIError
from pnilib.maps import ensemble, image_scores
from pnilib.prediction import Calibration, Prediction

__all__ = ["ensemble_predictions"]


def ensemble_predictions(
    predictions: list[Prediction], calibrations: list[Calibration | None], *, ens_norm: str = "minmax_train"
) -> Prediction:
    """The mean of the scaled maps, with image scores from it; patch scores and matches are the first backbone's.

    Raises PNIError when the predictions are of different images or sizes, a calibration is missing that `ens_norm`
    needs, or the image score is one of the patch map.
    """
    first = predictions[0]
    config = first.config.replace(ens_norm=ens_norm)
    if any(p.image_paths != first.image_paths for p in predictions):
        raise PNIError("ensemble: the predictions are of different images: score the same test set with each model")
    if config.image_score not in ("max", "top1"):
        raise PNIError(f"ensemble: image_score={config.image_score} is not of the map: use max or top1")
    if ens_norm == "minmax_test":
        limits = [(float(p.maps.min()), float(p.maps.max())) for p in predictions]
    else:
        known = [c for c in calibrations if c is not None]
        if len(known) != len(predictions):
            raise PNIError(
                "ensemble: a model has no calibration: fit with calibration_images > 0, or ens_norm=minmax_test"
            )
        limits = [(c.low, c.high) for c in known]
    maps = ensemble([p.maps for p in predictions], limits)
    patches = torch.from_numpy(first.patch_scores)
    scores = image_scores(torch.from_numpy(maps), patches, patches[..., None], config)
    return Prediction(
        config,
        first.image_paths,
        maps,
        scores.numpy(),
        first.patch_scores,
        first.match_idx,
        first.nearest_idx,
        math.nan,
    )
