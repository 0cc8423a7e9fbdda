"""OHEM, the labeled loss of Cityscapes, against its rule written out pixel by pixel."""

import math

import pytest
import torch

from zspl import plugins
from zspl.errors import SettingsError
from zspl.losses import CrossEntropy, HardPixels, hard_cross_entropy, pixel_cross_entropy
from zspl.methods import Facts
from zspl.sections import plugin_settings


def crops(count=2, *, classes=5, side=6, seed=0, sure=3.0):
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, side, side, generator=draw) * sure
    label = torch.randint(0, classes, (count, side, side), generator=draw)
    label[:, 0, :3] = 255
    return logits, label


def kept_and_loss(logits, label, *, threshold, min_kept):
    """The official rule, one group: which pixels are kept, and their mean cross-entropy."""
    count, _, height, width = logits.shape
    places = [(b, y, x) for b in range(count) for y in range(height) for x in range(width)]
    found = {}
    for b, y, x in places:
        if label[b, y, x] != 255:
            found[b, y, x] = logits[b, :, y, x].softmax(0)[label[b, y, x]].item()
    if len(found) >= min_kept:
        smallest = sorted(found.values())[min_kept - 1]
        limit = max(threshold, smallest)
        found = {place: p for place, p in found.items() if p <= limit}
    return set(found), -sum(map(math.log, found.values())) / len(found)


def kept_of(logits, label, **rule):
    """The pixels through which the loss has a gradient."""
    logits = logits.clone().requires_grad_()
    hard_cross_entropy(logits, label, crops=len(label), **rule).backward()
    return {tuple(place) for place in (logits.grad != 0).any(dim=1).nonzero().tolist()}


@pytest.mark.parametrize(
    ("threshold", "min_kept"),
    [(0.7, 1), (0.7, 30), (0.2, 50), (0.0, 20), (1.0, 1), (0.05, 66)],
    ids=["threshold", "both", "count", "count alone", "all", "as many as there are"],
)
def test_the_kept_pixels_and_their_mean_are_the_official_ones(threshold, min_kept):
    logits, label = crops()
    rule = {"threshold": threshold, "min_kept": min_kept}
    kept, expected = kept_and_loss(logits, label, **rule)
    assert hard_cross_entropy(logits, label, crops=2, **rule).item() == pytest.approx(expected)
    assert kept_of(logits, label, **rule) == kept


def test_a_group_of_fewer_labeled_pixels_than_are_kept_counts_them_all():
    logits, label = crops()
    plain = pixel_cross_entropy(logits, label)
    for min_kept in (67, 10_000):
        loss = hard_cross_entropy(logits, label, threshold=0.0, min_kept=min_kept, crops=2)
        torch.testing.assert_close(loss, plain)


def test_a_group_without_a_label_adds_zero_instead_of_nan():
    logits, label = crops(4)
    logits.requires_grad_()
    label[2:] = 255
    loss = hard_cross_entropy(logits, label, threshold=0.7, min_kept=5, crops=2)
    one = hard_cross_entropy(logits[:2], label[:2], threshold=0.7, min_kept=5, crops=2)
    assert loss.item() == pytest.approx(one.item() / 2)
    loss.backward()
    assert logits.grad.isfinite().all()
    assert not logits.grad[2:].any()


def test_groups_are_ranked_apart_and_their_means_averaged_as_gpus_do():
    logits, label = crops(5, sure=1.0)
    logits[:2] *= 4
    rule = {"threshold": 0.3, "min_kept": 12}
    each = [kept_and_loss(logits[g], label[g], **rule)[1] for g in map(slice, (0, 2, 4), (2, 4, 5))]
    loss = hard_cross_entropy(logits, label, crops=2, **rule)
    assert loss.item() == pytest.approx(sum(each) / 3)
    assert hard_cross_entropy(logits, label, crops=5, **rule).item() != pytest.approx(loss.item())


def test_processes_that_share_whole_groups_have_the_loss_of_the_whole_batch_as_their_mean():
    logits, label = crops(8)
    label[2:4, 1:] = 255
    rule = {"threshold": 0.2, "min_kept": 20, "crops": 2}
    whole = hard_cross_entropy(logits, label, **rule)
    for count in (2, 4):
        parts = zip(logits.chunk(count), label.chunk(count), strict=True)
        shares = torch.stack([hard_cross_entropy(*part, **rule) for part in parts])
        torch.testing.assert_close(shares.mean(), whole)


def test_equally_hard_pixels_are_kept_together():
    logits, label = torch.zeros(1, 2, 3, 3), torch.zeros(1, 3, 3, dtype=torch.long)
    assert len(kept_of(logits, label, threshold=0.1, min_kept=2)) == 9


def test_the_defaults_are_those_of_cityscapes_and_plain_cross_entropy_elsewhere():
    hard = HardPixels(name="ohem")
    assert (hard.threshold, hard.min_kept, hard.crops) == (0.7, 200_000, 2)
    for method in ("supervised", "allspark"):
        assert plugins.load("zspl.methods", method).Settings().labeled_loss == CrossEntropy()


def test_the_setting_calls_the_loss_that_it_names():
    logits, label = crops()
    assert torch.equal(CrossEntropy()(logits, label), pixel_cross_entropy(logits, label))
    hard = HardPixels(name="ohem", threshold=0.2, min_kept=5, crops=1)
    expected = hard_cross_entropy(logits, label, threshold=0.2, min_kept=5, crops=1)
    assert torch.equal(hard(logits, label), expected)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("ohem", "labeled_loss: .*, got 'ohem'"),
        ({"name": "focal"}, r"labeled_loss: .*'focal'.*'ce', 'ohem'"),
        ({"name": "ohem", "min_kept": 0}, r"labeled_loss.*min_kept: .* got 0"),
        ({"name": "ce", "threshold": 0.5}, r"labeled_loss.*threshold: there is no such setting"),
    ],
)
def test_a_labeled_loss_that_does_not_exist_is_one_line(chosen, message):
    with pytest.raises(SettingsError, match=message) as error:
        plugin_settings("zspl.methods", "supervised", {"labeled_loss": chosen})
    assert "\n" not in str(error.value)


def methods_with_a_labeled_loss():
    names = plugins.names("zspl.methods")
    fields = {n: plugins.load("zspl.methods", n).Settings.model_fields for n in names}
    return [name for name in names if "labeled_loss" in fields[name]]


@pytest.mark.parametrize("name", methods_with_a_labeled_loss())
def test_a_method_that_has_the_setting_learns_from_hard_pixels_alone(name, make_step):
    """The labeled part of its step is the loss that the setting names, on the same logits."""
    plain, hard = (
        make_step(name, {"labeled_loss": chosen})
        for chosen in ({"name": "ce"}, {"name": "ohem", "threshold": 0.0, "min_kept": 20})
    )
    assert hard.parts["labeled"] > plain.parts["labeled"]
    assert hard.total != plain.total


@pytest.fixture
def make_step():
    from zspl import models
    from zspl.data.label_quality import LabelQuality
    from zspl.records import LabeledBatch, UnlabeledBatch

    draw = torch.Generator().manual_seed(0)

    def images():
        return torch.randn(2, 3, 32, 32, generator=draw)

    def unlabeled():
        nowhere = torch.zeros(2, 32, 32, dtype=torch.bool)
        zero_shot = torch.randint(0, 4, (2, 32, 32), generator=draw)
        views = {name: images() for name in ("weak", "strong1", "strong2")}
        return UnlabeledBatch(
            **views,
            padding=nowhere,
            box1=nowhere,
            box2=nowhere,
            zero_shot=zero_shot,
            zero_shot_confidence=torch.full(zero_shot.shape, 0.9),
        )

    label = torch.randint(0, 4, (2, 32, 32), generator=draw)
    batch = LabeledBatch(image=images(), label=label), unlabeled(), unlabeled()

    def network():
        torch.manual_seed(0)
        return models.build(
            backbone={"name": "compact", "widths": (4, 6, 8, 8)},
            head={"name": "deeplabv3plus", "width": 8, "low_width": 4, "dilations": (2,)},
            num_classes=4,
        )

    def step(name, values):
        levels = torch.ones(4, 256, dtype=torch.int64)
        claims, seen = torch.eye(4, 5, dtype=torch.int64), torch.ones(4, dtype=torch.int64)
        quality = LabelQuality(right=levels, wrong=levels, claims=claims + 1, images=seen)
        facts = Facts(class_names=tuple("abcd"), crop_size=32, label_quality=quality)
        method = plugins.load("zspl.methods", name).build(
            plugin_settings("zspl.methods", name, values)
        )
        model = method.prepare(method.adapt(network(), facts), network, facts)
        torch.manual_seed(1)
        return method(model, *batch)

    return step
