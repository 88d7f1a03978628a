"""Aggregation: the literal definition against the fast path; one case by hand."""

import pytest
import torch

from pnilib.features.aggregation import Aggregation, aggregate_literal, aggregate_mean, pooling_bands


def random_levels(channels: tuple[int, ...], sides: tuple[tuple[int, int], ...], b: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(b, c, *side, generator=generator) for c, side in zip(channels, sides, strict=True)]


def test_wide_resnet_case_of_the_audit() -> None:
    """512 channels, p = 5: 1/26 each, the centre twice; 1024 channels: pairs of 5 x 5 means."""
    first, starts, weights = pooling_bands(512, 5, 1024, 2, 0)
    expected = torch.full((5, 5), 1 / 26)
    expected[2, 2] = 2 / 26
    assert first == 0 and starts.tolist() == list(range(512)) and weights.shape == (512, 1, 5, 5)
    torch.testing.assert_close(weights[137, 0], expected)
    first, starts, weights = pooling_bands(1024, 5, 1024, 2, 1)
    assert first == 512 and starts.tolist() == list(range(0, 1024, 2))
    torch.testing.assert_close(weights, torch.full((512, 2, 5, 5), 1 / 50))


def test_by_hand_without_windows() -> None:
    """p = 1, 4 + 2 channels -> d = 2: level means of pairs, then the two levels' bins in order."""
    levels = [
        torch.tensor([1.0, 3.0, 5.0, 7.0]).reshape(1, 4, 1, 1),
        torch.tensor([10.0, 20.0]).reshape(1, 2, 1, 1),
    ]
    assert Aggregation((4, 2), 1, 2)(levels).flatten().tolist() == [4.0, 15.0]


@pytest.mark.parametrize("patch", [1, 3, 5])
@pytest.mark.parametrize(
    ("channels", "sides", "dim"),
    [
        ((128, 256), ((6, 6), (3, 3)), 1024),  # ResNet-18
        ((512, 1024), ((8, 8), (4, 4)), 1024),  # WideResNet
        ((512, 1792), ((5, 6), (2, 3)), 1024),  # DenseNet: bins cut through channels
        ((512, 1024), ((7, 4), (4, 2)), 333),  # odd d: one output mixes both levels
        ((5, 7, 3), ((6, 6), (3, 3), (2, 2)), 11),
    ],
)
def test_fast_path_equals_the_definition(
    channels: tuple[int, ...], sides: tuple[tuple[int, int], ...], dim: int, patch: int
) -> None:
    levels = random_levels(channels, sides)
    literal = aggregate_literal(levels, patch, dim)
    fast = Aggregation(channels, patch, dim)(levels)
    assert fast.shape == (2, dim, *sides[0])
    assert float((literal - fast).abs().max()) < 1e-6


def test_scattering_mean_keeps_constants_up_to_the_border() -> None:
    levels = [torch.full((1, 2, 4, 4), 3.0), torch.full((1, 1, 2, 2), 5.0)]
    pooled = aggregate_mean(levels, 3)
    assert torch.equal(pooled[0, :2], levels[0][0]) and torch.equal(pooled[0, 2], torch.full((4, 4), 5.0))


def test_scattering_mean_by_hand() -> None:
    level = torch.arange(9.0).reshape(1, 1, 3, 3)
    pooled = aggregate_mean([level], 3)[0, 0]
    assert float(pooled[1, 1]) == 4.0 and float(pooled[0, 0]) == (0 + 1 + 3 + 4) / 4
    assert torch.equal(aggregate_mean([level], 1), level)
