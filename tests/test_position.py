"""The histogram equals Algorithm 1 with its window."""

import numpy as np
import pytest
import torch

from pnilib.errors import PNIError
from pnilib.position import PositionHistogram, count_positions, count_positions_reference


def indices(n: int = 4, gh: int = 7, gw: int = 5, n_bins: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, n_bins, (n, gh, gw))


def test_by_hand() -> None:
    """One image of 1 x 3 cells with bins 0, 1, 1 and a window of 3: the middle cell hears all three."""
    counts = count_positions(np.array([[[0, 1, 1]]]), 2, 3)
    assert counts[0].tolist() == [[1, 1], [1, 2], [0, 2]]
    probability = PositionHistogram(counts).probability(slice(0, 3))
    assert torch.allclose(probability, torch.tensor([[1 / 2, 1 / 2], [1 / 3, 2 / 3], [0, 1]]))


@pytest.mark.parametrize("patch", [1, 3, 9])
@pytest.mark.parametrize("border", [0, 1, 2])
def test_equals_algorithm_1(patch: int, border: int) -> None:
    idx = indices()
    fast = count_positions(idx, 6, patch, border)
    assert np.array_equal(fast, count_positions_reference(idx, 6, patch, border))
    assert fast.dtype == np.uint16


def test_many_votes_need_uint32() -> None:
    idx = np.zeros((70_000, 1, 1), dtype=np.int64)
    counts = count_positions(idx, 2, 1)
    assert counts.dtype == np.uint32 and counts.ravel().tolist() == [70_000, 0]


def test_counts_at_the_edge_of_uint16_do_not_wrap() -> None:
    idx = np.zeros((2427, 9, 9), dtype=np.int64)  # 2427 * 27 votes a cell = 65529 with patch 27
    counts = count_positions(idx, 1, 5)
    assert counts.max() == 2427 * 25 and counts.dtype == np.uint16


def test_probabilities_sum_to_one_and_unseen_cells_are_uniform() -> None:
    histogram = PositionHistogram(count_positions(indices(), 6, 1, border=2))
    probability = histogram.probability(slice(0, 35))
    assert torch.allclose(probability.sum(1), torch.ones(35))
    assert torch.allclose(probability[0], torch.full((6,), 1 / 6))  # a corner: nobody votes
    assert histogram.marginal().sum().item() == pytest.approx(1.0, abs=1e-6)
    assert (histogram.marginal() > 0).all()


def test_a_bad_index_is_refused() -> None:
    with pytest.raises(PNIError, match=r"outside 0 \.\.\. 3"):
        count_positions(indices(), 4, 3)
