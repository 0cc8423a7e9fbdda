import numpy as np
import pytest
import torch
from torch.nn import functional as F

from zspl import models
from zspl.methods import Facts, cps, deployed
from zspl.models.network import SegmentationNetwork
from zspl.records import LabeledBatch, UnlabeledBatch

FACTS = Facts(class_names=tuple("abc"), crop_size=8)


class Scaled(torch.nn.Module):
    """A backbone whose logits are its input times a weight; it remembers its calls."""

    def __init__(self, weights):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.tensor(weights).view(1, 3, 1, 1))
        self.seen = []

    def forward(self, images):
        self.seen.append((self.training, torch.is_grad_enabled(), images))
        return [images * self.weights]


class Passing(torch.nn.Module):
    """A decoder that returns the first feature map."""

    def forward(self, features, size):  # noqa: ARG002 - as the network calls it
        return features[0]


def pair():
    first = SegmentationNetwork(Scaled([1.0, 2.0, -1.0]), Passing())
    second = SegmentationNetwork(Scaled([-0.5, 1.0, 1.5]), Passing())
    return cps.Pair(first, second)


def batches(batch=3, size=8):
    draw = torch.Generator().manual_seed(5)

    def images():
        return torch.randn(batch, 3, size, size, generator=draw)

    def unlabeled():
        return UnlabeledBatch(
            weak=images(),
            strong1=images(),
            strong2=images(),
            padding=torch.zeros(batch, size, size, dtype=torch.bool),
            box1=torch.zeros(batch, size, size, dtype=torch.bool),
            box2=torch.zeros(batch, size, size, dtype=torch.bool),
            zero_shot=None,
        )

    label = torch.randint(0, 3, (batch, size, size), generator=draw)
    label[0, :2] = 255
    return LabeledBatch(image=images(), label=label), unlabeled(), unlabeled()


def reference_masks(count, size, rng):
    """Draw masks box by box, with the random numbers in the official order."""
    shares = rng.uniform(0.25, 0.5, size=(count, 3))
    exponents = rng.uniform(0.0, 1.0, size=(count, 3))
    places = rng.uniform(0.0, 1.0, size=(count, 3, 2))
    masks = np.zeros((count, size, size))
    for n in range(count):
        for k in range(3):
            high = np.exp(exponents[n, k] * np.log(shares[n, k]))
            wide = shares[n, k] / high
            high, wide = high * np.sqrt(1 / 3), wide * np.sqrt(1 / 3)
            high, wide = np.round(high * size), np.round(wide * size)
            top = int(np.round((size - high) * places[n, k, 0]))
            left = int(np.round((size - wide) * places[n, k, 1]))
            for y in range(top, int(top + high)):
                for x in range(left, int(left + wide)):
                    masks[n, y, x] = 1 - masks[n, y, x]
    return masks


@pytest.mark.parametrize("size", [8, 33, 64])
def test_a_mask_is_three_boxes_that_cancel_where_they_overlap(size):
    ours = cps.draw_masks(5, size, np.random.default_rng(size))
    expected = reference_masks(5, size, np.random.default_rng(size))
    np.testing.assert_array_equal(ours.numpy(), expected.astype(bool))


def test_a_mask_covers_at_most_half_of_the_crop():
    shares = cps.draw_masks(400, 64, np.random.default_rng(0)).float().mean(dim=(1, 2))
    assert shares.max() < 0.55
    assert 0.15 < shares.mean() < 0.35


def test_with_cutmix_the_loss_is_the_published_expression(monkeypatch):
    labeled, main, partner = batches()
    mask = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.5
    monkeypatch.setattr(cps, "draw_masks", lambda *_: mask)
    model = pair()
    loss = cps.build(cps.Settings(weight=5.0))(model, labeled, main, partner)

    first, second = model.deployed, model.second
    m = mask[:, None].float()
    u0, u1 = main.weak, torch.stack([partner.weak[k] for k in (2, 0, 1)])
    mixed = u0 * (1 - m) + u1 * m
    z1 = first(u0) * (1 - m) + first(u1) * m
    z2 = second(u0) * (1 - m) + second(u1) * m
    cross = F.cross_entropy(first(mixed), z2.argmax(1)) + F.cross_entropy(
        second(mixed), z1.argmax(1)
    )
    own = [F.cross_entropy(net(labeled.image), labeled.label, ignore_index=255)
           for net in (first, second)]  # fmt: skip
    torch.testing.assert_close(loss.total, sum(own) + 5.0 * cross, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(loss.parts["cross"], cross.detach())


def test_without_cutmix_both_batches_teach_and_the_weight_is_one_and_a_half():
    labeled, main, partner = batches()
    model = pair()
    loss = cps.build(cps.Settings(cutmix=False))(model, labeled, main, partner)
    images = torch.cat([labeled.image, main.weak])
    first, second = model.deployed(images), model.second(images)
    cross = F.cross_entropy(first, second.argmax(1)) + F.cross_entropy(second, first.argmax(1))
    own = [F.cross_entropy(logits[:3], labeled.label, ignore_index=255)
           for logits in (first, second)]  # fmt: skip
    torch.testing.assert_close(loss.total, sum(own) + 1.5 * cross, rtol=1e-6, atol=1e-7)


def test_with_cutmix_the_published_weight_is_one():
    labeled, main, partner = batches()
    losses = []
    for weight in (None, 1.0):
        torch.manual_seed(2)
        method = cps.build(cps.Settings(weight=weight))
        losses.append(method(pair(), labeled, main, partner).total)
    assert torch.equal(*losses)


def test_teachers_predict_in_training_mode_without_gradient_in_the_official_order():
    labeled, main, partner = batches()
    model = pair()
    cps.build(cps.Settings())(model, labeled, main, partner)
    for network in (model.deployed, model.second):
        calls = network.backbone.seen
        assert [call[:2] for call in calls] == [
            (True, False), (True, False), (True, True), (True, True)
        ]  # fmt: skip
        assert torch.equal(calls[0][2], main.weak)
        assert torch.equal(calls[1][2], partner.weak.roll(1, dims=0))
        assert torch.equal(calls[3][2], labeled.image)


def test_each_network_learns_only_as_a_student():
    _, main, _ = batches()
    model = pair()
    logits = {}
    for name, network in (("first", model.deployed), ("second", model.second)):
        logits[name] = network(main.weak)
    label = {name: value.argmax(1) for name, value in logits.items()}
    cps.cross_loss(logits["first"], logits["second"], label["first"], label["second"]).backward()
    expected = torch.autograd.grad(
        F.cross_entropy(model.deployed(main.weak), label["second"]),
        list(model.deployed.parameters()),
    )
    for ours, plain in zip(model.deployed.parameters(), expected, strict=True):
        torch.testing.assert_close(ours.grad, plain)


def test_the_second_network_has_a_head_of_its_own_and_the_first_is_evaluated():
    def build():
        return models.build(
            backbone={"name": "compact", "widths": (4, 6, 8, 8)},
            head={"name": "deeplabv3plus", "width": 8, "low_width": 4, "dilations": (2,)},
            num_classes=3,
        )

    torch.manual_seed(0)
    network = build()
    model = cps.build(cps.Settings()).prepare(network, build, FACTS)
    assert deployed(model) is network
    heads = [net.head.classifier.weight for net in (model.deployed, model.second)]
    assert not torch.equal(*heads)
    count = sum(p.numel() for p in network.parameters())
    assert sum(p.numel() for p in model.parameters()) == 2 * count


def test_a_step_without_unlabeled_images_is_refused():
    labeled, _, _ = batches()
    with pytest.raises(ValueError, match="needs an unlabeled batch"):
        cps.build(cps.Settings())(pair(), labeled, None, None)


def test_the_defaults_are_the_published_ones():
    assert cps.Settings().model_dump() == {"cutmix": True, "weight": None}
