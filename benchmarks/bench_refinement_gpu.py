"""The paper's refinement network on an accelerator: iterations/s, peak memory, time to 55,000 iterations.

    python benchmarks/bench_refinement_gpu.py --device cuda          480 px, batch 8, fp32 and bf16
    python benchmarks/bench_refinement_gpu.py --tiny                 the same steps in a minute on a CPU

Beside it: samples/s of the defect generators on one core, against the samples/s that the training takes.  Images are
noise, maps their blurred masks, weights random: times depend on none of them.  The pool lies in a temporary folder,
read and augmented as in `pni refine`.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import safetensors.numpy
import torch

from pnilib.config import PNIConfig
from pnilib.refinement.pool import Pool
from pnilib.refinement.training import train_network
from pnilib.synthesis import synthesize


def fill(folder: Path, n: int, side: int) -> tuple[Pool, float]:
    """A pool of `n` images, and how many of them a second one core generates."""
    rng = np.random.default_rng(0)
    clean = cv2.GaussianBlur(rng.integers(0, 256, (side, side, 3), dtype=np.uint8), (0, 0), 2)
    seconds = 0.0
    for k in range(40):  # the first of each kind draws the library of patches
        synthesize(clean, PNIConfig().defects, k)
    for k in range(n):
        began = time.perf_counter()
        found = synthesize(clean, PNIConfig().defects, k)
        seconds += time.perf_counter() - began
        blurred = cv2.GaussianBlur(found.mask.astype(np.float32), (0, 0), 8).astype(np.float16)
        path = folder / "000" / f"{k:06}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        safetensors.numpy.save_file({"image": found.image, "map": blurred, "mask": found.mask}, path)
    return Pool("noise", folder, n, 0.0, 1.0), n / seconds


def measure(pool: Pool, config: PNIConfig, device: str, iterations: int) -> dict[str, Any]:
    """Iterations/s after a warm-up of a tenth, and the peak memory of the device."""
    on_gpu = torch.device(device).type == "cuda"
    warm = max(2, iterations // 10)

    def seconds(n: int) -> float:
        began = time.perf_counter()
        train_network([pool], config.replace(refine_iterations=n), device=device)
        if on_gpu:
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    seconds(warm)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    short, long = seconds(warm), seconds(warm + iterations)  # their difference leaves out building the network
    rate = iterations / (long - short)
    return {
        "precision": config.refine_precision,
        "iterations_per_s": round(rate, 2),
        "samples_per_s": round(rate * config.refine_batch, 1),
        "minutes_to_55000": round(55_000 / rate / 60, 1),
        "peak_memory_gb": round(torch.cuda.max_memory_allocated(device) / 1e9, 2) if on_gpu else None,
    }


def main() -> None:
    """Print one JSON document, or a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--images", type=int, default=256, help="images in the pool")
    parser.add_argument("--tiny", action="store_true", help="a small network and images, for a CPU")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    config, n, iterations = PNIConfig(refine_weights="random"), options.images, options.iterations
    if options.tiny:
        small = {key: value for key, value in PNIConfig.profile("smoke").to_dict().items() if key.startswith("refine_")}
        config, n, iterations = PNIConfig(**small, image_resize=96, image_crop=96), 16, 10
    with tempfile.TemporaryDirectory() as folder:
        pool, generated = fill(Path(folder), n, config.image_crop)
        rows = [
            measure(pool, config.replace(refine_precision=precision), options.device, iterations)
            for precision in ("fp32", "bf16")
        ]
    facts = {
        "device": torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else options.device,
        "side": config.image_crop,
        "batch": config.refine_batch,
        "generated_per_s_one_core": round(generated, 1),
        "training": rows,
    }
    if options.json:
        print(json.dumps(facts, indent=2))
        return
    print(f"{facts['device']}, {facts['side']} px, batch {facts['batch']}")
    for row in rows:
        memory = "" if row["peak_memory_gb"] is None else f", {row['peak_memory_gb']} GB"
        print(
            f"{row['precision']}: {row['iterations_per_s']} it/s = {row['samples_per_s']} samples/s{memory}; "
            f"55,000 iterations in {row['minutes_to_55000']} min"
        )
    print(f"generators: {facts['generated_per_s_one_core']} samples/s on one core")


if __name__ == "__main__":
    main()
