"""GEM as the paper writes it, one attention after the other: what the fast form must equal.

Unlike the published code, the unmodified blocks and the original stream attend through torch's
fused attention, so that nothing but the rewrite is measured against this.
"""

import torch
from torch.nn import functional as F


def plain_gem_tokens(clip, images, *, depth=7, ss_attn_iter=1, ss_attn_temp=None):
    """Return the GEM tokens and CLIP's own, each [B, 1+hw, D]."""
    visual = clip.visual
    blocks = list(visual.transformer.resblocks)
    first = len(blocks) - (depth - 1)
    original = _embed(visual, images)
    for block in blocks[:first]:
        query, key, value = _query_key_value(block.attn, block.ln_1(original))
        original = _finish(block, original, query, key, value)
    gem = original
    for block in blocks[first:]:
        tokens = block.ln_1(original)
        query, key, value = _query_key_value(block.attn, tokens)
        temperature = ss_attn_temp
        if temperature is None:
            mean_norm = tokens.norm(dim=-1).mean(dim=1)
            temperature = (mean_norm * query.shape[-1] ** -0.5)[:, None, None, None]
        outputs = [
            _grouped(source, value, temperature, ss_attn_iter) for source in (value, key, query)
        ]
        gem = gem + block.ls_1(_project(block.attn, torch.stack(outputs).mean(dim=0)))
        original = _finish(block, original, query, key, value)
    return visual.ln_post(gem) @ visual.proj, visual.ln_post(original) @ visual.proj


def _embed(visual, images):
    patches = F.conv2d(images, visual.conv1.weight, visual.conv1.bias, visual.conv1.stride)
    tokens = patches.flatten(2).transpose(1, 2)
    cls = visual.class_embedding.expand(len(tokens), 1, -1)
    position = visual.positional_embedding
    if patches.shape[-2:] != visual.grid_size:
        grid = position[1:].T.reshape(1, -1, *visual.grid_size)
        grid = F.interpolate(grid, patches.shape[-2:], mode="bicubic", antialias=True)
        position = torch.cat([position[:1], grid[0].flatten(1).T])
    return visual.ln_pre(torch.cat([cls, tokens], dim=1) + position)


def _query_key_value(attention, tokens):
    projected = F.linear(tokens, attention.in_proj_weight, attention.in_proj_bias)
    heads = projected.view(*projected.shape[:2], 3, attention.num_heads, -1)
    return heads.permute(2, 0, 3, 1, 4)


def _finish(block, tokens, query, key, value):
    attended = F.scaled_dot_product_attention(query, key, value)
    tokens = tokens + block.ls_1(_project(block.attn, attended))
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))


def _grouped(source, value, temperature, iterations):
    for _ in range(iterations):
        source = F.normalize(source, dim=-1)
        source = _similarity(source, temperature) @ source
    source = F.normalize(source, dim=-1)
    return _similarity(source, temperature) @ value


def _similarity(vectors, temperature):
    return (temperature * (vectors @ vectors.transpose(-2, -1))).softmax(dim=-1)


def _project(attention, heads):
    merged = heads.transpose(1, 2).flatten(2)
    return F.linear(merged, attention.out_proj.weight, attention.out_proj.bias)
