r"""The refinement network f(I, A_hat): DenseNet encoder, early fusion, five-step decoder (PNI Fig. 4, S2).

"H x W size image I and anomaly map A_hat are transformed into H/4 x W/4 size features through a convolution layer and
max pooling, respectively.  These features are added element-wisely, forwarded to four dense blocks and three transition
layers, and transformed into 2208 x H/32 x W/32 size features. [...] features are compressed to 768 channels by the
first convolution layer and are upsampled to the original image size by five upsampling blocks.  Each upsampling block
consists of one bilinear upsampling interpolation and two following convolution layers. [...] the spatial resolution
of input features is expanded by factor 2, and the number of channels is halved. [...] The final convolution layer
estimates H x W size refined anomaly map." (supplement S2)

The text gives no kernel sizes and no activations of the decoder: as released, 1 x 1 then 3 x 3, each with a ReLU,
1 x 1 convolutions at both ends.  The stem is DenseNet's (7 x 7, stride 2, batch normalization, ReLU, max pooling); the
last dense block is followed by DenseNet's own normalization and ReLU.  An image whose side is no multiple of 32 is
continued by its edge and the result cut.

Ours: `refine_decoder_norm` and `refine_skips`.  Growth rate, block sizes and widths scale the same class down.
"""

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.nn import functional as F

from pnilib.config import PNIConfig
from pnilib.errors import PNIError
from pnilib.features.torchvision_networks import IMAGENET_MEAN, IMAGENET_STD
from pnilib.features.weights import read_weights

__all__ = ["STRIDE", "RefineNet", "blocks", "build_network", "standardise"]

STRIDE = 32
"""Pixels of the input to one cell of the encoder's last features, along a side."""

_DENSENET161 = (48, (6, 12, 36, 24), 96)


def blocks(text: str) -> tuple[int, int, int, int]:
    """ "6,12,36,24" -> (6, 12, 36, 24).  Raises PNIError for anything but four positive integers."""
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise PNIError(f"refine_blocks={text}: give the layers of four dense blocks, as 6,12,36,24")
    one, two, three, four = map(int, parts)
    return one, two, three, four


def standardise(images: Float32[Tensor, "b 3 h w"]) -> Float32[Tensor, "b 3 h w"]:
    """ImageNet standardisation of RGB in [0, 1]."""
    mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std


class RefineNet(nn.Module):
    """`forward(image, anomaly_map)`: the network's raw output, one value a pixel; see `refined` for A_tilde."""

    map_channels = 1

    def __init__(self, config: PNIConfig) -> None:
        from torchvision.models import DenseNet  # seconds to import

        super().__init__()
        self.config = config
        arguments = dict(
            growth_rate=config.refine_growth,
            block_config=blocks(config.refine_blocks),
            num_init_features=config.refine_stem_width,
        )
        dense = DenseNet(**arguments).features
        self.image_stem = nn.Sequential(dense.conv0, dense.norm0, dense.relu0, dense.pool0)
        width = config.refine_stem_width
        self.map_stem = nn.Sequential(
            nn.Conv2d(self.map_channels, width, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.stages = nn.ModuleList(
            [
                nn.Sequential(dense.denseblock1),
                nn.Sequential(dense.transition1, dense.denseblock2),
                nn.Sequential(dense.transition2, dense.denseblock3),
                nn.Sequential(dense.transition3, dense.denseblock4, dense.norm5, nn.ReLU(inplace=True)),
            ]
        )
        levels = _channels(config)
        skips = [levels[2], levels[1], levels[0], 4, 4] if config.refine_skips == "unet" else [0] * 5
        self.compress = nn.Conv2d(levels[3], config.refine_decoder, 1)
        sizes = [config.refine_decoder >> k for k in range(6)]
        self.up = nn.ModuleList(
            _Up(before, skip, after, config.refine_decoder_norm == "batch")
            for before, skip, after in zip(sizes[:-1], skips, sizes[1:], strict=True)
        )
        self.head = nn.Conv2d(sizes[-1], 1, 1)

    def forward(
        self, image: Float32[Tensor, "b 3 h w"], anomaly_map: Float32[Tensor, "b 1 h w"]
    ) -> Float32[Tensor, "b 1 h w"]:
        """`image`: ImageNet-standardised RGB; `anomaly_map`: in [0, 1]."""
        h, w = image.shape[2:]
        rest = (0, -w % STRIDE, 0, -h % STRIDE)
        image, padded = F.pad(image, rest, mode="replicate"), F.pad(anomaly_map, rest, mode="replicate")
        x = self.merge(self.image_stem(image), self.map_stem(padded.expand(-1, self.map_channels, -1, -1)))
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        skips: list[Tensor | None] = [None] * 5
        if self.config.refine_skips == "unet":
            both = torch.cat([image, padded], 1)
            skips = [levels[2], levels[1], levels[0], F.avg_pool2d(both, 2), both]
        x = self.compress(x)
        for up, skip in zip(self.up, skips, strict=True):
            x = up(x, skip)
        out = self.head(x)[:, :, :h, :w].float()  # bf16 in mixed precision
        return self.result(out, anomaly_map)

    def merge(self, image_features: Float[Tensor, "b c h w"], map_features: Float[Tensor, "b c h w"]) -> Tensor:
        """Of both stems: "added element-wisely"."""
        return image_features + map_features

    def result(self, out: Float32[Tensor, "b 1 h w"], anomaly_map: Float32[Tensor, "b 1 h w"]) -> Tensor:
        """What the last layer gives is the refined map itself."""
        return out

    def refined(
        self, image: Float32[Tensor, "b 3 h w"], anomaly_map: Float32[Tensor, "b 1 h w"]
    ) -> Float32[Tensor, "b 1 h w"]:
        """A_tilde: the output; its sigmoid where the loss takes logits (ce, focal)."""
        out = self(image, anomaly_map)
        return out.sigmoid() if self.config.refine_loss in ("ce", "focal") else out

    def load_encoder(self, dense: nn.Module) -> None:
        """Start from the features of a trained DenseNet of the same size."""
        mine: list[nn.Module] = [self.image_stem[0], self.image_stem[1]]
        stages: list[nn.Sequential] = list(self.stages)  # type: ignore[arg-type]
        mine += [part for stage in stages for part in stage if not isinstance(part, nn.ReLU)]
        theirs = [part for part in dense.children() if next(part.parameters(), None) is not None]
        for part, trained in zip(mine, theirs, strict=True):
            part.load_state_dict(trained.state_dict())


class _Up(nn.Module):
    """Bilinear x 2, then two convolutions to half the channels."""

    def __init__(self, before: int, skip: int, after: int, normalised: bool) -> None:
        super().__init__()
        norm = nn.BatchNorm2d if normalised else nn.Identity
        self.first = nn.Sequential(nn.Conv2d(before + skip, after, 1), norm(after), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(after, after, 3, padding=1), norm(after), nn.ReLU())

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        if skip is not None:
            x = torch.cat([x, skip], 1)
        return self.second(self.first(x))


def _channels(config: PNIConfig) -> list[int]:
    """Channels after each dense block; a transition halves them."""
    width, found = config.refine_stem_width, []
    for i, layers in enumerate(blocks(config.refine_blocks)):
        width = (width // 2 if i else width) + layers * config.refine_growth
        found.append(width)
    return found


def build_network(
    config: PNIConfig, device: torch.device | str = "cpu", kind: type[RefineNet] = RefineNet
) -> RefineNet:
    """The network with its first weights: encoder from `refine_weights`, the rest random by `seed`.

    The map's stem starts as the image's, its RGB weights added up for one channel.  Raises PNIError for weights that do
    not fit DenseNet-161, or are asked for another size.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = kind(config)
        torch.manual_seed(config.seed + 2**31)  # stems of other sizes have drawn other numbers
        for module in [network.compress, network.head, *network.up.modules()]:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu" if module is not network.head else "linear")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    if config.refine_weights != "random":
        size = (config.refine_growth, blocks(config.refine_blocks), config.refine_stem_width)
        if size != _DENSENET161:
            raise PNIError(
                f"refine_weights={config.refine_weights}: only DenseNet-161 has weights: set refine_weights=random, or "
                "leave refine_growth, refine_blocks and refine_stem_width as they are"
            )
        from torchvision.models import densenet161  # seconds to import

        dense = densenet161(weights=None)
        ways_out = "set refine_weights=FILE to a state dict of torchvision's densenet161, or random"
        wanted = {name: tensor for name, tensor in dense.state_dict().items() if not name.startswith("classifier")}
        state = read_weights("densenet161", config.refine_weights, wanted, "refine_weights", ways_out)
        dense.load_state_dict(state, strict=False)
        network.load_encoder(dense.features)
    with torch.no_grad():
        weight: Tensor = network.image_stem[0].weight  # type: ignore[assignment]
        start: Tensor = network.map_stem[0].weight  # type: ignore[assignment]
        start.copy_(weight.sum(1, keepdim=True) if network.map_channels == 1 else weight)
        network.map_stem[1].load_state_dict(network.image_stem[1].state_dict())
    return network.to(device)
