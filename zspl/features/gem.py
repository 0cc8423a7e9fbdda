"""GEM: CLIP's patch tokens, grouped by self-self attention so that they localise classes.

Bousselham et al., "Grounding Everything", CVPR 2024. The forward pass is computed from the
weights alone, since the published code relies on the token order of older open_clip blocks and
gives wrong features with open_clip 3.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from zspl.errors import SettingsError
from zspl.features import _vit
from zspl.features._open_clip import ClipEncoder, ClipSettings

if TYPE_CHECKING:
    from open_clip import CLIP
    from open_clip.transformer import ResidualAttentionBlock


class Settings(ClipSettings):
    """Settings of GEM; the defaults are those of the paper."""

    depth: int = Field(7, ge=1, description="The last depth - 1 blocks get self-self attention.")
    ss_attn_iter: int = Field(1, ge=0, description="Self-self attention steps before the last.")
    ss_attn_temp: float | None = Field(
        None, gt=0, description="Multiplier of the self-self logits; null: from the token norms."
    )


def build(settings: Settings) -> ClipEncoder:
    """Return the encoder whose dense features are the GEM tokens.

    Raises:
        SettingsError: if the model has fewer blocks than `depth` - 1.
        WeightsError: if the weights cannot be had.
    """
    rule = _SelfSelf(iterations=settings.ss_attn_iter, temperature=settings.ss_attn_temp)

    def tokens(clip: "CLIP", images: Tensor) -> Tensor:
        return _gem_stream(clip, images, depth=settings.depth, rule=rule)

    encoder = ClipEncoder(settings, tokens)
    layers = len(encoder.model.visual.transformer.resblocks)
    if settings.depth > layers + 1:
        raise SettingsError(
            f"embed: gem depth is {settings.depth} but {settings.model} has {layers} blocks; "
            f"at most {layers + 1}"
        )
    return encoder


def gem_tokens(
    clip: "CLIP",
    images: Float[Tensor, "B 3 H W"],
    *,
    depth: int = 7,
    ss_attn_iter: int = 1,
    ss_attn_temp: float | None = None,
) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B N D"]]:
    """Compute the GEM tokens and the plain CLIP tokens of normalised images.

    Args:
        clip: An open_clip model with a ViT image tower.
        images: RGB, normalised as the model expects; H and W are multiples of the patch.
        depth: The last `depth - 1` blocks get the second, self-self attention stream.
        ss_attn_iter: Self-self attention steps on the normalised queries, keys and values.
        ss_attn_temp: Multiplier of the self-self logits; None takes the mean norm of the
            block's input tokens divided by the root of the head width, per image.

    Returns:
        (gem, clip), each with N = 1 + hw tokens in the joint space, CLS first, patches row by
        row, not L2-normalised. CLS of the second is `clip.encode_image` for a CLS-pooled tower.

    Raises:
        ValueError: if `depth` is below 1 or asks for more blocks than there are.
    """
    rule = _SelfSelf(iterations=ss_attn_iter, temperature=ss_attn_temp)
    gem, original, last = _until_last(clip, images, depth=depth, rule=rule)
    if last is None:
        tokens = _vit.to_joint_space(clip.visual, original)
        return tokens, tokens
    gem, original = _both_streams(last, gem, original, rule)
    return _vit.to_joint_space(clip.visual, gem), _vit.to_joint_space(clip.visual, original)


def _gem_stream(
    clip: "CLIP", images: Float[Tensor, "B 3 H W"], *, depth: int, rule: "_SelfSelf"
) -> Float[Tensor, "B N D"]:
    """The first of `gem_tokens`, without what only the second needs of the last block."""
    gem, original, last = _until_last(clip, images, depth=depth, rule=rule)
    if last is not None:
        normalised = last.ln_1(original)
        heads = _vit.query_key_value(last.attn, normalised)
        gem = gem + last.ls_1(_vit.project(last.attn, _grouped(heads, normalised, rule)))
    return _vit.to_joint_space(clip.visual, gem)


@dataclass(frozen=True, kw_only=True, slots=True)
class _SelfSelf:
    """How self-self attention is done; see `gem_tokens`."""

    iterations: int
    temperature: float | None


def _until_last(
    clip: "CLIP", images: Float[Tensor, "B 3 H W"], *, depth: int, rule: _SelfSelf
) -> tuple[Tensor, Tensor, "ResidualAttentionBlock | None"]:
    """Run all blocks but the last of the second stream.

    Returns:
        The GEM stream, the original stream and that last block; None if `depth` is 1, which
        has no second stream: then all blocks have run.
    """
    blocks = list(clip.visual.transformer.resblocks)
    if not 1 <= depth <= len(blocks) + 1:
        raise ValueError(f"depth must be in 1..{len(blocks) + 1}, got {depth}")
    first = len(blocks) - (depth - 1)
    original = _vit.embed(clip.visual, images)
    for block in blocks[:first]:
        original = _vit.run_block(block, original)
    gem = original
    for block in blocks[first:-1]:
        gem, original = _both_streams(block, gem, original, rule)
    return gem, original, blocks[-1] if depth > 1 else None


def _both_streams(
    block: "ResidualAttentionBlock",
    gem: Float[Tensor, "B N C"],
    original: Float[Tensor, "B N C"],
    rule: _SelfSelf,
) -> tuple[Float[Tensor, "B N C"], Float[Tensor, "B N C"]]:
    """Run one block on both streams; its projections are computed once for both."""
    normalised = block.ln_1(original)
    heads = _vit.query_key_value(block.attn, normalised)
    attended = F.scaled_dot_product_attention(heads[0], heads[1], heads[2])
    outputs = torch.cat([_grouped(heads, normalised, rule), attended])
    grouped, attended = block.ls_1(_vit.project(block.attn, outputs)).chunk(2)
    return gem + grouped, _vit.add_mlp(block, original + attended)


def _grouped(
    heads: Float[Tensor, "3 B n N d"], tokens: Float[Tensor, "B N C"], rule: _SelfSelf
) -> Float[Tensor, "B n N d"]:
    """Attend from queries to queries, keys to keys and values to values, and average the three.

    The three are one batch of 3B images. The logits' multiplier goes into one side of the
    product, since the attention kernel takes no multiplier per image.
    """
    scale: Tensor | float
    if rule.temperature is None:
        mean_norm = tokens.norm(dim=-1).mean(dim=1)
        scale = (mean_norm * heads.shape[-1] ** -0.5).repeat(3)[:, None, None, None]
    else:
        scale = rule.temperature
    vectors = heads.flatten(0, 1)
    value = heads[2].repeat(3, 1, 1, 1)
    for _ in range(rule.iterations):
        unit = F.normalize(vectors, dim=-1)
        vectors = F.scaled_dot_product_attention(scale * unit, unit, unit, scale=1.0)
    unit = F.normalize(vectors, dim=-1)
    outputs = F.scaled_dot_product_attention(scale * unit, unit, value, scale=1.0)
    return outputs.reshape(3, -1, *outputs.shape[1:]).mean(dim=0)
