"""MaskCLIP, SCLIP, ClearCLIP and NACLIP against their last block written out, head by head."""

import math

import pytest
import torch

from zspl import plugins
from zspl.features.naclip import neighbourhood

GRID = (5, 3)
KEEPS_THE_REST = {"maskclip", "sclip"}
METHODS = ["maskclip", "sclip", "clearclip", "naclip"]


def weights_of(method, query, key, std):
    """Which token looks how much at which, [N, N], for one head of one image."""
    scale = 1 / math.sqrt(query.shape[1])
    if method == "maskclip":
        return torch.eye(len(query))
    if method == "sclip":
        of_queries = torch.softmax(query @ query.T * scale, dim=1)
        return of_queries + torch.softmax(key @ key.T * scale, dim=1)
    if method == "clearclip":
        return torch.softmax(query @ query.T * scale, dim=1)
    logits = key @ key.T * scale
    for p in range(GRID[0] * GRID[1]):
        for q in range(GRID[0] * GRID[1]):
            down = p // GRID[1] - q // GRID[1]
            right = p % GRID[1] - q % GRID[1]
            logits[1 + p, 1 + q] += math.exp(-(down**2 + right**2) / (2 * std**2))
    return torch.softmax(logits, dim=1)


def reference(clip, images, method, *, keep_rest, std=5.0):
    """The tower by open_clip's own blocks, but for the last, which is written out."""
    visual = clip.visual
    *before, last = visual.transformer.resblocks
    tokens = visual._embeds(images)
    for block in before:
        tokens = block(tokens)
    results = []
    for x in tokens:
        projected = last.ln_1(x) @ last.attn.in_proj_weight.T + last.attn.in_proj_bias
        query, key, value = projected.chunk(3, dim=1)
        heads = []
        for q, k, v in zip(
            *(part.chunk(last.attn.num_heads, dim=1) for part in (query, key, value)), strict=True
        ):
            heads.append(weights_of(method, q, k, std) @ v)
        out = torch.cat(heads, dim=1) @ last.attn.out_proj.weight.T + last.attn.out_proj.bias
        if keep_rest:
            out = x + out
            out = out + last.mlp(last.ln_2(out))
        results.append(visual.ln_post(out) @ visual.proj)
    return torch.stack(results)


def images_for(grid):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 8 * grid[0], 8 * grid[1], generator=generator)


def build(name, **values):
    module = plugins.load("zspl.features", name)
    return module.build(module.Settings(image_size=32, **values))


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("method", METHODS)
@torch.inference_mode()
def test_each_method_equals_its_last_block_written_out(sharp_clip, serve, method, quick_gelu):
    model = sharp_clip(quick_gelu=quick_gelu, image_size=(40, 24))
    serve(model)
    images = images_for(GRID)
    expected = reference(model, images, method, keep_rest=method in KEEPS_THE_REST)
    found = build(method).tokens(images, None)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_no_two_methods_agree_so_that_each_parity_test_means_something(sharp_clip, serve):
    serve(sharp_clip(image_size=(40, 24)))
    images = images_for(GRID)
    found = [build(name).tokens(images, None) for name in ("clip", "gem", *METHODS)]
    found.append(build("maskclip", residual_and_mlp=False).tokens(images, None))
    for k, one in enumerate(found):
        for other in found[k + 1 :]:
            assert (one - other).abs().max() > 0.01


@torch.inference_mode()
def test_maskclip_can_drop_the_residual_connection_and_the_mlp(sharp_clip, serve):
    model = sharp_clip(image_size=(40, 24))
    serve(model)
    images = images_for(GRID)
    expected = reference(model, images, "maskclip", keep_rest=False)
    found = build("maskclip", residual_and_mlp=False).tokens(images, None)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_naclip_looks_as_far_as_its_standard_deviation_says(sharp_clip, serve):
    model = sharp_clip(image_size=(40, 24))
    serve(model)
    images = images_for(GRID)
    expected = reference(model, images, "naclip", keep_rest=False, std=0.7)
    found = build("naclip", neighbourhood_std=0.7).tokens(images, None)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_neighbourhood_leaves_cls_alone_and_is_strongest_at_home():
    bias = neighbourhood((2, 3), std=5.0)
    assert bias.shape == (7, 7)
    assert not bias[0].any()
    assert not bias[:, 0].any()
    assert torch.equal(bias[1:, 1:].diagonal(), torch.ones(6))
    assert torch.equal(bias, bias.T)
    assert bias[1, 6] == pytest.approx(math.exp(-5 / 50))


@torch.inference_mode()
def test_layer_scale_belongs_to_the_attention_even_where_the_residual_is_dropped(sharp_clip, serve):
    model = sharp_clip(ls_init_value=0.5, image_size=(40, 24))
    last = model.visual.transformer.resblocks[-1]
    last.ls_1.gamma.uniform_(0.1, 2.0)
    serve(model)
    images = images_for(GRID)
    scaled = build("clearclip").tokens(images, None)
    with torch.no_grad():
        out = last.attn.out_proj
        out.weight.mul_(last.ls_1.gamma[:, None])
        out.bias.mul_(last.ls_1.gamma)
        last.ls_1.gamma.fill_(1.0)
    torch.testing.assert_close(build("clearclip").tokens(images, None), scaled)
