"""Aligned Xception-65 (Chen et al. 2018), UniMatch's backbone on COCO (methods.md 4.3).

timm's `xception65` at output stride 16 is that network up to three things that UniMatch's code
does otherwise, which its checkpoints were trained with: batch norm adds 1e-5 (not 1e-3) to the
variance and moves its averages by 3e-4, the last three convolutions are not dilated, and the
shortcut of the identity blocks is rectified.
"""

from typing import Any, Literal

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from zspl.models.backbones._timm import TimmSettings, create_timm
from zspl.models.network import Encoder
from zspl.models.pretrained import load_backbone_file

LOW, IDENTITY, LAST = 1, range(3, 19), 20
"""Places among the 21 blocks: whose inside is the finest level, without stride, and the exit."""

CHANNELS = (256, 2048)
BEFORE_LAST_RELU = 4
EPS, MOMENTUM = 1e-5, 3e-4


class Settings(TimmSettings):
    """Settings of the encoder; `tf_in1k` are weights for the variant `deeplab`."""

    variant: Literal["unimatch", "deeplab"] = Field(
        default="unimatch", description="UniMatch's network, or timm's, which is TensorFlow's."
    )


class Xception65(nn.Module):
    """An aligned Xception at output stride 16 that returns its levels of stride 4 and 16."""

    def __init__(self, network: Any, *, variant: str) -> None:  # noqa: ANN401 - timm has no types
        super().__init__()
        self.stem: nn.Module = network.stem
        self.blocks: nn.Sequential = network.blocks
        self.rectified = variant == "unimatch"
        if self.rectified:
            _as_unimatch(self)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Return the feature maps of stride 4 (not rectified) and of stride 16."""
        x, low = self.stem(images), images
        for place, block in enumerate(self.blocks):
            if self.rectified and place in IDENTITY:
                x = F.relu(x)
            if place == LOW:
                x, low = _with_inside(block, x)
            else:
                x = block(x)
        return [low, x]


def _with_inside(block: Any, x: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Return a block's output and what its second convolution returns."""
    inside = block.stack[:BEFORE_LAST_RELU](x)
    # timm's own ReLU would overwrite the level that is returned.
    last = block.stack[-1](F.relu(inside))
    return last + block.shortcut(x), inside


def _as_unimatch(network: Xception65) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = EPS, MOMENTUM
    for module in network.blocks[LAST].modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.dilation, module.padding = (1, 1), (1, 1)


def build(settings: Settings) -> Encoder:
    """Build the encoder: levels of stride 4 (256 channels) and 16 (2048).

    Raises:
        WeightsError: if the pretrained weights cannot be had or do not fit.
    """
    network = create_timm("xception65", settings, {"output_stride": 16, "num_classes": 0})
    module = Xception65(network, variant=settings.variant)
    if settings.file is not None:
        load_backbone_file(module, settings.file, sha256=settings.sha256)
    return Encoder(module=module, channels=CHANNELS)
