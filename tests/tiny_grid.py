"""A grid of runs that takes seconds: 64 px, a network of two iterations."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tiny import SCATTERING, write_category

from pnilib import evaluation
from pnilib.apps.reproduce import units
from pnilib.apps.reproduce.plan import ROLES, Request, Source, sources_of
from pnilib.config import PNIConfig
from pnilib.metrics import bootstrap_interval

OVERRIDES: dict[str, Any] = {
    name: value
    for name, value in SCATTERING.to_dict().items()
    if value != getattr(PNIConfig.profile("scattering"), name) and name != "seed"
} | dict(mlp_epochs=1, refine_iterations=2, pool_images=4, refine_crop=32, calibration_images=2, combine="score")


def resample_little(patch: pytest.MonkeyPatch, n: int = 20) -> None:
    """Intervals are most of a unit's work, and no part of its scores."""
    patch.setattr(units, "REPLICATES", n)
    patch.setattr(evaluation, "bootstrap_interval", partial(bootstrap_interval, n=n))


@pytest.fixture(scope="module")
def few_resamples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        resample_little(patch)
        yield


def tiny_data(root: Path, names: tuple[str, ...] = ("part",), **options: Any) -> Path:
    """MVTec-shaped categories that differ in their noise."""
    for seed, name in enumerate(names):
        write_category(root / "made", seed=seed, **options)
        (root / "data").mkdir(parents=True, exist_ok=True)
        shutil.move(root / "made" / "part", root / "data" / name)
    return root / "data"


def tiny_request(data: Path, dataset: str = "mvtec", **options: Any) -> Request:
    """MVTec AD's role for the data, none for BTAD's and VisA's, unless `dataset` is another."""
    found: tuple[Source, ...] = tuple(sources_of(dataset, data))
    sources = {role: found if role == "mvtec" or dataset != "mvtec" else () for role in ROLES}
    options = dict(seeds=(0,), network_seeds=(0,)) | options
    return Request("scattering", sources, overrides=OVERRIDES, **options)
