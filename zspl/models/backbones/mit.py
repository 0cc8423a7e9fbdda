"""Mix Transformer B0-B5, the encoder of SegFormer (Xie et al. 2021, methods.md 4.4).

The ImageNet weights are NVIDIA's, under the NVIDIA Source Code License: research and
evaluation only, no commercial use. Training from random weights is free of that.
"""

from typing import Any, Literal

from jaxtyping import Float
from segmentation_models_pytorch.encoders import get_encoder
from torch import Tensor, nn
from torch.nn import functional as F

from zspl.io import catalog
from zspl.models.backbones._timm import TimmSettings
from zspl.models.network import Encoder
from zspl.models.pretrained import create_from_hub, load_backbone_file, notify

STRIDES = (4, 8, 16, 32)
SMALLEST = 29
"""Side in pixels from which the attention, whose keys are reduced 8 times, has a key."""
LICENCE = "NVIDIA-SegFormer"


class Settings(TimmSettings):
    """Settings of the encoder; `imagenet` are NVIDIA's weights."""

    size: Literal["b0", "b1", "b2", "b3", "b4", "b5"] = "b4"


class MixTransformer(nn.Module):
    """A Mix Transformer that returns its four levels, strides 4, 8, 16 and 32.

    Unlike in the paper, a narrower image than 29 pixels, such as the last window of a photo, is
    continued by its edge, and its levels are cut off where it ends.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Return four feature maps, finest first; the library's two dummy levels are dropped."""
        height, width = images.shape[-2:]
        missing = (0, max(0, SMALLEST - width), 0, max(0, SMALLEST - height))
        if any(missing):
            images = F.pad(images, missing, mode="replicate")
        levels = list(self.encoder(images))[-len(STRIDES) :]
        # Not -(-height // stride): a traced network divides towards zero.
        return [
            level[:, :, : (height + stride - 1) // stride, : (width + stride - 1) // stride]
            for level, stride in zip(levels, STRIDES, strict=True)
        ]


def build(settings: Settings) -> Encoder:
    """Build the encoder for images of any size.

    Raises:
        WeightsError: if the pretrained weights cannot be had or do not fit.
    """
    tag = settings.pretrained if settings.file is None else None
    name = f"mit_{settings.size}"

    def create() -> nn.Module:
        module: nn.Module = get_encoder(name, weights=tag)
        return module

    what = f"{name}.{tag}"
    encoder: Any = create() if tag is None else create_from_hub(create, what=f"backbone {what}")
    module = MixTransformer(encoder)
    if settings.file is not None:
        load_backbone_file(module, settings.file, sha256=settings.sha256)
    if tag is not None:
        notify(f"{what}: {catalog.restriction(LICENCE)}")
    return Encoder(module=module, channels=tuple(encoder.out_channels[-len(STRIDES) :]))
