"""Throughput of what runs once per training step. `make bench`."""

import pytest
import torch

from zspl.losses import consistency_loss
from zspl.metrics import ConfusionMatrix

CLASSES = 21


@pytest.mark.parametrize("side", [128, 256])
def bench_consistency_loss(rate, side):
    logits = torch.randn(2, CLASSES, side, side)
    label = torch.randint(0, CLASSES, (2, side, side))
    confidence = torch.rand(2, side, side)
    padding = torch.zeros(2, side, side, dtype=torch.bool)

    def call():
        consistency_loss(logits, label, confidence, padding, min_confidence=0.95)

    rate(call, items=label.numel(), of="pixels")


@pytest.mark.parametrize("side", [128, 512])
def bench_confusion_matrix(rate, side):
    matrix = ConfusionMatrix(num_classes=CLASSES)
    label = torch.randint(0, CLASSES, (side, side))

    rate(lambda: matrix.update(label, label), items=label.numel(), of="pixels")
