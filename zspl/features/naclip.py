"""NACLIP: the last block attends from keys to keys, and more to the patches nearby.

Hajimiri et al., "Pay Attention to Your Neighbours: Training-Free Open-Vocabulary Semantic
Segmentation", WACV 2025.
"""

import functools

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from zspl.features._last_block import Heads, build_encoder, self_attention
from zspl.features._open_clip import ClipEncoder, ClipSettings


class Settings(ClipSettings):
    """Settings of NACLIP; the default is that of the paper."""

    neighbourhood_std: float = Field(
        5.0, gt=0, description="Standard deviation of the Gaussian around a patch, in patches."
    )


def build(settings: Settings) -> ClipEncoder:
    """Return the encoder with NACLIP's last block, which has no residual connection and no MLP.

    Raises:
        SettingsError: if open_clip has no such model or weights.
        WeightsError: if the weights cannot be had.
    """

    def attend(heads: Heads) -> Tensor:
        bias = neighbourhood(heads.grid, std=settings.neighbourhood_std).to(heads.key)
        return self_attention(heads.key, heads.value, bias)

    return build_encoder(settings, attend, keep_rest=False)


@functools.lru_cache(maxsize=4)
def neighbourhood(grid: tuple[int, int], *, std: float) -> Float[Tensor, "N N"]:
    """Return what is added to the logits: exp(-|p - q|^2 / (2 std^2)) between patches p and q.

    N = 1 + height * width of `grid`; the row and the column of CLS, the first token, are 0.
    """
    height, width = grid
    rows, columns = (torch.arange(side, dtype=torch.float32) for side in (height, width))
    places = torch.cartesian_prod(rows, columns)
    squared = (places[:, None] - places).square().sum(dim=-1)
    bias = torch.zeros(1 + height * width, 1 + height * width)
    bias[1:, 1:] = torch.exp(-squared / (2 * std**2))
    return bias
