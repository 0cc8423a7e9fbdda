"""Throughput of what runs once per training step. `make bench`."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from zspl.losses import consistency_loss
from zspl.metrics import ConfusionMatrix
from zspl.records import IGNORE_INDEX

CLASSES = 21
PHOTO = (375, 500)
VOID = 0.05
PHOTOS = 10
MUST = 10


@pytest.mark.parametrize("side", [128, 256])
def bench_consistency_loss(rate, side):
    logits = torch.randn(2, CLASSES, side, side)
    label = torch.randint(0, CLASSES, (2, side, side))
    confidence = torch.rand(2, side, side)
    padding = torch.zeros(2, side, side, dtype=torch.bool)

    def call():
        consistency_loss(logits, label, confidence, padding, min_confidence=0.95)

    rate(call, items=label.numel(), of="pixels")


def maps():
    """Return predictions and labels of ten photos: soft regions, 5 % of the labels void."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.randn(2 * PHOTOS, CLASSES, 12, 16, generator=draw)
    predictions, labels = F.interpolate(coarse, PHOTO, mode="bilinear").argmax(dim=1).chunk(2)
    labels[torch.rand(labels.shape, generator=draw) < VOID] = IGNORE_INDEX
    return list(zip(predictions, labels, strict=True))


def torchmetrics_matrix():
    """Return what fills torchmetrics' matrix with its defaults, or why there is none."""
    try:
        from torchmetrics.classification import MulticlassConfusionMatrix
    except ImportError:
        return "torchmetrics is not installed; make installs it"
    matrix, pairs = MulticlassConfusionMatrix(CLASSES, ignore_index=IGNORE_INDEX), maps()

    def fill():
        matrix.reset()
        for prediction, label in pairs:
            matrix.update(prediction, label)
        return matrix.confmat

    return fill


def histograms():
    """Return what counts hits, predictions and truths with numpy.histogram, as UniMatch does."""
    pairs = [(prediction.numpy(), label.numpy()) for prediction, label in maps()]
    bins = np.arange(CLASSES + 1)

    def fill():
        total = np.zeros((3, CLASSES), np.int64)
        for prediction, label in pairs:
            found = prediction.copy()
            found[label == IGNORE_INDEX] = IGNORE_INDEX
            hits = found[found == label]
            total += [np.histogram(ids, bins=bins)[0] for ids in (hits, found, label)]
        return torch.from_numpy(total)

    return fill


def our_matrix():
    """Return what fills our matrix with the bytes that our evaluation reads and predicts."""
    pairs = [(prediction.byte(), label.byte().numpy()) for prediction, label in maps()]

    def fill():
        matrix = ConfusionMatrix(CLASSES)
        for prediction, label in pairs:
            matrix.update(prediction, label)
        return matrix.counts

    return fill


def equal_integers(expected, found):
    if expected.shape != found.shape:
        found = torch.stack([found.diagonal(), found.sum(dim=0), found.sum(dim=1)])
    if not torch.equal(expected.long(), found):
        pytest.fail("the counts differ", pytrace=False)
    return "equal integers"


@pytest.mark.parametrize(
    ("of", "bound"),
    [(torchmetrics_matrix, MUST), (histograms, None)],
    ids=["torchmetrics", "numpy"],
)
def bench_confusion_matrix_against(compare, of, bound):
    """The references get 64-bit ids, as torch's argmax gives them to UniMatch's evaluation."""
    name = f"confusion matrix of {PHOTOS} photos, {of.__name__}"
    compare(name, of(), our_matrix(), parity=equal_integers, bound=bound, pairs=9)
