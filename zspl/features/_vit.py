"""CLIP's image tower, step by step, from the weights of an open_clip model alone.

B images, N = 1 + hw tokens (CLS first, then the patches row by row), C channels of the tower, n
heads of width d, D channels of the joint space.
"""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from zspl.errors import WeightsError

if TYPE_CHECKING:
    from open_clip import CLIP
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer


_TOLERANCE = 1e-3
"""Largest difference from the model's own embedding, relative to its largest entry."""


def grid_of(visual: "VisionTransformer", images: Float[Tensor, "B 3 H W"]) -> tuple[int, int]:
    """Return how many patches fit into the height and the width of the images."""
    height, width = images.shape[-2:]
    return height // visual.patch_size[0], width // visual.patch_size[1]


def embed(visual: "VisionTransformer", images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N C"]:
    """Cut images into patches and return the tokens that enter the first block."""
    patches = F.conv2d(images, visual.conv1.weight, visual.conv1.bias, visual.conv1.stride)
    size = (patches.shape[-2], patches.shape[-1])
    tokens = patches.flatten(2).transpose(1, 2)
    cls = visual.class_embedding.expand(len(tokens), 1, -1)
    position = _resample_position(visual.positional_embedding, visual.grid_size, size)
    embedded: Tensor = visual.ln_pre(torch.cat([cls, tokens], dim=1) + position)
    return embedded


def run_block(
    block: "ResidualAttentionBlock", tokens: Float[Tensor, "B N C"]
) -> Float[Tensor, "B N C"]:
    """Run CLIP's own pre-norm block: attention, then MLP."""
    query, key, value = query_key_value(block.attn, block.ln_1(tokens))
    attended = F.scaled_dot_product_attention(query, key, value)
    return add_mlp(block, tokens + block.ls_1(project(block.attn, attended)))


def add_mlp(
    block: "ResidualAttentionBlock", tokens: Float[Tensor, "B N C"]
) -> Float[Tensor, "B N C"]:
    """Run the second half of a block: the MLP and its residual connection."""
    result: Tensor = tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
    return result


def query_key_value(
    attention: nn.MultiheadAttention, tokens: Float[Tensor, "B N C"]
) -> Float[Tensor, "3 B n N d"]:
    """Project normalised tokens to the queries, keys and values of every head."""
    projected = F.linear(tokens, attention.in_proj_weight, attention.in_proj_bias)
    heads = projected.view(*projected.shape[:2], 3, attention.num_heads, -1)
    return heads.permute(2, 0, 3, 1, 4)


def project(
    attention: nn.MultiheadAttention, heads: Float[Tensor, "B n N d"]
) -> Float[Tensor, "B N C"]:
    """Merge the heads and apply the out-projection."""
    merged = heads.transpose(1, 2).flatten(2)
    return F.linear(merged, attention.out_proj.weight, attention.out_proj.bias)


def to_joint_space(
    visual: "VisionTransformer", tokens: Float[Tensor, "B N C"]
) -> Float[Tensor, "B N D"]:
    """Map the tokens that leave the last block into the joint image-text space."""
    normalised: Tensor = visual.ln_post(tokens)
    return normalised if visual.proj is None else normalised @ visual.proj


def clip_tokens(clip: "CLIP", images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N D"]:
    """Compute CLIP's own tokens of normalised images; H and W are multiples of the patch."""
    tokens = embed(clip.visual, images)
    for block in clip.visual.transformer.resblocks:
        tokens = run_block(block, tokens)
    return to_joint_space(clip.visual, tokens)


@torch.inference_mode()
def check_forward(clip: "CLIP", name: str) -> None:
    """Compare this forward pass with the model's own image embedding on one fixed image.

    Raises:
        WeightsError: if they differ: the tower has parts that this forward pass does not know.
    """
    visual = clip.visual
    random = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, *visual.image_size, generator=random)
    image = image.to(visual.class_embedding.device)
    found = _pooled(visual, image)
    expected = clip.encode_image(image)
    difference = float((found - expected).abs().max() / expected.abs().max())
    if not difference < _TOLERANCE:
        raise WeightsError(
            f"{name}: its image tower is not the plain CLIP ViT that dense features are computed "
            f"for (embeddings differ by {difference:.1%}); use a ViT-* model of open_clip"
        )


def _pooled(visual: "VisionTransformer", images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
    tokens = embed(visual, images)
    for block in visual.transformer.resblocks:
        tokens = run_block(block, tokens)
    if visual.pool_type != "avg":
        return to_joint_space(visual, tokens)[:, 0]
    if visual.final_ln_after_pool:
        return to_joint_space(visual, tokens[:, 1:].mean(dim=1, keepdim=True))[:, 0]
    return to_joint_space(visual, tokens)[:, 1:].mean(dim=1)


def _resample_position(
    stored: Float[Tensor, "M C"], stored_size: tuple[int, int], size: tuple[int, int]
) -> Float[Tensor, "N C"]:
    """Resample the grid part bicubically (antialiased) to `size`; CLS keeps its entry."""
    if tuple(stored_size) == size:
        return stored
    grid = stored[1:].float().T.reshape(1, -1, *stored_size)
    grid = F.interpolate(grid, size, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([stored[:1], grid[0].flatten(1).T.to(stored.dtype)])
