"""Exact nearest neighbors in a coreset: faiss, its GPU build where there is one, or plain torch.

    (d, j) = the k smallest ||q - v_j||_2, ties: the lowest j

Each backend proposes a few more candidates than asked for, in float32; the distances of these are then
computed as ||q - v|| in float64 and sorted.  All backends so return the same neighbors, unless more than `SPARE`
vectors are equal to within float32 rounding.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from pnilib.errors import PNIError

with warnings.catch_warnings():  # SWIG's own DeprecationWarnings
    warnings.simplefilter("ignore")
    try:
        import faiss
    except ImportError:  # a platform without a wheel: torch does the same work
        faiss = None  # type: ignore[assignment]

__all__ = ["backends", "faiss_version", "nearest"]

SPARE = 4
"""candidates beyond k that a backend proposes, so that rounding cannot hide a true neighbor."""
CHUNK = 4096
"""queries at a time."""


def faiss_version() -> str | None:
    """As the module states it, whatever its distribution is called; None without it."""
    return None if faiss is None else str(faiss.__version__)


def backends() -> list[str]:
    """Backends that work here, the preferred one first."""
    names = ["torch"]
    if faiss is not None:
        names.insert(0, "faiss")
        if getattr(faiss, "get_num_gpus", lambda: 0)() > 0:
            names.insert(0, "faiss-gpu")
    return names


def nearest(
    queries: Float32[Tensor, "n d"],
    vectors: Float32[Tensor, "m d"],
    k: int = 1,
    *,
    backend: str = "auto",
) -> tuple[Float32[Tensor, "n k"], Int64[Tensor, "n k"]]:
    """Distances (feature units, ascending) and indices of the k nearest vectors of each query.

    On a CUDA tensor `auto` is torch, so that nothing leaves the device; on a CPU tensor the first of
    `backends()`.  Raises PNIError for an unknown backend or k > m.
    """
    if backend == "auto":
        backend = "torch" if queries.is_cuda else backends()[0]
    if backend not in backends():
        raise PNIError(f"nearest-neighbor backend {backend!r} is not available: choose {', '.join(backends())}")
    if not 1 <= k <= len(vectors):
        raise PNIError(f"{k} neighbors asked for in a coreset of {len(vectors)}: choose 1 to {len(vectors)}")
    width = min(k + SPARE, len(vectors))
    propose = _torch_candidates(vectors) if backend == "torch" else _faiss_candidates(vectors, backend)
    distances, indices = [], []
    for chunk in queries.split(CHUNK):
        candidates = propose(chunk, width).sort(1).values
        exact_sq = ((chunk.double()[:, None] - vectors[candidates].double()) ** 2).sum(2)
        order = exact_sq.argsort(dim=1, stable=True)[:, :k]
        distances.append(exact_sq.gather(1, order).sqrt().float())
        indices.append(candidates.gather(1, order))
    if not distances:
        return queries.new_empty(0, k), torch.empty(0, k, dtype=torch.int64, device=queries.device)
    return torch.cat(distances), torch.cat(indices)


def _torch_candidates(vectors: Float32[Tensor, "m d"]) -> Callable[[Tensor, int], Tensor]:
    mean = vectors.mean(0)
    centred = vectors - mean
    norm_sq = (centred**2).sum(1)

    def propose(chunk: Float32[Tensor, "b d"], width: int) -> Int64[Tensor, "b width"]:
        sq = torch.addmm(norm_sq, chunk - mean, centred.T, alpha=-2)
        return sq.topk(width, dim=1, largest=False).indices

    return propose


def _faiss_candidates(vectors: Float32[Tensor, "m d"], backend: str) -> Callable[[Tensor, int], Tensor]:
    mean = vectors.mean(0)
    index: Any = faiss.IndexFlatL2(vectors.shape[1])
    if backend == "faiss-gpu":
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    index.add((vectors - mean).cpu().numpy())

    def propose(chunk: Float32[Tensor, "b d"], width: int) -> Int64[Tensor, "b width"]:
        found = index.search((chunk - mean).cpu().numpy(), width)[1]
        return torch.from_numpy(found).to(chunk.device)

    return propose
