"""Maps equal the two-step resize and blur; image scores by hand; ensembles scale as stated."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from pnilib.config import PNIConfig
from pnilib.errors import PNIError
from pnilib.maps import anomaly_maps, ensemble, image_scores, repeat_inner
from pnilib.scoring import likelihood_score


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
    distances = torch.tensor([[[[1.0, 9.0], [2.0, 2.0 + math.log(3)]]]])

    def score(name: str) -> float:
        return image_scores(maps, patches, distances, PNIConfig(setting="A", image_score=name)).item()

    assert score("max") == 5.0
    assert score("raw_max") == 2.0
    assert score("top1") == (5 + 4 + 3 + 2) / 4  # 1 % of 400 pixels
    assert score("reweight") == pytest.approx(2.0 * (1 - 1 / 4))  # exp(2) / (exp(2) + 3 exp(2))


def reweighted(distances: torch.Tensor, **values: object) -> torch.Tensor:
    """Of ascending distances (b, gh, gw, k); a patch score of lambda d - log(lambda) must not enter."""
    config = PNIConfig(setting="A", image_score="reweight", **values)  # type: ignore[arg-type]
    patches = likelihood_score(distances[..., 0], config)
    return image_scores(anomaly_maps(patches, 24, 0.0), patches, distances, config)


@pytest.mark.parametrize(("d", "expected"), [((5.0, 5.5, 5.5), 3.84), ((5.4, 5.5, 5.5), 3.72)])
@pytest.mark.parametrize("values", [{}, dict(lambda_=0.99, likelihood="density"), dict(baseline="patchcore")])
def test_reweighting_by_hand(d: tuple[float, ...], expected: float, values: dict[str, object]) -> None:
    """It falls when the nearest distance alone grows: the neighbors are then no farther than it."""
    assert reweighted(torch.tensor([[[d]]]), **values).item() == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("border", ["keep", "replicate"])
def test_reweighting_grows_with_all_distances_and_stays_below_the_largest(border: str) -> None:
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-3, 1.0, 100.0):  # exp(100) overflows in float32
        distances = scale * torch.rand(200, 6, 5, 3, generator=generator).cumsum(3)
        base = reweighted(distances, border=border)
        for farther in (distances * 1.5, distances + 0.1 * scale):
            assert (reweighted(farther, border=border) > base).all()
        inner = distances[:, 2:-2, 2:-2] if border == "replicate" else distances
        largest = inner[..., 0].flatten(1).amax(1)
        assert (base >= 0).all() and (base <= largest).all()
        assert (reweighted(distances * 0, border=border) == 0).all()


def test_the_worst_cell_is_never_one_that_the_border_overwrites() -> None:
    """Hand-made: the border cell is farthest by itself, and the map shows an inner cell there."""
    distances = torch.ones(1, 5, 5, 3)
    distances[0, 0, 0] = 90.0
    distances[0, 2, 2] = torch.tensor([5.0, 5.5, 5.5])
    for given in (distances, repeat_inner(distances, 2)):
        assert reweighted(given, border="replicate").item() == pytest.approx(3.84, abs=0.005)
    assert reweighted(distances).item() == pytest.approx(60.0)  # kept: three equal distances, 90 (1 - 1/3)


def test_ensemble_by_hand_and_refusals() -> None:
    a, b = np.float32([[[0, 2]]]), np.float32([[[10, 30]]])
    assert ensemble([a, b], [(0.0, 2.0), (10.0, 50.0)]).tolist() == [[[0.0, 0.75]]]
    with pytest.raises(PNIError, match="span nothing"):
        ensemble([a], [(1.0, 1.0)])
    with pytest.raises(PNIError, match="do not match"):
        ensemble([a, b[:, :, :1]], [(0.0, 1.0), (0.0, 1.0)])
