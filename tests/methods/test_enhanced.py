"""Every gate of the enhanced method against its rule written out pixel by pixel."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from pydantic import ValidationError

from zspl import models
from zspl.data.label_quality import LabelQuality
from zspl.methods import Facts, Moment, enhanced, paper, paper_unsmoothed, recommended
from zspl.methods._gated import GatedLoss
from zspl.methods._gates import Gates
from zspl.methods._streams import Streams
from zspl.records import LabeledBatch, UnlabeledBatch

CLASSES = 4
SIDE = 8
FACTS = Facts(class_names=tuple("abcd"), crop_size=SIDE)


def unlabeled(draw, *, size=SIDE, batch=2):
    padding = torch.zeros(batch, size, size, dtype=torch.bool)
    padding[0, :, -2:] = True
    zero_shot = torch.randint(0, CLASSES, (batch, size, size), generator=draw)
    zero_shot[torch.rand(zero_shot.shape, generator=draw) < 0.2] = 255
    return UnlabeledBatch(
        weak=torch.randn(batch, 3, size, size, generator=draw),
        strong1=torch.randn(batch, 3, size, size, generator=draw),
        strong2=torch.randn(batch, 3, size, size, generator=draw),
        padding=padding,
        box1=torch.rand(batch, size, size, generator=draw) > 0.6,
        box2=torch.rand(batch, size, size, generator=draw) > 0.6,
        zero_shot=zero_shot.masked_fill(padding, 255),
        zero_shot_confidence=torch.rand(batch, size, size, generator=draw),
    )


@pytest.fixture
def step():
    """Return the streams of a step whose model is sure of about half of the pixels."""
    draw = torch.Generator().manual_seed(0)
    names = ("labeled", "weak", "feature", "strong1", "strong2", "partner")
    logits = {n: 2 * torch.randn(2, CLASSES, SIDE, SIDE, generator=draw) for n in names}
    label = torch.randint(0, CLASSES, (2, SIDE, SIDE), generator=draw)
    labeled = LabeledBatch(image=torch.zeros(2, 3, SIDE, SIDE), label=label)
    return Streams(**logits), labeled, unlabeled(draw), unlabeled(draw)


def settings(**changes):
    return enhanced.Settings(min_confidence=0.7, **changes)


def loss_of(step, asked=None, weight=1.0, **changes):
    return GatedLoss(Gates(settings=settings(**changes), asked=asked), weight=weight)(*step)


def labels(batch, logits, asked=None, witness=None, **changes):
    gates = Gates(settings=settings(**changes), asked=asked, witness=witness)
    label, zero_shot = gates.label(batch, logits)
    return label.tolist(), zero_shot.tolist()


def written_out(batch, logits, asked=(0,) * CLASSES, k=CLASSES, witness=None):
    """Apply the rule to one pixel after the other."""
    label = [[[0] * SIDE for _ in range(SIDE)] for _ in range(2)]
    taken = [[[False] * SIDE for _ in range(SIDE)] for _ in range(2)]
    for u, y, x in product(range(2), range(SIDE), range(SIDE)):
        p = logits[u, :, y, x].softmax(0).tolist()
        if witness is not None:
            claim = min(batch.zero_shot[u, y, x].item(), CLASSES)
            p = [p[c] * math.exp(witness[claim][c]) for c in range(CLASSES)]
            p = [value / sum(p) for value in p]
        z, q = batch.zero_shot[u, y, x].item(), batch.zero_shot_confidence[u, y, x].item()
        if max(p) >= 0.7:
            label[u][y][x] = p.index(max(p))
        elif z != 255 and q >= asked[z] and p[z] >= sorted(p)[-k]:
            label[u][y][x], taken[u][y][x] = z, True
        else:
            label[u][y][x] = 255
    return label, taken


@pytest.mark.parametrize("changes", [{}, {"smoothing": 0.1, "smoothing_target": "all"}])
def test_with_all_gates_open_a_step_is_the_paper_s_bit_for_bit(step, changes):
    ours = loss_of(step, **changes)
    theirs = paper.PaperLoss(paper.Settings(min_confidence=0.7, **changes))(*step)
    assert torch.equal(ours.total, theirs.total)
    for part in ("labeled", "strong1", "strong2", "feature"):
        assert torch.equal(ours.parts[part], theirs.parts[part])


def test_the_defaults_are_the_paper_s():
    ours, theirs = enhanced.Settings(), paper.Settings()
    assert all(getattr(ours, name) == getattr(theirs, name) for name in paper.Settings.model_fields)
    assert not ours.reads_confidence


def test_three_ways_model_if_sure_else_a_sure_zero_shot_label_else_nobody(step):
    streams, _, main, _ = step
    asked = torch.full((CLASSES,), 0.6)
    ours = labels(main, streams.weak, asked)
    assert ours == written_out(main, streams.weak, asked)
    assert (torch.tensor(ours[0]) == 255).any()
    assert torch.tensor(ours[1]).any()


def test_each_class_can_ask_for_its_own_confidence(step):
    streams, _, main, _ = step
    asked = torch.tensor([0.0, 0.5, 0.9, 2.0])
    ours = labels(main, streams.weak, asked)
    assert ours == written_out(main, streams.weak, asked)


@pytest.mark.parametrize("k", [1, 2, 4, 9])
def test_agreement_keeps_a_label_among_the_model_s_likeliest_classes(step, k):
    streams, _, main, _ = step
    ours = labels(main, streams.weak, agreement=k)
    assert ours == written_out(main, streams.weak, k=min(k, CLASSES))


def test_gates_combine_to_what_passes_all_of_them(step):
    streams, _, main, _ = step
    asked = torch.tensor([0.0, 0.5, 0.9, 0.2])
    ours = labels(main, streams.weak, asked, agreement=2)
    assert ours == written_out(main, streams.weak, asked, k=2)


@pytest.mark.parametrize("counted", ["labeled", "all"])
def test_weight_and_divisor_follow_the_formula(step, counted):
    streams, _, main, partner = step
    asked, weight, s = torch.full((CLASSES,), 0.6), 0.3, 0.25
    ours = loss_of(step, asked, weight, counted=counted)
    own, taken = written_out(main, streams.weak, asked)
    other, others = written_out(partner, streams.partner, asked)
    expected = {}
    for name, box in (("strong1", main.box1), ("strong2", main.box2), ("feature", None)):
        total, count = 0.0, 0
        logits = getattr(streams, name)
        for u, y, x in product(range(2), range(SIDE), range(SIDE)):
            inside = box is not None and bool(box[u, y, x])
            label, zero_shot = (other, others) if inside else (own, taken)
            label, zero_shot = label[u][y][x], zero_shot[u][y][x]
            if (partner if inside else main).padding[u, y, x]:
                continue
            count += counted == "all" or label != 255
            if label == 255:
                continue
            log_p = logits[u, :, y, x].log_softmax(0).tolist()
            rest = sum(log_p) - log_p[label]
            loss = -(1 - s) * log_p[label] - s / (CLASSES - 1) * rest
            total += (weight if zero_shot else 1) * loss
        expected[name] = total / count
        assert ours.parts[name].item() == pytest.approx(expected[name], rel=1e-5)
    unsupervised = (expected["strong1"] + expected["strong2"]) / 4 + expected["feature"] / 2
    whole = (ours.parts["labeled"].item() + unsupervised) / 2
    assert ours.total.item() == pytest.approx(whole, rel=1e-5)


def test_a_step_reports_how_many_pixels_zero_shot_labels_teach_and_how_many_nobody(step):
    streams, _, main, _ = step
    asked = torch.full((CLASSES,), 0.6)
    label, taken = written_out(main, streams.weak, asked)
    inside = ~main.padding
    parts = loss_of(step, asked).parts
    assert parts["zero_shot_share"] == torch.tensor(taken)[inside].float().mean()
    assert parts["untaught_share"] == (torch.tensor(label) == 255)[inside].float().mean()


def test_when_no_label_is_believed_only_the_sure_model_teaches(step):
    never = torch.full((CLASSES,), 2.0)
    found = loss_of(step, never, smoothing=0.0)
    assert found.parts["zero_shot_share"] == 0
    streams, _, main, _ = step
    confidence, label = streams.weak.softmax(1).max(1)
    sure = (confidence >= 0.7) & ~main.padding
    expected = torch.nn.functional.cross_entropy(streams.feature, label, reduction="none")[sure]
    assert found.parts["feature"].item() == pytest.approx(expected.mean().item(), rel=1e-5)


def test_the_weight_of_zero_shot_labels_goes_linearly_from_start_to_end():
    method = enhanced.build(settings(zero_shot_weight=0.8, final_zero_shot_weight=0.0))
    weights = [method.at(Moment(iteration=t, total=4, per_epoch=1))._weight for t in (0, 1, 2, 3)]
    assert weights == pytest.approx([0.8, 0.6, 0.4, 0.2])
    constant = enhanced.build(settings(zero_shot_weight=0.8))
    assert constant.at(Moment(iteration=3, total=4, per_epoch=1))._weight == 0.8


def quality(**counts):
    """Return what labeled images tell, 0 where nothing is said."""
    zeros = {
        "right": torch.zeros(CLASSES, 256, dtype=torch.int64),
        "wrong": torch.zeros(CLASSES, 256, dtype=torch.int64),
        "claims": torch.zeros(CLASSES, CLASSES + 1, dtype=torch.int64),
        "images": torch.zeros(CLASSES, dtype=torch.int64),
    }
    return LabelQuality(**{**zeros, **counts})


def test_a_witness_is_heard_by_bayes_rule(step):
    streams, _, main, _ = step
    draw = torch.Generator().manual_seed(2)
    witness = torch.rand(CLASSES + 1, CLASSES, generator=draw).log()
    ours = labels(main, streams.weak, witness=witness)
    assert ours == written_out(main, streams.weak, witness=witness.tolist())
    assert ours != labels(main, streams.weak)


def test_a_witness_that_tells_no_class_from_another_changes_nothing(step):
    streams, _, main, _ = step
    deaf = torch.full((CLASSES + 1, CLASSES), -1.5)
    assert labels(main, streams.weak, witness=deaf) == labels(main, streams.weak)


def test_nobody_teaches_where_both_together_are_unsure_if_so_set(step):
    streams, _, main, _ = step
    draw = torch.Generator().manual_seed(2)
    witness = torch.rand(CLASSES + 1, CLASSES, generator=draw).log()
    label, zero_shot = labels(main, streams.weak, witness=witness, unsure="nobody")
    never = (2.0,) * CLASSES
    assert (label, zero_shot) == written_out(main, streams.weak, never, witness=witness.tolist())
    assert any(value == 255 for image in label for row in image for value in row)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unsure": "nobody", "min_precision": 0.5}, "min_precision is without effect"),
        ({"unsure": "nobody", "agreement": 2}, "agreement is without effect"),
        ({"unsure": "nobody", "zero_shot_weight": 0.5}, "zero_shot_weight is without effect"),
    ],
)
def test_a_setting_without_effect_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        enhanced.Settings(**changes)


def test_recommended_is_enhanced_with_a_witness_clean_statistics_and_nothing_else():
    ours = recommended.Settings()
    theirs = enhanced.Settings(
        evidence=2.0, unsure="nobody", counted="all", streams="lean", statistics="clean"
    )
    assert ours.model_dump() == theirs.model_dump()
    (only,) = recommended.build(ours).rounds()
    assert only.needs == {"labeled", "unlabeled", "labels", "label_quality"}


def test_the_witness_is_what_the_labeled_images_tell_as_often_as_evidence_says():
    draw = torch.Generator().manual_seed(0)
    claims = torch.randint(0, 50, (CLASSES, CLASSES + 1), generator=draw)
    known = quality(claims=claims, images=torch.tensor([3, 1, 2, 3]))
    _, model = prepared(replace(FACTS, label_quality=known), evidence=2.0)
    torch.testing.assert_close(model.witness, 2 * known.log_likelihood())
    with pytest.raises(ValueError, match="evidence needs facts"):
        prepared(evidence=1.0)


def test_the_finished_network_holds_no_witness():
    known = quality(images=torch.ones(CLASSES, dtype=torch.int64))
    _, model = prepared(replace(FACTS, label_quality=known), evidence=1.0)
    assert not any("witness" in key for key in model.deployed.state_dict())


def small():
    torch.manual_seed(0)
    return models.build(
        backbone={"name": "compact", "widths": (4, 6, 8, 8)},
        head={"name": "deeplabv3plus", "width": 8, "low_width": 4, "dilations": (2,)},
        num_classes=CLASSES,
    )


def prepared(facts=FACTS, **changes):
    method, network = enhanced.build(settings(**changes)), small()
    return method, method.prepare(network, small, facts)


def test_precision_asks_each_class_for_the_confidence_that_the_labeled_images_demand():
    right, wrong = torch.zeros(2, CLASSES, 256, dtype=torch.int64)
    right[0, 10], right[1, 200], wrong[1, 100], wrong[2, 255] = 1, 1, 5, 1
    facts = replace(FACTS, label_quality=quality(right=right, wrong=wrong))
    _, model = prepared(facts, min_precision=0.9)
    expected = torch.tensor([0, 101 / 255, 2, 2])
    torch.testing.assert_close(model.asked, expected)
    _, model = prepared(facts, min_precision=0.9, min_zero_shot_confidence=0.5)
    torch.testing.assert_close(model.asked, torch.tensor([0.5, 0.5, 2, 2]))
    with pytest.raises(ValueError, match="min_precision needs facts"):
        prepared(min_precision=0.9)


def test_the_teacher_is_the_average_of_weights_and_buffers():
    method, model = prepared(teacher_ratio=0.6)
    name = "head.classifier.weight"
    buffer = next(n for n, _ in model.deployed.named_buffers() if n.endswith("running_mean"))
    mean = {}
    for t in range(4):
        with torch.no_grad():
            for tensor in model.deployed.state_dict().values():
                tensor.add_(t + 1)
            method.after_step(model, Moment(iteration=t, total=4, per_epoch=1))
        ratio = min(1 - 1 / (t + 1), 0.6)
        for key in (name, buffer):
            new = model.deployed.state_dict()[key]
            mean[key] = mean.get(key, 0) * ratio + new * (1 - ratio)
    for key in (name, buffer):
        torch.testing.assert_close(model.teacher.state_dict()[key], mean[key])
    counted = [k for k in model.teacher.state_dict() if k.endswith("num_batches_tracked")]
    assert all(
        torch.equal(model.teacher.state_dict()[k], model.deployed.state_dict()[k]) for k in counted
    )
    assert not any(p.requires_grad for p in model.teacher.parameters())


def test_the_teacher_predicts_both_weak_views_in_evaluation_mode(monkeypatch):
    draw = torch.Generator().manual_seed(0)
    main, partner = unlabeled(draw, size=32), unlabeled(draw, size=32)
    label = torch.randint(0, CLASSES, (2, 32, 32), generator=draw)
    labeled = LabeledBatch(image=torch.randn(2, 3, 32, 32, generator=draw), label=label)
    method, model = prepared(teacher_ratio=0.9)
    with torch.no_grad():
        model.teacher.head.classifier.weight.neg_()
        expected = [model.teacher.eval()(batch.weak) for batch in (main, partner)]
    seen, plain = [], Gates.label

    def watch(self, batch, logits):
        seen.append(logits)
        return plain(self, batch, logits)

    monkeypatch.setattr(Gates, "label", watch)
    method(model, labeled, main, partner)
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))
    assert not model.teacher.training
    assert model.deployed.training


def test_confidence_is_read_only_when_a_gate_asks_for_it():
    def asked(**changes):
        (only,) = enhanced.build(settings(**changes)).rounds()
        return only.needs - enhanced.NEEDS

    assert asked() == asked(agreement=1, final_zero_shot_weight=0, teacher_ratio=0.5) == set()
    assert asked(min_zero_shot_confidence=0.5) == {"confidence"}
    assert asked(min_precision=0.5) == {"confidence", "label_quality"}
    assert asked(evidence=1.0) == {"label_quality"}


def test_a_batch_without_what_a_gate_reads_is_refused(step):
    streams, labeled, main, partner = step
    bare = replace(main, zero_shot_confidence=None)
    with pytest.raises(ValueError, match="with the confidence"):
        loss_of((streams, labeled, bare, partner), torch.zeros(CLASSES))
    with pytest.raises(ValueError, match="with zero-shot labels"):
        loss_of((streams, labeled, replace(main, zero_shot=None), partner))


@pytest.mark.parametrize(
    "wrong", [{"agreement": 0}, {"teacher_ratio": 1}, {"min_precision": 1.1}, {"counted": "some"}]
)
def test_a_setting_out_of_range_is_refused(wrong):
    with pytest.raises(ValidationError):
        settings(**wrong)


def test_the_paper_without_smoothing_is_the_papers_rule_with_smoothing_0_bit_for_bit(step):
    plain = paper.PaperLoss(paper.Settings(smoothing=0.0))(*step)
    ours = GatedLoss(Gates(settings=paper_unsmoothed.Settings(), asked=None))(*step)

    assert torch.equal(ours.total, plain.total)
    assert not torch.equal(ours.total, paper.PaperLoss(paper.Settings())(*step).total)
