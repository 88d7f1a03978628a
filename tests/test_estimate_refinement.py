"""Counts by hand and against the real thing: pool files, weights, activations, steps."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tiny import SCATTERING, write_category

from pnilib.config import PNIConfig
from pnilib.errors import PNIError
from pnilib.estimate import Estimate, Stage, estimate, estimate_refinement, sizes
from pnilib.estimate import refinement as module
from pnilib.estimate.detector import scored_seconds
from pnilib.estimate.refinement import NetworkSpeeds, activation_bytes, network_parameters, refinement_stages
from pnilib.estimate.speeds import DetectorSpeeds
from pnilib.pni import PNI
from pnilib.refinement.network import RefineNet, build_network
from pnilib.refinement.pool import build_pool

PAPER = PNIConfig()
SMALL = SCATTERING.replace(pool_maps="held_out", pool_images=6, refine_iterations=3, mlp_epochs=1)


def stages(config: PNIConfig, n_train: int = 209, n_test: int = 83) -> dict[str, Stage]:
    return {s.name: s for s in estimate_refinement(config, n_train, n_test, measure=False)}


def test_the_papers_sizes_by_hand() -> None:
    """4,000 images of 480 x 480 px: 3 bytes of colour, 2 of map, 1 of mask; DenseNet-161 and a decoder."""
    found = stages(PAPER)
    assert list(found) == ["folds", "pool", "refinement", "refined calibration", "refined scoring"]
    assert 4000 * 6 * 480**2 < found["pool"].disk < 4000 * (6 * 480**2 + 1024)
    assert 4000 > stages(PAPER.replace(pool_gb=1.0))["pool"].disk / (6 * 480**2) == pytest.approx(723, abs=1)
    encoder = 26_472_000 + 7 * 7 * 96 + 2 * 96  # torchvision's densenet161.features, and the map's stem
    widths = [768, 384, 192, 96, 48, 24]
    decoder = sum((a + 1) * b + (9 * b + 1) * b for a, b in pairwise(widths))
    assert network_parameters(PAPER) == encoder + 2209 * 768 + decoder + 25
    assert found["refinement"].disk == 24 * network_parameters(PAPER)
    assert found["refinement"].memory > 16 * network_parameters(PAPER) + 8 * activation_bytes(PAPER, 480)
    fold = {s.name: s for s in estimate(PAPER.replace(calibration_images=0), 139, 0, measure=False).stages}
    assert found["folds"].memory > fold["neighborhood"].memory  # 209 images in three folds: 139 fit each


def test_the_pool_on_disk_is_as_large_as_told(tmp_path: Path) -> None:
    train = write_category(tmp_path, n_train=4).train
    config = SMALL.replace(pool_maps="leave_out")
    pool = build_pool(PNI(config).fit(train), train, tmp_path / "work")
    files = [path.stat().st_size for path in pool.folder.rglob("*.safetensors")]
    assert len(files) == 6
    assert sum(files) == pytest.approx(stages(config, 4)["pool"].disk, abs=6 * 400)


@pytest.mark.parametrize("config", [SMALL, SMALL.replace(refine_skips="none", refine_stem="rep3")])
def test_weights_and_activations_are_those_of_a_real_network(config: PNIConfig) -> None:
    network = build_network(config).train()
    assert sum(p.numel() for p in network.parameters()) == network_parameters(config)
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = network(torch.rand(2, 3, 96, 96), torch.rand(2, 1, 96, 96))
    real = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    real -= sum(4 * p.numel() for p in network.parameters() if p.untyped_storage().data_ptr() in kept)
    del out
    assert 2 * activation_bytes(config, 96) == pytest.approx(real, rel=0.01)
    assert activation_bytes(config, 192) == pytest.approx(4 * activation_bytes(config, 96), rel=0.01)


class FixedDetector(DetectorSpeeds):
    """A second an image, nothing else takes time."""

    image, smooth, gate, pick, label, gather, evaluate = 1.0, 0.25, 0.0, 0.0, 0.0, 0.0, 0.0  # type: ignore[assignment]
    flops, add, read = math.inf, math.inf, math.inf  # type: ignore[assignment]


class FixedNetwork(NetworkSpeeds):
    """2 s forward and backward of one image of 480 px, 0.5 s Adam, 3 s forward alone; a defect takes 0."""

    measured, _passes, forward = (1, 480), (2.0, 0.5), 3.0  # type: ignore[assignment]

    def defect(self, defects: str) -> float:
        return 0.0


def test_seconds_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight images a step: 8 x 2 + 0.5 s, 55,000 times.  A map takes 1.25 s."""
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    config = PAPER.replace(pool_maps="leave_out")
    speeds = FixedDetector(config, sizes(config, 209), "cpu"), FixedNetwork(config, "cpu")
    found = {s.name: s.seconds for s in refinement_stages(config, 209, 83, *speeds)}
    assert found["refinement"] == 55_000 * 16.5 and found["folds"] == 0
    assert found["pool"] == 4000 * 1.25
    assert found["refined calibration"] == 50 * (2 * 1.25 + 3) and found["refined scoring"] == 83 * (1.25 + 3)
    half = config.replace(refine_crop=240, refine_batch=4, pool_images=10)
    found = {s.name: s.seconds for s in refinement_stages(half, 209, 83, *speeds)}
    assert found["refinement"] == 55_000 * (2 * 4 / 4 + 0.5) and found["pool"] == 10 * 1.25
    folded = {s.name: s.seconds for s in refinement_stages(PAPER, 209, 83, *speeds)}
    assert folded["folds"] >= 3 * 139 and math.isfinite(folded["folds"])


def test_more_threads_make_defects_and_scoring_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scoring gains where PyTorch left cores idle."""
    monkeypatch.setattr(FixedNetwork, "defect", lambda self, defects: 8.0)
    monkeypatch.setattr(module, "WORKERS", 4)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    config = PAPER.replace(pool_maps="leave_out", pool_images=10)
    z = sizes(config, 209)
    speeds = FixedDetector(config, z, "cpu"), FixedNetwork(config, "cpu")
    for used, share in ((1, 1 / 4), (2, 1 / 2), (6, 1)):
        monkeypatch.setattr("torch.get_num_threads", lambda used=used: used)
        found = {s.name: s.seconds for s in refinement_stages(config, 209, 1, *speeds)}
        scored = scored_seconds(config, z, speeds[0], [config]) + 0.25
        assert found["pool"] == pytest.approx(10 * (8 / 4 + scored * share))


def test_more_of_anything_needs_more() -> None:
    base = {name: s.memory for name, s in stages(PAPER).items()}
    for changes, grows in [
        (dict(refine_batch=16), {"refinement"}),
        (dict(refine_growth=64), {"refinement", "refined scoring"}),
        (dict(pool_folds=5), {"pool", "folds"}),
        (dict(mlp_width=4096), {"pool", "folds"}),
        (dict(image_resize=640, image_crop=608), set(base)),
    ]:
        more = {name: s.memory for name, s in stages(PAPER.replace(**changes)).items()}
        assert all(more[name] > base[name] for name in grows)
        assert all(more[name] >= base[name] for name in base)
    assert stages(PAPER.replace(refine_crop=240))["refinement"].memory < base["refinement"]
    assert stages(PAPER, 400)["folds"].disk > stages(PAPER)["folds"].disk


def test_without_cross_fitting_there_are_no_folds() -> None:
    for found in (stages(PAPER.replace(pool_maps="leave_out")), stages(PAPER, 1)):
        assert found["folds"].memory == found["folds"].disk == 0
    assert stages(PAPER.replace(calibration_images=0))["refined calibration"].memory == 0


@pytest.mark.parametrize(
    ("changes", "measured"),
    [
        ({}, (1, 480)),
        (dict(image_resize=2000, image_crop=2000), (1, 480)),
        (dict(image_resize=2000, image_crop=2000, refine_crop=100), (8, 100)),
        (dict(refine_crop=160), (8, 160)),
        (dict(refine_crop=240), (4, 240)),
        (dict(refine_crop=32, refine_batch=1), (2, 32)),
    ],
)
def test_what_is_measured_stays_small(changes: dict[str, int], measured: tuple[int, int]) -> None:
    assert NetworkSpeeds(PAPER.replace(**changes), "cpu").measured == measured


def test_measured_seconds() -> None:
    found = {s.name: s.seconds for s in estimate_refinement(SMALL, 6, 2)}
    assert all(math.isfinite(value) and value > 0 for value in found.values())
    assert all(math.isnan(s.seconds) for s in estimate_refinement(SMALL, 6, 2, measure=False))


def test_stages_of_fit_and_refinement_make_one_estimate() -> None:
    fit = estimate(PAPER, 209, 83, measure=False)
    whole = Estimate(PAPER, "cpu", fit.stages + estimate_refinement(PAPER, 209, measure=False), 0)
    assert "refined calibration " in whole.format() and len({len(line) for line in whole.format().splitlines()}) == 1
    big = Estimate(PAPER, "cpu", estimate_refinement(PAPER.replace(refine_batch=64), 209, measure=False), 0)
    with pytest.raises(PNIError, match=r"refinement: needs .*refine_batch"):
        big.require_memory(10**9)


def test_faults_of_the_network_show() -> None:
    with pytest.raises(PNIError, match="refine_blocks"):
        estimate_refinement(PAPER.replace(refine_blocks="1,2"), 209, measure=False)
    assert isinstance(RefineNet(SMALL), torch.nn.Module)
