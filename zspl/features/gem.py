"""GEM: CLIP's patch tokens, grouped by self-self attention so that they localise classes.

Bousselham et al., "Grounding Everything", CVPR 2024. The forward pass is computed from the
weights alone, since the published code relies on the token order of older open_clip blocks and
gives wrong features with open_clip 3.
"""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from zspl.errors import SettingsError, WeightsError
from zspl.features._open_clip import ClipEncoder, ClipSettings

if TYPE_CHECKING:
    from open_clip import CLIP
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer


_TOLERANCE = 1e-3
"""Largest difference from the model's own embedding, relative to its largest entry."""


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

    def tokens(clip: "CLIP", images: Tensor) -> Tensor:
        return gem_tokens(
            clip,
            images,
            depth=settings.depth,
            ss_attn_iter=settings.ss_attn_iter,
            ss_attn_temp=settings.ss_attn_temp,
        )[0]

    encoder = ClipEncoder(settings, tokens)
    layers = len(encoder.model.visual.transformer.resblocks)
    if settings.depth > layers + 1:
        raise SettingsError(
            f"embed: gem depth is {settings.depth} but {settings.model} has {layers} blocks; "
            f"at most {layers + 1}"
        )
    check_forward(encoder.model, settings.model)
    return encoder


@torch.inference_mode()
def check_forward(clip: "CLIP", name: str) -> None:
    """Compare the plain stream with the model's own image embedding on one fixed image.

    Raises:
        WeightsError: if they differ: the tower has parts that this forward pass does not know.
    """
    visual = clip.visual
    device = visual.proj.device
    random = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, *visual.image_size, generator=random).to(device)
    tokens = gem_tokens(clip, image, depth=1)[1]
    found = tokens[:, 1:].mean(dim=1) if visual.pool_type == "avg" else tokens[:, 0]
    expected = clip.encode_image(image)
    difference = float((found - expected).abs().max() / expected.abs().max())
    if not difference < _TOLERANCE:
        raise WeightsError(
            f"{name}: its image tower is not the plain CLIP ViT that dense features are computed "
            f"for (embeddings differ by {difference:.1%}); use a ViT-* model of open_clip"
        )


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
    visual = clip.visual
    blocks = visual.transformer.resblocks
    if not 1 <= depth <= len(blocks) + 1:
        raise ValueError(f"depth must be in 1..{len(blocks) + 1}, got {depth}")
    first = len(blocks) - (depth - 1)
    original = _embed(visual, images)
    for block in blocks[:first]:
        original = _original_block(block, original)
    gem = original
    for block in blocks[first:]:
        normalised = block.ln_1(original)
        attended = _self_self_attention(
            block.attn, normalised, iterations=ss_attn_iter, temperature=ss_attn_temp
        )
        gem = gem + block.ls_1(attended)
        original = _original_block(block, original)
    return visual.ln_post(gem) @ visual.proj, visual.ln_post(original) @ visual.proj


def _embed(visual: "VisionTransformer", images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N C"]:
    patches = F.conv2d(images, visual.conv1.weight, visual.conv1.bias, visual.conv1.stride)
    size = (patches.shape[-2], patches.shape[-1])
    tokens = patches.flatten(2).transpose(1, 2)
    cls = visual.class_embedding.expand(len(tokens), 1, -1)
    position = _resample_position(visual.positional_embedding, visual.grid_size, size)
    embedded: Tensor = visual.ln_pre(torch.cat([cls, tokens], dim=1) + position)
    return embedded


def _resample_position(
    stored: Float[Tensor, "M C"], stored_size: tuple[int, int], size: tuple[int, int]
) -> Float[Tensor, "N C"]:
    """Resample the grid part bicubically (antialiased) to `size`; CLS keeps its entry."""
    if tuple(stored_size) == size:
        return stored
    grid = stored[1:].T.reshape(1, -1, *stored_size)
    grid = F.interpolate(grid, size, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([stored[:1], grid[0].flatten(1).T])


def _original_block(
    block: "ResidualAttentionBlock", tokens: Float[Tensor, "B N C"]
) -> Float[Tensor, "B N C"]:
    """Run CLIP's own pre-norm block: attention, then MLP."""
    query, key, value = _query_key_value(block.attn, block.ln_1(tokens))
    attended = F.scaled_dot_product_attention(query, key, value)
    tokens = tokens + block.ls_1(_project(block.attn, attended))
    result: Tensor = tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
    return result


def _self_self_attention(
    attention: nn.MultiheadAttention,
    tokens: Float[Tensor, "B N C"],
    *,
    iterations: int,
    temperature: float | None,
) -> Float[Tensor, "B N C"]:
    """Attend from values to values, keys to keys, queries to queries, and average the three."""
    query, key, value = _query_key_value(attention, tokens)
    scale: Tensor | float
    if temperature is None:
        mean_norm = tokens.norm(dim=-1).mean(dim=1)
        scale = (mean_norm * query.shape[-1] ** -0.5)[:, None, None, None]
    else:
        scale = temperature
    outputs = []
    for source in (value, key, query):
        grouped = source
        for _ in range(iterations):
            grouped = F.normalize(grouped, dim=-1)
            grouped = _similarity(grouped, scale) @ grouped
        grouped = F.normalize(grouped, dim=-1)
        outputs.append(_similarity(grouped, scale) @ value)
    return _project(attention, torch.stack(outputs).mean(dim=0))


def _similarity(
    vectors: Float[Tensor, "B n N d"], scale: Float[Tensor, "B 1 1 1"] | float
) -> Float[Tensor, "B n N N"]:
    return (scale * (vectors @ vectors.transpose(-2, -1))).softmax(dim=-1)


def _query_key_value(
    attention: nn.MultiheadAttention, tokens: Float[Tensor, "B N C"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Project to queries, keys and values, each Float[B heads N d]."""
    projected = F.linear(tokens, attention.in_proj_weight, attention.in_proj_bias)
    heads = projected.view(*projected.shape[:2], 3, attention.num_heads, -1)
    query, key, value = heads.permute(2, 0, 3, 1, 4)
    return query, key, value


def _project(
    attention: nn.MultiheadAttention, heads: Float[Tensor, "B n N d"]
) -> Float[Tensor, "B N C"]:
    merged = heads.transpose(1, 2).flatten(2)
    return F.linear(merged, attention.out_proj.weight, attention.out_proj.bias)
