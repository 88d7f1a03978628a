"""What is recorded of a machine holds where a library or a module is missing, and what is asked of it is taken back."""

import importlib.metadata
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from tiny import SCATTERING, write_category

from pnilib import machine, neighbors
from pnilib.apps.reproduce.units import environment
from pnilib.detector.pni import PNI
from pnilib.detector.runs import manifest
from pnilib.machine import deterministic, deterministic_method, library_versions, peak_memory


def test_without_faiss_everything_works_and_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_category(tmp_path, n_train=4)
    before = PNI(SCATTERING).fit(data.train).predict(data.test)
    monkeypatch.setattr(neighbors, "faiss", None)
    assert neighbors.backends() == ["torch"]
    after = PNI(SCATTERING).fit(data.train).predict(data.test)
    for name in ("maps", "image_scores", "match_idx", "nearest_idx"):
        assert getattr(before, name).tobytes() == getattr(after, name).tobytes()
    assert manifest(SCATTERING, data.train, "cpu")["versions"]["faiss"] is None
    environment.cache_clear()
    try:
        assert environment()["versions"]["faiss"] is None
    finally:
        environment.cache_clear()


def test_versions_do_not_depend_on_what_a_distribution_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def as_conda_calls_them(name: str) -> str:
        if name.startswith("faiss"):
            raise importlib.metadata.PackageNotFoundError(name)
        return importlib.metadata.distribution(name).version

    expected = library_versions("torch")
    monkeypatch.setattr(importlib.metadata, "version", as_conda_calls_them)
    assert library_versions("torch") == expected and torch.__version__.startswith(expected["torch"] or "?")
    assert library_versions("no-such-library")["no-such-library"] is None
    if neighbors.faiss is not None:
        assert expected["faiss"] == neighbors.faiss.__version__


def test_peak_memory_is_in_bytes_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    now = psutil.Process().memory_info().rss
    assert now <= peak_memory() * 1.01 and peak_memory() < psutil.virtual_memory().total
    usage = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: SimpleNamespace(ru_maxrss=5000))
    monkeypatch.setattr(machine, "resource", usage)
    for platform, expected in (("linux", 5000 * 1024), ("darwin", 5000)):
        monkeypatch.setattr(sys, "platform", platform)
        assert peak_memory() == expected
    monkeypatch.setattr(machine, "resource", None)  # as on Windows
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=77))
    monkeypatch.setattr(psutil, "Process", lambda: process)
    assert peak_memory() == 77


def asked() -> tuple[bool, bool, str | None]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )


def test_deterministic_algorithms_are_asked_for_on_cuda_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    with deterministic("cpu"):
        assert asked() == (False, False, None)
    with pytest.raises(RuntimeError, match="mine"), deterministic("cuda:1"):
        with deterministic("cuda"):
            pass
        assert asked() == (True, True, ":4096:8")
        raise RuntimeError("mine")
    assert asked()[:2] == (False, False)
    torch.use_deterministic_algorithms(True)  # a caller who wants errors keeps them
    try:
        with deterministic("cuda"):
            assert asked()[:2] == (True, False)
        assert asked()[:2] == (True, False)
    finally:
        torch.use_deterministic_algorithms(False)


def test_the_estimator_works_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[str] = []

    @contextmanager
    def recorded(device: str) -> Iterator[None]:
        inside.append(device)
        yield

    monkeypatch.setattr(machine, "deterministic", recorded)
    assert deterministic_method(lambda owner, x: x + 1)(SimpleNamespace(device="cuda"), 2) == 3 and inside == ["cuda"]
    data = write_category(tmp_path, n_train=3)
    model = PNI(SCATTERING.replace(setting="A", calibration_images=0))
    for work in (
        lambda: model.fit(data.train),
        lambda: model.predict(data.test),
        lambda: model.embed(data.test.image(0, SCATTERING.geometry)),
        lambda: model.explain(data.test.image(0, SCATTERING.geometry)),
    ):
        inside.clear()
        work()
        assert inside and set(inside) == {"cpu"}
