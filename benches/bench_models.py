"""SegFormer's head at B4's levels of a 321 px crop, against its plain form. `make bench`.

The plain form upsamples every level to the finest one, concatenates and fuses there, as the
published code does.
"""

import pytest
import torch
from torch.nn import functional as F

from zspl.models.heads import segformer

CHANNELS = (64, 128, 320, 512)
SIDES = (81, 41, 21, 11)
CROP = (321, 321)
CLASSES = 21
WANTED = 4.0


@pytest.fixture(scope="module")
def head():
    torch.manual_seed(0)
    return segformer.build(segformer.Settings(dropout=0.0))(CHANNELS, CLASSES)


def levels(batch):
    pairs = zip(CHANNELS, SIDES, strict=True)
    return [torch.randn(batch, c, s, s, requires_grad=True) for c, s in pairs]


def plain(head, features, size):
    maps = [
        F.interpolate(linear(level), features[0].shape[-2:], mode="bilinear")
        for level, linear in zip(features, head.linears, strict=True)
    ]
    x = F.relu(head.bn(head.fuse(torch.cat(maps[::-1], 1))))
    return F.interpolate(head.classifier(x), size, mode="bilinear")


def distance(expected, found):
    """Return the distance of two tensors over the length of the first.

    A value that one form rounds to 0 and the other does not has a gradient in one form only.
    """
    return float((expected - found).norm() / expected.norm())


def bench_segformer_head(compare, head):
    head.eval()
    features = [level.detach() for level in levels(1)]

    def run(forward):
        with torch.inference_mode():
            return forward(features, CROP)

    compare(
        "SegFormer head B4 321, one image",
        lambda: run(lambda *arguments: plain(head, *arguments)),
        lambda: run(head),
        bound=WANTED,
    )


def bench_segformer_head_step(compare, head):
    head.train()
    features = levels(1)

    def run(forward):
        for level in features:
            level.grad = None
        head.zero_grad()
        forward(features, CROP).square().mean().backward()
        return features[0].grad

    compare(
        "SegFormer head B4 321, forward and backward of one image",
        lambda: run(lambda *arguments: plain(head, *arguments)),
        lambda: run(head),
        parity=distance,
        bound=WANTED,
        pairs=3,
    )
