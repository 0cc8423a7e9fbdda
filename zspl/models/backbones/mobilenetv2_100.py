"""MobileNetV2 1.0, small enough to fine-tune on a processor."""

from typing import Literal

from zspl.models.backbones._timm import TimmSettings, build_timm
from zspl.models.network import Encoder


class Settings(TimmSettings):
    """Settings of the encoder.

    `pad_type` is `same` for weights that come from TensorFlow and "" for PyTorch's; at image
    sides 32k+1 (193, 225, 257, 321) both give the same result.
    """

    output_stride: Literal[8, 16, 32] = 16
    pad_type: Literal["same", ""] = "same"


def build(settings: Settings) -> Encoder:
    """Build the encoder: levels of stride 4 (24 channels) and `output_stride` (320).

    Raises:
        WeightsError: if the pretrained weights cannot be had or do not fit.
    """
    options = {
        "out_indices": (1, 4),
        "output_stride": settings.output_stride,
        "pad_type": settings.pad_type,
    }
    return build_timm("mobilenetv2_100", settings, options)
