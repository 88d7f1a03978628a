"""Shapes and types of the whole package are checked while the tests run; one thread a test process."""

import os
from importlib import import_module

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch loads, by notebooks' kernels too

from jaxtyping import install_import_hook

LIBRARIES = (
    "IPython.display", "anywidget", "cv2", "faiss", "ipywidgets", "matplotlib.pyplot", "nbconvert", "nbformat",
    "pandas", "plotly.graph_objects", "pooch", "requests", "safetensors.torch", "scipy.fft", "scipy.ndimage",
    "skimage.measure", "torch", "typer",
)  # fmt: skip
SLOWEST = ("test_notebooks.py", "test_result_notebooks.py")


def pytest_configure(config: pytest.Config) -> None:
    """What pnilib's modules load would be compiled anew in each process, did the hook see it: it goes first."""
    if not config.getoption("numprocesses", None):  # not in the process that only hands out the tests
        for name in LIBRARIES:
            import_module(name)
    install_import_hook("pnilib", "strict_types.check")
