"""A small residual network for small images, trained from scratch within minutes on one core.

It is no published network: basic residual blocks (He et al. 2016) at strides 2, 4, 8 and 8.
Dense 3x3 convolutions only, since depth-wise ones are slow to train on a processor.
"""

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from zspl.models.network import Encoder
from zspl.settings import Section


class Settings(Section):
    """Settings of the encoder."""

    widths: tuple[int, int, int, int] = Field(
        default=(16, 32, 64, 96), description="Channels of the stem and the three stages."
    )
    blocks: int = Field(default=1, ge=1, description="Residual blocks per stage.")
    output_stride: Literal[8, 16] = 8
    pretrained: None = Field(default=None, description="Nobody publishes weights for it.")


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, channels: int, out: int, *, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = (
            nn.Identity()
            if (channels, stride) == (out, 1)
            else nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        )

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D h2 w2"]:
        """Return the block's feature map."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(residual + self.shortcut(x))


class CompactNetwork(nn.Module):
    """A stem and three stages; the first and the last stage are returned."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        stem, low, middle, high = settings.widths
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem, 3, 2, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU(inplace=True)
        )
        last_stride = settings.output_stride // 8
        self.stage1 = _stage(stem, low, blocks=settings.blocks, stride=2)
        self.stage2 = _stage(low, middle, blocks=settings.blocks, stride=2)
        self.stage3 = _stage(
            middle, high, blocks=settings.blocks, stride=last_stride, dilation=2 // last_stride
        )

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Return the feature maps of stride 4 and of the output stride."""
        low = self.stage1(self.stem(images))
        return [low, self.stage3(self.stage2(low))]


def _stage(
    channels: int, out: int, *, blocks: int, stride: int, dilation: int = 1
) -> nn.Sequential:
    first = ResidualBlock(channels, out, stride=stride, dilation=dilation)
    rest = (ResidualBlock(out, out, stride=1, dilation=dilation) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


def build(settings: Settings) -> Encoder:
    """Build the encoder: levels of stride 4 and `output_stride`."""
    channels = (settings.widths[1], settings.widths[3])
    return Encoder(module=CompactNetwork(settings), channels=channels)
