"""The decoder of DeepLabV3+ as UniMatch builds it (methods.md 4.2).

Unlike Chen et al. 2018, all convolutions are dense and the projection has no dropout.
"""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from zspl.errors import SettingsError
from zspl.io import processes
from zspl.models.network import HeadFactory
from zspl.models.pretrained import HeadSettings


class Settings(HeadSettings):
    """Settings of the decoder."""

    width: int = Field(default=256, gt=0, description="Channels of the ASPP and of the fusion.")
    dilations: tuple[int, ...] = Field(default=(6, 12, 18), description="Of the ASPP's 3x3s.")
    low_width: int = Field(default=48, gt=0, description="Channels kept of the finest level.")


def conv_bn_relu(channels: int, out: int, *, kernel: int, dilation: int = 1) -> list[nn.Module]:
    """Return a convolution without bias that keeps the size, batch norm and ReLU."""
    padding = dilation * (kernel // 2)
    return [
        nn.Conv2d(channels, out, kernel, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
    ]


def resize(x: Float[Tensor, "B C h w"], size: tuple[int, int]) -> Float[Tensor, "B C h2 w2"]:
    """Resize bilinearly with aligned corners, as UniMatch's decoder does everywhere."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


class ImagePooling(nn.Module):
    """The ASPP branch that sees the whole image."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.gap = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_bn_relu(channels, out, kernel=1))

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D h w"]:
        """Return the pooled feature at every position.

        Raises:
            SettingsError: if a training batch holds one image, which cannot be normalised.
        """
        if self.training and x.shape[0] == 1 and not self._looks_across_processes():
            raise SettingsError(
                "head deeplabv3plus: batch norm of the pooled image needs 2 or more images in what "
                "a process decodes at once, got 1; raise train.batch_labeled and "
                "train.batch_unlabeled, lower train.accumulate or take fewer processes"
            )
        pooled: Tensor = self.gap(x)
        return pooled.expand(-1, -1, x.shape[-2], x.shape[-1])

    def _looks_across_processes(self) -> bool:
        synced = any(isinstance(module, nn.SyncBatchNorm) for module in self.gap)
        return synced and processes.count() > 1


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: 1x1, dilated 3x3s and the pooled image."""

    def __init__(self, channels: int, settings: Settings) -> None:
        super().__init__()
        width = settings.width
        self.branches = nn.ModuleList(
            [
                nn.Sequential(*conv_bn_relu(channels, width, kernel=1)),
                *(
                    nn.Sequential(*conv_bn_relu(channels, width, kernel=3, dilation=rate))
                    for rate in settings.dilations
                ),
                ImagePooling(channels, width),
            ]
        )
        self.project = nn.Sequential(*conv_bn_relu(len(self.branches) * width, width, kernel=1))

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D h w"]:
        """Return the projected pyramid."""
        pyramid: Tensor = self.project(torch.cat([branch(x) for branch in self.branches], dim=1))
        return pyramid


class DeepLabV3PlusHead(nn.Module):
    """ASPP on the coarsest level, fused with the reduced finest level."""

    def __init__(self, settings: Settings, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        width, low_width = settings.width, settings.low_width
        self.aspp = ASPP(channels[-1], settings)
        self.reduce = nn.Sequential(*conv_bn_relu(channels[0], low_width, kernel=1))
        self.fuse = nn.Sequential(
            *conv_bn_relu(low_width + width, width, kernel=3), *conv_bn_relu(width, width, kernel=3)
        )
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(
        self, features: Sequence[Tensor], size: tuple[int, int]
    ) -> Float[Tensor, "B C height width"]:
        """Return class logits at `size` = (height, width)."""
        low = self.reduce(features[0])
        high = resize(self.aspp(features[-1]), (low.shape[-2], low.shape[-1]))
        return resize(self.classifier(self.fuse(torch.cat([low, high], dim=1))), size)


def build(settings: Settings) -> HeadFactory:
    """Return the maker of the decoder; it reads the finest and the coarsest level."""
    return partial(DeepLabV3PlusHead, settings)
