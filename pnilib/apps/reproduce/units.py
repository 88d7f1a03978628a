"""What one unit does, and what it leaves on disk: called alike by a serial run and by a Dask worker.

unit.json            the unit, versions, device, seconds, peak memory: written last, so a folder with it is finished
failed.json          instead: why it failed
model/               of a fit
<setting>/           metrics, notes, thresholds (meta.json); curves and bootstrap replicates
<setting>.scores.csv one line an image
<setting>.maps.npy   float32 (n, h, w), where the plan keeps them
"""

import contextlib
import dataclasses
import hashlib
import math
import os
import platform
import shutil
import subprocess
import time
import traceback
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy import ndarray

from pnilib.apps.reproduce.plan import Unit, slug, to_json
from pnilib.config import PNIConfig
from pnilib.data import Dataset, Split
from pnilib.detector.ensembles import ensemble_predictions
from pnilib.detector.fitting import make_features
from pnilib.detector.pni import PNI
from pnilib.detector.prediction import Calibration, Prediction
from pnilib.detector.refine import refine
from pnilib.detector.training_pool import build_pool
from pnilib.errors import PNIError
from pnilib.evaluation import checked_test, evaluate
from pnilib.features.extraction import Embedder
from pnilib.machine import library_versions, peak_memory
from pnilib.metrics import PixelStatistics, image_auroc
from pnilib.metrics.resampling import METRICS, bootstrap_metrics
from pnilib.plots.curves import histogram_edges
from pnilib.store.artefacts import read_artefact, write_artefact
from pnilib.store.files import atomic_write, os_errors, write_csv, write_json
from pnilib.store.text import shown
from pnilib.store.version import pnilib_version

__all__ = ["REPLICATES", "environment", "run_unit", "write_setting"]

REPLICATES = 500
"""Resampled test sets behind every interval."""
BINS = 120
"""of the pixel histograms."""
POINTS = 400
"""of a stored precision-recall curve."""


def run_unit(unit: Unit, store: Path | str, device: str = "cpu", threads: int = 1, progress: bool = False) -> str:
    """Do the work; returns "" when it is finished, or one line that says why it failed, kept in failed.json.

    `threads`: of PyTorch, the same for every unit, since sums in another order differ in the last digit.
    """
    torch.set_num_threads(threads)
    folder = Path(store) / unit.id
    work = Path(store) / unit.group
    began = time.perf_counter()
    try:
        with os_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "failed.json").unlink(missing_ok=True)
        _KINDS[unit.kind](unit, Path(store), folder, work, device, progress)
        facts = {
            "seconds": round(time.perf_counter() - began, 2), "device": device, "threads": threads,
            "peak_memory": peak_memory(),
        }  # fmt: skip
        write_json(folder / "unit.json", to_json(unit) | facts | environment())
        return ""
    except Exception as fault:  # one bad run must not end the others
        line = str(fault) if isinstance(fault, PNIError) else f"{type(fault).__name__}: {fault}"
        line = " ".join(line.split())
        with contextlib.suppress(PNIError):  # a full disk, say: the line itself goes back
            write_json(folder / "failed.json", {"error": line, "traceback": traceback.format_exc()})
        return line


@lru_cache(maxsize=1)
def environment() -> dict[str, Any]:
    """Commit and versions that numbers come from."""
    try:
        here = Path(__file__).parent
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=here,
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
        commit = answer.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "not a checkout"
    versions = {"pnilib": pnilib_version(), "python": platform.python_version()}
    return {
        "commit": commit,
        "versions": versions | library_versions("torch", "torchvision", "timm", "numpy", "scikit-learn"),
    }


def _load(unit: Unit) -> Dataset:
    """The unit's data set, once every test image and mask was read: a damaged one stops the unit at its beginning."""
    data = unit.source.load()
    checked_test(data, unit.config.geometry)
    return data


def _make_features(unit: Unit, store: Path, folder: Path, work: Path, device: str, progress: bool) -> None:
    make_features(_load(unit).train, Embedder(unit.config, device), work, device=device, progress=progress)


def _fit(unit: Unit, store: Path, folder: Path, work: Path, device: str, progress: bool) -> None:
    """Scores all settings of the unit; keeps the model of setting E, which networks need, or else of the first."""
    data = _load(unit)
    model = PNI(unit.config.replace(calibration_images=0), device).fit(data.train, workdir=work, progress=progress)
    missing = {name: config.replace(calibration_images=0) for name, config in unit.variants.items()}
    kept = "E" if "E" in missing else next(iter(missing))
    found: dict[str, Prediction] = {}
    while missing:
        group = {name: config for name, config in missing.items() if _fits(model, config)}
        if not group:  # |C_emb| below |C_dist|: its C_dist and network are smaller too
            fitted = next(iter(missing.values())).replace(setting=unit.config.setting)  # with all that the others need
            model = PNI(fitted, device).fit(data.train, workdir=work, progress=progress)
            group = {name: config for name, config in missing.items() if _fits(model, config)}
        if kept in group:
            model.save(folder / "model")
        found |= model.predict_variants(data.test, group, progress=progress)
        for name in group:
            del missing[name]
            calibration = None
            if name in unit.keep_maps and unit.config.calibration_images > 0:
                own = model.with_config(**unit.variants[name].to_dict())
                calibration = own.calibrate(data.train, progress=progress)
                threshold, note = own.decision()
                found[name] = dataclasses.replace(found[name], threshold=threshold, threshold_note=note)
            write_setting(folder, name, found.pop(name), data, calibration, name in unit.keep_maps)


def _fits(model: PNI, config: PNIConfig) -> bool:
    try:
        model.with_config(**config.to_dict())
    except PNIError:
        return False
    return True


def _build_pool(unit: Unit, store: Path, folder: Path, work: Path, device: str, progress: bool) -> None:
    data = _load(unit)
    build_pool(_model(unit, store, device), data.train, work / f"seed{unit.config.seed}" / unit.source.category,
               unit.source.category, progress=progress)  # fmt: skip


def _train_network(unit: Unit, store: Path, folder: Path, work: Path, device: str, progress: bool) -> None:
    data = _load(unit)
    pair = {unit.source.category: (_model(unit, store, device), data.train)}
    pools = work / f"seed{unit.config.seed}"
    refined = refine(pair, pools, keep_folds=True, progress=progress)[unit.source.category]
    prediction = refined.predict(data.test, refined=True, progress=progress)
    write_setting(folder, unit.name, prediction, data, refined.refined_calibration, unit.name in unit.keep_maps)


def _model(unit: Unit, store: Path, device: str) -> PNI:
    """The detector that this unit needs, under its configuration."""
    detector = next(need for need in unit.needs if need.kind == "fit")
    return PNI.load(store / detector.id / "model", device).with_config(**unit.config.to_dict())


def _average(unit: Unit, store: Path, folder: Path, work: Path, device: str, progress: bool) -> None:
    data = unit.source.load()
    predictions, calibrations = [], []
    for part in unit.needs:
        place = store / part.id / slug(part.name)
        meta = read_artefact(place)[1]
        maps = np.load(place.with_name(place.name + ".maps.npy"), mmap_mode="r", allow_pickle=False)
        scores = pd.read_csv(place.with_name(place.name + ".scores.csv"))["score"].to_numpy(np.float32)
        empty = np.zeros((len(maps), 1, 1), np.int32)
        predictions.append(
            Prediction(
                part.config, meta["images"], maps, scores, empty.astype(np.float32), empty, empty, math.nan, True
            )
        )
        limits = meta["calibration"]
        calibrations.append(None if limits is None else Calibration(np.zeros(0, np.float32), *limits))
    together = ensemble_predictions(predictions, calibrations, ens_norm=unit.config.ens_norm)
    paths = [str(path) for path in data.test.samples["image_path"]]
    together = dataclasses.replace(together, image_paths=paths, refined=True)
    write_setting(folder, unit.name, together, data, None, unit.name in unit.keep_maps)


_KINDS = {
    "features": _make_features, "fit": _fit, "pool": _build_pool, "network": _train_network, "ensemble": _average,
}  # fmt: skip


def write_setting(
    folder: Path, name: str, prediction: Prediction, data: Dataset, calibration: Calibration | None, keep_maps: bool
) -> None:
    """The files of one setting in a unit's folder; `keep_maps`: all anomaly maps too."""
    test, place = data.test, folder / slug(name)
    result = evaluate(prediction, test)
    labels, defects = test.samples["label"].to_numpy(), test.samples["defect_type"].to_numpy()
    masks = [
        None if mask is None or label < 0 else mask.numpy()
        for mask, label in ((test.mask(i, prediction.config.geometry), labels[i]) for i in range(len(test)))
    ]
    known = np.flatnonzero(labels >= 0)
    seed = int.from_bytes(hashlib.sha256(f"{data.name} {data.category}".encode()).digest()[:4])
    replicates = bootstrap_metrics(
        prediction.maps[known], [masks[i] for i in known], prediction.image_scores[known].astype(np.float64),
        labels[known], result.metrics, n=REPLICATES, seed=seed,
    )  # fmt: skip
    by_defect = {
        str(kind): image_auroc(prediction.image_scores[part], labels[part])
        for kind in sorted(set(defects[labels == 1]))
        if (labels == 0).any() and (part := (labels == 0) | ((labels == 1) & (defects == kind))).any()
    }
    names = image_names(test)
    table = pd.DataFrame(dict(image=names, label=labels, defect_type=defects, score=prediction.image_scores))
    write_csv(folder / f"{slug(name)}.scores.csv", table)
    if keep_maps:
        with atomic_write(folder / f"{slug(name)}.maps.npy", "wb") as handle:
            np.lib.format.write_array(handle, np.ascontiguousarray(prediction.maps), allow_pickle=False)
    write_artefact(
        place,
        {
            "curves": {
                key: torch.from_numpy(values)
                for key, values in _curves(prediction.maps, masks, result.metrics["p_threshold"]).items()
            },
            "replicates": {metric: torch.from_numpy(values) for metric, values in replicates.items()},
        },
        {
            "setting": name,
            "metrics": {key: _number(value) for key, value in result.metrics.items()},
            "interval": {metric: _interval(replicates[metric]) for metric in METRICS},
            "by_defect": {key: _number(value) for key, value in by_defect.items()},
            "notes": result.notes,
            "n_normal": result.n_normal,
            "n_defective": result.n_defective,
            "limits": [float(q) for q in np.quantile(prediction.maps, [0.5, 0.999])],
            "calibration": None if calibration is None else [calibration.low, calibration.high],
            "images": names,
            "digests": [test.digest(i) for i in range(len(test))],
            "config": prediction.config.to_dict(),
        },
    )


def image_names(split: Split) -> list[str]:
    """Each image's path within its data set, the same wherever that lies; of images outside it, within the folder that
    holds them all.  As text: undecodable bytes are `\\xNN`."""
    paths = [Path(path) for path in split.samples["image_path"]]
    root = split.root
    if not all(path.is_relative_to(root) for path in paths):
        root = Path(os.path.commonpath([path.parent for path in paths]))
    return [shown(path.relative_to(root).as_posix()) for path in paths]


def _interval(replicates: ndarray) -> list[float | None]:
    """95 %, percentiles of the replicates that have a value."""
    values = replicates[np.isfinite(replicates)]
    return [None, None] if len(values) == 0 else [float(q) for q in np.quantile(values, [0.025, 0.975])]


def _curves(maps: ndarray, masks: list[ndarray | None], threshold: float) -> dict[str, ndarray]:
    """Pixel precision-recall curve, and histograms of the scores of normal and defective pixels on common bins."""
    pairs = [(found, mask) for found, mask in zip(maps, masks, strict=True) if mask is not None]
    if not pairs or not any(mask.any() for _, mask in pairs):
        return {}
    curve = PixelStatistics.from_maps(*zip(*pairs, strict=True)).pr_curve(POINTS)
    edges = histogram_edges(float(maps.min()), float(maps.max()), threshold, BINS)
    parts = {
        name: np.concatenate([found[mask == wanted] for found, mask in pairs])
        for name, wanted in (("normal", False), ("defective", True))
    }
    counts = {name: np.histogram(values, edges)[0].astype(np.int64) for name, values in parts.items()}
    return {"recall": curve.recall, "precision": curve.precision, "edges": edges} | counts


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def drop_work(unit: Unit, store: Path | str) -> None:
    """Delete the intermediate work of the unit's category and backbone."""
    shutil.rmtree(Path(store) / unit.group, ignore_errors=True)
