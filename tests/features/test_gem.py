"""GEM tokens against the reference fixtures and CLIP's own forward pass."""

import json
import os
import runpy
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors import safe_open
from torch.nn import functional as F

from zspl.features import gem as gem_plugin
from zspl.features.gem import gem_tokens

plain_gem_tokens = runpy.run_path(str(Path(__file__).with_name("plain_gem.py")))["plain_gem_tokens"]
SHARED = Path(os.environ.get("ZSPL_SHARED", Path(__file__).parents[3] / "shared"))
FIXTURES = ["gem_square", "gem_wide_quickgelu"]


def tiny_clip(*, seed=0, quick_gelu=False, layers=4):
    torch.manual_seed(seed)
    return open_clip.CLIP(
        embed_dim=24,
        vision_cfg={
            "image_size": 32, "layers": layers, "width": 32, "head_width": 8, "patch_size": 8
        },
        text_cfg={"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1},
        quick_gelu=quick_gelu,
    ).eval()  # fmt: skip


def fixture(name):
    path = SHARED / "fixtures" / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip("the shared numeric fixtures are not here (set ZSPL_SHARED)")
    with safe_open(path, "pt") as file:
        facts = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    model = open_clip.CLIP(**json.loads(facts["model"]), quick_gelu=facts["quick_gelu"] == "True")
    state = {k.removeprefix("weights."): v.float() for k, v in tensors.items() if "weights." in k}
    model.load_state_dict(state)
    temperature = None if facts["ss_attn_temp"] == "None" else float(facts["ss_attn_temp"])
    options = {
        "depth": int(facts["depth"]),
        "ss_attn_iter": int(facts["ss_attn_iter"]),
        "ss_attn_temp": temperature,
    }
    return model.eval(), tensors, json.loads(facts["class_names"]), options


@pytest.mark.parametrize("name", FIXTURES)
@torch.inference_mode()
def test_both_streams_equal_the_reference_gem(name):
    model, expected, _, options = fixture(name)
    gem, clip = gem_tokens(model, expected["image"], **options)
    torch.testing.assert_close(gem, expected["gem_tokens"], atol=1e-4, rtol=0)
    torch.testing.assert_close(clip, expected["clip_tokens"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", FIXTURES)
@torch.inference_mode()
def test_logits_and_heatmap_equal_the_reference_gem(name):
    model, expected, names, options = fixture(name)
    ids = open_clip.get_tokenizer("ViT-B-16")([f"a photo of a {name}." for name in names])
    text = model.encode_text(ids, normalize=True)
    torch.testing.assert_close(text, expected["text"], atol=1e-4, rtol=0)
    gem, _ = gem_tokens(model, expected["image"], **options)
    height, width = expected["image"].shape[-2:]
    cosine = F.normalize(gem[:, 1:], dim=-1) @ text.T
    grid = cosine.transpose(1, 2).reshape(len(gem), len(names), height // 16, width // 16)
    logits = F.interpolate(grid, (height, width), mode="bilinear", align_corners=False)
    torch.testing.assert_close(logits, expected["gem_logits"], atol=1e-4, rtol=0)
    low, high = logits.amin((2, 3), keepdim=True), logits.amax((2, 3), keepdim=True)
    torch.testing.assert_close(
        (logits - low) / (high - low), expected["gem_heatmap"], atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("quick_gelu", [False, True])
@torch.inference_mode()
def test_cls_of_the_clip_stream_equals_encode_image(quick_gelu):
    model = tiny_clip(quick_gelu=quick_gelu)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    _, clip = gem_tokens(model, images, depth=3)
    torch.testing.assert_close(clip[:, 0], model.encode_image(images), atol=1e-5, rtol=1e-5)


def plain_self_self(tokens, attention, *, iterations, temperature):
    """Methods.md 1.3 for one image, one head at a time, with plain loops over q, k and v."""
    width = tokens.shape[-1] // attention.num_heads
    projected = tokens @ attention.in_proj_weight.T + attention.in_proj_bias
    query, key, value = projected.chunk(3, dim=-1)
    tau = tokens.norm(dim=-1).mean() * width**-0.5 if temperature is None else temperature
    heads = []
    for head in range(attention.num_heads):
        part = slice(head * width, (head + 1) * width)
        total = torch.zeros_like(value[:, part])
        for source in (value, key, query):
            s = source[:, part]
            for _ in range(iterations):
                s = F.normalize(s, dim=-1)
                s = torch.softmax(tau * s @ s.T, dim=-1) @ s
            s = F.normalize(s, dim=-1)
            total += torch.softmax(tau * s @ s.T, dim=-1) @ value[:, part]
        heads.append(total / 3)
    return torch.cat(heads, dim=-1) @ attention.out_proj.weight.T + attention.out_proj.bias


@pytest.mark.parametrize(("depth", "iterations", "temperature"), [(5, 2, 20.0), (2, 0, None)])
@torch.inference_mode()
def test_the_gem_stream_only_adds_self_self_attention_of_the_original_stream(
    depth, iterations, temperature
):
    model = tiny_clip(seed=2)
    visual = model.visual
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    original = visual._embeds(image)
    blocks = list(visual.transformer.resblocks)
    for block in blocks[: len(blocks) - depth + 1]:
        original = block(original)
    expected = original[0]
    for block in blocks[len(blocks) - depth + 1 :]:
        expected = expected + plain_self_self(
            block.ln_1(original)[0], block.attn, iterations=iterations, temperature=temperature
        )
        original = block(original)
    gem, _ = gem_tokens(
        model, image, depth=depth, ss_attn_iter=iterations, ss_attn_temp=temperature
    )
    torch.testing.assert_close(gem[0], visual.ln_post(expected) @ visual.proj, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_depth_one_changes_no_block():
    model = tiny_clip()
    images = torch.randn(1, 3, 32, 32)
    gem, clip = gem_tokens(model, images, depth=1)
    assert torch.equal(gem, clip)


@torch.inference_mode()
def test_an_image_does_not_depend_on_its_batch():
    model = tiny_clip(seed=4)
    images = torch.randn(3, 3, 40, 24, generator=torch.Generator().manual_seed(5))
    together = gem_tokens(model, images, depth=5)[0]
    alone = gem_tokens(model, images[1:2], depth=5)[0]
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("depth", [0, 6])
def test_a_depth_beyond_the_blocks_is_refused(depth):
    with pytest.raises(ValueError, match=r"depth must be in 1\.\.5"):
        gem_tokens(tiny_clip(), torch.zeros(1, 3, 32, 32), depth=depth)


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize(
    ("depth", "iterations", "temperature"),
    [(7, 1, None), (5, 1, 20.0), (2, 0, None), (4, 2, 3.0), (1, 1, None)],
)
@torch.inference_mode()
def test_the_fast_form_equals_the_plain_form(
    sharp_clip, quick_gelu, depth, iterations, temperature
):
    model = sharp_clip(quick_gelu=quick_gelu)
    images = torch.randn(2, 3, 40, 24, generator=torch.Generator().manual_seed(6))
    options = {"depth": depth, "ss_attn_iter": iterations, "ss_attn_temp": temperature}
    for found, expected in zip(
        gem_tokens(model, images, **options),
        plain_gem_tokens(model, images, **options),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        assert F.cosine_similarity(found, expected, dim=-1).min() >= 0.99999


@pytest.mark.parametrize("depth", [1, 2, 7])
@torch.inference_mode()
def test_the_encoder_gives_the_first_stream_without_computing_the_second(sharp_clip, serve, depth):
    model = sharp_clip()
    serve(model)
    images = torch.randn(2, 3, 40, 24, generator=torch.Generator().manual_seed(7))
    encoder = gem_plugin.build(gem_plugin.Settings(image_size=32, depth=depth))
    expected = gem_tokens(model, images, depth=depth)[0]
    torch.testing.assert_close(encoder.tokens(images, None), expected)


@torch.inference_mode()
def test_each_image_gets_the_temperature_of_its_own_tokens(sharp_clip):
    model = sharp_clip()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(8))
    images[1] *= 30
    together = gem_tokens(model, images)[0]
    alone = torch.cat([gem_tokens(model, image[None])[0] for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
