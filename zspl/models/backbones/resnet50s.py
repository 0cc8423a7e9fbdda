"""ResNet-50 with the deep three-convolution stem, UniMatch's backbone (methods.md 4.1).

timm's `resnet50s` at output stride 16 is that network: equal keys, equal outputs. The usual
`resnet50` (one 7x7 convolution) is another one.
"""

from typing import Literal

from zspl.models.backbones._timm import TimmSettings, build_timm
from zspl.models.network import Encoder


class Settings(TimmSettings):
    """Settings of the encoder; `gluon_in1k` are the weights of UniMatch's lineage."""

    output_stride: Literal[8, 16, 32] = 16


def build(settings: Settings) -> Encoder:
    """Build the encoder: levels of stride 4 (256 channels) and `output_stride` (2048).

    Raises:
        WeightsError: if the pretrained weights cannot be had or do not fit.
    """
    options = {"out_indices": (1, 4), "output_stride": settings.output_stride}
    return build_timm("resnet50s", settings, options)
