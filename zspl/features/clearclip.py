"""ClearCLIP: the last block is nothing but attention from queries to queries.

Lan et al., "ClearCLIP: Decomposing CLIP Representations for Dense Vision-Language Inference",
ECCV 2024.
"""

from zspl.features._last_block import build_encoder, self_attention
from zspl.features._open_clip import ClipEncoder, ClipSettings


class Settings(ClipSettings):
    """Settings of ClearCLIP."""


def build(settings: Settings) -> ClipEncoder:
    """Return the encoder with ClearCLIP's last block, which has no residual connection and no MLP.

    Raises:
        SettingsError: if open_clip has no such model or weights.
        WeightsError: if the weights cannot be had.
    """
    return build_encoder(
        settings, lambda heads: self_attention(heads.query, heads.value), keep_rest=False
    )
