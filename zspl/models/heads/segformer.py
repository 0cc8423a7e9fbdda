"""The all-MLP decoder of SegFormer (Xie et al. 2021, methods.md 4.4)."""

from collections.abc import Sequence
from functools import partial

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from zspl.models.network import HeadFactory
from zspl.settings import Section


class Settings(Section):
    """Settings of the decoder."""

    width: int = Field(
        default=768, gt=0, description="Channels per level; 768 gives the published B5 size."
    )
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Of whole channels, at the end.")


class SegFormerHead(nn.Module):
    """One linear map per level, fused by a 1x1 convolution at the finest level's size.

    Unlike the published code, the fusing convolution is applied to each level before its
    bilinear upsampling: both are linear and commute, and the coarse levels become cheap.
    """

    def __init__(self, settings: Settings, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        width = settings.width
        self.linears = nn.ModuleList(nn.Conv2d(level, width, 1) for level in channels)
        self.fuse = nn.Conv2d(len(channels) * width, width, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout2d(settings.dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(
        self, features: Sequence[Tensor], size: tuple[int, int]
    ) -> Float[Tensor, "B C height width"]:
        """Return class logits at `size` = (height, width)."""
        finest = features[0].shape[-2:]
        # The published concatenation puts the coarsest level first.
        weights = reversed(self.fuse.weight.chunk(len(features), dim=1))
        fused = sum(
            F.interpolate(F.conv2d(linear(level), weight), size=finest, mode="bilinear")
            for level, linear, weight in zip(features, self.linears, weights, strict=True)
        )
        logits = self.classifier(self.dropout(F.relu(self.bn(fused))))
        return F.interpolate(logits, size=size, mode="bilinear")


def build(settings: Settings) -> HeadFactory:
    """Return the maker of the decoder; it reads every level."""
    return partial(SegFormerHead, settings)
