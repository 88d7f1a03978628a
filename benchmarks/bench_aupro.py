"""Exact AUPRO against the threshold loop of the released code: time in one run, and agreement.

    python benchmarks/bench_aupro.py            50 of the loop's 2,000 thresholds, scaled (it says so)
    python benchmarks/bench_aupro.py --full     all 2,000
    python benchmarks/bench_aupro.py --json     the same as one JSON object

100 maps of 480 x 480 with 200 defect regions.  The loop is written here from its description
(PAPER_AUDIT A.13) and no faster than it must be, with one favour: regions are labelled once, not once a
threshold.  Both times start from maps and masks in memory and so include labelling.
"""

import argparse
import json
import platform
import time
from typing import Any

import numpy as np
from scipy import ndimage
from skimage import measure

from pnilib.metrics import PixelStatistics, aupro

LIMITS = (0.3, 0.05, 0.01)


def scene(n_images: int, side: int, n_regions: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Smooth noise with raised defects: float32 maps and bool masks (n, side, side).

    Four defects (ellipses, every fifth a ring) in each of the first n_regions / 4 images; the rest good.
    """
    rng = np.random.default_rng(seed)
    maps = np.stack([ndimage.gaussian_filter(rng.standard_normal((side, side)), side / 60) for _ in range(n_images)])
    maps /= maps.std()
    masks = np.zeros(maps.shape, bool)
    half = side // 2
    y, x = np.mgrid[:half, :half] - half / 2
    for k in range(n_regions):
        image, quarter = divmod(k, 4)
        ry, rx = rng.uniform(0.04, 0.42, 2) * half
        radius = (y / ry) ** 2 + (x / rx) ** 2
        shape = (radius < 1) & ((radius > 0.3) | (k % 5 > 0))
        rows, columns = divmod(quarter, 2)
        window = np.s_[image, rows * half : (rows + 1) * half, columns * half : (columns + 1) * half]
        masks[window] |= shape
        maps[window] += shape * rng.uniform(0.5, 3.0)
    return maps.astype(np.float32), masks


def brute_force_aupro(maps: np.ndarray, masks: np.ndarray, limit: float) -> float:
    """The definition: every distinct threshold, every region, trapezoids, interpolated at the limit."""
    scores, normal = maps.ravel(), np.flatnonzero(~masks.ravel())
    regions = []
    for i, mask in enumerate(masks):
        labels, n = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [i * mask.size + np.flatnonzero(labels.ravel() == r) for r in range(1, n + 1)]
    fpr, pro = [0.0], [0.0]
    for threshold in np.unique(scores)[::-1]:
        called = scores >= threshold
        fpr.append(np.count_nonzero(called[normal]) / len(normal))
        pro.append(np.mean([np.count_nonzero(called[region]) / len(region) for region in regions]))
    area = 0.0
    for x0, x1, y0, y1 in zip(fpr, fpr[1:], pro, pro[1:], strict=False):
        if x0 >= limit:
            break
        if x1 > limit:
            x1, y1 = limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def released_loop(
    maps: np.ndarray, masks: np.ndarray, limit: float = 0.3, steps: int = 2000, timed: int | None = None
) -> float:
    """The released AUPRO, threshold by threshold; `timed`: only so many of the thresholds, for timing."""
    regions = []
    for i, mask in enumerate(masks):
        for region in measure.regionprops(measure.label(mask, connectivity=2)):
            y0, x0, y1, x1 = region.bbox
            regions.append((np.s_[i, y0:y1, x0:x1], region.image_filled, region.area))
    high, low = float(maps.max()), float(maps.min())
    normal = ~masks
    fpr, pro = [], []
    for step in range(steps) if timed is None else np.linspace(0, steps - 1, timed).astype(int):
        called = maps > np.float64(high - int(step) * ((high - low) / steps))
        pro.append(np.mean([np.logical_and(called[box], filled).sum() / area for box, filled, area in regions]))
        fpr.append(np.logical_and(normal, called).sum() / normal.sum())
    kept = np.array(fpr) <= limit
    x, y = np.array(fpr)[kept], np.array(pro)[kept]
    x = (x - x.min()) / (x.max() - x.min())
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


def seconds(function: Any, repeats: int = 1) -> tuple[float, Any]:
    """Best wall time of some calls, and the last result."""
    best = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        best = min(best, time.perf_counter() - start)
    return best, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="run all 2,000 thresholds of the loop")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--side", type=int, default=480, help="pixels")
    parser.add_argument("--regions", type=int, default=200)
    parser.add_argument("--timed", type=int, default=50, help="thresholds of the loop that are timed")
    parser.add_argument("--check-side", type=int, default=64, help="pixels, maps for the brute force")
    options = parser.parse_args()

    maps, masks = scene(options.images, options.side, options.regions)
    report: dict[str, Any] = dict(
        images=options.images,
        side=options.side,
        regions=PixelStatistics.from_maps(maps, masks).n_regions,
        machine=platform.processor() or platform.machine(),
        numpy=np.__version__,
    )
    report["exact_s"], exact = seconds(lambda: aupro(maps, masks), 3)
    report["released_fast_s"], fast = seconds(lambda: aupro(maps, masks, variant="pni"), 3)

    def everything() -> Any:
        pixels = PixelStatistics.from_maps(maps, masks)
        return pixels.aupro(LIMITS), pixels.auroc(), pixels.f1_max()

    report["all_metrics_s"], (areas, auroc, f1) = seconds(everything, 3)
    timed = None if options.full else options.timed
    spent, looped = seconds(lambda: released_loop(maps, masks, timed=timed))
    report["loop_thresholds_timed"] = 2000 if options.full else options.timed
    report["loop_s"] = spent * 2000 / report["loop_thresholds_timed"]
    report["ratio"] = report["loop_s"] / report["exact_s"]
    report["values"] = dict(
        aupro={str(k): v for k, v in areas.items()}, aupro_released=fast, p_auroc=auroc, p_f1_max=f1.f1
    )
    if options.full:
        report["released_minus_loop"] = fast - looped

    small = scene(6, options.check_side, 16, seed=1)
    tied = (np.round(small[0] * 8) / 8, small[1])
    report["max_difference_to_brute_force"] = max(
        abs(aupro(*case, fpr_limit=limit) - brute_force_aupro(*case, limit))
        for case in (small, tied)
        for limit in LIMITS
    )
    report["released_difference_on_small"] = abs(aupro(*small, variant="pni") - released_loop(*small))

    if options.json:
        print(json.dumps(report))
        return
    worst = report["max_difference_to_brute_force"]
    scaled = "" if options.full else f" (scaled from {options.timed} timed thresholds)"
    print(f"{options.images} maps of {options.side} x {options.side}, {report['regions']} regions\n")
    print("| what | seconds |\n|---|---:|")
    print(f"| exact AUPRO, labelling included | {report['exact_s']:.2f} |")
    print(f"| exact AUPRO at {len(LIMITS)} limits, P-AUROC and P-F1-max | {report['all_metrics_s']:.2f} |")
    print(f"| released AUPRO, our vectorised form | {report['released_fast_s']:.2f} |")
    print(f"| released AUPRO, loop over 2,000 thresholds{scaled} | {report['loop_s']:.1f} |\n")
    print(f"ratio loop / exact: {report['ratio']:.0f}")
    print(f"AUPRO exact {exact:.6f}, released variant {fast:.6f}")
    if options.full:
        print(f"released variant, ours minus loop: {report['released_minus_loop']:.1e}")
    print(f"exact - brute force (6 maps, {options.check_side} px), largest: {worst:.1e}")
    print(f"difference released, ours - loop (same maps): {report['released_difference_on_small']:.1e}")


if __name__ == "__main__":
    main()
