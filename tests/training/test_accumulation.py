from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from zspl import plugins
from zspl.errors import SettingsError
from zspl.observer import Silent
from zspl.records import LabeledBatch, UnlabeledBatch
from zspl.settings import Settings
from zspl.training.rounds import run_rounds
from zspl.training.step import micro_batches

UNPADDED = {"scale_range": (1.0, 1.2)}
SETTINGS = {
    "supervised": {},
    "unimatch": {"min_confidence": 0.0, "feature_dropout": 0.0},
    "fixmatch": {"min_confidence": 0.0},
}


def without_batch_norm(network):
    """Replace what mixes the crops of a batch by what looks at each alone."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.GroupNorm(1, child.num_features))
    return network


@pytest.fixture
def outcome_of(make_course, build, tmp_path):
    """Return a function that trains the tiny cell on batches of eight."""

    def run(method, *, accumulate, batch_norm=False, **changes):
        module = plugins.load("zspl.methods", method)
        course = make_course(
            module.build(module.Settings(**SETTINGS[method])),
            tmp_path / f"{method}-{accumulate}-{batch_norm}",
            needs=module.NEEDS,
            **{"batch_labeled": 8, "batch_unlabeled": 8, "accumulate": accumulate, **changes},
        )
        network = build if batch_norm else lambda: without_batch_norm(build())
        return run_rounds(replace(course, build=network), Silent())

    return run


def losses_of(lines):
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize("method", SETTINGS)
@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_train_like_the_whole_batch_where_no_crop_is_padded(
    outcome_of, lines, method, parts
):
    whole = outcome_of(method, accumulate=1, **UNPADDED)
    split = outcome_of(method, accumulate=parts, **UNPADDED)
    assert losses_of(lines(split)) == pytest.approx(losses_of(lines(whole)), rel=1e-4)
    for key, value in whole.last.items():
        torch.testing.assert_close(split.last[key], value, rtol=1e-3, atol=1e-5)
    assert len(losses_of(lines(whole))) == 6


def test_batch_norm_sees_one_micro_batch_at_a_time(outcome_of, lines):
    whole = outcome_of("supervised", accumulate=1, batch_norm=True, **UNPADDED)
    split = outcome_of("supervised", accumulate=2, batch_norm=True, **UNPADDED)
    assert losses_of(lines(split)) != pytest.approx(losses_of(lines(whole)), rel=1e-3)


def test_every_micro_batch_counts_the_same_however_many_pixels_teach_in_it(
    make_course, tmp_path, lines, monkeypatch
):
    """As in the official code, whose batch is the mean of what each GPU computes."""
    seen = []
    module = plugins.load("zspl.methods", "supervised")
    original = module.Supervised.__call__

    def watched(method, model, labeled, *rest):
        labeled = replace(labeled, label=labeled.label.clone())
        labeled.label[:, 20 - 12 * len(seen) :] = 255
        loss = original(method, model, labeled, *rest)
        seen.append((loss.total.item(), int((labeled.label != 255).sum())))
        return loss

    monkeypatch.setattr(module.Supervised, "__call__", watched)
    course = make_course(
        module.build(module.Settings()), tmp_path, batch_labeled=4, accumulate=2, iterations=1
    )
    losses = losses_of(lines(run_rounds(course, Silent())))
    (first, many), (second, few) = seen
    assert many > few > 0
    assert losses == pytest.approx([(first + second) / 2])


@pytest.mark.parametrize("moments", [(3,), (1, 5)])
def test_a_killed_training_of_micro_batches_continues_bit_by_bit(
    tmp_path, make_course, killed_at, assert_same, moments
):
    module = plugins.load("zspl.methods", "unimatch")
    method = module.build(module.Settings(min_confidence=0.3))
    batches = {"batch_labeled": 4, "batch_unlabeled": 4, "accumulate": 2}
    changes = {"needs": module.NEEDS, **batches}
    undisturbed = run_rounds(make_course(method, tmp_path / "one", **changes), Silent())
    course = make_course(method, tmp_path / "two", **changes)
    for moment in moments:
        killed_at(course, iteration=moment)
    assert_same(run_rounds(course, Silent()), undisturbed)


def test_micro_batches_are_the_crops_of_the_batch_in_their_order():
    crops = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 2, 2)
    flat = torch.zeros(4, 2, 2)
    labeled = LabeledBatch(image=crops, label=flat.long())
    unlabeled = UnlabeledBatch(
        weak=crops,
        strong1=crops,
        strong2=crops,
        padding=flat.bool(),
        box1=flat.bool(),
        box2=flat.bool(),
        zero_shot=None,
    )
    parts = list(micro_batches((labeled, unlabeled, None), 2))
    assert [part[0].image[:, 0, 0, 0].tolist() for part in parts] == [[0, 1], [2, 3]]
    assert [part[1].strong2[:, 0, 0, 0].tolist() for part in parts] == [[0, 1], [2, 3]]
    assert [len(part[1].padding) for part in parts] == [2, 2]
    assert all(part[1].zero_shot is None and part[2] is None for part in parts)


def test_batches_that_do_not_split_evenly_are_refused():
    params = Path(__file__).parents[2] / "params.yaml"
    with pytest.raises(SettingsError, match=r"accumulate is 3, but must divide batch_labeled 8"):
        Settings.read(params, {"train.accumulate": 3})
