import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from zspl.methods import fixmatch
from zspl.models.network import SegmentationNetwork
from zspl.records import LabeledBatch, UnlabeledBatch

FIXTURES = Path(os.environ.get("ZSPL_SHARED", "../shared")) / "fixtures"


class Scripted(torch.nn.Module):
    """A backbone that gives prepared logits, one after the other, and remembers what it saw."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = list(logits)
        self.seen = []

    def forward(self, images):
        self.seen.append((self.training, torch.is_grad_enabled(), images))
        return [self.logits.pop(0)]


class Passing(torch.nn.Module):
    """A decoder that returns the first feature map."""

    def forward(self, features, size):  # noqa: ARG002 - as the network calls it
        return features[0]


def scripted(*logits):
    return SegmentationNetwork(Scripted(*logits), Passing())


def unlabeled(images, padding, box, *, partner=False):
    images = images + 100 * partner
    return UnlabeledBatch(
        weak=images,
        strong1=images + 10,
        strong2=images + 20,
        padding=padding,
        box1=box,
        box2=~box,
        zero_shot=None,
    )


def drawn(classes=4, size=12, batch=2, padding=0.1):
    draw = torch.Generator().manual_seed(3)

    def logits():
        return 4 * torch.randn(batch, classes, size, size, generator=draw)

    def chance(p):
        return torch.rand(batch, size, size, generator=draw) < p

    label = torch.randint(0, classes, (batch, size, size), generator=draw)
    label[chance(0.1)] = 255
    images = torch.randn(batch, 3, size, size, generator=draw)
    labeled = LabeledBatch(image=images - 50, label=label)
    box = chance(0.4)
    main = unlabeled(images, chance(padding), box)
    partner = unlabeled(images, chance(padding), box, partner=True)
    names = ("partner", "labeled", "weak", "strong")
    return labeled, main, partner, {name: logits() for name in names}


@pytest.mark.parametrize("threshold", [0.95, 0.6, 0.0])
def test_the_loss_is_the_official_expression(threshold):
    labeled, main, partner, logits = drawn()
    model = scripted(
        logits["partner"], torch.cat([logits["labeled"], logits["weak"]]), logits["strong"]
    )
    loss = fixmatch.build(fixmatch.Settings(min_confidence=threshold))(
        model, labeled, main, partner
    )

    confidence, label = logits["weak"].softmax(1).max(1)
    mixed_confidence, mixed_label = logits["partner"].softmax(1).max(1)
    ignored = main.padding.clone()
    box = main.box1
    confidence[box], label[box] = mixed_confidence[box], mixed_label[box]
    ignored[box] = partner.padding[box]
    each = F.cross_entropy(logits["strong"], label, reduction="none")
    strong = (each * ((confidence >= threshold) & ~ignored)).sum() / (~ignored).sum().item()
    own = F.cross_entropy(logits["labeled"], labeled.label, ignore_index=255)
    torch.testing.assert_close(loss.total, (own + strong) / 2, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(loss.parts["strong"], strong)


@pytest.mark.parametrize("fixture", ["step_losses", "step_losses_ignore"])
@pytest.mark.parametrize(("name", "threshold"), [("unimatch", 0.95), ("unimatch_tau0", 0.0)])
def test_the_loss_equals_the_published_step(fixture, name, threshold):
    path = FIXTURES / f"{fixture}.npz"
    if not path.exists():
        pytest.skip(f"{path} is not here; set ZSPL_SHARED")
    with np.load(path) as arrays:
        step = {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}

    def square(key, side=12):
        tensor = step[key]
        if tensor.dim() == 3:
            return tensor.reshape(-1, side, side)
        pixels = tensor.movedim(1, -1).reshape(-1, side, side, tensor.shape[1])
        return pixels.movedim(-1, 1)

    own, weak = square("logits_labeled"), square("logits_weak")
    model = scripted(square("logits_weak_mix"), torch.cat([own, weak]), square("logits_strong1"))
    images, box = torch.zeros(len(weak), 3, 12, 12), square("cutmix1")
    labeled = LabeledBatch(image=torch.zeros(len(own), 3, 12, 12), label=square("label"))
    main = unlabeled(images, square("padding"), box)
    partner = unlabeled(images, square("padding_mix"), box)
    loss = fixmatch.build(fixmatch.Settings(min_confidence=threshold))(
        model, labeled, main, partner
    )
    expected = step[f"expect.{name}.fixmatch_total"].item()
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)


def test_the_forwards_have_the_official_order_modes_and_batches():
    labeled, main, partner, logits = drawn()
    model = scripted(
        logits["partner"], torch.cat([logits["labeled"], logits["weak"]]), logits["strong"]
    )
    fixmatch.build(fixmatch.Settings())(model, labeled, main, partner)
    modes = [(training, grad) for training, grad, _ in model.backbone.seen]
    assert modes == [(False, False), (True, True), (True, True)]
    first, second, third = (images for _, _, images in model.backbone.seen)
    assert torch.equal(first, partner.weak)
    assert torch.equal(second, torch.cat([labeled.image, main.weak]))
    assert torch.equal(third, torch.where(main.box1[:, None], partner.strong1, main.strong1))


def test_no_gradient_flows_into_the_label_that_teaches():
    labeled, main, partner, logits = drawn()
    weak = logits["weak"].requires_grad_()
    strong = logits["strong"].requires_grad_()
    both = torch.cat([logits["labeled"], weak])
    model = scripted(logits["partner"], both, strong)
    fixmatch.build(fixmatch.Settings(min_confidence=0.0))(
        model, labeled, main, partner
    ).total.backward()
    assert weak.grad.abs().sum() == 0
    assert strong.grad.abs().sum() > 0


def test_the_defaults_are_the_published_ones():
    published = {"min_confidence": 0.95, "labeled_loss": {"name": "ce"}}
    assert fixmatch.Settings().model_dump() == published
