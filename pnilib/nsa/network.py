"""NSA's network: a ResNet-18 from scratch sees the image, a mirrored one draws where it was changed.

    image (3, h, w) -> encoder, four stages -> (512, h/32, w/32) -> 1 x 1 convolutions to 256 and 128, ReLU
    -> transposed stages of 64, 32 and 16 channels, two blocks each, each doubling the side -> (16, h/4, w/4)
    -> bilinear x 2 (corners aligned) -> transposed convolution 7 x 7, stride 2 -> (1, h, w)

Source: the released code as PAPER_AUDIT section D describes it.  It does not say which of a stage's two transposed
blocks doubles the side: the first one here, as the encoder's stages halve it in theirs.  Weights are drawn after He et
al., by fan-out.
"""

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["NSANet", "TransposedBlock"]


class TransposedBlock(nn.Module):
    """A ResNet basic block whose first convolution is transposed: (b, i, h, w) -> (b, o, s h, s w)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()

        def up(kernel: int) -> list[nn.Module]:
            padding, more = kernel // 2, stride - 1
            return [
                nn.ConvTranspose2d(channels_in, channels_out, kernel, stride, padding, output_padding=more, bias=False),
                nn.BatchNorm2d(channels_out),
            ]

        self.path = nn.Sequential(
            *up(3),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        same = stride == 1 and channels_in == channels_out
        self.shortcut = nn.Identity() if same else nn.Sequential(*up(1))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.path(x) + self.shortcut(x))


class NSANet(nn.Module):
    """Logits (b, 1, h, w) of images (b, 3, h, w), ImageNet mean and standard deviation, sides multiples of 32.

    The label is their sigmoid, or, for continuous labels, their positive part.
    """

    def __init__(self) -> None:
        from torchvision.models import resnet18  # seconds to import

        super().__init__()
        encoder = resnet18(weights=None)  # its convolutions are drawn by fan-out
        del encoder.fc, encoder.avgpool
        self.encoder = encoder
        self.bottleneck = nn.Sequential(
            nn.Conv2d(512, 256, 1), nn.ReLU(inplace=True), nn.Conv2d(256, 128, 1), nn.ReLU(inplace=True)
        )
        stages = [(128, 64), (64, 32), (32, 16)]
        self.decoder = nn.Sequential(
            *(block for i, o in stages for block in (TransposedBlock(i, o, 2), TransposedBlock(o, o, 1))),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.ConvTranspose2d(16, 1, 7, stride=2, padding=3, output_padding=1),
        )
        for part in (self.bottleneck, self.decoder):
            for layer in part.modules():
                if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
        e = self.encoder
        x = e.maxpool(e.relu(e.bn1(e.conv1(x))))
        x = e.layer4(e.layer3(e.layer2(e.layer1(x))))
        return self.decoder(self.bottleneck(x))
