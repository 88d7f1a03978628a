"""Pixel metrics: hand-worked cases, brute force with explicit regions, the released loop, invariants."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import measure
from sklearn.metrics import roc_auc_score

from pnilib.errors import PNIError
from pnilib.metrics import PixelStatistics, UndefinedMetricWarning, aupro, f1_max, pixel_auroc, pro_curve
from pnilib.metrics.regions import defect_pixels
from pnilib.metrics.released_aupro import released_area

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "bench_aupro.py"
spec = importlib.util.spec_from_file_location("bench_aupro", BENCHMARK)
assert spec is not None and spec.loader is not None
bench = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench)

LIMITS = (1.0, 0.3, 0.05, 0.01)


def scenes():
    """Maps and masks: continuous, heavily tied, two values, constant; good images and rings included."""
    maps, masks = bench.scene(5, 32, 12, seed=2)
    rng = np.random.default_rng(0)
    return {
        "continuous": (maps, masks),
        "tied": (np.round(maps), masks),
        "two values": ((maps > 1).astype(np.float32), masks),
        "constant": (np.ones_like(maps), masks),
        "noise": (rng.random((3, 16, 16), dtype=np.float32), rng.random((3, 16, 16)) < 0.1),
        "tied noise": (rng.integers(0, 9, (3, 16, 16)).astype(np.float32), rng.random((3, 16, 16)) < 0.4),
    }


@pytest.fixture(params=scenes())
def scene(request):
    return scenes()[request.param]


def test_exact_aupro_is_the_definition(scene):
    for limit in LIMITS:
        assert aupro(*scene, fpr_limit=limit) == pytest.approx(bench.brute_force_aupro(*scene, limit), abs=1e-12)


def test_aupro_by_hand():
    # One image.  Regions: A = {9}, B = {7, 2}.  Normal: 8, 7, 1, 0, 1 (N = 5).
    maps = np.array([[[9, 8, 7, 7], [1, 0, 1, 2]]], np.float32)
    masks = np.array([[[1, 0, 0, 1], [0, 0, 0, 1]]])
    # PRO: A counts 1/2, each pixel of B 1/4.
    # t=9: (0, 1/2)   t=8: (1/5, 1/2)   t=7: (2/5, 3/4)   t=2: (2/5, 1)   then 1
    # limit 0.3: 0.2 * 1/2 + 0.1 * (1/2 + 5/8) / 2 = 0.15625, divided by 0.3
    assert aupro(maps, masks) == pytest.approx(0.15625 / 0.3)
    # limit 1: 0.2 * 1/2 + 0.2 * (1/2 + 3/4) / 2 + 0.6
    assert aupro(maps, masks, fpr_limit=1.0) == pytest.approx(0.825)
    # P-AUROC: 9 beats 5; 7 beats 3, ties 1; 2 beats 3 -> (5 + 3.5 + 3) / 15
    assert pixel_auroc(maps, masks) == pytest.approx(11.5 / 15)
    curve = pro_curve(maps, masks)
    assert curve.fpr == pytest.approx([0, 0, 0.2, 0.4, 0.4, 1.0])
    assert curve.pro == pytest.approx([0, 0.5, 0.5, 0.75, 1.0, 1.0])


def test_a_map_without_information_has_half_the_limit():
    maps, masks = scenes()["constant"]
    assert aupro(maps, masks, 0.3) == pytest.approx(0.15)
    assert aupro(masks.astype(np.float32), masks, 0.3) == 1.0


def test_regions_weigh_the_same_whatever_their_size():
    masks = np.zeros((1, 20, 20), bool)
    masks[0, 0, 0] = masks[0, 5:15, 5:15] = True
    maps = np.zeros((1, 20, 20), np.float32)
    maps[0, 0, 0] = 1  # finds only the single pixel; the rest ties with the normals
    # PRO starts at 1/2 and rises linearly to 1: mean up to L is 1/2 + L/4
    assert aupro(maps, masks, 0.3) == pytest.approx(0.5 + 0.3 / 4)
    maps[0] = masks[0]
    maps[0, 0, 0] = 0
    assert aupro(maps, masks, 0.3) == pytest.approx(0.5 + 0.3 / 4)
    assert pixel_auroc(maps, masks) == pytest.approx((100 + 0.5) / 101)


def test_pixel_auroc_and_f1_are_those_of_all_pixels(scene):
    maps, masks = scene
    assert pixel_auroc(maps, masks) == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12)
    assert PixelStatistics.from_maps(maps, masks).f1_max() == f1_max(maps.ravel(), masks.ravel())


def test_auroc_is_the_area_of_the_roc_curve_and_aupro_of_the_pro_curve(scene):
    pixels = PixelStatistics.from_maps(*scene)
    roc, pro, pr = pixels.roc_curve(), pixels.pro_curve(), pixels.pr_curve()
    assert np.sum(np.diff(roc.fpr) * (roc.tpr[1:] + roc.tpr[:-1]) / 2) == pytest.approx(pixels.auroc())
    assert np.sum(np.diff(pro.fpr) * (pro.pro[1:] + pro.pro[:-1]) / 2) == pytest.approx(pixels.aupro(1.0))
    f1 = 2 * pr.precision * pr.recall / (pr.precision + pr.recall)
    assert f1.max() == pytest.approx(pixels.f1_max().f1)
    maps, masks = scene
    for fpr, _, threshold in zip(*pro, strict=True):
        assert np.mean(maps[~masks] >= threshold) == pytest.approx(fpr)


def test_thinned_curves_keep_both_ends():
    pixels = PixelStatistics.from_maps(*scenes()["continuous"])
    whole, thin = pixels.pro_curve(), pixels.pro_curve(max_points=10)
    assert len(whole.fpr) > 100 and len(thin.fpr) == 10
    assert (thin.fpr[0], thin.pro[-1]) == (0, 1)
    assert set(thin.fpr) <= set(whole.fpr)
    assert len(pixels.pr_curve(10).recall) == len(pixels.roc_curve(10).fpr) == 10


def test_several_limits_and_any_order_of_questions_agree(scene):
    expected = {limit: aupro(*scene, fpr_limit=limit) for limit in LIMITS}
    pixels = PixelStatistics.from_maps(*scene)
    assert pixels.aupro([0.01]) == pytest.approx({0.01: expected[0.01]}, abs=1e-12)  # sorts 1 %
    auroc, f1 = pixels.auroc(), pixels.f1_max()  # sorts the rest
    assert pixels.aupro(LIMITS) == pytest.approx(expected, abs=1e-12)
    assert (auroc, f1) == (pixel_auroc(*scene), PixelStatistics.from_maps(*scene).f1_max())
    assert pixels.aupro([]) == {}


def test_order_of_images_and_of_merging_does_not_matter(scene):
    maps, masks = scene
    whole = PixelStatistics.from_maps(maps, masks)
    first, second = PixelStatistics.from_maps(maps[:2], masks[:2]), PixelStatistics.from_maps(maps[2:], masks[2:])
    merged = PixelStatistics()
    merged.merge(second)
    merged.auroc() if merged.n_regions else None  # sorting in between must not matter
    merged.merge(first)
    backwards = PixelStatistics.from_maps(maps[::-1], masks[::-1])
    for other in (merged, backwards):
        assert (other.n_images, other.n_regions) == (whole.n_images, whole.n_regions)
        assert other.auroc() == pytest.approx(whole.auroc(), abs=1e-12)
        assert other.f1_max() == whole.f1_max()
        assert other.aupro(LIMITS) == pytest.approx(whole.aupro(LIMITS), abs=1e-12)
        if np.ptp(maps):
            assert other.aupro(1.0, "pni") == pytest.approx(whole.aupro(1.0, "pni"), abs=1e-12)
    assert second.n_images == len(maps) - 2
    assert first.aupro() == pytest.approx(aupro(maps[:2], masks[:2]))


def test_metrics_between_updates():
    maps, masks = scenes()["continuous"]
    pixels = PixelStatistics.from_maps(maps[:3], masks[:3])
    assert pixels.aupro(0.05) == aupro(maps[:3], masks[:3], 0.05)
    pixels.update(maps[3], masks[3])
    pixels.update(maps[4], masks[4])
    assert pixels.aupro(0.05) == pytest.approx(aupro(maps, masks, 0.05), abs=1e-12)


def test_monotone_transforms_do_not_matter_to_the_exact_metrics():
    maps, masks = scenes()["continuous"]
    raised = np.exp2(np.round(maps * 64) / 64 * 8).astype(np.float32)  # rounding keeps float32 injective
    maps = np.round(maps * 64) / 64
    assert aupro(raised, masks) == pytest.approx(aupro(maps, masks), abs=1e-12)
    assert pixel_auroc(raised, masks) == pytest.approx(pixel_auroc(maps, masks), abs=1e-12)
    # ... but the released one: its thresholds are spaced in score
    assert abs(aupro(raised, masks, variant="pni") - aupro(maps, masks, variant="pni")) > 1e-3


@pytest.mark.parametrize("name", ["continuous", "tied", "noise", "tied noise"])
@pytest.mark.parametrize("limit", (0.6, 0.3))
def test_released_variant_is_the_loop(name, limit):
    maps, masks = scenes()[name]
    looped = bench.released_loop(maps, masks, limit)
    assert aupro(maps, masks, limit, variant="pni") == pytest.approx(looped, abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, -1e-12, 1e-12])  # on, just below and just above a score
def test_thresholds_part_float32_scores_in_float64(shift):
    rng = np.random.default_rng(0)
    normal, filled = (np.sort(rng.standard_normal(n).astype(np.float32)) for n in (200, 60))
    weights = rng.random(60)
    thresholds = np.sort(np.concatenate([normal, filled]).astype(np.float64))[::-7] + shift  # far apart: each counts
    fpr = np.array([(normal.astype(np.float64) > t).mean() for t in thresholds])
    overlap = np.array([weights[filled.astype(np.float64) > t].sum() for t in thresholds])
    expected = np.trapezoid(overlap, (fpr - fpr[0]) / (fpr[-1] - fpr[0]))
    assert released_area(normal, 200, filled, weights, thresholds, 1.0) == pytest.approx(expected, rel=1e-12)


def test_released_variant_counts_filled_holes_and_rescales():
    # A ring of 8 around 1 normal pixel that scores 3; ring 2; the other normals 1 (four) and 0 (eleven).
    masks = np.zeros((1, 3, 8), bool)
    masks[0, :, :3] = True
    masks[0, 1, 1] = False
    maps = np.zeros((1, 3, 8), np.float32)
    maps[masks] = 2
    maps[0, 1, 1] = 3
    maps[0, 0, 3:7] = 1
    # Thresholds from 3 to 0.0015, score > t.  t = 3: (0, 0).  t in [2, 3): the hole alone, FPR 1/16,
    # overlap 1/8.  t in [1, 2): overlap 9/8 (> 1!) at FPR 1/16.  t < 1: FPR 5/16 = 0.3125 > 0.3.
    # Rescaled FPR: 0 and 1; trapezoid (0 + 1/8) / 2 + vertical piece.
    assert aupro(maps, masks, 0.3, variant="pni") == pytest.approx(1 / 16)
    # Up to 0.32 also (5/16, 9/8): x = 0, 1/5, 1 -> 1/5 * 1/16 + 4/5 * 9/8
    assert aupro(maps, masks, 0.32, variant="pni") == pytest.approx(1 / 80 + 0.9)
    # Exact: PRO 0 up to 1/16, then 1
    assert aupro(maps, masks, 0.3) == pytest.approx((0.3 - 1 / 16) / 0.3)


def test_released_variant_without_a_curve_is_nan():
    maps, masks = scenes()["constant"]
    with pytest.warns(UndefinedMetricWarning, match="no two thresholds"):
        assert np.isnan(aupro(maps, masks, variant="pni"))


def test_regions_are_eight_connected_and_holes_those_of_skimage():
    rng = np.random.default_rng(0)
    nested = np.zeros((40, 40), bool)
    nested[2:38, 2:38] = True
    nested[6:34, 6:34] = False
    nested[10:30, 10:30] = True
    nested[14:26, 14:26] = False
    nested[20, 20] = True
    masks = [nested, np.zeros((5, 5), bool), np.ones((5, 5), bool), np.eye(6, dtype=bool)]
    masks += [rng.random((30, 31)) < share for share in (0.1, 0.3, 0.5, 0.7, 0.9)]
    for mask in masks:
        found = defect_pixels(mask)
        regions = measure.regionprops(measure.label(mask, connectivity=2))
        assert found.n_regions == len(regions)
        filled, sizes = [], []
        for region in regions:
            rows, columns = np.nonzero(region.image_filled & ~region.image)
            filled += list((rows + region.bbox[0]) * mask.shape[1] + columns + region.bbox[1])
            sizes += [int(region.area)] * len(rows)
        pairs = zip(found.hole_idx, found.hole_region_size, strict=True)
        assert sorted(pairs) == sorted(zip(filled, sizes, strict=True))
        assert np.sum(1 / found.region_size) == pytest.approx(len(regions))
    assert defect_pixels(np.eye(6, dtype=bool)).n_regions == 1
    assert len(defect_pixels(nested).hole_idx) > 28 * 28  # the inner hole is in both regions' holes


def test_empty_masks_and_cut_regions_count_as_what_is_visible():
    maps, masks = scenes()["continuous"]
    good = np.concatenate([maps, maps[:1] * 0 + 9]), np.concatenate([masks, masks[:1] & False])
    pixels = PixelStatistics.from_maps(*good)
    assert pixels.n_images == len(maps) + 1 and pixels.n_regions == 12
    assert pixels.auroc() == pytest.approx(roc_auc_score(good[1].ravel(), good[0].ravel()))  # 9s are normal
    cut = maps[:, :, 8:], masks[:, :, 8:]
    assert aupro(*cut) == pytest.approx(bench.brute_force_aupro(*cut, 0.3))


def test_any_array_and_images_of_different_size():
    maps, masks = scenes()["continuous"]
    tensors = aupro(torch.from_numpy(maps), torch.from_numpy(masks))
    assert tensors == aupro(list(maps), [mask.astype(int) for mask in masks]) == aupro(maps, masks)
    assert aupro(maps.astype(np.float64), masks) == aupro(maps, masks)
    parts = [maps[0, :20], *maps[1:]], [masks[0, :20], *masks[1:]]
    pixels, truth = (np.concatenate([part.ravel() for part in side]) for side in parts)
    assert pixel_auroc(*parts) == pytest.approx(roc_auc_score(truth, pixels))


def test_the_callers_maps_stay_as_they_are():
    maps, masks = scenes()["continuous"]
    before = maps.copy()
    pixels = PixelStatistics.from_maps(maps, masks & False)
    pixels.update(maps[0], masks[0])
    pixels.auroc()
    assert np.array_equal(maps, before)


@pytest.mark.parametrize(
    ("n", "fill", "reason"),
    [(0, 0, "no pixel at all"), (2, 0, "no defective pixel"), (2, 1, "no normal pixel")],
)
@pytest.mark.parametrize(
    "metric",
    [
        PixelStatistics.auroc,
        PixelStatistics.f1_max,
        PixelStatistics.aupro,
        lambda pixels: pixels.aupro(variant="pni"),
        PixelStatistics.pr_curve,
        PixelStatistics.roc_curve,
        PixelStatistics.pro_curve,
    ],
)
def test_undefined_is_nan_with_a_reason(metric, n, fill, reason):
    pixels = PixelStatistics.from_maps(np.random.default_rng(0).random((n, 4, 4)), np.full((n, 4, 4), fill))
    with pytest.warns(UndefinedMetricWarning, match=reason) as caught:
        value = metric(pixels)
    assert len(caught) == 1
    assert np.isnan(value).all()


def test_bad_input_names_the_image():
    maps, masks = scenes()["continuous"]

    def refused(message, anomaly_map=maps[0], mask=masks[0]):
        pixels = PixelStatistics.from_maps(maps[:3], masks[:3])
        with pytest.raises(PNIError, match=message):
            pixels.update(anomaly_map, mask)
        assert pixels.n_images == 3 and pixels.auroc() == pixel_auroc(maps[:3], masks[:3])

    bad = maps[0].copy()
    bad[4, 7] = np.nan
    refused("map of image 3: nan at row 4, column 7", bad)
    bad[4, 7] = np.inf
    refused("map of image 3: inf at row 4", bad)
    refused("map of image 3: inf", np.full((32, 32), 1e300))
    refused("map of image 3: shape", maps)
    refused(r"mask of image 3: shape \(31, 32\)", mask=masks[0, 1:])
    refused("mask of image 3 is missing", mask=None)
    refused("mask of image 3: pixel 0 is 255", mask=np.full((32, 32), 255))
    with pytest.raises(PNIError, match="differ in number"):
        aupro(maps, masks[:4])
    for limit in (0.0, 1.5, np.nan):
        with pytest.raises(PNIError, match="fpr_limit"):
            aupro(maps, masks, limit)
    with pytest.raises(PNIError, match="choose one of exact, pni"):
        aupro(maps, masks, variant="fast")


@pytest.mark.parametrize("options", [["--json"], ["--full"]])
def test_benchmark_runs(options, monkeypatch, capsys):
    arguments = ["bench", "--images=4", "--side=32", "--regions=8", "--timed=5", "--check-side=16"]
    monkeypatch.setattr(sys, "argv", arguments + options)
    bench.main()
    printed = capsys.readouterr().out
    if "--json" in options:
        report = json.loads(printed)
        assert report["max_difference_to_brute_force"] < 1e-6
        assert report["released_difference_on_small"] < 1e-6
        assert report["regions"] == 8 and report["loop_thresholds_timed"] == 5
    else:
        assert "ratio loop / exact" in printed and "scaled" not in printed
