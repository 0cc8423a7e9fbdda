"""The image tower with another attention in its last block, as several methods have it.

The papers resample the positional embedding bicubically without antialiasing. Unlike them, every
encoder here does it as GEM does, with antialiasing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from zspl.features import _vit
from zspl.features._open_clip import ClipEncoder, ClipSettings

if TYPE_CHECKING:
    from open_clip import CLIP


@dataclass(frozen=True, kw_only=True, slots=True)
class Heads:
    """What the last attention sees: every head's projections, and the patch grid's height, width.

    N = 1 + height * width tokens, CLS first.
    """

    query: Float[Tensor, "B n N d"]
    key: Float[Tensor, "B n N d"]
    value: Float[Tensor, "B n N d"]
    grid: tuple[int, int]


Attend = Callable[[Heads], Tensor]
"""Maps the projections to what every head puts out, Float[B n N d]."""


def build_encoder(settings: ClipSettings, attend: Attend, *, keep_rest: bool) -> ClipEncoder:
    """Return the encoder whose last block attends by `attend`; see `last_block_tokens`.

    Raises:
        SettingsError: if open_clip has no such model or weights.
        WeightsError: if the weights cannot be had.
    """

    def tokens(clip: "CLIP", images: Tensor) -> Tensor:
        return last_block_tokens(clip, images, attend, keep_rest=keep_rest)

    return ClipEncoder(settings, tokens)


def last_block_tokens(
    clip: "CLIP", images: Float[Tensor, "B 3 H W"], attend: Attend, *, keep_rest: bool
) -> Float[Tensor, "B N D"]:
    """Compute CLIP's tokens with `attend` as the last block's attention.

    Args:
        clip: An open_clip model with a ViT image tower.
        images: RGB, normalised as the model expects; H and W are multiples of the patch.
        attend: The last block's attention; its out-projection follows.
        keep_rest: Whether the last block keeps its residual connection and its MLP; else the
            projected attention alone goes on.

    Returns:
        Tokens in the joint space, CLS first, patches row by row, not L2-normalised.
    """
    visual = clip.visual
    *before, last = visual.transformer.resblocks
    tokens = _vit.embed(visual, images)
    for block in before:
        tokens = _vit.run_block(block, tokens)
    query, key, value = _vit.query_key_value(last.attn, last.ln_1(tokens))
    heads = Heads(query=query, key=key, value=value, grid=_vit.grid_of(visual, images))
    attended = last.ls_1(_vit.project(last.attn, attend(heads)))
    tokens = _vit.add_mlp(last, tokens + attended) if keep_rest else attended
    return _vit.to_joint_space(visual, tokens)


def self_attention(
    vectors: Float[Tensor, "B n N d"],
    value: Float[Tensor, "B n N d"],
    bias: Float[Tensor, "N N"] | None = None,
) -> Float[Tensor, "B n N d"]:
    """Attend by the similarity of vectors with themselves: softmax(x x^T / sqrt(d) + bias) v."""
    return F.scaled_dot_product_attention(vectors, vectors, value, attn_mask=bias)
