"""Plain CLIP: the last layer's patch tokens in the joint space, without any change."""

from typing import TYPE_CHECKING

from torch import Tensor

from zspl.features._open_clip import ClipEncoder, ClipSettings
from zspl.features.gem import check_forward, gem_tokens

if TYPE_CHECKING:
    from open_clip import CLIP


class Settings(ClipSettings):
    """Settings of plain CLIP."""


def build(settings: Settings) -> ClipEncoder:
    """Return the encoder whose dense features are CLIP's own patch tokens.

    Raises:
        SettingsError: if open_clip has no such model or weights.
        WeightsError: if the weights cannot be had.
    """
    encoder = ClipEncoder(settings, _tokens)
    check_forward(encoder.model, settings.model)
    return encoder


def _tokens(clip: "CLIP", images: Tensor) -> Tensor:
    return gem_tokens(clip, images, depth=1)[1]
