"""Maps equal the two-step resize and blur; image scores by hand; ensembles scale as stated."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from pnilib.config import PNIConfig
from pnilib.errors import PNIError
from pnilib.maps import anomaly_maps, ensemble, image_scores, repeat_inner


@pytest.mark.parametrize(("size", "sigma"), [(48, 0.0), (48, 3.0), (50, 8.0)])
def test_map_equals_resize_then_gaussian(size: int, sigma: float) -> None:
    scores = torch.rand(2, 6, 7, generator=torch.Generator().manual_seed(0))
    resized = F.interpolate(scores[:, None], size=(size, size), mode="bilinear", align_corners=False)[:, 0]
    for got, plain in zip(anomaly_maps(scores, size, sigma), resized.numpy(), strict=True):
        expected = gaussian_filter(plain.astype(np.float64), sigma) if sigma else plain
        assert np.allclose(got.numpy(), expected, atol=1e-6)


def test_a_constant_stays_constant_and_a_peak_stays_in_place() -> None:
    assert torch.allclose(anomaly_maps(torch.full((1, 6, 6), 3.0), 48, 8.0), torch.full((1, 48, 48), 3.0))
    peak = torch.zeros(1, 6, 6)
    peak[0, 2, 4] = 1.0
    where = int(anomaly_maps(peak, 48, 4.0)[0].argmax())
    assert abs(where // 48 - (2 * 8 + 3.5)) <= 1 and abs(where % 48 - (4 * 8 + 3.5)) <= 1


def test_repeat_inner_by_hand() -> None:
    grid = torch.arange(16.0).view(1, 4, 4)
    assert repeat_inner(grid, 1)[0].tolist() == [[5, 5, 6, 6], [5, 5, 6, 6], [9, 9, 10, 10], [9, 9, 10, 10]]


def test_image_scores_by_hand() -> None:
    maps = torch.zeros(1, 20, 20)
    maps[0, 0, :5] = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
    patches = torch.tensor([[[1.0, 2.0]]])

    def score(name: str) -> float:
        return image_scores(maps, patches, PNIConfig(image_score=name)).item()

    assert score("max") == 5.0
    assert score("raw_max") == 2.0
    assert score("top1") == (5 + 4 + 3 + 2) / 4  # 1 % of 400 pixels


def test_ensemble_by_hand_and_refusals() -> None:
    a, b = np.float32([[[0, 2]]]), np.float32([[[10, 30]]])
    assert ensemble([a, b], [(0.0, 2.0), (10.0, 50.0)]).tolist() == [[[0.0, 0.75]]]
    with pytest.raises(PNIError, match="span nothing"):
        ensemble([a], [(1.0, 1.0)])
    with pytest.raises(PNIError, match="do not match"):
        ensemble([a, b[:, :, :1]], [(0.0, 1.0), (0.0, 1.0)])
