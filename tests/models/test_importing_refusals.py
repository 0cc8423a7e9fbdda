"""A checkpoint that does not fit is refused by the name of a tensor; licences are told."""

import logging
import runpy
from pathlib import Path

import pytest
import torch

from zspl import models
from zspl.errors import WeightsError

plain = runpy.run_path(str(Path(__file__).with_name("plain_networks.py")))
CLASSES = 5
COMPACT = {"name": "compact"}
DEEPLAB = {"name": "deeplabv3plus"}
B0 = {"name": "mit", "size": "b0"}
SEGFORMER = {"name": "segformer", "width": 12}


def build(backbone, head, *, file="best.pth"):
    """Build a network both parts of which start from one file."""
    return models.build(
        backbone={**backbone, "pretrained": file},
        head={**head, "pretrained": file},
        num_classes=CLASSES,
    )


@pytest.fixture
def nvidia(images):
    """The state of a SegFormer-B0 as NVIDIA's code saves it."""
    p = plain["Plain"]()
    with torch.no_grad():
        levels = plain["mit_b0"](p, images, prefix="backbone.")
        plain["segformer_decoder"](p, levels, classes=CLASSES, width=12, prefix="decode_head.")
    return p.state


@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        (
            "backbone.block1.0.attn.q.weight",
            r"lacks 1 of \d+ tensors of this backbone \(first: encoder\.block1\.0\.attn\.q\.weight",
        ),
        (
            "decode_head.linear_pred.bias",
            r"lacks 1 of \d+ tensors of this head \(first: classifier\.bias\)",
        ),
    ],
)
def test_a_missing_tensor_is_named(folder, nvidia, lost, expected):
    del nvidia[lost]
    torch.save(nvidia, folder / "best.pth")
    with pytest.raises(WeightsError, match=expected) as error:
        build(B0, SEGFORMER)
    assert "(NVIDIA's SegFormer)" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "size", "expected"),
    [
        (
            "backbone.block1.2.norm1.bias",
            32,
            r"holds encoder\.block1\.2\.norm1\.bias, for which this backbone has no place",
        ),
        (
            "auxiliary_head.conv.bias",
            3,
            r"holds auxiliary_head\.conv\.bias, for which this backbone has no place",
        ),
        (
            "backbone.norm4.bias",
            7,
            r"encoder\.norm4\.bias of the backbone has shape \(7,\), expected \(256,\)",
        ),
        (
            "decode_head.linear_pred.bias",
            150,
            r"classifier\.bias of the head has shape \(150,\), expected \(5,\)",
        ),
    ],
)
def test_a_foreign_or_misshapen_tensor_is_named(folder, nvidia, key, size, expected):
    torch.save({**nvidia, key: torch.zeros(size)}, folder / "best.pth")
    with pytest.raises(WeightsError, match=expected):
        build(B0, SEGFORMER)


def test_a_deeper_networks_file_is_refused_and_a_classifier_is_not(folder):
    backbone = {"name": "mobilenetv2_100"}
    deep = models.build(backbone=backbone, head=DEEPLAB, num_classes=3).backbone
    state = {**deep.state_dict(), "classifier.weight": torch.zeros(1000, 1280)}
    torch.save(state, folder / "good.pth")
    torch.save({**state, "blocks.6.1.bn1.bias": torch.zeros(3)}, folder / "deeper.pth")
    models.build(backbone={**backbone, "pretrained": "good.pth"}, head=DEEPLAB, num_classes=3)
    with pytest.raises(WeightsError, match=r"holds blocks\.6\.1\.bn1\.bias, for which"):
        models.build(backbone={**backbone, "pretrained": "deeper.pth"}, head=DEEPLAB, num_classes=3)


def test_a_file_of_another_network_says_whose_it_is(folder, nvidia):
    torch.save(nvidia, folder / "best.pth")
    with pytest.raises(WeightsError, match=r"lacks .* of this backbone .*NVIDIA's SegFormer"):
        build({"name": "resnet50s"}, DEEPLAB)
    torch.save({"patch_embed1.proj.weight": torch.zeros(1)}, folder / "mit.pth")
    with pytest.raises(WeightsError, match=r"lacks .* of this head .*NVIDIA's Mix Transformer"):
        models.build(backbone=B0, head={**SEGFORMER, "pretrained": "mit.pth"}, num_classes=3)


def test_an_empty_checkpoint_is_refused(folder):
    torch.save({"model": {}, "epoch": 1}, folder / "best.pth")
    with pytest.raises(WeightsError, match=r"best\.pth: lacks \d+ of \d+ tensors of this backbone"):
        build(B0, SEGFORMER)


def test_non_commercial_weights_say_so_once(folder, nvidia, caplog):
    torch.save(nvidia, folder / "segformer.pth")
    with caplog.at_level(logging.WARNING):
        build(B0, SEGFORMER, file="segformer.pth")
    assert caplog.messages == [
        "segformer.pth: not for commercial use (NVIDIA Source Code License for SegFormer)"
    ]


def test_non_commercial_weights_of_a_library_say_so(folder, caplog, monkeypatch):
    from zspl.models.backbones import mit

    library = mit.get_encoder
    monkeypatch.setattr(mit, "get_encoder", lambda name, **_: library(name, weights=None))
    mit.build(mit.Settings(size="b0", pretrained="imagenet"))
    assert caplog.messages == [
        "mit_b0.imagenet: not for commercial use (NVIDIA Source Code License for SegFormer)"
    ]


def test_free_weights_and_random_ones_say_nothing(folder, caplog):
    network = models.build(backbone=COMPACT, head=DEEPLAB, num_classes=CLASSES)
    torch.save(network.state_dict(), folder / "best.pth")
    models.build(backbone=B0, head=SEGFORMER, num_classes=3)
    head = {**DEEPLAB, "pretrained": "best.pth"}
    models.build(backbone=COMPACT, head=head, num_classes=CLASSES)
    assert caplog.messages == []


def test_a_checkpoint_that_will_be_replaced_is_not_read(folder):
    head, backbone = {**SEGFORMER, "pretrained": "a.pth"}, {**B0, "pretrained": "a.pth"}
    models.build(backbone=backbone, head=head, num_classes=3, pretrained=False)
    with pytest.raises(WeightsError, match="no such checkpoint"):
        models.build(backbone=B0, head=head, num_classes=3)
