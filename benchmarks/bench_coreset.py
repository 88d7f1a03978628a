"""Greedy k-center: exact picks, time and memory against the naive loop, in one run.

    python benchmarks/bench_coreset.py            50,000 x 384, 1 %, both kinds of features
    python benchmarks/bench_coreset.py --json     the same as one JSON object

`manifold`: 16 smooth coordinates mapped into 384 dimensions, plus noise: what backbone features look like.
`gaussian`: independent coordinates, the worst case for skipping anything.  The naive loop is the definition,
one ||x - c|| over all points a pick, in torch float32.  Where its picks differ from ours, the float64
reference decides who is right (float32 ties and rounding).  Times are wall and processor seconds of one
process; each memory figure is the peak resident growth beyond the features of a process of its own.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import torch

from pnilib.coreset import coreset_size
from pnilib.k_center import greedy_k_center, greedy_k_center_reference

KINDS = ("manifold", "gaussian")


def features_of(kind: str, n: int, d: int, seed: int = 0) -> np.ndarray:
    """Float32 (n, d)."""
    rng = np.random.default_rng(seed)
    if kind == "gaussian":
        return rng.standard_normal((n, d), dtype=np.float32)
    hidden = np.tanh(rng.standard_normal((n, 16), dtype=np.float32) @ rng.standard_normal((16, 64), dtype=np.float32))
    smooth = hidden @ rng.standard_normal((64, d), dtype=np.float32)
    return smooth + np.float32(0.1) * rng.standard_normal((n, d), dtype=np.float32)


def naive(x: np.ndarray, n: int, start: int) -> np.ndarray:
    """The definition in torch float32: a pass over all points a pick."""
    points = torch.from_numpy(x)
    picks = [start]
    nearest = (points - points[start]).norm(dim=1)
    while len(picks) < n:
        nearest[picks[-1]] = -1.0
        pick = int(nearest.argmax())
        picks.append(pick)
        nearest = torch.minimum(nearest, (points - points[pick]).norm(dim=1))
    return np.array(picks)


class Peak:
    """Largest resident memory of this process in a `with` block, bytes above its start, sampled every 5 ms."""

    def __enter__(self) -> "Peak":
        self.process, self.running = psutil.Process(), True
        self.before = self.most = self.process.memory_info().rss
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while self.running:
            self.most = max(self.most, self.process.memory_info().rss)
            time.sleep(0.005)

    def __exit__(self, *_: object) -> None:
        self.running = False
        self.thread.join()
        self.growth = max(0, self.most - self.before)


def timed(function: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall seconds, processor seconds, result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def memory_of(options: argparse.Namespace, kind: str, which: str) -> int:
    """Peak growth in a fresh process, bytes."""
    command = [sys.executable, __file__, "--n", str(options.n), "--d", str(options.d), "--ratio", str(options.ratio),
               "--threads", str(options.threads), "--memory", which, kind]  # fmt: skip
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure_memory(options: argparse.Namespace) -> int:
    which, kind = options.memory
    run = greedy_k_center if which == "ours" else naive
    run(features_of(kind, 5000, options.d), 5, 0)  # libraries are loaded, thread pools made
    x = features_of(kind, options.n, options.d)
    with Peak() as peak:
        run(x, coreset_size(options.n, options.ratio) if which == "ours" else 10, 0)  # the loop's picks are all alike
    return peak.growth


def compare(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    x, size = features_of(kind, options.n, options.d), coreset_size(options.n, options.ratio)
    greedy_k_center(x[:5000], 10)
    naive(x[:5000], 10, 0)
    ours_s, ours_cpu, ours = timed(lambda: greedy_k_center(x, size))
    naive_s, naive_cpu, loop = timed(lambda: naive(x, size, 0))
    differs = np.flatnonzero(ours != loop)
    row = dict(
        kind=kind, picks=size, ours_s=ours_s, naive_s=naive_s, ratio=naive_s / ours_s, ours_cpu_s=ours_cpu,
        naive_cpu_s=naive_cpu, cpu_ratio=naive_cpu / ours_cpu, first_difference_to_float32_loop=None,
        equals_float64_reference=None, features_mb=x.nbytes / 1e6,
    )  # fmt: skip
    if len(differs):
        row["first_difference_to_float32_loop"] = int(differs[0])
    if len(differs) or options.reference:
        row["equals_float64_reference"] = bool(np.array_equal(greedy_k_center_reference(x, size), ours))
    for which in ("ours", "naive"):
        extra = memory_of(options, kind, which)
        row |= {f"{which}_extra_mb": extra / 1e6, f"{which}_extra_of_features": extra / x.nbytes}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=50_000)
    parser.add_argument("--d", type=int, default=384)
    parser.add_argument("--ratio", type=float, default=0.01)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--reference", action="store_true", help="always compare with the float64 reference")
    parser.add_argument("--kind", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory:
        print(measure_memory(options))
        return
    rows = [compare(options, kind) for kind in options.kind]
    if options.json:
        print(json.dumps({"n": options.n, "d": options.d, "threads": options.threads, "rows": rows}))
        return
    print(f"{options.n} x {options.d} features, {rows[0]['picks']} picks, {options.threads} thread(s)\n")
    print("| features | naive s | ours s | ratio | processor ratio | naive extra | ours extra | picks equal |")
    print("|---|---:|---:|---:|---:|---:|---:|---|")
    for r in rows:
        equal = "to the float32 loop"
        if r["first_difference_to_float32_loop"] is not None:
            truth = "equal" if r["equals_float64_reference"] else "NOT EQUAL"
            equal = f"{truth} to float64; the float32 loop errs from pick {r['first_difference_to_float32_loop']}"
        print(
            f"| {r['kind']} | {r['naive_s']:.1f} | {r['ours_s']:.2f} | {r['ratio']:.0f} | {r['cpu_ratio']:.0f} | "
            f"{r['naive_extra_of_features']:.2f} | {r['ours_extra_of_features']:.2f} | {equal} |"
        )
    print(f"\nextra: memory beyond the features, in units of the features ({rows[0]['features_mb']:.0f} MB)")


if __name__ == "__main__":
    main()
