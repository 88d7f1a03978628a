"""Backbones: levels, frozenness, and every way in which weights can be wrong."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision

from pnilib.config import PNIConfig
from pnilib.errors import PNIError
from pnilib.features import weights
from pnilib.features.backbones import level_shapes, load_backbone
from pnilib.features.scattering import Scattering

SMALL = PNIConfig().replace(backbone="resnet18", weights="random")


def image(side: int = 64) -> torch.Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return torchvision.models.resnet18(weights=None).eval()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache and a download that fails; returns the cache's folder."""

    def refuse(url: str, *args: object, **kwargs: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    return tmp_path / "checkpoints"


def with_file(path: Path, name: str = "resnet18") -> PNIConfig:
    return PNIConfig().replace(backbone=name, weights=str(path))


def test_levels_equal_torchvision_layers(network: torch.nn.Module, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "w.pth")
    backbone = load_backbone(with_file(tmp_path / "w.pth"), "cpu")
    x = (image() - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    with torch.no_grad():
        x = network.layer1(network.maxpool(network.relu(network.bn1(network.conv1(x)))))
        level2 = network.layer2(x)
        level3 = network.layer3(level2)
    levels = backbone(image())
    assert len(levels) == 2 and torch.equal(levels[0], level2) and torch.equal(levels[1], level3)


def test_level_4_and_classifier_are_gone() -> None:
    backbone = load_backbone(SMALL, "cpu")
    full = sum(p.numel() for p in torchvision.models.resnet18(weights=None).parameters())
    assert sum(p.numel() for p in backbone.parameters()) < 0.3 * full


def test_frozen_and_always_in_evaluation_mode() -> None:
    backbone = load_backbone(SMALL, "cpu")
    before = backbone(image())
    backbone.train()
    assert not any(module.training for module in backbone.modules())
    assert not any(p.requires_grad for p in backbone.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, backbone(image()), strict=True))
    assert not before[0].requires_grad


def test_random_weights_follow_the_seed_and_leave_the_global_generator() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, second = load_backbone(SMALL, "cpu"), load_backbone(SMALL, "cpu")
    assert torch.equal(torch.rand(3), expected)
    other = load_backbone(SMALL.replace(seed=1), "cpu")
    assert first.weights_id == second.weights_id != other.weights_id
    assert re.fullmatch("[0-9a-f]{64}", first.weights_id)


@pytest.mark.parametrize(
    "name",
    ["wide_resnet101_2", "wide_resnet50_2", "resnext101_32x8d", "densenet201", "resnet18", "resnet50"],
)
def test_levels_of_a_480_px_image_are_the_papers(name: str) -> None:
    """60 x 60 and 30 x 30 cells; on the `meta` device, where nothing is computed."""
    channels = {"densenet201": (512, 1792), "resnet18": (128, 256)}.get(name, (512, 1024))
    assert level_shapes(PNIConfig(backbone=name)) == ((channels[0], 60, 60), (channels[1], 30, 30))


@pytest.mark.parametrize("name", ["resnet18", "densenet201", "scattering", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("side", [37, 52])
def test_shapes_foretell_the_levels(name: str, side: int) -> None:
    config = SMALL.replace(backbone=name, image_resize=side, image_crop=side)
    levels = load_backbone(config, "cpu")(image(side))
    assert level_shapes(config) == tuple(tuple(level.shape[1:]) for level in levels)


def test_levels_are_chosen_by_stride() -> None:
    one, two, three = level_shapes(SMALL.replace(levels="16,4,8"))
    assert (one[0], two[0], three[0]) == (64, 128, 256) and one[1] == 2 * two[1]
    assert level_shapes(SMALL.replace(levels="8")) == (two,)
    backbone = load_backbone(SMALL.replace(levels="4"), "cpu")
    assert sum(p.numel() for p in backbone.parameters()) < 200_000  # nothing beyond the last level


def test_scattering_backbone_is_the_scattering() -> None:
    backbone = load_backbone(SMALL.replace(backbone="scattering"), "cpu")
    levels = backbone(image(37))
    assert all(torch.equal(a, b) for a, b in zip(levels, Scattering()(image(37)), strict=True))


def test_safetensors_and_pth_are_the_same_weights(network: torch.nn.Module, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "w.pth")
    safetensors.torch.save_file(network.state_dict(), tmp_path / "w.safetensors")
    ids = {load_backbone(with_file(tmp_path / n), "cpu").weights_id for n in ("w.pth", "w.safetensors")}
    assert len(ids) == 1


def test_files_without_level_4_or_batch_counters_are_enough(network: torch.nn.Module, tmp_path: Path) -> None:
    state = {k: v for k, v in network.state_dict().items() if "layer4" not in k and "num_batches" not in k}
    torch.save(state, tmp_path / "w.pth")
    assert load_backbone(with_file(tmp_path / "w.pth"), "cpu")(image())[1].isfinite().all()


def test_old_densenet_names_are_understood(tmp_path: Path) -> None:
    """As in torchvision's own files: `norm.1` for what the network calls `norm1`."""
    old = ["features.denseblock1.denselayer2.norm.1.weight", "features.denseblock1.denselayer2.conv.2.weight"]
    state = {name: torch.full((1,), float(i)) for i, name in enumerate([*old, "features.norm0.weight"])}
    torch.save(state, tmp_path / "densenet.pth")
    assert weights.read_weights_file(tmp_path / "densenet.pth") == {
        "features.denseblock1.denselayer2.norm1.weight": 0,
        "features.denseblock1.denselayer2.conv2.weight": 1,
        "features.norm0.weight": 2,
    }


def _truncate(path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:100_000])


def _change(key: str, value: torch.Tensor | None) -> Callable[[Path, dict[str, torch.Tensor]], None]:
    def write(path: Path, state: dict[str, torch.Tensor]) -> None:
        state = {k: v for k, v in state.items() if k != key}
        torch.save(state if value is None else state | {key: value}, path)

    return write


def _nest(path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save({"epoch": 3, "model": state}, path)


def _whole_model(path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(torch.nn.Linear(2, 2), path)


BAD = {
    "truncated": (_truncate, "cannot be read"),
    "empty": (lambda path, state: path.write_bytes(b""), "cannot be read"),
    "text": (lambda path, state: path.write_text("hello"), "cannot be read"),
    "nested": (_nest, "not a state dict"),
    "pickled model": (_whole_model, "cannot be read"),
    "a list": (lambda path, state: torch.save([1, 2], path), "not a state dict"),
    "missing": (_change("layer3.1.conv2.weight", None), "no tensor 'layer3.1.conv2.weight'"),
    "shape": (_change("conv1.weight", torch.zeros(64, 3, 3, 3)), "(64, 3, 3, 3)"),
    "nan": (_change("bn1.weight", torch.full((64,), float("nan"))), "not finite"),
    "integers": (_change("bn1.weight", torch.ones(64, dtype=torch.int64)), "floats"),
}


@pytest.mark.parametrize("fault", list(BAD))
def test_bad_weights_are_named(fault: str, network: torch.nn.Module, tmp_path: Path) -> None:
    write, reason = BAD[fault]
    path = tmp_path / "bad.pth"
    write(path, network.state_dict())
    with pytest.raises(PNIError, match=re.escape(reason)) as caught:
        load_backbone(with_file(path), "cpu")
    assert "bad.pth" in str(caught.value) and "\n" not in str(caught.value)


def test_bad_safetensors_and_absent_file(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"\x10\x00")
    for name, reason in (("w.safetensors", "cannot be read"), ("absent.pth", "no such file")):
        with pytest.raises(PNIError, match=f"{name}.*{reason}"):
            load_backbone(with_file(tmp_path / name), "cpu")


def test_scattering_takes_no_file(tmp_path: Path) -> None:
    with pytest.raises(PNIError, match="has no weights"):
        load_backbone(with_file(tmp_path / "w.pth", "scattering"), "cpu")
    assert load_backbone(SMALL.replace(backbone="scattering"), "cpu").weights_id == "scattering-v1"


def test_offline_says_both_ways_out(offline: Path) -> None:
    with pytest.raises(PNIError, match=r"could not be downloaded .*weights=FILE .*backbone=scattering") as caught:
        load_backbone(SMALL.replace(weights="imagenet"), "cpu")
    assert "\n" not in str(caught.value) and "resnet18" in str(caught.value)


def test_damaged_cached_download_is_refused(offline: Path, network: torch.nn.Module) -> None:
    offline.mkdir()
    cached = offline / "resnet18-f37072fd.pth"
    torch.save(network.state_dict(), cached)
    with pytest.raises(PNIError, match=r"resnet18-f37072fd\.pth: damaged"):
        load_backbone(SMALL.replace(weights="imagenet"), "cpu")


def test_cached_download_with_the_right_hash_is_used(
    offline: Path, network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline.mkdir()
    cached = offline / "resnet18-f37072fd.pth"
    torch.save(network.state_dict(), cached)
    monkeypatch.setattr(weights, "_hash_prefix", lambda path: "")
    from_cache = load_backbone(SMALL.replace(weights="imagenet"), "cpu")
    assert from_cache.weights_id == load_backbone(with_file(cached), "cpu").weights_id
