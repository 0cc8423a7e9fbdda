"""The all-MLP decoder of SegFormer (Xie et al. 2021, methods.md 4.4)."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from zspl.models.network import HeadFactory
from zspl.models.pretrained import HeadSettings


class Settings(HeadSettings):
    """Settings of the decoder."""

    width: int = Field(
        default=768, gt=0, description="Channels per level; 768 gives the published B5 size."
    )
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Of whole channels, at the end.")
    align_corners: bool = Field(
        default=False,
        description="Of the last upsampling; true as UniMatch with SegFormer in AllSpark's code.",
    )


class SegFormerHead(nn.Module):
    """One linear map per level, fused by a 1x1 convolution at the finest level's size.

    Unlike the published code, each level goes through one convolution with the product of both
    weights, at its own size, and is upsampled then: the maps are linear and the bilinear weights
    sum to one, so that they commute. 21 times fewer multiplications at 321 pixels, equal results.
    """

    def __init__(self, settings: Settings, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        width = settings.width
        self.align_corners = settings.align_corners
        self.linears = nn.ModuleList(nn.Conv2d(level, width, 1) for level in channels)
        self.fuse = nn.Conv2d(len(channels) * width, width, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout2d(settings.dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(
        self, features: Sequence[Tensor], size: tuple[int, int]
    ) -> Float[Tensor, "B C height width"]:
        """Return class logits at `size` = (height, width)."""
        weights, bias = self._fused()
        finest = features[0]
        x = F.conv2d(finest, weights[0], bias)
        for level, weight in zip(features[1:], weights[1:], strict=True):
            x += F.interpolate(F.conv2d(level, weight), size=finest.shape[-2:], mode="bilinear")
        logits = self.classifier(self.dropout(F.relu(self.bn(x))))
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=self.align_corners)

    def _fused(self) -> tuple[list[Tensor], Tensor]:
        """Return the product of both maps: Float[E C_i 1 1] per level, and one bias Float[E]."""
        # The published concatenation puts the coarsest level first.
        fuse = reversed(self.fuse.weight.flatten(1).chunk(len(self.linears), dim=1))
        linears: Any = self.linears
        with _full_precision(self.fuse.weight.device.type):
            products = [
                ((part @ linear.weight.flatten(1))[:, :, None, None], part @ linear.bias)
                for part, linear in zip(fuse, linears, strict=True)
            ]
        weights, biases = zip(*products, strict=True)
        return list(weights), torch.stack(biases).sum(0)


def _full_precision(kind: str) -> AbstractContextManager[object]:
    """Suspend autocast: a product of weights in half precision would be rounded twice."""
    available = torch.amp.is_autocast_available(kind)
    return torch.autocast(kind, enabled=False) if available else nullcontext()


def build(settings: Settings) -> HeadFactory:
    """Return the maker of the decoder; it reads every level."""
    return partial(SegFormerHead, settings)
