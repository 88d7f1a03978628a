"""Constants of the soft veto, all learnt from normal images (ours; not in the paper).

    S(x) = min_c [ ||Phi(x) - c||_2 + (dbar / k) max(0, log p(c) - log p(c | x)) ] / (level(x) / mean level)^q

Eq. (5) shuts a vector out or lets it in.  Here the place's evidence against it lengthens its distance instead: dbar is
the mean distance of a normal patch to other images' vectors, k = `veto_nats`; alpha in p(c | x) finds out itself
whether places say anything (`pnilib.position.fit_concentration`): aligned parts get a strong veto, textures a weak one.
level(x) is what normal images score at the place, q = `level_power`: where normal parts vary, or few patches were seen,
as at corners, scores are higher without meaning more.

Normal images are scored without their own vectors and votes, and without those of equal images.
"""

import hashlib

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy import ndarray
from scipy.ndimage import uniform_filter
from torch import Tensor

from pnilib.config import PNIConfig
from pnilib.coreset import Coreset
from pnilib.detector.inference import score_image
from pnilib.position import PositionHistogram, fit_concentration
from pnilib.scoring import SoftVeto

__all__ = ["equal_features", "fit_veto"]

IMAGES = 50
"""training images, evenly chosen, that the level is the mean of; every other one serves the mean distance."""
WINDOW = 5
"""cells, width of the window that the level is averaged in."""


def equal_features(features: Float32[ndarray, "n gh gw d"]) -> list[list[int]]:
    """For each image the indices of all with equal features, its own among them."""
    groups: dict[bytes, list[int]] = {}
    of = []
    for i, image in enumerate(features):
        group = groups.setdefault(hashlib.blake2b(np.ascontiguousarray(image).data).digest(), [])
        group.append(i)
        of.append(group)
    return of


def fit_veto(
    features: Float32[ndarray, "n gh gw d"],
    bin_idx: Int64[ndarray, "n gh gw"],
    coreset: Coreset,
    position: PositionHistogram,
    config: PNIConfig,
    device: str = "cpu",
) -> SoftVeto:
    """alpha, mean distance and level of the training features.  One image, or equal ones, have nothing to be compared
    with: then distance is 0 and the level 1, and the score is the plain distance."""
    n, gh, gw = bin_idx.shape
    border = config.border_cells if config.border == "replicate" else 0
    ones = torch.ones(gh, gw)
    equal, sources = equal_features(features), set(coreset.image_idx.tolist())
    evenly = np.unique(np.linspace(0, n - 1, min(IMAGES, n)).round().astype(int)).tolist()
    chosen = [i for i in evenly if not sources <= set(equal[i])]
    if len(chosen) == 0:
        return SoftVeto(1.0, 0.0, ones)
    alpha = fit_concentration(bin_idx, position.n_bins, config.patch, border)
    unit = config.but("density").replace(baseline="A", lambda_=1.0)  # distances as they are
    plain = unit.replace(setting="A")
    soft = unit.replace(setting="position", gate="soft", level_power=0.0)

    def scored(i: int, variant: PNIConfig, veto: SoftVeto | None) -> tuple[Tensor, Tensor]:
        image = torch.from_numpy(np.array(features[i])).to(device)
        scores, near = score_image(image, coreset, position, None, {"": variant}, equal[i], veto)[""]
        return scores.score.cpu(), near[:, 0].cpu()

    distance = float(torch.stack([scored(i, plain, None)[1].mean() for i in chosen[::2]]).double().mean())
    veto = SoftVeto(alpha, distance, ones)
    level = torch.stack([scored(i, soft, veto)[0] for i in chosen]).double().mean(0).view(gh, gw).numpy()
    inside = uniform_filter(np.ones_like(level), WINDOW, mode="constant")
    level = uniform_filter(level, WINDOW, mode="constant") / inside
    if not level.min() > 0:  # all distances 0
        return SoftVeto(alpha, distance, ones)
    return SoftVeto(alpha, distance, torch.from_numpy(level).float())
