"""Greedy k-center by parts against the exact one: radius, time and memory, in one run.

    python benchmarks/bench_coreset_parts.py            both kinds of features, 2, 4 and 8 parts, 1 %
    python benchmarks/bench_coreset_parts.py --json     the same as one JSON object

`clusters`: 50,000 x 128, 1,000 Gaussian clusters of very unequal size (Zipf), shuffled.  `demo`: the standardised
scattering features (d = 64) of the demo category `weave`, 24 x 24 cells an image, written to a temporary folder first.
All numbers are ratios to the exact selection, times of processor seconds.  radius: covering radius by an exhaustive
pass.  factor: what the selection proved (at most so many times the least possible radius; greedy on the whole proves
2).  one machine: the parts one after another, and the union; a machine each: the slowest part, and the union.  Memory:
growth of a fresh process, its features loaded into memory, by the whole, by one part, and by the union.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_coreset import Peak

from pnilib.config import PNIConfig
from pnilib.coreset import coreset_size
from pnilib.coreset_parts import covering_radius, k_center_of_parts, parts_of_file
from pnilib.data import load_dataset
from pnilib.demo import make_demo
from pnilib.features.extraction import Embedder, extract, raw_features
from pnilib.k_center import greedy_k_center

KINDS = ("clusters", "demo")


def clusters(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Float32 (n, d)."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, 1001)
    centres = rng.standard_normal((1000, d), dtype=np.float32)
    which = rng.choice(1000, n, p=share / share.sum())
    return centres[which] + np.float32(0.2) * rng.standard_normal((n, d), dtype=np.float32)


def write_features(kind: str, folder: Path, options: argparse.Namespace) -> Path:
    """features.npy (n, d)."""
    if kind == "clusters":
        flat = clusters(options.n, options.d)
    else:
        make_demo(folder / "data", categories=["weave"], progress=False)
        train = load_dataset("demo", folder / "data", "weave").train
        embedder = Embedder(PNIConfig.profile("demo"))
        embedder.fit_norm(raw_features(train, embedder, progress=False))
        maps = extract(train, embedder, progress=False)
        flat = maps.reshape(-1, maps.shape[-1])
    np.save(folder / "features.npy", flat)
    return folder / "features.npy"


def seconds_of_parts(path: Path, n_parts: int, k: int) -> tuple[list[float], float, Any]:
    """Seconds of each part, seconds of the rest, and what was selected."""
    spent: list[float] = []

    def mapper(function: Any, jobs: Any) -> Any:
        for job in jobs:
            began = time.process_time()
            yield function(job)
            spent.append(time.process_time() - began)

    began = time.process_time()
    found = k_center_of_parts(parts_of_file(path, n_parts), k, mapper=mapper)
    whole = time.process_time() - began
    return spent[n_parts:], whole - sum(spent), found  # the first round reads shapes only


def memory_of(path: Path, low: int, high: int, k: int, threads: int) -> int:
    """Peak growth in a fresh process that loads some rows and selects from them, bytes."""
    command = [sys.executable, __file__, "--threads", str(threads), "--memory", str(path), *map(str, (low, high, k))]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure_memory(path: str, low: int, high: int, k: int) -> int:
    greedy_k_center(np.random.default_rng(0).random((5000, 64), dtype=np.float32), 5)  # libraries are loaded
    with Peak() as peak:
        rows = np.array(np.load(path, mmap_mode="r", allow_pickle=False)[low:high])
        greedy_k_center(rows, min(k + 1, len(rows)))
    return peak.growth


def compare(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        path = write_features(kind, Path(name), options)
        flat = np.load(path, allow_pickle=False)
        k = coreset_size(len(flat), options.ratio)
        greedy_k_center(flat[:5000], 5)
        began = time.process_time()
        picks, radii = greedy_k_center(flat, k + 1, return_radii=True)
        exact_s, radius = time.process_time() - began, float(radii[k - 1])
        exact_memory = memory_of(path, 0, len(flat), k, options.threads)
        random_picks = np.random.default_rng(0).choice(len(flat), k, replace=False)
        rows = []
        for n_parts in options.parts:
            parts_s, rest_s, found = seconds_of_parts(path, n_parts, k)
            np.save(Path(name) / "union.npy", flat[np.resize(random_picks, n_parts * k)])
            rows.append(
                dict(
                    parts=n_parts,
                    radius=covering_radius([flat], found.vectors) / radius,
                    bound=found.bound / radius,
                    factor=found.factor,
                    same_picks=len(np.intersect1d(found.picks, picks[:k])) / k,
                    one_machine=(sum(parts_s) + rest_s) / exact_s,
                    machine_each=(max(parts_s) + rest_s) / exact_s,
                    part_memory=memory_of(path, 0, -(-len(flat) // n_parts), k, options.threads) / exact_memory,
                    union_memory=memory_of(Path(name) / "union.npy", 0, n_parts * k, k, options.threads) / exact_memory,
                )
            )
        random_radius = covering_radius([flat], flat[random_picks]) / radius
        return dict(kind=kind, n=len(flat), d=flat.shape[1], k=k, random_radius=random_radius, rows=rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=50_000, help="of clusters")
    parser.add_argument("--d", type=int, default=128, help="of clusters")
    parser.add_argument("--ratio", type=float, default=0.01)
    parser.add_argument("--parts", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--kind", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--memory", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory:
        print(measure_memory(options.memory[0], *map(int, options.memory[1:])))
        return
    found = [compare(kind, options) for kind in options.kind]
    if options.json:
        print(json.dumps({"threads": options.threads, "kinds": found}))
        return
    print("| features | parts | radius | bound | factor | picks shared | one machine | a machine each | part's memory "
          "| union's memory |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")  # fmt: skip
    for one in found:
        for r in one["rows"]:
            print(
                f"| {one['kind']} | {r['parts']} | {r['radius']:.3f} | {r['bound']:.2f} | {r['factor']:.2f} | "
                f"{100 * r['same_picks']:.0f} % | {r['one_machine']:.2f} | {r['machine_each']:.2f} | "
                f"{r['part_memory']:.2f} | {r['union_memory']:.2f} |"
            )
    for one in found:
        print(f"\n{one['kind']}: {one['n']} x {one['d']}, {one['k']} picks; random picks: {one['random_radius']:.2f}")


if __name__ == "__main__":
    main()
