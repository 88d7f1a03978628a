"""The paper's profile on one category, stage by stage: seconds and peak memory on an accelerator.

    python benchmarks/bench_paper_gpu.py --device cuda     209 training images of 480 px, as MVTec's bottle
    python benchmarks/bench_paper_gpu.py --tiny            the same steps in a minute on a CPU
    ... --work FOLDER    features (3 GB) and stages go there, and a stopped run goes on; else to a temporary folder

Images are noise and the weights random (nothing is downloaded): times do not depend on either, except for the
greedy selection, which is slower on noise than on photographs.  The estimate made beforehand is printed next to it.
"""

import argparse
import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from pnilib.apps.estimate import Speeds, estimate, total
from pnilib.config import PNIConfig
from pnilib.data import Split
from pnilib.detector.pni import PNI
from pnilib.machine import peak_memory


def images_in(folder: Path, n: int, side: int, split: str) -> Split:
    """Smooth noise, written once; the same files again on a second call."""
    rows = []
    for i in range(n):
        path = folder / split / f"{i:04}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng([i, split == "test"])
            small = Image.fromarray(rng.integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8))
            small.resize((side, side), Image.Resampling.BICUBIC).save(path)
        rows.append({"image_path": str(path), "mask_path": None, "label": 0, "defect_type": "good", "split": split})
    return Split(pd.DataFrame(rows).assign(mask_path=None), folder)


def run(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    config = PNIConfig(weights="random")
    n_train, n_test = options.train or 209, options.test or 83
    if options.tiny:
        config = config.replace(backbone="resnet18", image_resize=128, image_crop=128, dim=64, dist_size=64, patch=5,
                                mlp_layers=3, mlp_width=64, mlp_epochs=2, calibration_images=4)  # fmt: skip
        n_train, n_test = options.train or 12, options.test or 4
    train, test = (images_in(work, n, config.image_resize, s) for n, s in ((n_train, "train"), (n_test, "test")))
    expected = estimate(config, n_train, n_test, Speeds(config, n_train, options.device))
    on_gpu = torch.device(options.device).type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(options.device)
    model = PNI(config, options.device).fit(train, workdir=work / "stages", progress=not options.json)
    began = time.perf_counter()
    model.predict(test, progress=not options.json)
    measured = model.seconds | {"scoring": time.perf_counter() - began}
    return {
        "device": torch.cuda.get_device_name(options.device) if on_gpu else "cpu",
        "torch": torch.__version__,
        "n_train": n_train,
        "n_test": n_test,
        "seconds": measured,
        "estimated_seconds": {name: cost.seconds for name, cost in expected.items()},
        "peak_gpu_gb": torch.cuda.max_memory_allocated(options.device) / 1e9 if on_gpu else None,
        "peak_host_gb": peak_memory() / 1e9,
        "estimated_gb": total(expected.values()).memory / 1e9,
        "loss": [row["loss"] for row in model.history],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--train", type=int, help="training images; 209, or 12 with --tiny")
    parser.add_argument("--test", type=int, help="test images; 83, or 4 with --tiny")
    parser.add_argument("--work", type=Path, help="folder for images, features and stages; kept")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    temporary = contextlib.nullcontext(options.work) if options.work else tempfile.TemporaryDirectory()
    with temporary as folder:
        report = run(options, Path(folder))
    if options.json:
        print(json.dumps(report))
        return
    print(f"\n{report['n_train']} training and {report['n_test']} test images on {report['device']}\n")
    print("| stage | seconds | estimated |\n|---|---:|---:|")
    for name, seconds in report["seconds"].items():
        print(f"| {name} | {seconds:.1f} | {report['estimated_seconds'][name]:.1f} |")
    print(f"\nfit and score: {sum(report['seconds'].values()):.0f} s; ", end="")
    if report["peak_gpu_gb"] is not None:
        print(f"peak on the GPU {report['peak_gpu_gb']:.1f} GB, ", end="")
    print(f"on the host {report['peak_host_gb']:.1f} GB; estimated {report['estimated_gb']:.1f} GB")


if __name__ == "__main__":
    main()
