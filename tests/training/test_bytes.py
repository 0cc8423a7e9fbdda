"""Trainings under `views: tensor`, whose views are made beside the network."""

import pytest
import torch

from zspl import plugins
from zspl.observer import Silent
from zspl.records import UnlabeledBatch
from zspl.training.rounds import run_rounds


@pytest.fixture
def course(make_course, tmp_path):
    module = plugins.load("zspl.methods", "unimatch")
    method = module.build(module.Settings(min_confidence=0.3))

    def make(name, **changes):
        changes = {"views": "tensor", "needs": module.NEEDS, **changes}
        return make_course(method, tmp_path / name, **changes)

    return make


@pytest.mark.parametrize(
    "changes", [{}, {"batch_labeled": 4, "batch_unlabeled": 4, "accumulate": 2}]
)
def test_a_killed_training_continues_bit_by_bit(course, killed_at, assert_same, changes):
    undisturbed = run_rounds(course("one", **changes), Silent())
    for moment in (1, 4):
        killed_at(course("two", **changes), iteration=moment)
    assert_same(run_rounds(course("two", **changes), Silent()), undisturbed)


def test_a_training_is_nearly_that_of_pillow(course, lines):
    tensor, pillow = (
        run_rounds(course(views, views=views), Silent()) for views in ("tensor", "pillow")
    )
    ours, theirs = ([row["loss"] for row in lines(o) if "loss" in row] for o in (tensor, pillow))
    assert ours == pytest.approx(theirs, rel=0.02)
    assert ours != theirs


def test_methods_are_given_normalised_views(course, monkeypatch):
    seen = []
    watched = course("one", iterations=1)
    original = type(watched.method).__call__

    def call(method, model, labeled, unlabeled, partner):
        seen.append((labeled, unlabeled, partner))
        return original(method, model, labeled, unlabeled, partner)

    monkeypatch.setattr(type(watched.method), "__call__", call)
    run_rounds(watched, Silent())
    (labeled, *both), *rest = seen
    assert not rest
    assert labeled.label.dtype == torch.int64
    assert all(isinstance(batch, UnlabeledBatch) for batch in both)
    for view in (labeled.image, both[0].weak, both[0].strong1, both[1].strong2):
        assert view.dtype == torch.float32
        assert -2.2 < view.min() < 0 < view.max() < 2.7


def test_a_loss_that_is_not_finite_is_reported_without_blaming_a_photo(course, monkeypatch):
    from zspl.errors import ZsplError

    method = course("one").method
    original = type(method).__call__

    def broken(method, *arguments):
        loss = original(method, *arguments)
        return type(loss)(total=loss.total * float("nan"), parts=loss.parts, found=loss.found)

    monkeypatch.setattr(type(method), "__call__", broken)
    with pytest.raises(ZsplError, match=r"the loss is nan at iteration 0 .* lower train"):
        run_rounds(course("one"), Silent())
