"""The coreset equals the naive definition, remembers its origins and covers the features."""

import numpy as np
import pytest
import torch

from pnilib import k_center as module
from pnilib.config import PNIConfig
from pnilib.coreset import coreset_size, select_coreset
from pnilib.errors import PNIError
from pnilib.k_center import greedy_k_center, greedy_k_center_reference


def points(kind: str) -> np.ndarray:
    rng = np.random.default_rng(3)
    if kind == "gaussian":
        return rng.normal(size=(6000, 8)).astype(np.float32)
    if kind == "low-rank":
        return (rng.normal(size=(6000, 4)) @ rng.normal(size=(4, 48)) + 100.0).astype(np.float32)
    if kind == "ties":
        return rng.integers(0, 3, size=(6000, 5)).astype(np.float32)
    if kind == "duplicates":
        return np.repeat(rng.normal(size=(40, 6)), 150, axis=0).astype(np.float32)
    if kind == "outlier":
        return np.vstack([rng.normal(size=(6000, 8)), 1e4 * np.ones((1, 8))]).astype(np.float32)
    return np.zeros((5000, 3), dtype=np.float32)


def test_by_hand() -> None:
    """On the line 0, 1, 4, 10 from 0: farthest is 10, then 4 (4 from 0), then 1."""
    line = np.array([[0.0], [1.0], [4.0], [10.0]], dtype=np.float32)
    picks, radii = greedy_k_center(line, 4, return_radii=True)
    assert picks.tolist() == [0, 3, 2, 1]
    assert radii[:3].tolist() == [10.0, 4.0, 1.0] and np.isnan(radii[3])


@pytest.mark.parametrize("kind", ["gaussian", "low-rank", "ties", "duplicates", "outlier", "constant"])
@pytest.mark.parametrize("pool", [32, 2048])
def test_equals_the_naive_loop(kind: str, pool: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POOL", pool)
    x = points(kind)
    assert greedy_k_center(x, 200, 17).tolist() == greedy_k_center_reference(x, 200, 17).tolist()


def test_restricted_to_rows() -> None:
    x = points("gaussian")
    rows = np.arange(1, 6000, 3)
    expected = rows[greedy_k_center_reference(x[rows], 50, 4)]
    assert greedy_k_center(x, 50, int(rows[4]), rows=rows).tolist() == expected.tolist()


def test_radius_is_the_coverage_and_never_grows() -> None:
    x = points("gaussian")
    picks, radii = greedy_k_center(x, 60, return_radii=True)
    for t in (0, 10, 58):
        cover = np.linalg.norm(x[:, None] - x[picks[: t + 1]][None], axis=2).min(1).max()
        assert radii[t] == pytest.approx(cover, rel=1e-5)
    assert (np.diff(radii[:-1]) <= 0).all()


@pytest.mark.parametrize(("n", "start"), [(0, 0), (101, 0), (5, 100), (5, -1)])
def test_impossible_requests_are_refused(n: int, start: int) -> None:
    with pytest.raises(PNIError, match="coreset"):
        greedy_k_center(np.zeros((100, 2), np.float32), n, start)


def test_nan_is_refused() -> None:
    x = points("gaussian")
    x[77, 2] = np.nan
    with pytest.raises(PNIError, match="NaN"):
        greedy_k_center(x, 5)


def grid_features() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, 8, 8, 6)).astype(np.float32)


def test_both_coresets_from_one_run() -> None:
    x = grid_features()
    config = PNIConfig(emb_ratio=0.2, dist_size=20)
    found = select_coreset(x, config)
    assert len(found.embedding) == coreset_size(5 * 64, 0.2) == 64
    assert torch.equal(found.distribution, found.embedding[:20])
    origin = x[found.image_idx, found.cell_idx // 8, found.cell_idx % 8]
    assert np.array_equal(origin, found.embedding.numpy())
    distances = torch.cdist(found.embedding, found.distribution)
    assert torch.equal(found.emb_to_dist, distances.argmin(1))
    assert found.emb_to_dist[:20].tolist() == list(range(20))


def test_border_and_small_coreset() -> None:
    x = grid_features()
    inner = select_coreset(x, PNIConfig(emb_ratio=0.2, border="replicate", border_cells=2))
    rows, columns = inner.cell_idx // 8, inner.cell_idx % 8
    assert rows.min() >= 2 and rows.max() <= 5 and columns.min() >= 2 and columns.max() <= 5
    assert inner.n_dist == len(inner.embedding) == 16  # dist_size 2048 > |C_emb|: C_dist = C_emb
