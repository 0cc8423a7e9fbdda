"""What one image costs, counted exactly: FLOPs do not depend on the machine or its load."""

import runpy
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from zspl.features import _vit, clip, gem

plain_gem_tokens = runpy.run_path(str(Path(__file__).with_name("plain_gem.py")))["plain_gem_tokens"]
SIDE, PATCH, WIDTH, LAYERS, JOINT = 448, 16, 768, 12, 512
TOKENS = 1 + (SIDE // PATCH) ** 2
GIGA = 1e9


def photo():
    pixels = np.random.default_rng(0).integers(0, 255, (30, 50, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def vit_b_16(serve, monkeypatch):
    """Serve a ViT-B/16 of true size without memory: shapes flow through it, numbers do not."""
    with torch.device("meta"):
        model = open_clip.CLIP(
            embed_dim=JOINT,
            vision_cfg={"image_size": 224, "layers": LAYERS, "width": WIDTH, "patch_size": PATCH},
            text_cfg={"layers": 1},
        ).eval()
    serve(model)
    monkeypatch.setenv("ZSPL_DEVICE", "meta")
    monkeypatch.setattr(_vit, "check_forward", lambda *_: None)
    return torch.empty(1, 3, SIDE, SIDE, device="meta")


@torch.inference_mode()
def test_a_gem_image_at_448_costs_what_its_matrices_cost_and_no_more(vit_b_16, count_costs):
    encoder = gem.build(gem.Settings(depth=7))
    with count_costs() as costs:
        encoder.tokens(vit_b_16, None)
    square = TOKENS * WIDTH**2
    attention = 4 * TOKENS**2 * WIDTH
    patches = 2 * (TOKENS - 1) * 3 * PATCH**2 * WIDTH
    block = (6 + 2 + 16) * square + attention
    second_stream = 2 * 3 * attention + 2 * square
    # of the last block GEM needs the projections, but neither CLIP's attention nor its MLP
    unused = attention + (2 + 16) * square
    joint = 2 * TOKENS * WIDTH * JOINT
    assert costs.flops == patches + LAYERS * block + 6 * second_stream - unused + joint
    assert costs.flops / GIGA == pytest.approx(221.08, abs=0.01)


@torch.inference_mode()
def test_gem_never_holds_an_attention_map_and_runs_half_the_ops_of_the_plain_form(
    sharp_clip, serve, count_costs
):
    model = sharp_clip(layers=LAYERS, width=64, head_width=32, patch_size=PATCH, image_size=SIDE)
    serve(model)
    encoder = gem.build(gem.Settings(depth=7))
    images = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with count_costs() as ours:
        encoder.tokens(images, None)
    with count_costs() as plain:
        plain_gem_tokens(model, images)
    attention_map = 2 * TOKENS**2 * 4
    assert plain.largest == attention_map
    assert ours.largest < attention_map / 4
    assert ours.ops <= 226
    assert plain.ops > 1.8 * ours.ops


@torch.inference_mode()
def test_the_second_image_costs_no_text(sharp_clip, serve, count_costs):
    serve(sharp_clip())
    encoder = clip.build(clip.Settings(image_size=32))
    names = ["cat", "dog", "potted plant"]
    with count_costs() as first:
        encoder.dense(photo())
        encoder.text(names)
    with count_costs() as second:
        encoder.dense(photo())
        encoder.text(list(names))
    with count_costs() as image_alone:
        encoder.dense(photo())
    assert second.flops == image_alone.flops > 0
    assert first.flops > second.flops


@torch.inference_mode()
def test_a_batch_costs_its_images_and_hardly_more_ops_than_one(sharp_clip, serve, count_costs):
    serve(sharp_clip())
    encoder = gem.build(gem.Settings(image_size=32))
    with count_costs() as one:
        encoder.dense(photo())
    with count_costs() as eight:
        encoder.dense_batch([photo()] * 8)
    assert eight.flops == 8 * one.flops
    # what is left per image is pixels in and features out
    assert eight.ops <= one.ops + 7 * 15
