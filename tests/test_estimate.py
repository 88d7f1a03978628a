"""The sizes are those of the real tensors; more of anything needs more; what will not fit is refused."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from tiny import RESNET, SCATTERING, write_category

from pnilib.backbones import load_backbone
from pnilib.config import NEEDS, PNIConfig
from pnilib.errors import PNIError
from pnilib.estimate import Estimate, Free, Stage, estimate, sizes
from pnilib.neighborhood import NeighborhoodMLP
from pnilib.pni import PNI

PAPER = PNIConfig()


def stages(config: PNIConfig, n_train: int = 200, n_test: int = 100, on_disk: bool = True) -> dict[str, Stage]:
    return {s.name: s for s in estimate(config, n_train, n_test, measure=False, on_disk=on_disk).stages}


def test_the_papers_sizes_by_hand() -> None:
    """209 images (MVTec's bottle) of 60 x 60 cells; sec. 3.2's network has 205 M weights."""
    z = sizes(PAPER, 209)
    assert (z.side, z.d, z.cells, z.n_patches) == (60, 1024, 3600, 752_400)
    assert (z.n_emb, z.n_dist, z.mlp_inputs) == (7524, 2048, 81_920)
    assert z.mlp_parameters == 81_921 * 2048 + 8 * 2049 * 2048 + 9 * 2 * 2048 + 2049 * 2048
    found = stages(PAPER, 209, on_disk=True)
    assert found["features"].disk == 752_400 * 1024 * 4  # 3.1 GB
    assert found["position"].disk == 3600 * 2048 * 2
    assert found["neighborhood"].memory > 16 * z.mlp_parameters + 2 * 2048 * 81_920 * 4


@pytest.mark.parametrize(
    "config",
    [
        SCATTERING,
        RESNET,
        RESNET.replace(border="replicate", border_cells=1),
        RESNET.replace(pos_bins="emb", mlp_layers=1),
        SCATTERING.replace(dist_size=5000),
    ],
)
def test_sizes_are_those_of_a_fitted_model(config: PNIConfig, tmp_path: Path) -> None:
    train = write_category(tmp_path, n_train=4).train
    model, z = PNI(config.replace(mlp_epochs=1)).fit(train, workdir=tmp_path / "work"), sizes(config, 4)
    assert model.coreset is not None and model.position is not None and model.mlp is not None
    assert model.embedder.grid == (z.side, z.side) and z.cells == z.side**2
    assert model.coreset.embedding.shape == (z.n_emb, z.d) and model.coreset.n_dist == z.n_dist
    assert model.position.n_bins == z.n_bins
    assert sum(p.numel() for p in model.mlp.parameters()) == z.mlp_parameters
    disk = stages(config, 4)["features"].disk
    assert 0 < next((tmp_path / "work").glob("features-*/features.npy")).stat().st_size - disk <= 4096  # the header
    assert stages(config, 4)["position"].disk == model.position.counts.nbytes


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_weights_are_counted(layers: int) -> None:
    config = SCATTERING.replace(mlp_layers=layers)
    z = sizes(config, 6)
    mlp = NeighborhoodMLP(z.d, z.n_dist, config)
    assert sum(p.numel() for p in mlp.parameters()) == z.mlp_parameters
    assert mlp.first.in_features == z.mlp_inputs


@pytest.mark.parametrize("backbone", ["resnet18", "densenet201", "scattering"])
@pytest.mark.parametrize("crop", [72, 96, 100])
def test_grids_without_building_a_backbone(backbone: str, crop: int) -> None:
    config = PNIConfig(backbone=backbone, weights="random", image_resize=128, image_crop=crop)
    levels = load_backbone(config, "cpu")(torch.zeros(1, 3, crop, crop))
    assert sizes(config, 3).side == levels[0].shape[2]


def test_more_of_anything_needs_more() -> None:
    def all_memory(config: PNIConfig, n_train: int = 200, n_test: int = 100) -> dict[str, int]:
        return {name: s.memory for name, s in stages(config, n_train, n_test, on_disk=False).items()}

    base = all_memory(PAPER)
    for more, grows in [
        (all_memory(PAPER, n_train=300), {"features", "coreset", "position", "neighborhood", "calibration"}),
        (all_memory(PAPER, n_test=500), {"scoring", "maps"}),
        (all_memory(PAPER.replace(emb_ratio=0.02)), {"coreset", "scoring", "maps"}),
        (all_memory(PAPER.replace(mlp_batch=4096)), {"neighborhood"}),
        (all_memory(PAPER.replace(dim=2048)), set(base)),
        (all_memory(PAPER.replace(image_resize=640, image_crop=608)), set(base)),
    ]:
        assert all(more[name] >= base[name] for name in base)
        assert all(more[name] > base[name] for name in grows)


def test_a_work_folder_moves_the_features_from_memory_to_disk() -> None:
    there, here = stages(PAPER, on_disk=True), stages(PAPER, on_disk=False)
    n_bytes = 200 * 3600 * 1024 * 4
    for name in ("features", "coreset", "position", "neighborhood", "calibration"):
        assert here[name].memory - there[name].memory == n_bytes
    assert there["scoring"] == here["scoring"] or there["scoring"].memory == here["scoring"].memory
    assert there["features"].disk == n_bytes and here["features"].disk == 0


def test_only_what_the_setting_needs_is_counted() -> None:
    plain = stages(PAPER.replace(setting="A"))
    for setting, needs in NEEDS.items():
        found = stages(PAPER.replace(setting=setting))
        for part in ("position", "neighborhood"):
            assert (found[part].memory > 0, found[part].disk > 0) == (part in needs,) * 2
    assert plain["scoring"].memory < stages(PAPER)["scoring"].memory - 4 * sizes(PAPER, 200).mlp_parameters


@pytest.mark.parametrize(("changes", "advice"), [({}, "mlp_batch"), (dict(setting="A", emb_ratio=0.9), "emb_ratio")])
def test_what_does_not_fit_is_refused_with_advice(changes: dict[str, object], advice: str) -> None:
    found = estimate(PAPER.replace(**changes), 200, 100, measure=False)
    assert found.require_memory(found.memory) is found
    with pytest.raises(PNIError, match=f"needs .* of memory, .* are free: .*{advice}") as caught:
        found.require_memory(found.memory - 1)
    assert "\n" not in str(caught.value)


def test_disk_and_memory_are_compared_with_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = estimate(PAPER, 200, 100, measure=False)
    for memory, disk, expected in [
        (0, 0, None), (1, 0, "^neighborhood: needs [^;]*$"), (0, 1, "^disk: .* needed, .* free in runs: make room"),
        (1, 1, "^neighborhood: needs .*; disk: "),
    ]:  # fmt: skip
        free = Free(found.memory - memory, found.disk - disk, Path("runs"))
        if expected is None:
            assert found.require(free) is found
            continue
        with pytest.raises(PNIError, match=expected) as caught:
            found.require(free)
        assert "\n" not in str(caught.value)
    assert Free(10**9, 2 * 10**6, Path("runs")).against(3 * 10**9, 999) == (
        "memory: 3.0 GB needed, 1.0 GB free; disk: 999 B needed, 2 MB free in runs"
    )
    asked: list[Path] = []

    def usage(path: Path) -> tuple[int, int, int]:
        asked.append(path)
        return shutil._ntuple_diskusage(9, 2, 7)  # type: ignore[attr-defined]

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert Free.now("cpu", tmp_path / "not" / "yet").disk == 7 and asked == [tmp_path]


def test_features_that_do_not_fit_belong_on_disk() -> None:
    with pytest.raises(PNIError, match="work folder"):
        estimate(PAPER, 10_000, 10, measure=False, on_disk=False).require_memory()


def test_no_patches_at_all_is_refused() -> None:
    with pytest.raises(PNIError, match="leave no patches"):
        estimate(RESNET.replace(border="replicate", border_cells=4), 10, 1, measure=False)


@pytest.mark.parametrize("config", [SCATTERING, RESNET.replace(setting="A", pos_bins="emb")])
def test_measured_seconds(config: PNIConfig) -> None:
    found = estimate(config, 20, 10)
    assert [s.name for s in found.stages] == [
        "features", "coreset", "position", "neighborhood", "calibration", "scoring", "maps",
    ]  # fmt: skip
    assert all(
        s.seconds > 0 or (s.name in ("position", "neighborhood") and config.setting == "A") for s in found.stages
    )
    assert found.seconds == pytest.approx(sum(s.seconds for s in found.stages)) and math.isfinite(found.seconds)
    assert math.isnan(estimate(config, 20, 10, measure=False).seconds)


def test_the_table_by_hand() -> None:
    rows = [Stage("features", 1.25, 2_600_000, 999), Stage("coreset", 120.4, 3_100_000_000, 0)]
    assert Estimate(PAPER, "cpu", rows, 0).format().splitlines() == [
        "stage            seconds     memory       disk",
        "features             1.2       3 MB      999 B",
        "coreset              120     3.1 GB        0 B",
        "all                  122     3.1 GB      999 B",
    ]
