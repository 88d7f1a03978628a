"""Shapes and types of the whole package are checked while the tests run; one thread a test process; slow data once."""

import os
from importlib import import_module
from pathlib import Path

import filelock
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch loads, by notebooks' kernels too

from jaxtyping import install_import_hook

LIBRARIES = (
    "IPython.display", "anywidget", "cv2", "faiss", "ipywidgets", "matplotlib.pyplot", "nbconvert", "nbformat",
    "pandas", "pooch", "requests", "safetensors.torch", "scipy.fft", "scipy.ndimage",
    "skimage.measure", "torch", "typer",
)  # fmt: skip
SLOWEST = ("test_notebooks.py", "test_result_notebooks.py", "test_explore_browser.py")
"""Files that start first, so that none of them is left alone at the end."""


def pytest_configure(config: pytest.Config) -> None:
    """What pnilib's modules load would be compiled anew in each process, did the hook see it: it goes first."""
    if not config.getoption("numprocesses", None):  # not in the process that only hands out the tests
        for name in LIBRARIES:
            import_module(name)
    install_import_hook("pnilib", "strict_types.check")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: [*SLOWEST, item.path.name].index(item.path.name))


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo data at full size, drawn once for all test processes.  Only to be read."""
    from pnilib.demo import make_demo

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with filelock.FileLock(shared / "demo-data.lock"):
        return make_demo(shared / "demo-data", progress=False)
