"""Gradients of whole steps with respect to the logits, against the published sums in float64.

A network that returns its input makes every crop the logits of its view, so that the gradient of
the total loss arrives at the crops; the reference is (softmax - target) per pixel, written out.
"""

import pytest
import torch
from torch import nn

from zspl import plugins
from zspl.models.network import SegmentationNetwork
from zspl.records import LabeledBatch, UnlabeledBatch
from zspl.sections import plugin_settings

CLASSES, SIDE, CROPS = 3, 6, 2
PIXELS = [(b, y, x) for b in range(CROPS) for y in range(SIDE) for x in range(SIDE)]


class Levels(nn.Module):
    def forward(self, images):
        return [images]


class First(nn.Module):
    def forward(self, features, size):  # noqa: ARG002 - as the network calls it
        return features[0]


def draw(seed):
    generator = torch.Generator().manual_seed(seed)

    def logits():
        values = torch.randn(CROPS, CLASSES, SIDE, SIDE, generator=generator) * 2
        return values.double().requires_grad_()

    def holes(share):
        return torch.rand(CROPS, SIDE, SIDE, generator=generator) < share

    def label(ignored):
        found = torch.randint(0, CLASSES, (CROPS, SIDE, SIDE), generator=generator)
        return found.masked_fill(holes(ignored), 255)

    def unlabeled():
        padding = torch.zeros(CROPS, SIDE, SIDE, dtype=torch.bool)
        padding[0, 4:] = padding[1, :, 5:] = True
        return UnlabeledBatch(
            weak=logits(),
            strong1=logits(),
            strong2=logits(),
            padding=padding.roll(seed, 2),
            box1=holes(0.4),
            box2=holes(0.3),
            zero_shot=label(0.3),
        )

    return LabeledBatch(image=logits(), label=label(0.2)), unlabeled(), unlabeled()


def gradients(name, values, seed):
    labeled, main, partner = draw(seed)
    module = plugins.load("zspl.methods", name)
    method = module.build(plugin_settings("zspl.methods", name, values))
    network = SegmentationNetwork(Levels(), First())
    method(network, labeled, main, partner).total.backward()
    crops = {"labeled": labeled.image, "weak": main.weak}
    for view in ("strong1", "strong2"):
        crops |= {view: getattr(main, view), f"partner {view}": getattr(partner, view)}
    found = {key: torch.zeros_like(v) if v.grad is None else v.grad for key, v in crops.items()}
    assert partner.weak.grad is None
    return found, (labeled, main, partner)


def onto(label, smoothing):
    """The target distribution of one pixel."""
    target = torch.full((CLASSES,), smoothing / (CLASSES - 1), dtype=torch.float64)
    target[label] = 1 - smoothing
    return target


def add_gradient(gradient, logits, taught, *, weight, smoothing=0.0):
    """Add weight * d/dlogits of sum(CE of teaching pixels) / number of counted pixels."""
    label, teaches, counts = taught
    number = sum(bool(counts[p]) for p in PIXELS)
    for b, y, x in PIXELS:
        if teaches[b, y, x]:
            difference = logits[b, :, y, x].softmax(0) - onto(label[b, y, x], smoothing)
            gradient[b, :, y, x] += weight / number * difference


def pasted(mine, other, box):
    result = mine.clone()
    for b, y, x in PIXELS:
        if box[b, y, x]:
            result[b, ..., y, x] = other[b, ..., y, x]
    return result


def spread(gradient, box):
    """Split the gradient of a pasted view into those of its two sources."""
    inside = box[:, None].expand_as(gradient)
    return gradient.masked_fill(inside, 0), gradient.masked_fill(~inside, 0)


def judged(batch):
    probability = batch.weak.detach().softmax(1)
    return probability.amax(1), probability.argmax(1)


def labeled_gradient(labeled, weight):
    gradient = torch.zeros_like(labeled.image)
    valid = labeled.label != 255
    taught = (labeled.label, valid, valid)
    add_gradient(gradient, labeled.image.detach(), taught, weight=weight)
    return gradient


def expected_gradients(batches, rule, *, weights, smoothing=0.0):
    """The published sum: `rule` gives label, teaching and counted pixels of a pair of maps."""
    labeled, main, partner = batches
    result = {"labeled": labeled_gradient(labeled, 0.5)}
    maps = [(*judged(batch), batch.padding, batch.zero_shot) for batch in (main, partner)]
    for view, box in (("strong1", main.box1), ("strong2", main.box2)):
        mixed = [pasted(mine, other, box) for mine, other in zip(*maps, strict=True)]
        logits = pasted(getattr(main, view).detach(), getattr(partner, view).detach(), box)
        gradient = torch.zeros_like(logits)
        if view in weights:
            taught = rule(*mixed)
            add_gradient(gradient, logits, taught, weight=weights[view], smoothing=smoothing)
        result[view], result[f"partner {view}"] = spread(gradient, box)
    result["weak"] = torch.zeros_like(main.weak)
    if "feature" in weights:
        logits, weight = main.weak.detach(), weights["feature"]
        add_gradient(result["weak"], logits, rule(*maps[0]), weight=weight, smoothing=smoothing)
    return result


def confident(threshold):
    def rule(confidence, label, padding, zero_shot):
        return label, (confidence >= threshold) & ~padding, ~padding

    return rule


def enhanced(threshold):
    """Equation 7: the zero-shot label where the model is unsure; 255 counts nowhere."""

    def rule(confidence, label, padding, zero_shot):
        chosen = torch.where(confidence < threshold, zero_shot, label)
        counted = ~padding & (chosen != 255)
        return chosen, counted, counted

    return rule


HALVES = {"strong1": 0.125, "strong2": 0.125, "feature": 0.25}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("name", "values", "rule", "options"),
    [
        (
            "unimatch",
            {"min_confidence": 0.8, "feature_dropout": 0.0},
            confident(0.8),
            {"weights": HALVES},
        ),
        ("fixmatch", {"min_confidence": 0.8}, confident(0.8), {"weights": {"strong1": 0.5}}),
        (
            "paper",
            {"feature_dropout": 0.0},
            enhanced(0.7),
            {"weights": HALVES, "smoothing": 1 / CLASSES},
        ),
    ],
    ids=["unimatch", "fixmatch", "paper"],
)
def test_the_gradient_of_a_step_is_that_of_the_published_sum(name, values, rule, options, seed):
    found, batches = gradients(name, values, seed)
    expected = expected_gradients(batches, rule, **options)
    assert found.keys() == expected.keys()
    for view, gradient in expected.items():
        torch.testing.assert_close(found[view], gradient, rtol=1e-9, atol=1e-12, msg=view)
    taught = {view for view, gradient in expected.items() if gradient.any()}
    unread = {"strong2", "partner strong2", "weak"} if name == "fixmatch" else set()
    assert taught == found.keys() - unread
