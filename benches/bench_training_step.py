"""A whole UniMatch step at crop 321 against its textbook form. `make bench`.

The textbook form is the published one: the partner's forward in evaluation mode, labeled and weak
crops decoded clean and perturbed in one batch, the strong views in another; SegFormer's head
fuses after it has upsampled. Ours is the method `unimatch` with lean streams and CutMix within
the batch. Crops are loaded before; one or two labeled and as many unlabeled ones, random weights.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zspl import models
from zspl.methods import unimatch
from zspl.models.heads.segformer import SegFormerHead
from zspl.records import LabeledBatch, UnlabeledBatch

CROP, CLASSES, SURE = 321, 21, 0.06
BATCH = {"SegFormer-B4": 1, "R101-DeepLabV3+": 2}  # the pooled batch norm of the ASPP needs two
NETWORKS = {
    "SegFormer-B4": {"backbone": {"name": "mit", "size": "b4"}, "head": {"name": "segformer"}},
    "R101-DeepLabV3+": {"backbone": {"name": "resnet101s"}, "head": {"name": "deeplabv3plus"}},
}
WANTED = {"SegFormer-B4": 1.8, "R101-DeepLabV3+": 1.1}


class PlainSegFormerHead(SegFormerHead):
    """The published order: upsample every level, concatenate, fuse."""

    def forward(self, features, size):
        finest = features[0].shape[-2:]
        levels = [
            F.interpolate(linear(level), finest, mode="bilinear")
            for level, linear in zip(features, self.linears, strict=True)
        ]
        x = F.relu(self.bn(self.fuse(torch.cat(levels[::-1], 1))))
        return F.interpolate(self.classifier(self.dropout(x)), size, mode="bilinear")


def network(name):
    torch.manual_seed(0)
    built = models.build(**NETWORKS[name], num_classes=CLASSES)
    return built.to(memory_format=torch.channels_last)


def batches(count):
    draw = torch.Generator().manual_seed(1)

    def images():
        return torch.randn(count, 3, CROP, CROP, generator=draw)

    def box():
        boxes = torch.zeros(count, CROP, CROP, dtype=torch.bool)
        boxes[:, 40:200, 60:180] = True
        return boxes

    def unlabeled():
        return UnlabeledBatch(
            weak=images(),
            strong1=images(),
            strong2=images(),
            padding=torch.zeros(count, CROP, CROP, dtype=torch.bool),
            box1=box(),
            box2=box(),
            zero_shot=None,
        )

    label = torch.randint(0, CLASSES, (count, CROP, CROP), generator=draw)
    return LabeledBatch(image=images(), label=label), unlabeled(), unlabeled()


def textbook_loss(model, labeled, main, partner):
    """Return UniMatch's loss as published, written out."""
    model.eval()
    with torch.no_grad():
        sure_mix, label_mix = model(partner.weak).softmax(1).max(1)
    model.train()
    features = model.encode(torch.cat([labeled.image, main.weak]))
    perturbed = [torch.cat([level, F.dropout2d(level, 0.5)]) for level in features]
    on_x, on_w, _, on_fp = model.decode(perturbed, (CROP, CROP)).chunk(4)
    sure, label = on_w.detach().softmax(1).max(1)
    views = []
    for view, other, box in (
        (main.strong1, partner.strong1, main.box1),
        (main.strong2, partner.strong2, main.box2),
    ):
        views.append(torch.where(box[:, None], other, view))
    on_s1, on_s2 = model(torch.cat(views)).chunk(2)

    def unlabeled(logits, label, sure):
        return (F.cross_entropy(logits, label, reduction="none") * (sure >= SURE)).mean()

    loss = F.cross_entropy(on_x, labeled.label) + 0.5 * unlabeled(on_fp, label, sure)
    for logits, box in ((on_s1, main.box1), (on_s2, main.box2)):
        mixed = torch.where(box, label_mix, label), torch.where(box, sure_mix, sure)
        loss = loss + 0.25 * unlabeled(logits, *mixed)
    return loss / 2


def stepper(model, loss_of):
    optimiser = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9, weight_decay=1e-4)

    def step():
        torch.manual_seed(3)
        optimiser.zero_grad(set_to_none=True)
        loss = loss_of(model)
        loss.backward()
        optimiser.step()
        return loss.detach()

    return step


@pytest.mark.parametrize("name", NETWORKS)
def bench_unimatch_step(compare, name):
    labeled, main, partner = batches(BATCH[name])
    plain, ours, published = network(name), network(name), network(name)
    if isinstance(plain.head, SegFormerHead):
        plain.head.__class__ = PlainSegFormerHead
    same = unimatch.build(unimatch.Settings(min_confidence=SURE))
    lean = unimatch.build(unimatch.Settings(min_confidence=SURE, streams="lean"))
    torch.manual_seed(3)
    expected = textbook_loss(plain, labeled, main, partner)
    torch.manual_seed(3)
    found = same(published, labeled, main, partner).total
    for model in (plain, published):
        nn.Module.zero_grad(model)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    compare(
        f"UniMatch step, {name} {CROP}, {BATCH[name]} + {BATCH[name]} crops",
        stepper(plain, lambda model: textbook_loss(model, labeled, main, partner)),
        stepper(ours, lambda model: lean(model, labeled, main, None).total),
        parity=lambda *_: f"published streams: loss differs by {abs(found - expected):.0e}",
        bound=WANTED[name],
        pairs=2,
    )
