"""NSA's tasks on one budget: what each is worth on test images while it learns, one row a task and epoch.

    python benchmarks/nsa_tasks.py mvtec --root DATA/mvtec_ad --category screw --size 128 --epochs 60 --batch 16 \\
        --tasks cutpaste fpi pii nsa-binary nsa-continuous nsa-logistic nsa-logistic-A nsa-logistic-C
    python benchmarks/nsa_tasks.py mvtec --root DATA/mvtec_ad --category screw --released     # the published schedule
    python benchmarks/nsa_tasks.py demo --root data/demo --size 128 --epochs 100 --batch 16 --beside-pni

--beside-pni adds, for each task, its maps averaged with those of `pni fit`'s default rule, and these alone, on its
grid.  Rows that the file has are not measured again, a killed training resumes: the same
command goes on.  On a GPU the published schedule of all tasks takes about an hour a category: add --device cuda
--workers 8.
"""

import argparse
import csv
import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pnilib import PNI, PNIConfig, evaluate, load_dataset
from pnilib.apps.cli.options import parse_options
from pnilib.data import Dataset, list_categories
from pnilib.nsa.config import ALL_TASKS, NSAConfig
from pnilib.nsa.detector import NSA, NSAPrediction
from pnilib.nsa.runs import fit_or_load
from pnilib.store.files import write_csv

COLUMNS = (
    "data", "options", "category", "task", "released", "size", "batch", "epochs", "precision", "seed", "device",
    "epoch", "samples", "i_auroc", "p_auroc", "aupro_30", "loss", "lost", "seconds",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="layout: demo, mtd, mvtec, ...")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--category", action="append", help="default: all; repeatable")
    parser.add_argument("--option", action="append", default=[], help="of the layout, as split=tile")
    parser.add_argument("--tasks", nargs="+", default=["nsa-logistic"], choices=list(ALL_TASKS), metavar="TASK")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=0, help="0: as published")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--released", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--points", type=int, default=4, help="of the learning curve")
    parser.add_argument("--beside-pni", action="store_true")
    parser.add_argument("--runs", type=Path, default=Path("runs/nsa"), help="models and checkpoints")
    parser.add_argument("--out", type=Path, default=Path("results/readme/nsa.csv"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=0)
    given = parser.parse_args()
    for category in given.category or list_categories(given.dataset, given.root):
        data = load_dataset(given.dataset, given.root, category, **parse_options(given.option))
        pni = PNI(PNIConfig.profile("small")).fit(data.train) if given.beside_pni else None
        for task in given.tasks:
            config = NSAConfig(
                task=task, released=given.released, size=given.size, epochs=given.epochs, batch=given.batch,
                precision=given.precision, seed=given.seed,
            )  # fmt: skip
            measure(config, data, given, pni)


def measure(config: NSAConfig, data: Dataset, given: argparse.Namespace, pni: PNI | None) -> None:
    """Fit one task; a row at each point of its learning curve, and one of the average with PNI."""
    key = {
        "data": given.dataset, "options": " ".join(given.option), "category": data.category, "task": config.task,
        "released": str(config.released), "size": str(config.size), "batch": str(config.batch),
        "epochs": str(config.epochs), "precision": config.precision, "seed": str(config.seed),
        "device": given.device,
    }  # fmt: skip

    def record(model: NSA, epoch: int, prediction: NSAPrediction, task: str = config.task) -> None:
        row = key | {"task": task, "epoch": str(epoch)}
        rows = read(given.out)
        if any(all(old[name] == value for name, value in row.items()) for old in rows):
            return
        found = evaluate(prediction, data.test).metrics
        values = {name: f"{100 * found[name]:.2f}" for name in ("i_auroc", "p_auroc", "aupro_30")}
        last = model.history[-1]
        facts = {"samples": epoch * len(data.train), "loss": f"{last['loss']:.5f}", "lost": int(last["lost"])}
        row |= values | {name: str(value) for name, value in facts.items()} | {"seconds": f"{model.seconds:.0f}"}
        write_csv(given.out, [*rows, row], COLUMNS)
        print(task, data.category, epoch, values, flush=True)

    def at_points(model: NSA, images: Any, epoch: int, file: Path) -> None:
        record(model, epoch, model.predict(data.test))

    words = [given.dataset, data.category, *given.option, config.task, str(config.size), str(config.epochs),
             str(config.batch), config.precision, "released" if config.released else "", str(config.seed)]  # fmt: skip
    folder = given.runs / "-".join(word for word in words if word)
    model = fit_or_load(
        data, config, folder, device=given.device, workers=given.workers, draw=at_points, n_pictures=given.points
    )
    prediction = model.predict(data.test)
    record(model, len(model.history), prediction)
    if pni is not None:
        for name, other in beside(model, prediction, pni, data).items():
            record(model, len(model.history), other, name)


def beside(model: NSA, prediction: NSAPrediction, pni: PNI, data: Dataset) -> dict[str, NSAPrediction]:
    """PNI's maps on NSA's grid, alone and averaged with NSA's.

    Maps: NSA's lie in [0, 1], PNI's are scaled so that its calibration images reach from 0 to 1.  Image scores: each in
    standard deviations above the mean of normal training images (PNI's leave-one-out), averaged.
    """
    theirs, calibration, side = pni.predict(data.test), pni.calibration, model.config.size
    assert calibration is not None
    maps = np.stack([cv2.resize(one, (side, side), interpolation=cv2.INTER_AREA) for one in theirs.maps])
    maps = (maps - calibration.low) / (calibration.high - calibration.low)
    normal = model.predict(data.train).image_scores, calibration.image_scores
    scores = [
        (found - known.mean()) / max(float(known.std()), 1e-12)
        for found, known in zip((prediction.image_scores, theirs.image_scores), normal, strict=True)
    ]
    both = (maps + prediction.maps) / 2, np.float32(sum(scores) / 2)
    return {
        "PNI": dataclasses.replace(prediction, maps=maps, image_scores=theirs.image_scores),
        f"{model.config.task} + PNI": dataclasses.replace(prediction, maps=both[0], image_scores=both[1]),
    }


def read(file: Path) -> list[dict[str, str]]:
    """Rows of the table so far."""
    if not file.exists():
        return []
    with file.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


if __name__ == "__main__":
    main()
