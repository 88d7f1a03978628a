r"""Greedy k-center over features that are spread over several files or machines.

Each part T_i: the exact greedy selection of k of its own points; then the same among the union of all T_i.  Only the
union, at most (parts) k vectors, ever meets in one place.  Not in the paper, whose coreset is the greedy one of all
features; the method is that of Malkomes et al., "Fast distributed k-center clustering with outliers on massive data"
(NIPS 2015), in its setting without outliers.

**How far from the optimum.**  Let r* be the least radius with which any k balls cover the whole.

    r_i <= 2 r*        greedy's k picks of part i and its farthest point are k + 1 points, all r_i or more apart
                       (Gonzalez 1985); two of them share one of the k best balls, so r_i <= 2 r*
    r_u <= 2 r*        the same for the union, which is part of the whole
    r   <= max_i r_i + r_u <= 4 r*        x is within r_i of some t in T_i, and t within r_u of a pick

Greedy on the whole has r <= 2 r*.  The first two lines read backwards bound r* from below, so each selection knows
what it proved: `KCenter.factor`, at most 4.  With one part the picks are those of `greedy_k_center`, index for index.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from numpy import ndarray

from pnilib.errors import PNIError
from pnilib.k_center import greedy_k_center
from pnilib.neighbors import nearest
from pnilib.store.text import many

__all__ = ["KCenter", "Part", "covering_radius", "k_center_of_parts", "parts_of_file", "rows_of_file"]

Part = Float[ndarray, "_ _"] | Callable[[], Float[ndarray, "_ _"]]
"""Features (n_i, d), or what loads them; a callable is called by whoever works on the part, and nowhere else."""

Mapper = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class KCenter:
    """picks: indices counted through all parts, in the order of picking (k,).  vectors: their features (k, d).

    part_radii: covering radius of each part by its own selection, feature units; union_radius: of the union.
    """

    picks: Int64[ndarray, " k"]
    vectors: Float[ndarray, "k d"]
    part_radii: Float64[ndarray, " n_parts"]
    union_radius: float

    @property
    def bound(self) -> float:
        """No point of the whole is farther than this from a pick; `covering_radius` says how far, at a full pass."""
        return float(self.part_radii.max()) + self.union_radius

    @property
    def factor(self) -> float:
        """The covering radius is at most this multiple (1 to 4) of the least possible one."""
        most = max(float(self.part_radii.max()), self.union_radius)
        return 2 * self.bound / most if most > 0 else 1.0


def k_center_of_parts(
    parts: Sequence[Part], k: int, start: int = 0, *, device: str = "cpu", mapper: Mapper = map
) -> KCenter:
    """k points of all parts, at most 4 times as far from any point as the best k points can be.

    `start`: the first pick, counted through all parts; every other part begins with its own first point, so the order
    of the parts changes nothing but the numbering (and the choice between equal distances).  `mapper(function, jobs)`
    works on the parts and yields the results in order: the built-in `map`, an executor's `map`, or for dask
    `lambda f, jobs: client.gather(client.map(f, jobs))`; give callables as parts where jobs travel to other processes.
    Raises PNIError for no parts, an empty part, parts of different d, k or `start` out of range, or features that are
    not finite.
    """
    shapes = list(mapper(_shape, parts))
    _require_shapes(shapes)
    ends = np.cumsum([n for n, _ in shapes])
    total = int(ends[-1])
    if not 1 <= k <= total:
        raise PNIError(f"coreset of {k} from {total} patches in {len(parts)} parts: ask for 1 to {total} (emb_ratio)")
    if not 0 <= start < total:
        raise PNIError(f"coreset start {start} is not among the {total} patches to choose from")
    first = np.zeros(len(parts), np.int64)
    home = int(np.searchsorted(ends, start, side="right"))
    offsets = np.concatenate([[0], ends[:-1]])
    first[home] = start - offsets[home]
    jobs = [(i, part, k, int(first[i]), device) for i, part in enumerate(parts)]
    chosen, vectors, radii = zip(*mapper(_select, jobs), strict=True)
    at = np.concatenate([offset + idx for offset, idx in zip(offsets, chosen, strict=True)])
    order = at.argsort()  # ties go to the lowest index, as in the whole
    union, at = np.concatenate(vectors)[order], at[order]
    picks, union_radius = _greedy(union, k, int(np.searchsorted(at, start)), device)
    return KCenter(at[picks], union[picks], np.array(radii), union_radius)


def covering_radius(
    parts: Sequence[Part], centres: Float[ndarray, "k d"], *, device: str = "cpu", mapper: Mapper = map
) -> float:
    """max over all points of all parts of the distance to the nearest centre, feature units (float32).

    A pass over everything: (points) k d multiplications, mostly more work than the selection itself.
    """
    return max(mapper(_farthest, [(part, centres, device) for part in parts]))


def rows_of_file(path: Path | str, low: int, high: int) -> Float[ndarray, "n d"]:
    """Vectors low ... high - 1 of a .npy file of features (..., d), memory-mapped."""
    features = np.load(path, mmap_mode="c", allow_pickle=False)  # copy-on-write, as torch wants it; nothing is written
    return features.reshape(-1, features.shape[-1])[low:high]


def parts_of_file(path: Path | str, n_parts: int) -> list[Part]:
    """`n_parts` equal stretches of a .npy file of features (..., d), read by whoever works on them.

    Raises PNIError when there are fewer vectors than parts.
    """
    features = np.load(path, mmap_mode="r", allow_pickle=False)
    n = features.size // features.shape[-1]
    if not 1 <= n_parts <= n:
        raise PNIError(f"{path}: {many(n, 'vector')} in {many(n_parts, 'part')}: ask for 1 to {n}")
    cuts = [n * i // n_parts for i in range(n_parts + 1)]
    return [partial(rows_of_file, path, low, high) for low, high in pairwise(cuts)]


def _load(part: Part) -> ndarray:
    return part() if callable(part) else part


def _shape(part: Part) -> tuple[int, ...]:
    return _load(part).shape


def _require_shapes(shapes: list[tuple[int, ...]]) -> None:
    if not shapes:
        raise PNIError("coreset: there are no parts: give at least one")
    for i, shape in enumerate(shapes):
        if len(shape) != 2 or shape[0] == 0:
            raise PNIError(f"coreset: part {i} is of shape {shape}: give features (n, d) with n of at least 1")
        if shape[1] != shapes[0][1]:
            raise PNIError(f"coreset: part {i} has {shape[1]} channels, part 0 has {shapes[0][1]}: use one backbone")


def _greedy(points: ndarray, k: int, start: int, device: str) -> tuple[Int64[ndarray, " n"], float]:
    """min(k, n) picks and the radius with which they cover the points; one pick more is made to know it."""
    picks, radii = greedy_k_center(points, min(k + 1, len(points)), start, device=device, return_radii=True)
    return picks[:k], float(radii[k - 1]) if len(points) > k else 0.0


def _select(job: tuple[int, Part, int, int, str]) -> tuple[Int64[ndarray, " n"], Float[ndarray, "n d"], float]:
    """A part's own selection: indices in the part, vectors, radius."""
    i, part, k, start, device = job
    points = _load(part)
    try:
        picks, radius = _greedy(points, k, start, device)
    except PNIError as fault:
        raise PNIError(f"part {i}: {fault}") from None
    return picks, np.ascontiguousarray(points[picks]), radius


def _farthest(job: tuple[Part, ndarray, str]) -> float:
    part, centres, device = job
    points, centred = _load(part), torch.from_numpy(np.ascontiguousarray(centres)).float().to(device)
    largest = 0.0
    for low in range(0, len(points), 16384):
        block = torch.from_numpy(np.array(points[low : low + 16384])).float().to(device)
        largest = max(largest, float(nearest(block, centred)[0].max()))
    return largest
