"""Official checkpoints load under strict key maps and give the published networks' outputs."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from zspl import models

plain = runpy.run_path(str(Path(__file__).with_name("plain_networks.py")))
CLASSES = 5
XCEPTION = {"name": "xception65"}
DEEPLAB = {"name": "deeplabv3plus"}
B0 = {"name": "mit", "size": "b0"}
SEGFORMER = {"name": "segformer", "width": 12}


def whole(backbone, head, *, file="best.pth"):
    """Build a network both parts of which start from one file."""
    return models.build(
        backbone={**backbone, "pretrained": file},
        head={**head, "pretrained": file},
        num_classes=CLASSES,
    ).eval()


def as_parallel_run(state):
    """Wrap a state as the published training loops save it."""
    named = {f"module.{key}": tensor for key, tensor in state.items()}
    return {"model": named, "optimizer": {"state": {}}, "epoch": 3, "previous_best": np.float64(70)}


def assert_equal(found, expected, *, rel=1e-5):
    assert (found - expected).abs().max() <= rel * expected.abs().max()


@torch.no_grad()
@pytest.mark.parametrize(("name", "plainly"), [("resnet50s", "resnet50"), ("xception65",) * 2])
def test_unimatchs_deeplab_gives_the_published_networks_logits(folder, images, name, plainly):
    p = plain["Plain"]()
    low, high = plain[plainly](p, images, prefix="backbone.")
    expected = plain["deeplab_decoder"](p, low, high, images.shape[2:], classes=CLASSES)
    torch.save(as_parallel_run(p.state), folder / "best.pth")
    assert_equal(whole({"name": name}, DEEPLAB)(images), expected)


@torch.no_grad()
def test_the_xception_file_of_unimatch_gives_its_two_levels(folder, images):
    p = plain["Plain"]()
    expected = plain["xception65"](p, images)
    torch.save({**p.state, "block1.skipbn.itr": torch.zeros(1)}, folder / "xception.pth")
    backbone = {**XCEPTION, "pretrained": "xception.pth"}
    network = models.build(backbone=backbone, head=DEEPLAB, num_classes=3).eval()
    for found, level in zip(network.encode(images), expected, strict=True):
        assert_equal(found, level)


def segformer(images, *, encoder, decoder, corners=False):
    """Return the state and the logits of a plain SegFormer-B0 with the given prefixes."""
    p = plain["Plain"]()
    levels = plain["mit_b0"](p, images, prefix=encoder)
    logits = plain["segformer_decoder"](p, levels, classes=CLASSES, width=12, prefix=decoder)
    return p.state, plain["bilinear"](logits, images.shape[2:], corners=corners)


@torch.no_grad()
@pytest.mark.parametrize(
    ("decoder", "corners"),
    [("decode_head.", False), ("decoder.decoder.", False), ("", True)],
    ids=["nvidia", "allspark", "unimatch-with-segformer"],
)
def test_published_segformers_give_their_own_logits(folder, images, decoder, corners):
    state, expected = segformer(images, encoder="backbone.", decoder=decoder, corners=corners)
    if decoder == "decode_head.":
        state |= {f"{decoder}conv_seg.weight": torch.zeros(5, 9, 1, 1)}
        state |= {f"{decoder}conv_seg.bias": torch.zeros(5)}
        content = {"meta": {"CLASSES": ["a"]}, "state_dict": state}
    else:
        content = as_parallel_run(state)
    torch.save(content, folder / "best.pth")
    assert_equal(whole(B0, {**SEGFORMER, "align_corners": corners})(images), expected)


@torch.no_grad()
def test_nvidias_imagenet_file_gives_its_four_levels(folder, images):
    p = plain["Plain"]()
    expected = plain["mit_b0"](p, images)
    classifier = {"head.weight": torch.zeros(1000, 256), "head.bias": torch.zeros(1000)}
    torch.save({**p.state, **classifier}, folder / "mit_b0.pth")
    backbone = {**B0, "pretrained": "mit_b0.pth"}
    network = models.build(backbone=backbone, head=SEGFORMER, num_classes=3).eval()
    for found, level in zip(network.encode(images), expected, strict=True):
        assert_equal(found, level)


def as_huggingface(state):
    """Rename NVIDIA's keys as transformers does, and split keys from values."""
    named = {}
    for key, tensor in state.items():
        parts = key.split(".")
        if parts[0] == "decode_head":
            name = key.replace("linear_fuse.conv", "linear_fuse").replace(
                "linear_pred", "classifier"
            )
            name = name.replace("linear_fuse.bn", "batch_norm")
            for k in range(4):
                name = name.replace(f"linear_c{k + 1}.", f"linear_c.{k}.")
            named[name] = tensor
            continue
        stage, rest = int(parts[1][-1]) - 1, ".".join(parts[2:])
        if parts[1].startswith("patch_embed"):
            where, rest = f"patch_embeddings.{stage}", rest.replace("norm", "layer_norm")
        elif parts[1].startswith("norm"):
            where = f"layer_norm.{stage}"
        else:
            where = f"block.{stage}"
            for old, new in (
                ("attn.norm", "attention.self.layer_norm"), ("norm1", "layer_norm_1"),
                ("norm2", "layer_norm_2"), ("attn.q.", "attention.self.query."),
                ("attn.kv.", "attention.self.kv."), ("attn.sr", "attention.self.sr"),
                ("attn.proj", "attention.output.dense"), ("fc1", "dense1"), ("fc2", "dense2"),
            ):  # fmt: skip
                rest = rest.replace(old, new)
        name = f"segformer.encoder.{where}.{rest}"
        if ".kv." in name:
            key_half, value_half = tensor.chunk(2)
            named[name.replace(".kv.", ".key.")] = key_half
            named[name.replace(".kv.", ".value.")] = value_half
        else:
            named[name] = tensor
    return named


@torch.no_grad()
def test_a_segformer_of_hugging_face_gives_nvidias_logits(folder, images):
    state, expected = segformer(images, encoder="backbone.", decoder="decode_head.")
    torch.save(as_huggingface(state), folder / "pytorch_model.bin")
    assert_equal(whole(B0, SEGFORMER, file="pytorch_model.bin")(images), expected)


@torch.no_grad()
def test_what_transformers_saves_gives_the_logits_of_transformers(folder, images):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.SegformerConfig(num_labels=CLASSES, decoder_hidden_size=12)
    theirs = transformers.SegformerForSemanticSegmentation(config).eval()
    theirs.save_pretrained(folder)
    expected = plain["bilinear"](theirs(images).logits, images.shape[2:], corners=False)
    ours = whole(B0, SEGFORMER, file="model.safetensors")(images)
    # Its layer norms add 1e-5 everywhere.
    assert_equal(ours, expected, rel=1e-3)


def as_mmsegmentation(state, *, prefix):
    """Rename NVIDIA's encoder as mmsegmentation does: one matrix of attention, 1x1 convolutions."""
    named = {}
    for key, tensor in state.items():
        stem, rest = key.split(".", 1)
        layer = f"{prefix}layers.{int(stem[-1]) - 1}"
        if stem.startswith("patch_embed"):
            named[f"{layer}.0.{rest.replace('proj', 'projection')}"] = tensor
        elif stem.startswith("norm"):
            named[f"{layer}.2.{rest}"] = tensor
        elif ".attn.q." in key:
            both = torch.cat([tensor, state[key.replace(".q.", ".kv.")]])
            named[f"{layer}.1.{rest.replace('attn.q.', 'attn.attn.in_proj_')}"] = both
        elif ".attn.kv." not in key:
            rest = rest.replace("attn.proj", "attn.attn.out_proj").replace(
                "mlp.fc1", "ffn.layers.0"
            )
            rest = rest.replace("mlp.dwconv.dwconv", "ffn.layers.1").replace(
                "mlp.fc2", "ffn.layers.4"
            )
            is_pointwise = rest.endswith(("layers.0.weight", "layers.4.weight"))
            named[f"{layer}.1.{rest}"] = tensor[:, :, None, None] if is_pointwise else tensor
    return named


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_mmsegmentations_encoder_gives_its_four_levels(folder, images, prefix):
    p = plain["Plain"]()
    expected = plain["mit_b0"](p, images)
    torch.save({"state_dict": as_mmsegmentation(p.state, prefix=prefix)}, folder / "a.pth")
    backbone = {**B0, "pretrained": "a.pth"}
    network = models.build(backbone=backbone, head=SEGFORMER, num_classes=3).eval()
    for found, level in zip(network.encode(images), expected, strict=True):
        assert_equal(found, level)


@torch.no_grad()
def test_unimatch_v2s_dpt_gives_the_published_networks_logits(folder):
    images = torch.randn(2, 3, 42, 56, generator=torch.Generator().manual_seed(1))
    p = plain["Plain"]()
    levels = plain["dinov2_small"](p, images, prefix="backbone.")
    expected = plain["dpt_decoder"](p, levels, classes=CLASSES)
    torch.save(as_parallel_run(p.state), folder / "best.pth")
    assert_equal(whole({"name": "dinov2"}, {"name": "dpt"})(images), expected)


@torch.no_grad()
def test_facebooks_dinov2_file_gives_its_four_levels(folder):
    images = torch.randn(1, 3, 28, 42, generator=torch.Generator().manual_seed(1))
    p = plain["Plain"]()
    expected = plain["dinov2_small"](p, images)
    torch.save(p.state, folder / "dinov2_vits14_pretrain.pth")
    backbone = {"name": "dinov2", "pretrained": "dinov2_vits14_pretrain.pth"}
    network = models.build(backbone=backbone, head={"name": "dpt"}, num_classes=3).eval()
    for found, level in zip(network.encode(images), expected, strict=True):
        assert_equal(found, level)


@torch.no_grad()
def test_a_checkpoint_of_zspl_starts_another_network(folder, images):
    torch.manual_seed(0)
    trained = models.build(backbone=B0, head=SEGFORMER, num_classes=CLASSES).eval()
    torch.save(trained.state_dict(), folder / "best.pth")
    assert torch.equal(whole(B0, SEGFORMER)(images), trained(images))
