"""The network is the paper's, its switches do what they say; losses by hand; image, map and mask stay together."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from pnilib.config import PNIConfig
from pnilib.detector.steps import network_class
from pnilib.errors import PNIError
from pnilib.refinement.augmentation import augment
from pnilib.refinement.losses import gradient_loss, refinement_loss, regression_loss
from pnilib.refinement.network import RefineNet, blocks, build_network, standardise
from pnilib.released.refinement import BRIGHTNESSES, ReleasedNet

TINY = PNIConfig.profile("smoke").replace(refine_skips="none", refine_decoder_norm="none")
STILL = TINY.replace(refine_rotation=0.0, refine_jitter_size=0.0, refine_crop=0)
"""Augmentation that only mirrors."""


def inputs(height: int, width: int, b: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(image as `forward` takes it, map in [0, 1])."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(b, 3, height, width, generator=generator)
    return standardise(image), torch.rand(b, 1, height, width, generator=generator)


def built(**overrides: Any) -> RefineNet:
    config = TINY.replace(**overrides)
    return build_network(config, kind=network_class(config)).eval()


# -- the network ---------------------------------------------------------------------------------


def test_channels_and_sizes_of_the_paper() -> None:
    """Supplement S2, on the meta device: nothing is computed, every shape is."""
    with torch.device("meta"):
        network = RefineNet(PNIConfig())
        image, own = torch.empty(2, 3, 480, 480), torch.empty(2, 1, 480, 480)
    seen: dict[str, tuple[int, ...]] = {}

    def watch(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda _m, _i, out: seen.__setitem__(name, tuple(out.shape[1:])))

    for name in ("image_stem", "map_stem", "compress", "head"):
        watch(name, getattr(network, name))
    for k, stage in enumerate(network.stages):
        watch(f"stage{k}", stage)
    for k, up in enumerate(network.up):
        watch(f"up{k}", up)
    assert network(image, own).shape == (2, 1, 480, 480)
    assert seen == {
        "image_stem": (96, 120, 120), "map_stem": (96, 120, 120), "stage0": (384, 120, 120), "stage1": (768, 60, 60),
        "stage2": (2112, 30, 30), "stage3": (2208, 15, 15), "compress": (768, 15, 15), "up0": (384, 30, 30),
        "up1": (192, 60, 60), "up2": (96, 120, 120), "up3": (48, 240, 240), "up4": (24, 480, 480),
        "head": (1, 480, 480),
    }  # fmt: skip


def test_parameters_of_the_paper() -> None:
    """DenseNet-161 without its classifier, 28,681,000 - 1000 * 2209; a map stem; 1 x 1 and 3 x 3 decoder steps."""
    with torch.device("meta"):
        one, three = RefineNet(PNIConfig()), ReleasedNet(PNIConfig(released="three_map_channels"))
    decoder = 2208 * 768 + 768 + 24 + 1
    for before in (768, 384, 192, 96, 48):
        after = before // 2
        decoder += before * after + after + 9 * after * after + after
    expected = 28_681_000 - 1000 * 2209 + 49 * 96 + 2 * 96 + decoder
    assert sum(p.numel() for p in one.parameters()) == expected
    assert sum(p.numel() for p in three.parameters()) == expected + 2 * 49 * 96


@pytest.mark.parametrize("skips", ["none", "unet"])
@pytest.mark.parametrize(("height", "width"), [(50, 71), (64, 32), (1, 33)])
def test_an_odd_size_is_continued_by_its_edge(height: int, width: int, skips: str) -> None:
    network = built(refine_skips=skips, released="residual")
    image, own = inputs(height, width)
    rows = torch.arange(math.ceil(height / 32) * 32).clamp(max=height - 1)
    columns = torch.arange(math.ceil(width / 32) * 32).clamp(max=width - 1)
    whole = network(image[:, :, rows][..., columns], own[:, :, rows][..., columns])
    got = network(image, own)
    assert got.shape == (2, 1, height, width)
    assert torch.allclose(got, whole[:, :, :height, :width], atol=1e-6)


def test_b30_residual_adds_the_map() -> None:
    direct, residual = built(), built(released="residual")
    residual.load_state_dict(direct.state_dict())
    image, own = inputs(40, 56)
    assert direct(image, own).abs().max() > 1e-3
    assert torch.equal(residual(image, own), own + direct(image, own))


def test_b31_mean_halves_the_sum() -> None:
    image, own = inputs(64, 64)
    fused = {}
    for fuse in ("sum", "mean"):
        network = built(released="mean_of_stems" if fuse == "mean" else "")
        network.stages[0].register_forward_pre_hook(lambda _m, args, fuse=fuse: fused.__setitem__(fuse, args[0]))
        network(image, own)
        assert torch.equal(
            fused[fuse] * (2 if fuse == "mean" else 1), network.image_stem(image) + network.map_stem(own)
        )
    assert torch.equal(fused["mean"], fused["sum"] / 2) and fused["sum"].max() > 0


@pytest.mark.parametrize("skips", ["none", "unet"])
def test_b32_both_stems_start_as_one_function(skips: str) -> None:
    one, three = built(refine_skips=skips), built(refine_skips=skips, released="three_map_channels")
    image, own = inputs(64, 64)
    assert one.map_stem[0].weight.shape[1] == 1 and three.map_stem[0].weight.shape[1] == 3
    assert torch.allclose(one(image, own), three(image, own), atol=1e-5)
    assert (one(image, own) - one(image, 1 - own)).abs().max() > 1e-4  # the map counts


def test_the_maps_stem_starts_as_the_images() -> None:
    network = built(released="three_map_channels")
    _, own = inputs(64, 64)
    assert torch.equal(network.map_stem(own.expand(-1, 3, -1, -1)), network.image_stem(own.expand(-1, 3, -1, -1)))


def test_unet_skips_reach_the_pixel() -> None:
    """The last step sees image and map as they are; without skips everything passes through the encoder."""
    network = built(refine_skips="unet")
    sizes, skips = [64, 32, 16, 8, 4], [9, 10, 12, 4, 4]  # dense blocks: 8 + 4 = 12, 12 / 2 + 4 = 10, 10 / 2 + 4 = 9
    assert [up.first[0].weight.shape[1] for up in network.up] == [a + b for a, b in zip(sizes, skips, strict=True)]
    plain = built()
    assert [up.first[0].weight.shape[1] for up in plain.up] == sizes
    seen: list[Tensor] = []
    network.up[4].first.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    network.up[3].first.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    image, own = inputs(64, 64)
    network(image, own)
    both = torch.cat([image, own], 1)
    assert torch.equal(seen[1][:, -4:], both)
    assert torch.allclose(seen[0][:, -4:], both.view(2, 4, 32, 2, 32, 2).mean((3, 5)), atol=1e-6)


def test_a_decoder_step_doubles_bilinearly() -> None:
    """Half-pixel centres: 0, 4 becomes 0, 1, 3, 4 along either side."""
    network, seen = built(), []
    network.up[0].first.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    corners = torch.tensor([[0.0, 4.0], [8.0, 12.0]]).expand(1, 64, 2, 2).contiguous()
    network.up[0](corners, None)
    assert torch.equal(seen[0][0, 5], torch.tensor([0.0, 2.0, 6.0, 8.0])[:, None] + torch.tensor([0.0, 1.0, 3.0, 4.0]))


def test_decoder_norm() -> None:
    with_norm = built(refine_decoder_norm="batch")
    assert sum(isinstance(m, nn.BatchNorm2d) for m in with_norm.up.modules()) == 10
    assert not any(isinstance(m, nn.BatchNorm2d) for m in built().up.modules())
    image, own = inputs(64, 64)
    assert with_norm.train()(image, own).std() > 0


@pytest.mark.parametrize("loss", ["l2", "mse", "ce", "focal"])
def test_refined_is_a_probability_where_the_loss_takes_logits(loss: str) -> None:
    network = built(refine_loss=loss)
    image, own = inputs(32, 32)
    raw, expected = network(image, own), network.refined(image, own)
    assert torch.equal(expected, torch.sigmoid(raw) if loss in ("ce", "focal") else raw)


def test_standardise_by_hand() -> None:
    got = standardise(torch.tensor([0.485, 0.456 + 0.224, 0.0]).view(1, 3, 1, 1))
    assert torch.allclose(got.flatten(), torch.tensor([0.0, 1.0, -0.406 / 0.225]), atol=1e-6)


def test_first_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two, other = built().state_dict(), built().state_dict(), built(seed=1).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], two[name]) for name in one)
    for part in ("compress.weight", "head.weight", "stages.0.0.denselayer1.conv1.weight", "map_stem.0.weight"):
        assert not torch.equal(one[part], other[part])


@pytest.mark.parametrize(
    "text", ["6,12,36", "1,1,1,1,1", "a,b,c,d", "0,1,1,1", "1,1,1,-1", "1,,1,1", "1,1,1,1.5", "²,1,1,1"]
)
def test_nonsense_for_blocks_is_refused(text: str) -> None:
    with pytest.raises(PNIError, match="give the layers of four dense blocks, as 6,12,36,24"):
        blocks(text)
    with pytest.raises(PNIError, match="four dense blocks"):
        build_network(TINY.replace(refine_blocks=text))
    assert blocks(" 6, 12,36,24 ") == (6, 12, 36, 24)


# -- weights -------------------------------------------------------------------------------------


def test_the_encoder_is_the_given_densenet() -> None:
    """With a silent map, image stem and stages are the DenseNet's features, ReLU as its classifier applies."""
    network = built()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        dense = torchvision.models.DenseNet(growth_rate=4, block_config=(1, 1, 1, 1), num_init_features=8).features
        for module in dense.modules():
            if isinstance(module, nn.BatchNorm2d):
                for values in (module.weight, module.bias, module.running_mean):
                    nn.init.uniform_(values, 0.1, 1.0)  # type: ignore[arg-type]
                nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    network.load_encoder(dense.eval())
    image, _ = inputs(64, 64)
    x = network.image_stem(image)
    for stage in network.stages:
        x = stage(x)
    expected = F.relu(dense(image))
    assert torch.allclose(x, expected, atol=1e-6) and expected.std() > 0


def test_weights_of_another_size_are_refused() -> None:
    for weights in ("imagenet", "file.pth"):
        with pytest.raises(
            PNIError, match=f"refine_weights={weights}: only DenseNet-161 has weights: set refine_weights"
        ):
            build_network(TINY.replace(refine_weights=weights))


def test_weights_from_a_file(tmp_path: Path) -> None:
    """The whole of DenseNet-161: into the encoder, and its stem, added up over the colours, into the map's."""
    dense = torchvision.models.densenet161(weights=None).state_dict()
    for name in ("features.norm0.running_var", "features.denseblock4.denselayer24.norm2.running_mean"):
        dense[name] = torch.rand_like(dense[name])
    torch.save(dense, tmp_path / "dense.pth")
    paper = PNIConfig(refine_weights=str(tmp_path / "dense.pth"))
    network = build_network(paper).state_dict()
    stem = dense["features.conv0.weight"]
    assert torch.equal(network["image_stem.0.weight"], stem)
    assert torch.equal(network["map_stem.0.weight"], stem.sum(1, keepdim=True))
    assert torch.equal(network["map_stem.1.running_var"], dense["features.norm0.running_var"])
    for mine, theirs in (
        ("stages.1.0.conv.weight", "transition1.conv.weight"),
        ("stages.3.1.denselayer24.norm2.running_mean", "denseblock4.denselayer24.norm2.running_mean"),
        ("stages.3.1.denselayer24.conv2.weight", "denseblock4.denselayer24.conv2.weight"),
    ):
        assert torch.equal(network[mine], dense["features." + theirs]), mine
    (tmp_path / "half.pth").write_bytes((tmp_path / "dense.pth").read_bytes()[:100_000])
    with pytest.raises(PNIError, match=r"half.pth: cannot be read as weights"):
        build_network(paper.replace(refine_weights=str(tmp_path / "half.pth")))


# -- losses --------------------------------------------------------------------------------------

ERROR = torch.tensor([[3.0, 0.0, 0.0], [4.0, 0.0, 0.0]])[None, None]
"""Norm 5, HW = 6: l_reg = 5/6.  d_h: (1, 0, 0), norm 1.  d_w: (-3, 0), (-4, 0), norm 5.  l_grad = (1 + 5) / 12."""


def loss_of(error: Tensor, **overrides: Any) -> Tensor:
    truth = torch.linspace(0, 1, error.numel()).view_as(error)
    return refinement_loss(truth + error, truth, TINY.replace(**overrides))


def test_losses_by_hand() -> None:
    zero = torch.zeros_like(ERROR)
    assert regression_loss(ERROR, zero).item() == pytest.approx(5 / 6)
    assert gradient_loss(ERROR, zero).item() == pytest.approx(1 / 2)
    assert gradient_loss(ERROR.mT.contiguous(), zero.mT).item() == pytest.approx(1 / 2)
    assert loss_of(ERROR).item() == pytest.approx((5 / 6 + 1 / 2) / 2, rel=1e-5)
    assert loss_of(ERROR, refine_grad="off").item() == pytest.approx(5 / 12, rel=1e-5)  # setting L
    # squared (B33): 25/6, and (1 + 25) / 12
    assert loss_of(ERROR, refine_loss="mse").item() == pytest.approx((25 / 6 + 26 / 12) / 2, rel=1e-5)
    assert loss_of(ERROR, refine_loss="mse", refine_grad="off").item() == pytest.approx(25 / 12, rel=1e-5)


def test_a_constant_error_has_no_gradient_loss() -> None:
    assert gradient_loss(torch.full((1, 1, 4, 5), 0.7), torch.zeros(1, 1, 4, 5)) == 0


def test_the_norm_is_of_each_image() -> None:
    """Errors 5 and 12: their mean, 8.5, and not 13 or 13 / 2."""
    second = torch.zeros_like(ERROR)
    second[0, 0, 0, 2] = 12
    both = torch.cat([ERROR, second])
    assert regression_loss(both, torch.zeros_like(both)).item() == pytest.approx(8.5 / 6)
    assert regression_loss(both, torch.zeros_like(both), squared=True).item() == pytest.approx((25 + 144) / 2 / 6)
    alone = [gradient_loss(one[None], torch.zeros_like(ERROR)).item() for one in both]
    assert gradient_loss(both, torch.zeros_like(both)).item() == pytest.approx(np.mean(alone))


@pytest.mark.parametrize("loss", ["l2", "mse", "ce", "focal"])
def test_a_perfect_output_has_a_finite_gradient(loss: str) -> None:
    truth = torch.tensor([0.0, 1.0, 1.0, 0.0]).view(1, 1, 2, 2)
    out = truth.clone().requires_grad_()
    found = refinement_loss(out, truth, TINY.replace(refine_loss=loss))
    found.backward()
    assert out.grad is not None and torch.isfinite(out.grad).all()
    if loss in ("l2", "mse"):
        assert found == 0 and (out.grad == 0).all()


@pytest.mark.parametrize("grad", ["on", "off"])
def test_cross_entropy_and_focal_against_the_textbook(grad: str) -> None:
    logits = torch.randn(2, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    truth = (torch.rand(2, 1, 3, 4, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    cross, focal = 0.0, 0.0
    for x, y in zip(logits.flatten().tolist(), truth.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        right = p if y == 1 else 1 - p
        cross -= math.log(right) / 24
        focal -= (1 - right) ** 2 * math.log(right) / 24
    config = TINY.replace(refine_grad=grad)
    assert refinement_loss(logits, truth, config.replace(refine_loss="ce")).item() == pytest.approx(cross, rel=1e-5)
    assert refinement_loss(logits, truth, config.replace(refine_loss="focal")).item() == pytest.approx(focal, rel=1e-5)


# -- augmentation --------------------------------------------------------------------------------


def scene(height: int, width: int, mask: Tensor, b: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Images white on the mask and black elsewhere, the map likewise."""
    masks = mask.float().expand(b, 1, height, width).contiguous()
    return (masks * 255).to(torch.uint8).expand(-1, 3, -1, -1).contiguous(), masks.clone(), masks


def noise(b: int, height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (b, 3, height, width), generator=generator, dtype=torch.uint8)
    maps = torch.rand(b, 1, height, width, generator=generator)
    return images, maps, (torch.rand(b, 1, height, width, generator=generator) > 0.7).float()


def drawn(monkeypatch: pytest.MonkeyPatch, *, flip: bool, angle: float = 0.0, factors: Any = (0.5, 0.5, 0.5)) -> None:
    """The next augmentation's random numbers in [0, 1): for flip, angle (0.5 = none), and the colour factors."""
    answers = [0.1 if flip else 0.9, angle / 2 + 0.5, factors]

    def rand(*size: int, generator: torch.Generator) -> Tensor:
        return torch.as_tensor(answers.pop(0), dtype=torch.float32).expand(size).clone()

    monkeypatch.setattr(torch, "rand", rand)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [(24, 40), (33, 33)])
def test_half_of_the_images_are_mirrored_and_nothing_else_happens(size: tuple[int, int]) -> None:
    images, maps, masks = noise(64, *size)
    new_images, new_maps, new_masks = augment(images, maps, masks, STILL, seeded())
    turned = 0
    for i in range(64):
        mirrored = not torch.equal(new_masks[i], masks[i])
        turned += mirrored
        for new, old in ((new_images[i], images[i] / 255), (new_maps[i], maps[i]), (new_masks[i], masks[i])):
            assert torch.allclose(new, old.flip(2) if mirrored else old, atol=1e-4)
    assert 20 <= turned <= 44  # p < 0.002 outside


def test_a_quarter_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A positive angle turns counterclockwise, as torch.rot90 does; a mirrored image is turned first."""
    images, maps, masks = noise(1, 20, 20)
    config = STILL.replace(refine_rotation=90.0)
    for flip in (False, True):
        drawn(monkeypatch, flip=flip, angle=1.0)
        turned = augment(images, maps, masks, config, seeded())
        for new, old in zip(turned, (images / 255, maps, masks), strict=True):
            expected = torch.rot90(old, 1, (2, 3))
            assert torch.allclose(new, expected.flip(3) if flip else expected, atol=1e-4)


@pytest.mark.parametrize("angle", [-1.0, 0.4])
def test_rotation_is_rigid_on_oblong_images(monkeypatch: pytest.MonkeyPatch, angle: float) -> None:
    """A disc stays one, and goes where the rotation about the image's centre takes it."""
    height, width, degrees = 60, 100, 30 * angle
    y, x = torch.meshgrid(torch.arange(height) - 29.5, torch.arange(width) - 49.5, indexing="ij")
    drawn(monkeypatch, flip=False, angle=angle)
    images, maps, masks = scene(height, width, (x - 22) ** 2 + (y - 5) ** 2 < 12**2)
    turned = augment(images, maps, masks, STILL.replace(refine_rotation=30.0), seeded())
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    expected = (x - (22 * c + 5 * s)) ** 2 + (y - (5 * c - 22 * s)) ** 2 < 12**2  # y points down
    found = turned[2][0, 0] > 0
    assert (found & expected).sum() / (found | expected).sum() > 0.95


@pytest.mark.parametrize(("size", "crop"), [((48, 48), 0), ((40, 72), 0), ((72, 40), 32), ((48, 48), 24)])
def test_image_map_and_mask_move_together(size: tuple[int, int], crop: int) -> None:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[10:22, 20:31] = True
    config = STILL.replace(refine_rotation=40.0, refine_crop=crop)
    images, maps, masks = augment(*scene(*size, mask, b=16), config, seeded())
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert torch.allclose(images, maps.expand(-1, 3, -1, -1), atol=1e-5)
    assert torch.equal(masks, (maps > 0.5).float())
    shape = (min(crop, size[0]), min(crop, size[1])) if crop else size
    assert images.shape[2:] == masks.shape[2:] == shape
    assert len({tuple(one.flatten().tolist()) for one in masks}) > 12  # each its own way


def test_a_crop_is_a_window_around_some_of_the_defect() -> None:
    size, side, b = (40, 56), 16, 200
    numbers = torch.arange(40 * 56).view(1, 1, *size)
    mask = torch.zeros(size)
    mask[3:5, 50:53] = 1
    mask[30, 7] = 1
    images, _, masks = scene(*size, mask, b=b)
    maps = (numbers / numbers.max()).expand(b, -1, -1, -1).contiguous()
    config = STILL.replace(refine_crop=side)
    _, found_maps, found_masks = augment(images, maps, masks, config, seeded())
    found = (found_maps * numbers.max()).round().long()
    seen = set()
    for place, shown in zip(found[:, 0], found_masks[:, 0], strict=True):
        first, last = sorted((int(place[0, 0]), int(place[0, -1])))
        top, left = divmod(first, 56)
        assert last - first == side - 1
        window = numbers[0, 0, top : top + side, left : left + side]
        mirrored = place[0, 0] > place[0, -1]
        assert torch.equal(place, window.flip(1) if mirrored else window)
        expected = mask[top : top + side, left : left + side]
        assert torch.equal(shown, expected.flip(1) if mirrored else expected) and shown.any()
        seen.add((top, left))
    assert {top for top, _ in seen} >= {0, 4, 15, 24} and {left for _, left in seen} >= {0, 7, 35, 40}

    places = augment(images, maps, torch.zeros_like(masks), config, seeded())[1][:, 0, 0, 0]
    assert len(places.unique()) > 100  # an image without a defect: anywhere
    whole = augment(images, maps, masks, STILL.replace(refine_crop=64), seeded())
    assert whole[0].shape[2:] == size  # a crop larger than the image is the image


def test_colours_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    images, maps, masks = noise(1, 8, 8)
    images = (images // 4) + 60
    config = STILL.replace(refine_jitter_size=0.4)
    random = (0.8, 0.3, 0.9)
    one, two, three = (1 + (2 * r - 1) * 0.4 for r in random)
    x = images / 255
    weights = torch.tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)

    def grey(image: Tensor) -> Tensor:
        return (image * weights).sum(1, keepdim=True)

    brighter = x * one
    contrast = (two * brighter + (1 - two) * grey(brighter).mean()).clamp(0, 1)
    expected = (three * contrast + (1 - three) * grey(contrast)).clamp(0, 1)
    drawn(monkeypatch, flip=False, factors=random)
    found = augment(images, maps, masks, config, seeded())
    assert torch.allclose(found[0], expected, atol=2e-3)
    assert torch.allclose(found[1], maps, atol=1e-4) and torch.equal(found[2], masks)
    drawn(monkeypatch, flip=False, factors=random)
    released = augment(images, maps, masks, config, seeded(), BRIGHTNESSES)[0]
    assert torch.allclose(released, x * one * two * three, atol=1e-4)
    assert (released - found[0]).abs().max() > 0.02


def test_the_generator_decides_everything() -> None:
    config = TINY.replace(refine_rotation=20.0, refine_crop=24)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = augment(*noise(4, 40, 48), config, seeded(3))
    torch.manual_seed(2)
    two = augment(*noise(4, 40, 48), config, seeded(3))
    other = augment(*noise(4, 40, 48), config, seeded(4))
    torch.manual_seed(1)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0], other[0])
    assert one[0].min() >= 0 and one[0].max() <= 1 and one[1].min() >= 0 and one[1].max() <= 1
