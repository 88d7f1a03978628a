"""Every backend finds the same, exact neighbors."""

import pytest
import torch

from pnilib import neighbors
from pnilib.errors import PNIError
from pnilib.neighbors import backends, nearest


def test_by_hand() -> None:
    vectors = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]])
    distances, idx = nearest(torch.tensor([[0.0, 0.0], [6.0, 8.0]]), vectors, 2)
    assert distances.tolist() == [[0.0, 5.0], [5.0, 5.0]]
    assert idx.tolist() == [[0, 1], [1, 2]]  # equal vectors: the lower index


@pytest.mark.parametrize("backend", backends())
def test_backend_equals_brute_force(backend: str) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(300, 16, generator=generator) + 50.0  # far from the origin: rounding matters
    queries = torch.randn(5000, 16, generator=generator) + 50.0
    distances, idx = nearest(queries, vectors, 3, backend=backend)
    exact = torch.cdist(queries.double(), vectors.double(), compute_mode="donot_use_mm_for_euclid_dist")
    best = exact.topk(3, largest=False)
    assert torch.equal(idx, best.indices)
    assert torch.allclose(distances.double(), best.values, atol=1e-6)


def test_ties_go_to_the_lowest_index_in_whatever_order_they_are_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        neighbors, "_torch_candidates", lambda vectors: lambda chunk, width: torch.tensor([[3, 1, 2, 0]])
    )
    vectors = torch.tensor([[9.0], [1.0], [1.0], [1.0]])
    assert nearest(torch.tensor([[0.0]]), vectors, 2, backend="torch")[1].tolist() == [[1, 2]]


def test_no_queries_and_bad_requests() -> None:
    vectors = torch.zeros(4, 2)
    assert nearest(torch.zeros(0, 2), vectors, 2)[1].shape == (0, 2)
    with pytest.raises(PNIError, match="choose 1 to 4"):
        nearest(vectors, vectors, 5)
    with pytest.raises(PNIError, match="backend 'annoy'"):
        nearest(vectors, vectors, 1, backend="annoy")
