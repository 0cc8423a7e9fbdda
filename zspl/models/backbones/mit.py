"""Mix Transformer B0-B5, the encoder of SegFormer (Xie et al. 2021, methods.md 4.4).

The ImageNet weights are NVIDIA's, under the NVIDIA Source Code License: research and
evaluation only, no commercial use. Training from random weights is free of that.
"""

from typing import Any, Literal

from jaxtyping import Float
from pydantic import Field
from segmentation_models_pytorch.encoders import get_encoder
from torch import Tensor, nn

from zspl.models.network import Encoder
from zspl.models.pretrained import create_from_hub, is_file, load_backbone_file
from zspl.settings import Section

LEVELS = 4


class Settings(Section):
    """Settings of the encoder."""

    size: Literal["b0", "b1", "b2", "b3", "b4", "b5"] = "b4"
    pretrained: str | None = Field(
        default=None, description="null, the tag imagenet, or a checkpoint file."
    )
    sha256: str | None = Field(default=None, description="Checksum of a checkpoint file, in hex.")


class MixTransformer(nn.Module):
    """A Mix Transformer that returns its four levels, strides 4, 8, 16 and 32."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Return four feature maps, finest first; the library's two dummy levels are dropped."""
        return list(self.encoder(images))[-LEVELS:]


def build(settings: Settings) -> Encoder:
    """Build the encoder for images of any size.

    Raises:
        WeightsError: if the pretrained weights cannot be had or do not fit.
    """
    tag = settings.pretrained
    name = f"mit_{settings.size}"
    from_hub = tag is not None and not is_file(tag)

    def create() -> nn.Module:
        module: nn.Module = get_encoder(name, weights=tag if from_hub else None)
        return module

    encoder: Any = create_from_hub(create, what=f"backbone {name}.{tag}") if from_hub else create()
    if tag is not None and not from_hub:
        load_backbone_file(encoder, tag, sha256=settings.sha256)
    return Encoder(module=MixTransformer(encoder), channels=tuple(encoder.out_channels[-LEVELS:]))
