"""Each backbone is the published network: parameter counts, and outputs of plainly written ones."""

import runpy
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from zspl import models
from zspl.errors import SettingsError, WeightsError
from zspl.models.backbones import dinov2, timm_features, xception65
from zspl.sections import plugin_settings

plain = runpy.run_path(str(Path(__file__).with_name("plain_networks.py")))
DEEPLAB = {"name": "deeplabv3plus"}


@pytest.fixture
def meta(monkeypatch):
    """Build networks without memory: shapes and counts are all there."""
    # Stochastic depth reads its rates from a tensor, which must hold numbers.
    monkeypatch.setattr(torch, "linspace", partial(torch.linspace, device="cpu"))
    with torch.device("meta"):
        yield


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("backbone", "head", "classes", "expected"),
    [
        ({"name": "resnet50s"}, DEEPLAB, 21, 40_475_957),
        ({"name": "resnet101s"}, DEEPLAB, 21, 59_468_085),
        ({"name": "resnet101s"}, DEEPLAB, 81, 59_483_505),
        ({"name": "resnet101s"}, DEEPLAB, 19, 59_467_571),
        ({"name": "xception65"}, DEEPLAB, 81, 54_726_881),
        ({"name": "mit", "size": "b4"}, {"name": "segformer", "width": 768}, 21, 64_009_173),
        ({"name": "mit", "size": "b5"}, {"name": "segformer", "width": 768}, 81, 84_655_633),
    ],
)
def test_a_network_has_the_published_number_of_parameters(meta, backbone, head, classes, expected):
    assert parameters(models.build(backbone=backbone, head=head, num_classes=classes)) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("b0", 3_319_392),
        ("b1", 13_151_424),
        ("b2", 24_196_288),
        ("b3", 44_072_128),
        ("b4", 60_842_688),
        ("b5", 81_443_008),
    ],
)
def test_a_mix_transformer_has_the_published_number_of_parameters(meta, size, expected):
    network = models.build(backbone={"name": "mit", "size": size}, head=DEEPLAB, num_classes=2)
    assert parameters(network.backbone) == expected


@pytest.mark.parametrize(
    ("size", "head", "never_read", "published"),
    [
        ("small", {}, 2 * (64 * 64 * 9 + 64) + 384, 24_795_637),
        (
            "base",
            {"width": 128, "level_widths": (96, 192, 384, 768)},
            2 * (128 * 128 * 9 + 128) + 768,
            97_528_789,
        ),
    ],
)
def test_dinov2_with_dpt_has_unimatch_v2s_parameters_but_those_never_read(
    meta, size, head, never_read, published
):
    backbone = {"name": "dinov2", "size": size}
    model = models.build(backbone=backbone, head={"name": "dpt", **head}, num_classes=21)
    assert parameters(model) + never_read == published


@pytest.fixture(scope="module")
def xceptions():
    """Plain levels of UniMatch's Xception-65, and timm's network with the same tensors."""
    images = torch.randn(1, 3, 65, 65, generator=torch.Generator().manual_seed(0))
    p = plain["Plain"]()
    with torch.no_grad():
        expected = plain["xception65"](p, images)
    network = timm.create_model("xception65", output_stride=16, num_classes=0)
    tensors = [tensor for key, tensor in p.state.items() if "num_batches_tracked" not in key]
    ordered = _in_order_of_the_published_modules(p.state)
    assert len(tensors) == len(ordered) == 660
    keys = [key for key in network.state_dict() if "num_batches_tracked" not in key]
    network.load_state_dict(dict(zip(keys, ordered, strict=True)), strict=False)
    return images, expected, network


def _in_order_of_the_published_modules(state):
    """Return the tensors in the order in which the published module declares them."""
    blocks = [f"block{k}." for k in range(1, 21)]
    starts = ["conv1.w", "bn1.", "conv2.w", "bn2.", *blocks, "conv3.", "conv4.", "conv5."]
    inside = ["skip.", "skipbn.", "sepconv1.", "sepconv2.", "sepconv3."]
    layers = ["depthwise", "bn1", "pointwise", "bn2"]
    leaves = ["weight", "bias", "running_mean", "running_var"]

    def place(key):
        start = next(k for k, name in enumerate(starts) if key.startswith(name))
        part = next((k for k, name in enumerate(inside) if f".{name}" in key), 0)
        layer = next((k for k, name in enumerate(layers) if f".{name}." in key), 0)
        return start, part, layer, leaves.index(key.rpartition(".")[2])

    return [state[k] for k in sorted((k for k in state if "tracked" not in k), key=place)]


@torch.no_grad()
def levels_of(xceptions, variant="unimatch"):
    images, expected, network = xceptions
    # A deep copy, since the corrections change the network in place.
    fresh = timm.create_model("xception65", output_stride=16, num_classes=0)
    fresh.load_state_dict(network.state_dict())
    module = xception65.Xception65(fresh, variant=variant).eval()
    return module, module(images), expected, images


def difference(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


def test_xception_gets_timms_tensors_by_position_and_gives_unimatchs_levels(xceptions):
    _, found, expected, _ = levels_of(xceptions)
    assert [tuple(level.shape) for level in found] == [(1, 256, 17, 17), (1, 2048, 5, 5)]
    for level, wanted in zip(found, expected, strict=True):
        assert difference(level, wanted) < 1e-5
    assert found[0].min() < 0, "the finest level is not rectified"


def test_xceptions_batch_norm_moves_its_averages_as_unimatchs(xceptions):
    module, _, _, _ = levels_of(xceptions)
    norms = [norm for norm in module.modules() if isinstance(norm, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {3e-4}


@torch.no_grad()
@pytest.mark.parametrize("undone", ["eps", "dilation", "shortcut"])
def test_each_correction_of_xception_is_needed(xceptions, undone):
    module, _, expected, images = levels_of(xceptions)
    if undone == "eps":
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.eps = 1e-3
    elif undone == "dilation":
        for conv in module.blocks[-1].modules():
            if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
                conv.dilation = conv.padding = (2, 2)
    else:
        module.rectified = False
    assert difference(module(images)[1], expected[1]) > 1e-3


def test_xception_as_deeplab_is_timms_network(xceptions):
    images, _, network = xceptions
    _, found, _, _ = levels_of(xceptions, "deeplab")
    with torch.no_grad():
        assert torch.equal(found[1], network.eval().forward_features(images))


def test_dinov2_adds_the_trained_positions_at_518_pixels_and_resampled_ones_elsewhere():
    module = dinov2.build(dinov2.Settings()).module
    with torch.no_grad():
        module.pos_embed.normal_()
        assert module._positions(37, 37) is module.pos_embed
        square = module.pos_embed[:, 1:].reshape(1, 37, 37, 384).permute(0, 3, 1, 2)
        scale = (10.1 / 37, 20.1 / 37)
        expected = (
            F.interpolate(square, scale_factor=scale, mode="bicubic").flatten(2).transpose(1, 2)
        )
        found = module._positions(10, 20)
    assert torch.equal(found[:, :1], module.pos_embed[:, :1])
    assert torch.equal(found[:, 1:], expected)


def test_dinov2_resizes_other_images_to_whole_patches():
    module = dinov2.build(dinov2.Settings()).module.eval()
    images = torch.randn(1, 3, 30, 50)
    with torch.no_grad():
        whole = F.interpolate(images, size=(28, 56), mode="bilinear", align_corners=True)
        for found, expected in zip(module(images), module(whole), strict=True):
            assert torch.equal(found, expected)
    assert found.shape == (1, 384, 2, 4)


@pytest.mark.parametrize("layers", [(2, 5, 8, 12), (5, 2), (2, 2), (-1,)])
def test_dinov2_refuses_layers_that_it_does_not_have(layers):
    with pytest.raises(SettingsError, match=r"layers must ascend from 0 to 11, got \["):
        plugin_settings("zspl.models.backbones", "dinov2", {"layers": layers})


def test_the_tags_that_the_backbones_name_are_known_to_timm():
    tags = ("resnet101s.gluon_in1k", "resnet50s.gluon_in1k", "xception65.tf_in1k")
    tags += ("vit_small_patch14_dinov2.lvd142m", "vit_base_patch14_dinov2.lvd142m")
    assert all(timm.models.is_model_pretrained(tag) for tag in tags)


@pytest.mark.parametrize(
    ("name", "stride", "levels"),
    [("resnet18", None, 4), ("mobilenetv3_small_100", 16, 4), ("pvt_v2_b0", None, 4)],
)
def test_any_extractor_of_timm_returns_its_levels_from_stride_4_on(name, stride, levels):
    encoder = timm_features.build(timm_features.Settings(model=name, output_stride=stride))
    with torch.no_grad():
        found = encoder.module.eval()(torch.zeros(1, 3, 64, 96))
    assert len(found) == len(encoder.channels) == levels
    assert found[0].shape == (1, encoder.channels[0], 16, 24)
    assert found[-1].shape[-1] == 96 // (stride or 32)


def test_asking_for_its_sizes_leaves_a_network_as_it_was():
    settings = timm_features.Settings(model="resnet18")
    module = timm_features.build(settings).module
    assert module.training
    assert int(module.network.bn1.num_batches_tracked) == 0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"model": "resnet81"}, r"timm has no model 'resnet81'\. Did you mean '"),
        ({"model": "zzz"}, r"timm has no model 'zzz'\. timm\.list_models\(\) shows"),
        ({"model": "vit_tiny_patch16_224"}, r"strides \[16, 16, 16\], none of them is 4"),
        ({"model": "swin_tiny_patch4_window7_224"}, r"does not take images of 64 x 96 pixels"),
        ({"model": "hrnet_w18_small"}, r"does not take images of 65 x 97 pixels"),
        ({"model": "pvt_v2_b0", "output_stride": 16}, r"does not build it with .*output_stride"),
    ],
)
def test_an_extractor_that_does_not_fit_is_one_clear_line(settings, expected):
    with pytest.raises(SettingsError, match=expected) as error:
        timm_features.build(timm_features.Settings(**settings))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "pvt_v2_b0"])
def test_a_file_of_timm_loads_into_its_extractor(monkeypatch, tmp_path, name):
    monkeypatch.setenv("ZSPL_WEIGHTS", str(tmp_path))
    torch.manual_seed(0)
    classifier = timm.create_model(name)
    torch.save(classifier.state_dict(), tmp_path / "a.pth")
    module = timm_features.build(timm_features.Settings(model=name, pretrained="a.pth")).module
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = classifier.eval().forward_intermediates(images, intermediates_only=True)[-1]
        torch.testing.assert_close(module.eval()(images)[-1], expected)
    state = {k: v for k, v in classifier.state_dict().items() if not k.endswith("bias")}
    torch.save(state, tmp_path / "b.pth")
    with pytest.raises(WeightsError, match=r"lacks \d+ of \d+ tensors of this backbone"):
        timm_features.build(timm_features.Settings(model=name, pretrained="b.pth"))
