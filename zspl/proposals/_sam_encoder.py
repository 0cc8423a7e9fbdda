"""SAM's image encoder through fused attention, which never holds all attention maps at once.

The same function as `segment_anything.modeling.ImageEncoderViT`, whose weights it reads. The
decomposed relative positions are added as the bias of the fused attention, made for a few heads
and query rows at a time. B images, H W tokens, C channels.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from segment_anything.modeling import ImageEncoderViT
    from segment_anything.modeling.image_encoder import Attention, Block

# Bytes of position bias that exist at once: 4 heads of a window block, or rows of a global one.
_BIAS_BYTES = {"cpu": 1 << 24, "cuda": 1 << 29}


def encode(
    encoder: "ImageEncoderViT", images: Float[Tensor, "B 3 Y X"]
) -> Float[Tensor, "B D h w"]:
    """Return the embedding of normalised and padded images, in the dtype of the weights."""
    tokens = encoder.patch_embed(images)
    if encoder.pos_embed is not None:
        tokens = tokens + encoder.pos_embed
    for block in encoder.blocks:
        tokens = run_block(block, tokens)
    embedding: Tensor = encoder.neck(tokens.permute(0, 3, 1, 2))
    return embedding


def run_block(block: "Block", tokens: Float[Tensor, "B H W C"]) -> Float[Tensor, "B H W C"]:
    """Run one transformer block, on windows or on the whole image."""
    attention, side = block.attn, block.window_size
    projected = attention.qkv(block.norm1(tokens))
    if side > 0:
        attended = _joined(
            _attend(attention, _windows(projected, side, attention.qkv.bias)),
            (tokens.shape[1], tokens.shape[2]),
        )
    else:
        attended = _attend(attention, projected)
    tokens = attention.proj(attended).add_(tokens)
    return tokens.add_(block.mlp(block.norm2(tokens)))


def _attend(
    attention: "Attention", projected: Float[Tensor, "B H W QKV"]
) -> Float[Tensor, "B H W C"]:
    heads = attention.num_heads
    count, height, width, channels = projected.shape
    # 3, B * heads, H * W, channels of a head
    split = projected.view(count, height * width, 3, heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = (part.flatten(0, 1) for part in split)
    attended = torch.empty_like(query)
    positions = _positions(attention, height, width)
    size = query.element_size()
    at_once = _BIAS_BYTES.get(query.device.type, _BIAS_BYTES["cuda"])
    # query rows, then maps (a map is one head of one image or window)
    rows = max(1, min(height, at_once // (width * height * width * size)))
    maps = max(1, at_once // (rows * width * height * width * size))
    for begin in range(0, len(query), maps):
        some = slice(begin, begin + maps)
        for top in range(0, height, rows):
            asking = slice(top * width, (top + rows) * width)
            attended[some, asking] = F.scaled_dot_product_attention(
                query[None, some, asking],
                key[None, some],
                value[None, some],
                attn_mask=_bias(query[some, asking], positions, top, height),
                scale=attention.scale,
            )[0]
    attended = attended.view(count, heads, height, width, -1).permute(0, 2, 3, 1, 4)
    return attended.reshape(count, height, width, channels // 3)


def _positions(attention: "Attention", height: int, width: int) -> tuple[Tensor, Tensor] | None:
    if not attention.use_rel_pos:
        return None
    from segment_anything.modeling.image_encoder import get_rel_pos

    return (
        get_rel_pos(height, height, attention.rel_pos_h),
        get_rel_pos(width, width, attention.rel_pos_w),
    )


def _bias(
    query: Float[Tensor, "N q D"],
    positions: tuple[Tensor, Tensor] | None,
    top: int,
    height: int,
) -> Float[Tensor, "1 N q HW"] | None:
    """Return what the relative positions add to the scores of the query rows from `top` on."""
    if positions is None:
        return None
    vertical, horizontal = positions
    width = len(horizontal)
    grid = torch.unflatten(query, 1, (-1, width))
    rows = grid.shape[1]
    by_row = grid @ vertical[top : top + rows].mT
    by_column = (grid.transpose(1, 2) @ horizontal.mT).transpose(1, 2)
    bias = by_row[..., :, None] + by_column[..., None, :]
    return bias.view(1, len(query), rows * width, height * width)


def _windows(
    projected: Float[Tensor, "B H W QKV"], side: int, padding: Float[Tensor, " QKV"] | None
) -> Float[Tensor, "N side side QKV"]:
    """Cut into windows; tokens of padding are zero before the projection, its bias after it."""
    count, height, width, channels = projected.shape
    rows, columns = -(-height // side), -(-width // side)
    padded = projected.new_zeros(count, rows * side, columns * side, channels)
    if padding is not None:
        padded[:, height:] = padding
        padded[:, :height, width:] = padding
    padded[:, :height, :width] = projected
    grid = padded.view(count, rows, side, columns, side, channels)
    return grid.transpose(2, 3).reshape(-1, side, side, channels)


def _joined(
    windows: Float[Tensor, "N side side C"], size: tuple[int, int]
) -> Float[Tensor, "B H W C"]:
    height, width = size
    side, channels = windows.shape[1], windows.shape[3]
    rows, columns = -(-height // side), -(-width // side)
    grid = windows.view(-1, rows, columns, side, side, channels).transpose(2, 3)
    joined = grid.reshape(-1, rows * side, columns * side, channels)
    return joined[:, :height, :width]
