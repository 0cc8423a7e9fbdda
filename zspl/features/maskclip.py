"""MaskCLIP: the last block's values go straight to its out-projection, without any attention.

Zhou et al., "Extract Free Dense Labels from CLIP", ECCV 2022.
"""

from pydantic import Field

from zspl.features._last_block import build_encoder
from zspl.features._open_clip import ClipEncoder, ClipSettings


class Settings(ClipSettings):
    """Settings of MaskCLIP."""

    residual_and_mlp: bool = Field(
        True,
        description="Whether the last block keeps its residual connection and MLP, as the "
        "authors' code for ViT and SemiVL do; the comparisons of ClearCLIP drop both.",
    )


def build(settings: Settings) -> ClipEncoder:
    """Return the encoder whose dense features come from the last block's values alone.

    Unlike SemiVL, whose layer norms use an epsilon of 1e-6, this keeps the 1e-5 of CLIP.

    Raises:
        SettingsError: if open_clip has no such model or weights.
        WeightsError: if the weights cannot be had.
    """
    return build_encoder(settings, lambda heads: heads.value, keep_rest=settings.residual_and_mlp)
