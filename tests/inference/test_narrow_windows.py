"""The last window of a photo can be one pixel wide, and every encoder must take it."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from zspl import models, plugins
from zspl.models.views import sliding_window

SMALLEST = {"mit": {"size": "b0"}, "timm_features": {"model": "resnet18"}}
HEAD = {"name": "deeplabv3plus", "width": 8, "low_width": 4}


@pytest.mark.parametrize("name", plugins.names("zspl.models.backbones"))
def test_every_backbone_takes_a_window_of_one_pixel(name, monkeypatch):
    # Without memory; stochastic depth reads its rates from a tensor, which must hold numbers.
    monkeypatch.setattr(torch, "linspace", partial(torch.linspace, device="cpu"))
    with torch.device("meta"), torch.no_grad():
        backbone = {"name": name, **SMALLEST.get(name, {})}
        network = models.build(backbone=backbone, head=HEAD, num_classes=3).eval()
        levels = [level.shape[-2:] for level in network.encode(torch.zeros(1, 3, 1, 50))]
        assert all(height == 1 for height, _ in levels)
        # Windows of 33 begin every 22 pixels.
        look = sliding_window(network, window=33)
        assert look(torch.zeros(1, 3, 45, 67)).shape == (1, 3, 45, 67)


@torch.no_grad()
def test_a_mix_transformer_continues_a_narrow_image_by_its_edge_and_leaves_others_alone():
    torch.manual_seed(0)
    backbone = {"name": "mit", "size": "b0"}
    network = models.build(
        backbone=backbone, head={"name": "segformer", "width": 8}, num_classes=2
    ).eval()
    library = network.backbone.encoder
    image = torch.randn(1, 3, 9, 37)
    wide = F.pad(image, (0, 0, 0, 20), mode="replicate")
    found = network.encode(image)
    assert [level.shape[2] for level in found] == [3, 2, 1, 1]
    for level, expected in zip(found, list(library(wide))[-4:], strict=True):
        assert torch.equal(level, expected[:, :, : level.shape[2]])
    for side in (29, 33, 64):
        image = torch.randn(1, 3, side, side)
        for found, expected in zip(network.encode(image), list(library(image))[-4:], strict=True):
            assert torch.equal(found, expected)
