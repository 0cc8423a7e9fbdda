import os
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from zspl import models, plugins
from zspl.data.label_quality import LabelQuality
from zspl.methods import Facts, enhanced, needs, paper, supervised, unimatch
from zspl.methods._gated import GatedLoss
from zspl.methods._gates import Gates
from zspl.methods._streams import Streams, StreamSettings, forward_streams, turned
from zspl.models.network import SegmentationNetwork
from zspl.models.statistics import uncounted
from zspl.records import LabeledBatch, UnlabeledBatch

FIXTURES = Path(os.environ.get("ZSPL_SHARED", "../shared")) / "fixtures"


def image(logits):
    """Return images of the size of the logits; only their shape matters here."""
    return torch.zeros(len(logits), 3, *logits.shape[2:])


@pytest.fixture(params=["step_losses", "step_losses_ignore"])
def step(request):
    path = FIXTURES / f"{request.param}.npz"
    if not path.exists():
        pytest.skip(f"{path} is not here; set ZSPL_SHARED")
    with np.load(path) as arrays:
        return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}


def square(tensor, side=12):
    """Rearrange a fixture's pixels into squares: crops are square, and the losses do not mind."""
    if tensor.dim() == 3:
        return tensor.reshape(-1, side, side)
    pixels = tensor.movedim(1, -1).reshape(-1, side, side, tensor.shape[1])
    return pixels.movedim(-1, 1)


def published_step(step):
    streams = Streams(
        labeled=square(step["logits_labeled"]),
        weak=square(step["logits_weak"]),
        feature=square(step["logits_feature_perturbed"]),
        strong1=square(step["logits_strong1"]),
        strong2=square(step["logits_strong2"]),
        partner=square(step["logits_weak_mix"]),
    )
    picture = image(streams.weak)
    labeled = LabeledBatch(image=image(streams.labeled), label=square(step["label"]))

    def unlabeled(zero_shot, padding):
        return UnlabeledBatch(
            weak=picture,
            strong1=picture,
            strong2=picture,
            padding=square(step[padding]),
            box1=square(step["cutmix1"]),
            box2=square(step["cutmix2"]),
            zero_shot=square(step[zero_shot]),
        )

    main, partner = unlabeled("zero_shot", "padding"), unlabeled("zero_shot_mix", "padding_mix")
    return streams, labeled, main, partner


@pytest.mark.parametrize(("name", "threshold"), [("unimatch", 0.95), ("unimatch_tau0", 0.0)])
def test_unimatch_equals_the_published_step(step, name, threshold):
    loss = unimatch.UniMatchLoss(unimatch.Settings(min_confidence=threshold))(*published_step(step))
    for part in ("strong1", "strong2", "feature"):
        assert loss.parts[part].item() == pytest.approx(
            step[f"expect.{name}.{part}"].item(), rel=1e-5
        )
    assert loss.total.item() == pytest.approx(step[f"expect.{name}.total"].item(), rel=1e-5)


@pytest.mark.parametrize(
    "rule",
    [paper.PaperLoss(paper.Settings()), GatedLoss(Gates(settings=enhanced.Settings()))],
    ids=["paper", "enhanced"],
)
def test_the_paper_s_rule_equals_the_published_step(step, rule):
    loss = rule(*published_step(step))
    for part in ("strong1", "strong2", "feature"):
        assert loss.parts[part].item() == pytest.approx(
            step[f"expect.enhanced.{part}"].item(), rel=1e-5
        )
    assert loss.total.item() == pytest.approx(step["expect.enhanced.total"].item(), rel=1e-5)


def test_the_paper_s_method_reports_the_share_of_pixels_whose_model_is_unsure(step):
    streams, labeled, main, partner = published_step(step)
    loss = paper.PaperLoss(paper.Settings())(streams, labeled, main, partner)
    confidence = streams.weak.softmax(1).amax(1)
    expected = (confidence[~main.padding] < 0.7).float().mean()
    assert loss.parts["zero_shot_share"].item() == pytest.approx(expected.item())


def test_smoothing_over_all_classes_differs_only_in_the_rate(step):
    inputs = published_step(step)
    classes = inputs[0].weak.shape[1]
    over_all = paper.Settings(smoothing=0.1, smoothing_target="all")
    others = paper.Settings(smoothing=0.1 * (classes - 1) / classes)
    one, other = (paper.PaperLoss(s)(*inputs).total for s in (over_all, others))
    torch.testing.assert_close(one, other)


def batches(batch=2, size=32, classes=4, seed=0):
    draw = torch.Generator().manual_seed(seed)

    def images():
        return torch.randn(batch, 3, size, size, generator=draw)

    def unlabeled():
        return UnlabeledBatch(
            weak=images(),
            strong1=images(),
            strong2=images(),
            padding=torch.zeros(batch, size, size, dtype=torch.bool),
            box1=torch.rand(batch, size, size, generator=draw) > 0.6,
            box2=torch.rand(batch, size, size, generator=draw) > 0.6,
            zero_shot=torch.randint(0, classes, (batch, size, size), generator=draw),
        )

    label = torch.randint(0, classes, (batch, size, size), generator=draw)
    return LabeledBatch(image=images(), label=label), unlabeled(), unlabeled()


def quality(classes=4):
    levels = torch.ones(classes, 256, dtype=torch.int64)
    claims, images = torch.eye(classes, classes + 1).long(), torch.ones(classes).long()
    return LabelQuality(right=levels, wrong=levels, claims=claims, images=images)


def small_model(classes=4):
    torch.manual_seed(0)
    return models.build(
        backbone={"name": "compact", "widths": (4, 6, 8, 8)},
        head={"name": "deeplabv3plus", "width": 8, "low_width": 4, "dilations": (2,)},
        num_classes=classes,
    )


@pytest.mark.parametrize("pasted", ["partner", "within the batch"])
@pytest.mark.parametrize("name", plugins.names("zspl.methods"))
def test_every_method_gives_a_loss_that_reaches_every_parameter(name, pasted):
    module = plugins.load("zspl.methods", name)
    labeled, main, partner = batches()
    if pasted == "within the batch":
        partner = None
    if "unlabeled" not in needs(name):
        main = partner = None
    method = module.build(module.Settings())
    facts = Facts(class_names=tuple("abcd"), crop_size=32, label_quality=quality())
    network = method.adapt(small_model(), facts)
    model = method.prepare(network, lambda: method.adapt(small_model(), facts), facts)
    loss = method(model, labeled, main, partner)
    loss.total.backward()
    assert model.training
    assert "labeled" in loss.parts
    learning = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learning)


def test_needs_names_what_each_method_reads():
    assert needs("supervised") == {"labeled"}
    assert needs("unimatch") == {"labeled", "unlabeled"}
    assert needs("enhanced") == needs("paper") == {"labeled", "unlabeled", "labels"}
    assert needs("fixmatch") == needs("cps") == needs("stpp") == {"labeled", "unlabeled"}


def test_supervised_ignores_unlabeled_images():
    labeled, main, partner = batches()
    method = supervised.build(supervised.Settings())
    with_them = method(small_model(), labeled, main, partner).total
    torch.testing.assert_close(method(small_model(), labeled, None, None).total, with_them)


@pytest.mark.parametrize("name", ["unimatch", "enhanced", "paper", "fixmatch"])
def test_a_semi_supervised_method_refuses_a_step_without_unlabeled_images(name):
    module = plugins.load("zspl.methods", name)
    labeled, _, _ = batches()
    method = module.build(module.Settings())
    facts = Facts(class_names=tuple("abcd"), crop_size=32, label_quality=quality())
    model = method.prepare(small_model(), small_model, facts)
    with pytest.raises(ValueError, match="needs an unlabeled batch"):
        method(model, labeled, None, None)


class Recorder(nn.Module):
    """A backbone that returns its input and remembers in which mode it saw what."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append((self.training, torch.is_grad_enabled(), images.clone()))
        return [images]


class Passing(nn.Module):
    """A decoder that returns the first feature map."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, features, size):  # noqa: ARG002 - as the network calls it
        self.batches.append(features[0])
        return features[0]


def test_streams_run_in_the_official_order_and_modes():
    labeled, main, partner = batches()
    model = SegmentationNetwork(Recorder(), Passing())
    streams = forward_streams(model, labeled, main, partner, settings=StreamSettings())
    modes = [(training, grad) for training, grad, _ in model.backbone.seen]
    assert modes == [(False, False), (True, True), (True, True)]
    first, second, third = (images for _, _, images in model.backbone.seen)
    assert torch.equal(first, partner.weak)
    assert torch.equal(second, torch.cat([labeled.image, main.weak]))
    mixed = torch.where(main.box2[:, None], partner.strong2, main.strong2)
    assert torch.equal(third[2:], mixed)
    assert torch.equal(streams.weak, main.weak)
    assert torch.equal(streams.labeled, labeled.image)


def test_without_a_partner_cutmix_pastes_within_the_batch_and_nothing_is_predicted_for_it():
    labeled, main, _ = batches()
    model = SegmentationNetwork(Recorder(), Passing())
    streams = forward_streams(model, labeled, main, None, settings=StreamSettings())
    modes = [(training, grad) for training, grad, _ in model.backbone.seen]
    assert modes == [(True, True), (True, True)]
    mixed = torch.where(main.box1[:, None], main.strong1.flip(0), main.strong1)
    assert torch.equal(model.backbone.seen[1][2][:2], mixed)
    assert streams.partner is None


@pytest.mark.parametrize("images", [2, 3, 4, 5])
def test_within_a_batch_no_image_is_pasted_into_itself(images):
    assert not (turned(torch.arange(images)) == torch.arange(images)).any()


@pytest.mark.parametrize("name", ["unimatch", "paper", "enhanced"])
def test_pasting_within_the_batch_teaches_what_a_turned_partner_would(name):
    labeled, main, _ = batches()
    whole = {f.name: getattr(main, f.name) for f in fields(main)}
    partner = replace(main, **{k: None if v is None else turned(v) for k, v in whole.items()})
    draw = torch.Generator().manual_seed(0)
    names = ("labeled", "weak", "feature", "strong1", "strong2")
    logits = {n: 2 * torch.randn(2, 4, 32, 32, generator=draw) for n in names}
    losses = {
        "unimatch": unimatch.UniMatchLoss(unimatch.Settings(min_confidence=0.5)),
        "paper": paper.PaperLoss(paper.Settings()),
        "enhanced": GatedLoss(Gates(settings=enhanced.Settings())),
    }
    within = losses[name](Streams(**logits, partner=None), labeled, main, None)
    beside = losses[name](Streams(**logits, partner=turned(logits["weak"])), labeled, main, partner)
    assert torch.equal(within.total, beside.total)


def test_lean_streams_give_the_same_logits_where_no_batch_norm_looks_across():
    labeled, main, partner = batches()
    draw = torch.nn.Conv2d(3, 3, 1)
    seen = {}
    for streams in ("published", "lean"):
        head = Passing()
        model = SegmentationNetwork(nn.Sequential(draw, Recorder()), head)
        found = forward_streams(
            model,
            labeled,
            main,
            partner,
            settings=StreamSettings(streams=streams, feature_dropout=0),
        )
        seen[streams] = found, sum(map(len, head.batches))
    (published, many), (lean, fewer) = seen["published"], seen["lean"]
    for part in ("labeled", "weak", "feature", "strong1", "strong2", "partner"):
        assert torch.equal(getattr(published, part), getattr(lean, part))
    assert not lean.weak.requires_grad
    assert lean.feature.requires_grad
    assert (many, fewer) == (14, 12)


def normed():
    """A network with batch norm before and behind what feature dropout changes."""
    torch.manual_seed(3)
    backbone = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), Recorder())
    return SegmentationNetwork(backbone, Normed())


class Normed(Passing):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, features, size):
        return super().forward([self.norm(features[0])], size)


def test_clean_statistics_are_those_of_labeled_and_weak_crops_and_change_no_stream():
    labeled, main, _ = batches()
    seen = {}
    for statistics in ("all", "clean"):
        model = normed()
        torch.manual_seed(4)
        settings = StreamSettings(streams="lean", statistics=statistics)
        seen[statistics] = forward_streams(model, labeled, main, None, settings=settings)
    for part in ("labeled", "weak", "feature", "strong1", "strong2"):
        assert torch.equal(getattr(seen["all"], part), getattr(seen["clean"], part))

    by_hand = normed()
    conv, first, _ = by_hand.backbone
    crops = conv(torch.cat([labeled.image, main.weak]))
    by_hand.head.norm(first(crops)[len(labeled.image) :])
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(model.backbone[1], name), getattr(first, name))
        mine = getattr(model.head.norm, name)
        torch.testing.assert_close(mine, getattr(by_hand.head.norm, name))
    assert model.head.norm.track_running_stats
    assert model.head.norm.num_batches_tracked == 1


def test_an_infinite_number_in_a_strong_view_spoils_no_clean_statistics():
    norm = nn.BatchNorm2d(3)
    with uncounted(norm):
        norm(torch.full((2, 3, 4, 4), torch.inf))
    assert torch.equal(norm.running_mean, torch.zeros(3))
    assert norm.num_batches_tracked == 0


def test_clean_statistics_are_kept_where_a_teacher_predicts_the_weak_view():
    labeled, main, _ = batches()
    plain, taught = normed(), normed()
    settings = StreamSettings(streams="lean", statistics="clean")
    for model, teacher in ((plain, None), (taught, normed())):
        torch.manual_seed(4)
        forward_streams(model, labeled, main, None, settings=settings, teacher=teacher)
    torch.testing.assert_close(taught.state_dict(), plain.state_dict())


def test_clean_statistics_are_refused_with_the_published_streams():
    with pytest.raises(ValueError, match="statistics is clean, which needs streams: lean"):
        StreamSettings(statistics="clean")


def test_feature_perturbation_drops_whole_channels_and_doubles_the_others():
    labeled, main, partner = batches(batch=16)
    model = SegmentationNetwork(Recorder(), Passing())
    torch.manual_seed(1)
    streams = forward_streams(model, labeled, main, partner, settings=StreamSettings())
    dropped = 0
    for clean, perturbed in zip(
        main.weak.flatten(0, 1), streams.feature.flatten(0, 1), strict=True
    ):
        if perturbed.abs().max() == 0:
            dropped += 1
        else:
            torch.testing.assert_close(perturbed, 2 * clean)
    assert 12 <= dropped <= 36


@pytest.mark.parametrize("name", ["supervised", "fixmatch", "unimatch", "paper", "enhanced"])
def test_the_labeled_loss_may_be_that_of_hard_pixels(name):
    module = plugins.load("zspl.methods", name)
    labeled, main, partner = batches()
    hard = {"name": "ohem", "threshold": 0.3, "min_kept": 50}
    facts, parts = Facts(class_names=tuple("abcd"), crop_size=32), {}
    for loss in ({"name": "ce"}, hard):
        settings = module.Settings.model_validate({"labeled_loss": loss})
        torch.manual_seed(1)
        method = module.build(settings)
        model = method.prepare(small_model(), small_model, facts)
        parts[loss["name"]] = method(model, labeled, main, partner).parts
    assert parts["ohem"]["labeled"] > parts["ce"]["labeled"]
    unlabeled = parts["ce"].keys() - {"labeled"}
    assert all(torch.equal(parts["ce"][key], parts["ohem"][key]) for key in unlabeled)
