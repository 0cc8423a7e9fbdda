"""CLIP encoders: pixels in, grid and text embeddings out."""

import re

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from zspl.errors import SettingsError, WeightsError
from zspl.features import _open_clip, clip, gem, maskclip
from zspl.features._open_clip import ClipSettings, LoadedClip
from zspl.features.gem import gem_tokens
from zspl.io import devices
from zspl.sections import build_plugin

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


@pytest.fixture
def small(monkeypatch):
    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=24,
        vision_cfg={"image_size": 32, "layers": 3, "width": 32, "head_width": 8, "patch_size": 8},
        text_cfg={"context_length": 77, "width": 16, "heads": 2, "layers": 1, "vocab_size": 49408},
    ).eval()
    tokenizer = open_clip.get_tokenizer("ViT-B-16")
    loaded = LoadedClip(model=model, tokenizer=tokenizer, mean=MEAN, std=STD)
    monkeypatch.setattr(_open_clip, "load", lambda _: loaded)
    monkeypatch.setenv("ZSPL_DEVICE", "cpu")
    return model


def photo():
    pixels = np.random.default_rng(0).integers(0, 255, (30, 50, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_dense_features_are_the_patch_tokens_row_by_row(small):
    encoder = gem.build(gem.Settings(image_size=48, depth=3))
    dense = encoder.dense(photo())
    assert dense.grid.shape == (24, 6, 6)
    assert dense.image_size == (30, 50)
    pixels = torch.from_numpy(np.array(photo().resize((48, 48), Image.Resampling.BICUBIC)))
    images = (pixels.permute(2, 0, 1) / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(
        STD
    )[:, None, None]
    with torch.inference_mode():
        tokens = gem_tokens(small, images[None], depth=3)[0][0]
    for row in range(6):
        for column in range(6):
            torch.testing.assert_close(dense.grid[:, row, column], tokens[1 + 6 * row + column])


def test_plain_clip_gives_the_original_stream(small):
    encoder = clip.build(clip.Settings(image_size=32))
    with torch.inference_mode():
        tokens = gem_tokens(small, encoder.pixels(photo())[None], depth=2)[1][0, 1:]
    torch.testing.assert_close(encoder.dense(photo()).grid.flatten(1).T, tokens)


def test_text_embeddings_are_unit_vectors_of_the_prompt(small):
    encoder = clip.build(clip.Settings(image_size=32, prompt="a photo of a {}"))
    text = encoder.text(["cat", "potted plant"])
    ids = open_clip.get_tokenizer("ViT-B-16")(["a photo of a cat", "a photo of a potted plant"])
    with torch.inference_mode():
        expected = small.encode_text(ids)
    torch.testing.assert_close(text.vectors, expected / expected.norm(dim=1, keepdim=True))
    assert text.class_names == ("cat", "potted plant")


def test_a_prompt_may_hold_other_braces_beside_the_gap(small):
    encoder = clip.build(clip.Settings(image_size=32, prompt="a {kind} of {}"))
    ids = open_clip.get_tokenizer("ViT-B-16")(["a {kind} of cat"])
    with torch.inference_mode():
        expected = small.encode_text(ids, normalize=True)
    torch.testing.assert_close(encoder.text(["cat"]).vectors, expected)


def test_settings_that_do_not_fit_the_model_are_refused(small):
    with pytest.raises(SettingsError, match="at most 4"):
        gem.build(gem.Settings(image_size=32, depth=7))
    with pytest.raises(SettingsError, match="multiple of the 8 pixels"):
        clip.build(clip.Settings(image_size=30))
    with pytest.raises(ValueError, match="exactly one"):
        clip.Settings(prompt="a photo")


@pytest.mark.parametrize(
    ("model", "tag", "advice"),
    [
        ("ViT-B-16", "openai", "set model: ViT-B-16-quickgelu"),
        ("ViT-B-17", "openai", "Did you mean 'ViT-B-16"),
        ("ViT-B-16", "openia", "Did you mean 'openai'"),
    ],
)
def test_a_wrong_model_tag_or_activation_is_refused_before_any_download(model, tag, advice):
    with pytest.raises(SettingsError, match=advice):
        _open_clip.load(ClipSettings(model=model, pretrained=tag))


def test_a_missing_checkpoint_file_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSPL_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"clip\.safetensors: no such checkpoint"):
        _open_clip.load(ClipSettings(pretrained="clip.safetensors"))


def test_an_unknown_device_is_refused(monkeypatch):
    monkeypatch.setenv("ZSPL_DEVICE", "gpu0")
    with pytest.raises(SettingsError, match="ZSPL_DEVICE is 'gpu0'"):
        devices.chosen()
    monkeypatch.setenv("ZSPL_DEVICE", "cuda:99")
    with pytest.raises(SettingsError, match="cuda:99"):
        devices.chosen()


def test_the_tiny_model_refuses_words_it_never_saw(small, monkeypatch):
    from zspl.toyworld import load
    from zspl.toyworld.vocabulary import CheckedTokenizer

    monkeypatch.undo()
    monkeypatch.setenv("ZSPL_DEVICE", "cpu")
    tokenizer = CheckedTokenizer(
        stock=open_clip.get_tokenizer("ViT-B-16"),
        known=frozenset({"a", "photo", "of", "zebra", "brick"}),
    )
    monkeypatch.setattr(load, "load_clip", lambda: (small, tokenizer, MEAN, STD, 40))
    encoder = clip.build(clip.Settings(model="tiny"))
    assert encoder.dense(photo()).grid.shape == (24, 5, 5)
    assert encoder.text(["zebra", "brick"]).vectors.shape == (2, 24)
    with pytest.raises(WeightsError, match="does not know 'teapot'"):
        encoder.text(["zebra", "teapot"])


def test_a_tower_with_unknown_parts_is_refused(small):
    small.visual.transformer.resblocks[1].register_forward_hook(lambda *a: a[2] * 1.5)
    with pytest.raises(WeightsError, match="not the plain CLIP ViT"):
        clip.build(clip.Settings(image_size=32))


def test_imagenet80_is_the_normalised_mean_of_normalised_prompts(small):
    encoder = clip.build(clip.Settings(image_size=32, templates="imagenet80"))
    text = encoder.text(["cat", "potted plant"])
    tokenizer = open_clip.get_tokenizer("ViT-B-16")
    assert len(open_clip.OPENAI_IMAGENET_TEMPLATES) == 80
    for name, vector in zip(text.class_names, text.vectors, strict=True):
        total = torch.zeros(24)
        for template in open_clip.OPENAI_IMAGENET_TEMPLATES:
            with torch.inference_mode():
                one = small.encode_text(tokenizer([template(name)]))[0]
            total += one / one.norm() / 80
        torch.testing.assert_close(vector, total / total.norm(), atol=1e-5, rtol=1e-5)
    single = clip.build(clip.Settings(image_size=32)).text(["cat"])
    assert not torch.allclose(single.vectors[0], text.vectors[0], atol=1e-3)


def test_the_same_names_are_embedded_once_and_others_anew(small, monkeypatch):
    encoder = clip.build(clip.Settings(image_size=32))
    calls = []
    plain = small.encode_text
    monkeypatch.setattr(small, "encode_text", lambda *a, **k: calls.append(1) or plain(*a, **k))
    first = encoder.text(["cat", "dog"])
    assert encoder.text(("cat", "dog")) is first
    assert len(calls) == 1
    other = encoder.text(["dog", "cat"])
    assert len(calls) == 2
    assert other.class_names == ("dog", "cat")


def test_the_tiny_model_refuses_the_80_templates_when_the_settings_are_read():
    with pytest.raises(SettingsError, match=r"tiny model knows few words.*set templates: single"):
        build_plugin("zspl.features", "clip", {"model": "tiny", "templates": "imagenet80"})


def test_half_precision_is_for_the_image_tower_and_text_stays_float32(small, monkeypatch):
    monkeypatch.setattr(devices, "dtype", lambda name: getattr(torch, name))
    exact = clip.build(clip.Settings(image_size=32)).text(["cat"]).vectors
    encoder = clip.build(clip.Settings(image_size=32, dtype="bfloat16"))
    assert {weight.dtype for weight in small.visual.parameters()} == {torch.bfloat16}
    assert encoder.dense(photo()).grid.dtype == torch.float32
    assert torch.equal(encoder.text(["cat"]).vectors, exact)


def test_a_precision_that_the_device_lacks_is_refused_before_weights_are_loaded(monkeypatch):
    monkeypatch.setenv("ZSPL_DEVICE", "cpu")
    monkeypatch.setattr(_open_clip, "load", lambda _: pytest.fail("weights were loaded"))
    with pytest.raises(SettingsError, match="float16, which no CPU"):
        clip.build(clip.Settings(dtype="float16"))


@pytest.mark.parametrize(
    "name", ["ViT-B-16-SigLIP", "RN50", "coca_ViT-B-32", "EVA02-B-16", "convnext_base"]
)
def test_a_model_without_a_plain_vit_is_refused_before_any_download(name, monkeypatch):
    monkeypatch.setattr(open_clip, "create_model", lambda *_, **__: pytest.fail("it was built"))
    with pytest.raises(SettingsError, match=f"image tower of {name} is no plain CLIP ViT"):
        _open_clip.load(ClipSettings(model=name, pretrained="openai"))


def oddities():
    """One ViT-* name of open_clip for every kind of image tower, each with what is special."""
    kinds = {}
    for name in open_clip.list_models():
        vision = open_clip.get_model_config(name)["vision_cfg"]
        if name.startswith("ViT-") and "timm_model_name" not in vision:
            kept = {k: v for k, v in vision.items() if k not in {"layers", "width"}}
            kinds.setdefault(str(sorted(kept.items())), (name, kept))
    return list(kinds.values())


@pytest.mark.parametrize(
    ("name", "vision"), oddities(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_vit_of_open_clip_is_a_choice(name, vision, sharp_clip, serve):
    head = vision.get("head_width", 64)
    model = sharp_clip(layers=2, width=2 * head, **{"patch_size": 14, **vision})
    serve(model)
    side = 4 * vision["patch_size"]
    encoder = maskclip.build(maskclip.Settings(model=name, image_size=side))
    assert encoder.dense(photo()).grid.shape == (24, 4, 4)
    with torch.inference_mode():
        _, plain = gem_tokens(model, torch.randn(1, 3, *model.visual.image_size), depth=2)
    assert bool(plain.isfinite().all())
    assert 448 % vision["patch_size"] == 0, "the default size does not fit this model"


def test_a_tower_without_projection_or_with_a_wide_native_size_is_served(sharp_clip, serve):
    model = sharp_clip(image_size=(24, 48))
    model.visual.proj = None
    serve(model)
    encoder = clip.build(clip.Settings(image_size=32))
    assert encoder.dense(photo()).grid.shape == (32, 4, 4)


@pytest.mark.parametrize("odd", [{"patch_size": (8, 16)}, {"attentional_pool": True}])
def test_a_tower_with_wide_patches_or_another_pooling_is_refused(sharp_clip, serve, odd):
    serve(sharp_clip(**odd))
    with pytest.raises(SettingsError, match=re.escape("is no plain CLIP ViT")):
        clip.build(clip.Settings(image_size=32))
