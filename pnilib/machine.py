"""What numbers depend on beside the code: versions of libraries, algorithms of a GPU; and the memory they took.

On a CPU the same seed gives the same bytes on the same machine.  On CUDA torch picks sums in a changing order unless it
is asked not to: `deterministic` asks.  Of the operations here, none is on torch's list of those without a deterministic
algorithm (torch.use_deterministic_algorithms, 2.14): what has one is slower, as the gradient of bilinear resizing in
the refinement network.  Should a version lack one, torch warns and goes on; last digits may then differ.  Another GPU,
driver or version of torch gives other last digits in any case.
"""

import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import psutil
import torch

from pnilib.neighbors import faiss_version

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]

__all__ = ["deterministic", "deterministic_method", "library_versions", "peak_memory"]

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def deterministic(device: str) -> Iterator[None]:
    """On CUDA, torch's deterministic algorithms within the block, where they exist; elsewhere nothing.

    CUBLAS_WORKSPACE_CONFIG, which cuBLAS reads when the process first uses it, is set unless the caller has set it.
    """
    if torch.device(device).type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if not before[0]:  # whoever asked for more than warnings keeps it
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def deterministic_method(method: Callable[P, R]) -> Callable[P, R]:
    """A method that runs within `deterministic` of its object's `device`."""

    @wraps(method)
    def within(*args: P.args, **kwargs: P.kwargs) -> R:
        owner: Any = args[0]
        with deterministic(owner.device):
            return method(*args, **kwargs)

    return within


def library_versions(*names: str) -> dict[str, str | None]:
    """Versions of installed distributions, None for those that are not there; `faiss` always, whatever it is called.

    conda's distributions of faiss are named otherwise than the wheels, hence the version that the module states.
    """
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found | {"faiss": faiss_version()}


def peak_memory() -> int:
    """Bytes of main memory that this process has used at most so far."""
    if resource is None:
        return int(psutil.Process().memory_info().peak_wset)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit
