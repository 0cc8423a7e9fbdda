"""SCLIP: the last block attends from queries to queries and from keys to keys, and adds both.

Wang et al., "SCLIP: Rethinking Self-Attention for Dense Vision-Language Inference", ECCV 2024.
"""

from torch import Tensor

from zspl.features._last_block import Heads, build_encoder, self_attention
from zspl.features._open_clip import ClipEncoder, ClipSettings


class Settings(ClipSettings):
    """Settings of SCLIP."""


def build(settings: Settings) -> ClipEncoder:
    """Return the encoder with SCLIP's last block; its residual connection and MLP are kept.

    Raises:
        SettingsError: if open_clip has no such model or weights.
        WeightsError: if the weights cannot be had.
    """
    return build_encoder(settings, _attend, keep_rest=True)


def _attend(heads: Heads) -> Tensor:
    """(softmax(q q^T / sqrt(d)) + softmax(k k^T / sqrt(d))) v; a row's weights sum to two."""
    return self_attention(heads.query, heads.value) + self_attention(heads.key, heads.value)
