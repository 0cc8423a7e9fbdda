import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zspl import models
from zspl.errors import SettingsError
from zspl.methods import Facts, Moment, beyond_pixels, deployed
from zspl.models import patch_classifier
from zspl.models.patch_classifier import (
    PatchClassifier,
    doubts,
    patch_labels,
    patch_loss,
    patch_weights,
    without,
)
from zspl.records import LabeledBatch, UnlabeledBatch

FACTS = Facts(class_names=tuple("abcd"), crop_size=24)
SMALL = beyond_pixels.Settings(
    min_confidence=0.3, feature_dropout=0.0, patch_widths=(8, 6, 4), patch_dropout=0.0
)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def label_map(size, classes=3, batch=2, seed=0):
    """Draw blocks of classes, some of them ignored."""
    draw = torch.Generator().manual_seed(seed)
    side = -(-size // 11)
    label = torch.randint(0, classes + 1, (batch, side, side), generator=draw)
    label[label == classes] = 255
    return label.repeat_interleave(11, 1).repeat_interleave(11, 2)[:, :size, :size]


def window(i, size, *, last=19):
    """Return the pixels that cell i covers: 4i - 19, ..., 4i + last, inside the crop."""
    return slice(max(0, 4 * i - 19), min(size, 4 * i + last + 1))


@pytest.mark.parametrize("size", [24, 33, 47, 81])
def test_a_patch_holds_what_lies_within_19_pixels_of_every_fourth_one(size):
    label = label_map(size)
    found = patch_labels(label, 3)
    side = math.ceil(size / 4)
    assert found.shape == (2, 3, side, side)
    for b in range(2):
        for i in range(side):
            for j in range(side):
                here = label[b, window(i, size), window(j, size)]
                for c in range(3):
                    assert found[b, c, i, j] == float((here == c).any())


@pytest.mark.parametrize("size", [24, 33, 46])
def test_a_patch_weighs_its_classes_by_the_softmax_of_their_shares(size):
    label = label_map(size, seed=1)
    found = patch_weights(label, 3)
    side = math.ceil(size / 4)
    assert found.shape == (2, 3, side, side)
    for i in range(side):
        for j in range(side):
            here = label[1, window(i, size, last=18), window(j, size, last=18)]
            shares = torch.tensor([(here == c).float().mean() for c in range(3)])
            torch.testing.assert_close(found[1, :, i, j], shares.exp() / shares.exp().sum())


@pytest.mark.parametrize("size", [24, 33, 81])
def test_a_flagged_patch_takes_the_label_of_its_class_from_all_its_pixels(size):
    label = label_map(size, seed=2)
    side = math.ceil(size / 4)
    flagged = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) > 0.98
    expected = label.clone()
    for b, c, i, j in flagged.nonzero().tolist():
        here = expected[b, window(i, size), window(j, size)]
        here[here == c] = 255
    assert flagged.any()
    assert torch.equal(without(label, flagged), expected)
    assert torch.equal(without(label, torch.zeros_like(flagged)), label)


def test_the_pyramid_is_the_level_and_its_means_over_7_and_19_cells_with_zeros_around():
    level = drawn(1, 2, 21, 10)
    found = PatchClassifier(2, 3, widths=(4, 4, 4)).pyramid(level)
    expected = [level]
    for reach in (3, 9):
        mean = torch.zeros_like(level)
        for i in range(21):
            for j in range(10):
                rows = slice(max(0, i - reach), i + reach + 1)
                columns = slice(max(0, j - reach), j + reach + 1)
                total = level[..., rows, columns].sum(dim=(2, 3))
                mean[..., i, j] = total / (2 * reach + 1) ** 2
        expected.append(mean)
    torch.testing.assert_close(found, torch.cat(expected, 1), rtol=1e-5, atol=1e-6)


def test_the_classifier_has_the_published_layers():
    classifier = PatchClassifier(256, 21)
    convolutions = [m for m in classifier.convolutions if isinstance(m, nn.Conv2d)]
    assert [(c.kernel_size[0], c.in_channels, c.out_channels) for c in convolutions] == [
        (1, 768, 768), (3, 768, 256), (1, 256, 256), (3, 256, 256), (3, 256, 256),
        (1, 256, 128), (3, 128, 128), (3, 128, 128), (1, 128, 64), (3, 64, 64),
    ]  # fmt: skip
    assert not any(c.bias is not None for c in convolutions)
    assert len([m for m in classifier.convolutions if isinstance(m, nn.BatchNorm2d)]) == 10
    linears = [m for m in classifier.linears if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in linears] == [(64, 32), (32, 21)]
    assert classifier.eval()(classifier.pyramid(drawn(1, 256, 5, 5))).shape == (1, 21, 5, 5)


def reference_patch_loss(logits, label, keep=None):
    """Weighted binary cross-entropy, patch by patch."""
    held, weight = patch_labels(label, logits.shape[1]), patch_weights(label, logits.shape[1])
    probability = logits.sigmoid()
    each = -(held * probability.log() + (1 - held) * (1 - probability).log())
    weight = weight if keep is None else weight * keep
    return (weight * each).sum() / weight.sum()


def test_the_patch_loss_is_the_weighted_binary_cross_entropy():
    label, logits = label_map(33), drawn(2, 3, 9, 9)
    keep = drawn(2, 3, 9, 9, seed=1) > -1
    for kept in (keep, torch.ones_like(keep)):
        found = patch_loss(logits, label, kept)
        torch.testing.assert_close(found, reference_patch_loss(logits, label, kept))
    assert patch_loss(logits, label, torch.zeros_like(keep)) == 0


def reference_doubts(logits, held, rate):
    """Per class: sort the losses of the claims, and flag what is above the k-th highest."""
    flagged = torch.zeros_like(held)
    for c in range(held.shape[1]):
        losses = -logits[:, c].sigmoid().log()
        claims = sorted(losses[held[:, c]].tolist(), reverse=True)
        k = math.ceil(len(claims) * rate[c].item())
        if claims and k:
            flagged[:, c] = held[:, c] & (losses > claims[k - 1])
    return flagged


def test_the_k_minus_one_least_likely_claims_of_a_class_are_doubted():
    logits = drawn(2, 4, 9, 9)
    held = drawn(2, 4, 9, 9, seed=1) > 0.3
    held[:, 3] = False
    rate = torch.tensor([1e-5, 0.1, 0.5, 0.5])
    found = doubts(logits, held, rate)
    assert torch.equal(found, reference_doubts(logits, held, rate))
    counts = held.sum(dim=(0, 2, 3))
    expected = [0, math.ceil(counts[1] * 0.1) - 1, math.ceil(counts[2] * 0.5) - 1, 0]
    assert found.sum(dim=(0, 2, 3)).tolist() == expected


def network():
    torch.manual_seed(0)
    return models.build(
        backbone={"name": "compact", "widths": (4, 6, 8, 8)},
        head={"name": "deeplabv3plus", "width": 8, "low_width": 4, "dilations": (2,)},
        num_classes=4,
    )


def prepared(settings=SMALL):
    method = beyond_pixels.build(settings)
    torch.manual_seed(0)
    return method, method.prepare(network(), network, FACTS)


def batches(size=24):
    def unlabeled(seed):
        weak = drawn(2, 3, size, size, seed=seed)
        padding = torch.zeros(2, size, size, dtype=torch.bool)
        padding[0, :, 18 + seed % 3 :] = True
        box = torch.zeros_like(padding)
        box[:, 4:14, 3:20] = True
        return UnlabeledBatch(
            weak=weak, strong1=0.5 * weak, strong2=1.5 * weak - 0.2, padding=padding,
            box1=box, box2=box.transpose(1, 2).clone(), zero_shot=None,
        )  # fmt: skip

    labeled = LabeledBatch(image=drawn(2, 3, size, size, seed=9), label=label_map(size, 4))
    return labeled, unlabeled(1), unlabeled(2)


def pasted(mine, other, box):
    return torch.where(box[:, None] if mine.ndim == 4 else box, other, mine)


@pytest.mark.parametrize("rate", [1e-5, 0.3])
def test_the_loss_is_the_published_expression(rate):
    method, model = prepared(SMALL.model_copy(update={"noise_rate": rate, "max_noise_rate": 1.0}))
    labeled, main, partner = batches()
    plain = copy.deepcopy(model)
    loss = method.at(Moment(iteration=7, total=20, per_epoch=5))(model, labeled, main, partner)

    net, classifier = plain.deployed, plain.classifier

    def patches(features):
        return classifier(classifier.pyramid(features[0]))

    def taught(logits, batch):
        confidence, label = logits.softmax(1).max(1)
        label[(confidence < 0.3) | batch.padding] = 255
        return label

    plain.eval()
    with torch.no_grad():
        other = taught(net(partner.weak), partner)
        judged = [
            patches(net.encode(pasted(main.weak, partner.weak, box)))
            for box in (main.box1, main.box2)
        ]
    plain.train()
    features = net.encode(torch.cat([labeled.image, main.weak]))
    # Without dropout the perturbed half equals the clean one, in one batch with it.
    own, weak = net.decode([torch.cat([x, x]) for x in features], (24, 24))[4:].split(2)
    pyramid = classifier.pyramid(features[0])
    patches_own, patches_weak = classifier(torch.cat([pyramid, pyramid]))[4:].split(2)
    views = [
        pasted(main.strong1, partner.strong1, main.box1),
        pasted(main.strong2, partner.strong2, main.box2),
    ]
    features = net.encode(torch.cat(views))
    strong, strong_patches = net.decode(features, (24, 24)), patches(features)
    y = taught(weak.detach(), main)
    streams = [
        (0.25, strong[:2], strong_patches[:2], pasted(y, other, main.box1), judged[0]),
        (0.25, strong[2:], strong_patches[2:], pasted(y, other, main.box2), judged[1]),
        (0.5, weak, patches_weak, y, patches_weak.detach()),
    ]
    total = F.cross_entropy(own, labeled.label, ignore_index=255)
    total = total + reference_patch_loss(patches_own, labeled.label)
    doubted = 0
    for weight, pixels, patch, label, judge in streams:
        held = patch_labels(label, 4) > 0
        noisy = reference_doubts(judge, held, torch.full((4,), rate))
        doubted += noisy.sum()
        clean = without(label, noisy)
        # The mean over the confident pixels alone.
        total = total + weight * F.cross_entropy(pixels, clean, ignore_index=255)
        total = total + 0.1 * reference_patch_loss(patch, label, ~noisy)
    assert (doubted > 0) == (rate > 0.1)
    torch.testing.assert_close(loss.total, total / 3.3, rtol=1e-5, atol=1e-6)


def test_the_first_epoch_learns_from_labeled_crops_alone():
    method, model = prepared()
    labeled, main, partner = batches()
    plain = copy.deepcopy(model)
    loss = method.at(Moment(iteration=4, total=20, per_epoch=5))(model, labeled, main, partner)
    plain.train()
    levels = plain.deployed.encode(labeled.image)
    own = F.cross_entropy(plain.deployed.decode(levels, (24, 24)), labeled.label, ignore_index=255)
    patch = reference_patch_loss(
        plain.classifier(plain.classifier.pyramid(levels[0])), labeled.label
    )
    torch.testing.assert_close(loss.total, (own + patch) / 2, rtol=1e-6, atol=1e-7)


def test_a_batch_without_a_confident_pixel_adds_no_pixel_loss():
    method, model = prepared(SMALL.model_copy(update={"min_confidence": 1.0}))
    loss = method(model, *batches())
    assert loss.total.isfinite()
    assert all(loss.parts[name] == 0 for name in ("strong1", "strong2", "feature"))


def test_a_patch_of_which_nothing_is_known_teaches_nothing():
    label = label_map(24)
    label[:, :, :] = 255
    label[0, 0, 0] = 1
    patches = drawn(2, 3, 6, 6).requires_grad_()
    lesson = beyond_pixels.Lesson(
        pixels=drawn(2, 3, 24, 24), patches=patches, label=label, judged=patches.detach()
    )
    _, patch, _ = beyond_pixels.lesson_losses(lesson, torch.zeros(3))
    patch.backward()
    known = patch_classifier.patch_labels(label, 3).any(dim=1)
    assert (patches.grad.abs().sum(dim=1) > 0).equal(known)
    assert 0 < known.sum() < known.numel()


def test_the_noise_rate_of_a_class_grows_with_what_was_learned_of_it():
    _, model = prepared()
    means = [
        [0.9, 0.8, None, 0.5],
        [0.7, 0.9, 0.4, 0.5],
        [0.6, 0.5, None, 0.0],
        [0.1, 0.5, 0.1, 0.0],
    ]
    rate, worst, when = [1e-5] * 4, [0.0] * 4, [0] * 4
    for epoch, row in enumerate(means):
        logits, held = torch.zeros(2, 4, 3, 3), torch.zeros(2, 4, 3, 3)
        for c, mean in enumerate(row):
            if mean is None:
                continue
            held[:, c, 0] = 1.0
            logits[:, c, 0] = math.log((1 - mean + 1e-9) / (mean + 1e-9))
            if mean > worst[c]:
                worst[c], when[c] = mean, epoch
            gain = ((worst[c] - mean) / worst[c]) ** 1.5 * 0.01 ** ((epoch - when[c]) / 4)
            rate[c] = min(rate[c] + gain, 0.4)
        for part in range(2):
            model.noise.note(logits[part : part + 1], held[part : part + 1])
        model.noise.close_epoch(epoch, epochs=4.0, decay=0.01, limit=0.4)
        assert model.noise.rate.tolist() == pytest.approx(rate, rel=1e-4)
        assert model.noise.counted.sum() == 0


def test_an_epoch_closes_after_its_last_step_and_labeled_patches_are_noted():
    method, model = prepared()
    labeled, main, partner = batches()
    for iteration in range(4):
        moment = Moment(iteration=iteration, total=8, per_epoch=3)
        held = patch_labels(labeled.label, 4).sum(dim=(0, 2, 3))
        before = model.noise.counted.clone()
        method.at(moment)(model, labeled, main, partner)
        torch.testing.assert_close(model.noise.counted, before + held)
        method.after_step(model, moment)
        assert (model.noise.counted.sum() == 0) == (iteration == 2)
    assert (model.noise.worst > 0).any()


def test_the_classifier_is_in_no_finished_network():
    _, model = prepared()
    assert deployed(model).state_dict().keys() == network().state_dict().keys()


def test_a_backbone_without_a_level_of_stride_4_is_refused():
    coarse = models.build(
        backbone={"name": "dinov2"}, head={"name": "dpt", "width": 8}, num_classes=4
    )
    method = beyond_pixels.build(SMALL)
    facts = Facts(class_names=tuple("abcd"), crop_size=28)
    with pytest.raises(SettingsError, match=r"stride of 4 pixels \(7 x 7 .* got 2 x 2 cells"):
        method.prepare(coarse, network, facts)


def test_a_step_without_unlabeled_images_is_refused():
    method, model = prepared()
    labeled, _, _ = batches()
    with pytest.raises(ValueError, match="needs an unlabeled batch"):
        method(model, labeled, None, None)


def test_the_defaults_are_the_published_ones():
    assert beyond_pixels.Settings().model_dump() == {
        "min_confidence": 0.95,
        "feature_dropout": 0.5,
        "patch_weight": 0.1,
        "patch_widths": (256, 128, 64),
        "patch_dropout": 0.2,
        "labeled_epochs": 1,
        "noise_rate": 1e-5,
        "noise_decay": 1e-6,
        "max_noise_rate": 0.1,
    }
    assert patch_classifier.cells(321) == 81
