"""What every segmentation network has in common: encode, decode, forward."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoder:
    """A backbone: its module returns one feature map per level, finest first."""

    module: nn.Module
    channels: tuple[int, ...]
    """Channels of each returned level."""


HeadFactory = Callable[[Sequence[int], int], nn.Module]
"""Makes the decoder from the encoder's channels and the number of classes.

The decoder is called with the feature maps and the (height, width) of the logits to return.
"""


class SegmentationNetwork(nn.Module):
    """An encoder and a decoder; every parameter of the encoder is named `backbone.*`."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Return one feature map Float[B C_i h_i w_i] per level, finest first."""
        return list(self.backbone(images))

    def decode(
        self, features: Sequence[Tensor], size: tuple[int, int]
    ) -> Float[Tensor, "B C height width"]:
        """Return class logits at `size` = (height, width), in pixels.

        Under autocast they are float32 again, since losses and confidences are.
        """
        logits: Tensor = self.head(features, size)
        kind = logits.device.type
        half = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        return logits.float() if half else logits

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C H W"]:
        """Return class logits at the size of the normalised images."""
        return self.decode(self.encode(images), (images.shape[-2], images.shape[-1]))
