"""Selection by parts: by hand, within its bound of the true optimum, and the exact greedy when there is one part."""

import pickle
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pnilib.coreset_parts import Part, covering_radius, k_center_of_parts, parts_of_file
from pnilib.errors import PNIError
from pnilib.k_center import greedy_k_center


def cloud(seed: int, n: int = 300, d: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def line(*at: float) -> np.ndarray:
    return np.array(at, np.float32)[:, None]


def least_radius_on_a_line(points: np.ndarray, k: int) -> float:
    """Every way to cut the sorted points into k runs; a run needs half its length."""
    at, n = np.sort(points.ravel()), len(points)
    ways = ([0, *cuts, n] for cuts in combinations(range(1, n), k - 1))
    return min(max(at[high - 1] - at[low] for low, high in pairwise(way)) / 2 for way in ways)


def test_by_hand() -> None:
    """0 1 4 10 | 11 15 20, k = 2: the parts take 0, 10 (4 is 4 away) and 11, 20 (15 is 4 away); of these 0 and 20."""
    found = k_center_of_parts([line(0, 1, 4, 10), line(11, 15, 20)], 2)
    assert found.picks.tolist() == [0, 6] and found.vectors.tolist() == [[0], [20]]
    assert found.part_radii.tolist() == [4, 4] and found.union_radius == 10
    assert found.bound == 14 and found.factor == 2 * 14 / 10
    assert covering_radius([line(0, 1, 4, 10), line(11, 15, 20)], found.vectors) == 10


def test_the_start_may_lie_in_any_part() -> None:
    """From 15: 0 is farthest; of 15, 11 | 0, 10 the last part starts with its first point, 0."""
    found = k_center_of_parts([line(0, 1, 4, 10), line(11, 15, 20)], 2, 5)
    assert found.picks.tolist() == [5, 0]


@pytest.mark.parametrize("seed", range(30))
def test_the_radius_keeps_its_bounds(seed: int) -> None:
    """Against the true optimum, whose balls may lie anywhere."""
    rng = np.random.default_rng(seed)
    points = (rng.random((12, 1)) ** rng.integers(1, 5)).astype(np.float32)
    parts: list[Part] = np.split(points, sorted(rng.choice(np.arange(1, 12), int(rng.integers(0, 4)), replace=False)))
    k = int(rng.integers(1, 5))
    found = k_center_of_parts(parts, k, int(rng.integers(12)))
    radius, least = covering_radius(parts, found.vectors), least_radius_on_a_line(points, k)
    slack = 1 + 1e-5
    assert radius <= found.bound * slack and found.bound <= found.factor * least * slack
    assert radius <= 4 * least * slack and 2 <= found.factor <= 4 * slack
    assert radius == pytest.approx(np.abs(points - points[found.picks].T).min(1).max(), rel=1e-5)


@pytest.mark.parametrize("kind", ["cloud", "ties", "duplicates"])
def test_one_part_is_the_exact_greedy(kind: str) -> None:
    x = cloud(0)
    x = {"cloud": x, "ties": x.round(), "duplicates": np.repeat(x[:10], 30, axis=0)}[kind]
    found = k_center_of_parts([x], 40, 17)
    picks, radii = greedy_k_center(x, 41, 17, return_radii=True)
    assert found.picks.tolist() == picks[:40].tolist()
    assert found.bound == radii[39] and found.union_radius == 0
    assert np.array_equal(found.vectors, x[found.picks])


def test_the_order_of_the_parts_only_renumbers() -> None:
    a, b, c = cloud(1, 50), cloud(2, 80), cloud(3, 30)
    first, second = k_center_of_parts([a, b, c], 20, 55), k_center_of_parts([c, b, a], 20, 30 + 5)
    assert np.array_equal(first.vectors, second.vectors)
    assert np.array_equal(first.vectors, np.concatenate([a, b, c])[first.picks])
    assert np.array_equal(second.vectors, np.concatenate([c, b, a])[second.picks])
    assert first.bound == second.bound


def test_parts_smaller_than_k_are_taken_whole() -> None:
    """Every part gives all its points, so that the union is the whole: the exact greedy again."""
    x = cloud(4, 60)
    found = k_center_of_parts(np.split(x, 6), 10, 3)
    assert found.picks.tolist() == greedy_k_center(x, 10, 3).tolist()
    assert not found.part_radii.any() and found.factor == 2
    everything = k_center_of_parts(np.split(x, 6), 60)
    assert sorted(everything.picks) == list(range(60)) and everything.bound == 0 and everything.factor == 1


def elsewhere(function: Callable[[Any], Any], jobs: Iterable[Any]) -> list[Any]:
    """As other processes would: all that travels is pickled, and jobs are small."""
    sent = [pickle.dumps(job) for job in jobs]
    assert all(len(blob) < 1000 for blob in sent)
    return [pickle.loads(pickle.dumps(function(pickle.loads(blob)))) for blob in sent]


def test_a_file_in_parts_worked_on_elsewhere(tmp_path: Path) -> None:
    x = cloud(5, 7 * 3 * 11, 6).reshape(7, 3, 11, 6)
    np.save(tmp_path / "features.npy", x)
    parts = parts_of_file(tmp_path / "features.npy", 4)
    flat = x.reshape(-1, 6)
    here = k_center_of_parts(np.split(flat, [57, 115, 173]), 12, 100)
    for mapper in (map, elsewhere, ThreadPoolExecutor(2).map):
        found = k_center_of_parts(parts, 12, 100, mapper=mapper)
        assert np.array_equal(found.picks, here.picks) and np.array_equal(found.vectors, flat[found.picks])
    assert covering_radius(parts, here.vectors, mapper=elsewhere) == covering_radius([flat], here.vectors)


def test_the_covering_radius_sees_every_block() -> None:
    far = np.zeros((40_000, 2), np.float32)
    far[7] = 3, 4
    assert covering_radius([far[:10], far], np.zeros((1, 2), np.float32)) == 5


@pytest.mark.parametrize(
    ("parts", "k", "start", "word"),
    [
        ([], 1, 0, "no parts"),
        ([cloud(0), cloud(0)[:0]], 5, 0, "part 1 is of shape"),
        ([cloud(0), cloud(0)[0]], 5, 0, "part 1 is of shape"),
        ([cloud(0), cloud(0, d=5)], 5, 0, "part 1 has 5 channels"),
        ([cloud(0), cloud(1)], 601, 0, "ask for 1 to 600"),
        ([cloud(0), cloud(1)], 0, 0, "ask for 1 to 600"),
        ([cloud(0), cloud(1)], 5, 600, "start 600"),
        ([cloud(0), cloud(1)], 5, -1, "start -1"),
        ([cloud(0), cloud(1) * np.nan], 5, 0, "part 1: .*NaN"),
    ],
)
def test_impossible_requests_are_refused(parts: list[Any], k: int, start: int, word: str) -> None:
    with pytest.raises(PNIError, match=word) as caught:
        k_center_of_parts([lambda part=part: part for part in parts], k, start)
    assert "\n" not in str(caught.value)


def test_more_parts_than_vectors_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", cloud(0, 3))
    with pytest.raises(PNIError, match="3 vectors in 4 parts"):
        parts_of_file(tmp_path / "features.npy", 4)
