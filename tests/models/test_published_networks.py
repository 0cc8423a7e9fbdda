"""Sizes and keys of the published networks that the other files do not name (methods.md 4)."""

from functools import partial

import pytest
import timm
import torch

from zspl import models
from zspl.methods import Facts, allspark

SHALLOW, DEEP = {"name": "mit", "size": "b4"}, {"name": "mit", "size": "b5"}
MODULE = 4_721_664


@pytest.fixture
def meta(monkeypatch):
    """Build networks without memory: shapes, counts and keys are all there."""
    # Stochastic depth reads its rates from a tensor, which must hold numbers.
    monkeypatch.setattr(torch, "linspace", partial(torch.linspace, device="cpu"))
    with torch.device("meta"):
        yield


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def segformer(backbone, width, classes):
    head = {"name": "segformer", "width": width}
    return models.build(backbone=backbone, head=head, num_classes=classes)


@pytest.mark.parametrize(
    ("backbone", "width", "millions"),
    [
        (SHALLOW, 256, 61.374),
        (SHALLOW, 512, 62.429),
        (SHALLOW, 768, 64.009),
        (DEEP, 256, 81.974),
        (DEEP, 512, 83.030),
        (DEEP, 768, 84.610),
    ],
)
def test_a_segformer_of_21_classes_has_the_published_size_at_every_width(
    meta, backbone, width, millions
):
    assert parameters(segformer(backbone, width, 21)) / 1e6 == pytest.approx(millions, abs=6e-4)


@pytest.mark.parametrize(("classes", "expected"), [(81, 89_377_297), (21, 89_331_157)])
def test_allspark_adds_its_module_to_segformer_b5(meta, classes, expected):
    plain = segformer(DEEP, 768, classes)
    own = {"name": "allspark", "width": 768}
    brought = models.build(backbone=DEEP, head=own, num_classes=classes)
    facts = Facts(class_names=tuple(map(str, range(classes))), crop_size=513)
    adapted = allspark.build(allspark.Settings()).adapt(plain, facts)
    assert parameters(adapted) == parameters(brought) == expected
    without = {name: p for name, p in adapted.named_parameters() if ".allspark." not in name}
    assert expected - sum(p.numel() for p in without.values()) == MODULE


@pytest.fixture(scope="module")
def resnet101():
    torch.manual_seed(0)
    head = {"name": "deeplabv3plus", "width": 8, "low_width": 4}
    ours = models.build(backbone={"name": "resnet101s"}, head=head, num_classes=2).backbone.eval()
    theirs = timm.create_model("resnet101s", pretrained=False, num_classes=0, output_stride=16)
    with torch.no_grad():
        for module in theirs.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                # Statistics as after training, or a fault of a deep layer would not show.
                module.weight.uniform_(0.5, 1.0)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2.0)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs.eval()


def test_resnet101_has_the_636_keys_of_the_published_stem_and_stages(resnet101):
    ours, _ = resnet101
    keys = set(ours.state_dict())
    assert len(keys) == 636
    stem = {f"conv1.{k}.weight" for k in (0, 1, 3, 4, 6)}
    assert stem <= keys
    blocks = {f"layer{k + 1}.{n - 1}.conv3.weight" for k, n in enumerate((3, 4, 23, 3))}
    assert blocks <= keys
    assert not any(key.startswith("layer3.23.") for key in keys)


@torch.no_grad()
def test_resnet101_gives_timms_levels_bit_by_bit(resnet101):
    ours, theirs = resnet101
    images = torch.randn(1, 3, 65, 97, generator=torch.Generator().manual_seed(1))
    low, high = ours(images)
    assert torch.equal(high, theirs.forward_features(images))
    stem = theirs.maxpool(theirs.act1(theirs.bn1(theirs.conv1(images))))
    assert torch.equal(low, theirs.layer1(stem))
    assert (low.shape[2:], high.shape[2:]) == ((17, 25), (5, 7))


@pytest.mark.parametrize(
    ("side", "fine", "coarse"), [(321, 81, 21), (513, 129, 33), (801, 201, 51)]
)
def test_resnets_levels_have_the_published_sides(meta, side, fine, coarse):
    head = {"name": "deeplabv3plus", "width": 8, "low_width": 4}
    network = models.build(backbone={"name": "resnet50s"}, head=head, num_classes=2).eval()
    low, high = network.encode(torch.zeros(1, 3, side, side))
    assert (low.shape, high.shape) == ((1, 256, fine, fine), (1, 2048, coarse, coarse))


@pytest.mark.parametrize(("side", "sides"), [(321, (81, 41, 21, 11)), (513, (129, 65, 33, 17))])
def test_mix_transformers_levels_have_the_published_sides(meta, side, sides):
    network = segformer({"name": "mit", "size": "b0"}, 8, 2).eval()
    levels = network.encode(torch.zeros(1, 3, side, side))
    assert tuple(level.shape[-1] for level in levels) == sides


def test_mix_transformers_norms_add_1e_6_in_blocks_and_stages_and_1e_5_elsewhere(meta):
    encoder = segformer({"name": "mit", "size": "b0"}, 8, 2).backbone.encoder
    norms = {n: m.eps for n, m in encoder.named_modules() if isinstance(m, torch.nn.LayerNorm)}
    for name, eps in norms.items():
        inside = ".attn." in name or name.startswith("patch_embed")
        assert eps == (1e-5 if inside else 1e-6), name
    assert set(norms.values()) == {1e-5, 1e-6}
