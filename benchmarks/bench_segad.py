"""SegAD's statistics, forest and scores of many images, against SciPy segment by segment.

    python benchmarks/bench_segad.py               1,000 images, two maps of 256 px each, on disk, two segments
    python benchmarks/bench_segad.py --images 100

Both sides read the same .npy files.  The plain way asks SciPy and NumPy for each statistic of each segment in turn; the
forest is the same.  Processor seconds, one thread.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when NumPy loads

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import stats

from pnilib.segad.forest import Forest
from pnilib.segad.statistics import column_list, image_row

BASES, SEGMENTS = ("A", "position"), ("background", "part")


def plain_row(maps: np.ndarray, labels: np.ndarray, n_segments: int) -> np.ndarray:
    row = []
    for one in maps:
        for segment in range(n_segments):
            values = one[labels == segment].astype(np.float64)
            row += [np.quantile(values, 0.995), stats.skew(values), stats.kurtosis(values), values.mean()]
        row.append(one.max())
    return np.array(row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    n = parser.parse_args().images
    rng, labels = np.random.default_rng(0), np.zeros((256, 256), int)
    labels[60:200, 80:180] = 1
    bad = np.arange(n) % 10 == 0
    columns = [str(column) for column in column_list(BASES, SEGMENTS)]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.npy" for i in range(n)]
        for file, strange in zip(files, bad, strict=True):
            maps = rng.gamma(2, 1, (2, 256, 256)).astype(np.float32)
            maps[:, 100:110, 100:110] += 3 * strange
            np.save(file, maps)
        found, seconds = {}, {}
        sides: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {"ours": image_row, "plain": plain_row}
        for name, row in sides.items():
            began = time.process_time()
            found[name] = np.stack([row(np.load(file, allow_pickle=False), labels, 2) for file in files])
            seconds[name] = time.process_time() - began
    began = time.process_time()
    forest = Forest(columns).fit(found["ours"], bad.astype(int), folds=0)
    forest.scores(found["ours"])
    learnt = time.process_time() - began
    assert np.allclose(found["ours"], found["plain"], rtol=1e-6, atol=1e-8)
    print(f"{n} images, two maps of 256 px, two segments, processor seconds")
    print(f"statistics: ours {seconds['ours']:.1f}, SciPy {seconds['plain']:.1f}; forest and scores {learnt:.1f}")
    print(f"ours in all: {seconds['ours'] + learnt:.1f}; statistics {seconds['plain'] / seconds['ours']:.1f} x as fast")


if __name__ == "__main__":
    main()
