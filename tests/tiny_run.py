"""A finished run of two tiny categories, as the explorer opens it: a store of `pni reproduce`, made by its own writer.

Each category has one false positive and one false negative at the F1-optimal threshold: a blemished image among the
normal ones, and a training image among the defective ones.
"""

import os
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny import SCATTERING
from tiny_grid import resample_little, tiny_data, tiny_request

from pnilib.apps.reproduce.plan import build_plan, slug
from pnilib.apps.reproduce.schedule import execute
from pnilib.store.artefacts import write_artefact
from pnilib.store.files import write_json

__all__ = ["CATEGORIES", "ODD", "SETTINGS", "make_run", "tiny_store", "write_data", "write_unit"]

CATEGORIES = ("one", "two parts")
ODD = """a "b" 'c' <b>&$x`ü.png"""
"""Name of the second category's last defective image."""
SETTINGS = ["A", "B", "E", "PNI"]


def write_data(folder: Path) -> Path:
    """MVTec-shaped, 4 training and 4 + 4 test images a category; returns the root."""
    data = tiny_data(folder, CATEGORIES, n_train=4, n_good=4, n_bad=4)
    for name in CATEGORIES:
        good, bad = (sorted((data / name / "test" / kind).iterdir()) for kind in ("good", "bad"))
        os.replace(bad[1], good[0])
        shutil.copy(min((data / name / "train/good").iterdir()), bad[1])
    last = max((data / CATEGORIES[1] / "test/bad").iterdir())
    masks = data / CATEGORIES[1] / "ground_truth/bad"
    os.rename(masks / f"{last.stem}_mask.png", masks / ODD.replace(".png", "_mask.png"))
    os.rename(last, last.with_name(ODD))
    return data


def make_run(folder: Path) -> Path:
    """Write folder/data and folder/store; returns the store.  Seconds."""
    plan = build_plan(tiny_request(write_data(folder)), SETTINGS, switches=False)
    with pytest.MonkeyPatch.context() as patch:
        resample_little(patch, 5)
        failed = execute(plan, folder / "store")
    assert not failed, failed
    return folder / "store"


def write_unit(
    folder: Path,
    scores: Sequence[float],
    labels: Sequence[int],
    *,
    settings: Sequence[str] = ("E",),
    names: Sequence[str] | None = None,
    maps: bool = False,
    metrics: dict[str, Any] | None = None,
    **unit: Any,
) -> Path:
    """A finished unit by hand, without a data set; returns its folder."""
    names = [f"part/test/{i:03}.png" for i in range(len(scores))] if names is None else names
    config = SCATTERING.to_dict()
    kinds = [{0: "good", 1: "bad", -1: "unknown"}.get(label, "?") for label in labels]
    for setting in settings:
        place = folder / slug(setting)
        write_artefact(
            place, {}, dict(setting=setting, metrics=metrics or {}, notes=[], limits=[0.0, 1.0], config=config)
        )
        table = dict(image=names, label=labels, defect_type=kinds, score=np.array(scores, np.float32))
        pd.DataFrame(table).to_csv(place.with_name(f"{place.name}.scores.csv"), index=False)
        if maps:
            np.save(place.with_name(f"{place.name}.maps.npy"), np.zeros((len(scores), 64, 64), np.float32))
    source = dict(dataset="mvtec", category="part", root="/nowhere/data", options=[])
    found = dict(kind="fit", name="settings", member="scattering", seed=0, needs=[], source=source, data="d1") | unit
    write_json(folder / "unit.json", found | {"settings": list(settings)})
    return folder


@cache
def _made(folder: Path) -> Path:
    return make_run(folder)


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, made once a session whichever test files import this.  Not to be changed: copy it."""
    return _made(tmp_path_factory.getbasetemp() / "tiny-run")
