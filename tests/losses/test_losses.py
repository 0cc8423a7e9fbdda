import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from zspl.losses import (
    consistency_loss,
    enhanced_label,
    pixel_cross_entropy,
    smoothed_cross_entropy,
)

FIXTURES = Path(os.environ.get("ZSPL_SHARED", "../shared")) / "fixtures"


@pytest.fixture(params=["step_losses", "step_losses_ignore"])
def step(request):
    path = FIXTURES / f"{request.param}.npz"
    if not path.exists():
        pytest.skip(f"{path} is not here; set ZSPL_SHARED")
    with np.load(path) as arrays:
        return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}


def logits_of(seed=0, shape=(2, 5, 4, 6)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3


def labels_of(seed=1, shape=(2, 4, 6), classes=5):
    label = torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(seed))
    label[0, 0, :3] = 255
    return label


def test_pixel_cross_entropy_is_torchs_mean_without_the_ignored_pixels():
    logits, label = logits_of(), labels_of()
    expected = F.cross_entropy(logits, label, ignore_index=255)
    torch.testing.assert_close(pixel_cross_entropy(logits, label), expected)


def test_a_batch_without_any_label_has_loss_zero_instead_of_nan():
    logits = logits_of().requires_grad_()
    nothing = torch.full((2, 4, 6), 255)
    valid = torch.ones(2, 4, 6, dtype=torch.bool)
    loss = pixel_cross_entropy(logits, nothing)
    loss = loss + smoothed_cross_entropy(logits, nothing, valid, smoothing=0.1)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().max() == 0


def test_consistency_loss_divides_by_every_pixel_that_is_not_padding():
    logits, label = logits_of(), labels_of().clamp(max=4)
    confidence = torch.rand(2, 4, 6, generator=torch.Generator().manual_seed(2))
    padding = torch.zeros(2, 4, 6, dtype=torch.bool)
    padding[:, :, 4:] = True
    total, pixels = 0.0, 0
    for b in range(2):
        for y in range(4):
            for x in range(6):
                if padding[b, y, x]:
                    continue
                pixels += 1
                if confidence[b, y, x] >= 0.5:
                    p = logits[b, :, y, x].softmax(0)[label[b, y, x]]
                    total -= math.log(p)
    loss = consistency_loss(logits, label, confidence, padding, min_confidence=0.5)
    assert loss.item() == pytest.approx(total / pixels, rel=1e-5)


def test_a_pixel_exactly_at_the_confidence_teaches_and_takes_the_models_label():
    logits = torch.zeros(1, 2, 1, 1)
    padding = torch.zeros(1, 1, 1, dtype=torch.bool)
    label = torch.zeros(1, 1, 1, dtype=torch.long)
    half = torch.full((1, 1, 1), 0.5)
    loss = consistency_loss(logits, label, half, padding, min_confidence=0.5)
    assert loss.item() == pytest.approx(math.log(2))
    assert enhanced_label(label + 1, logits, min_confidence=0.5).item() == 0
    assert enhanced_label(label + 1, logits, min_confidence=0.51).item() == 1


def test_smoothed_cross_entropy_puts_s_over_c_minus_1_on_the_other_classes():
    logits, label = logits_of(), labels_of()
    valid = torch.ones(2, 4, 6, dtype=torch.bool)
    valid[1, 3] = False
    total, pixels = 0.0, 0
    for b in range(2):
        for y in range(4):
            for x in range(6):
                if not valid[b, y, x] or label[b, y, x] == 255:
                    continue
                target = torch.full((5,), 0.2 / 4)
                target[label[b, y, x]] = 0.8
                total -= float((target * logits[b, :, y, x].log_softmax(0)).sum())
                pixels += 1
    loss = smoothed_cross_entropy(logits, label, valid, smoothing=0.2)
    assert loss.item() == pytest.approx(total / pixels, rel=1e-5)


def test_torchs_label_smoothing_is_ours_with_the_rate_times_c_minus_1_over_c():
    logits, label = logits_of(), labels_of()
    valid = torch.ones_like(label, dtype=torch.bool)
    expected = F.cross_entropy(logits, label, ignore_index=255, label_smoothing=0.2)
    ours = smoothed_cross_entropy(logits, label, valid, smoothing=0.2 * 4 / 5)
    torch.testing.assert_close(ours, expected)


def test_enhanced_label_equals_the_published_one(step):
    ours = enhanced_label(step["zero_shot"], step["logits_weak"], min_confidence=0.7)
    assert torch.equal(ours, step["enhanced_label"])


def test_supervised_loss_equals_the_published_one(step):
    loss = pixel_cross_entropy(step["logits_labeled"], step["label"])
    assert loss.item() == pytest.approx(step["expect.supervised"].item(), rel=1e-5)


@pytest.mark.parametrize(("name", "threshold"), [("unimatch", 0.95), ("unimatch_tau0", 0.0)])
def test_consistency_loss_equals_the_published_feature_stream(step, name, threshold):
    confidence, label = step["logits_weak"].softmax(1).max(1)
    loss = consistency_loss(
        step["logits_feature_perturbed"],
        label,
        confidence,
        step["padding"],
        min_confidence=threshold,
    )
    assert loss.item() == pytest.approx(step[f"expect.{name}.feature"].item(), rel=1e-5)


def test_no_gradient_reaches_the_logits_that_make_the_label():
    weak = logits_of().requires_grad_()
    strong = logits_of(3).requires_grad_()
    label = enhanced_label(labels_of(), weak, min_confidence=0.7)
    valid = torch.ones(2, 4, 6, dtype=torch.bool)
    smoothed_cross_entropy(strong, label, valid, smoothing=0.1).backward()
    assert weak.grad is None
    assert strong.grad is not None
