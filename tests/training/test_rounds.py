import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from zspl import plugins
from zspl.io.images import read_label, write_label
from zspl.methods import Method, Round, SelfLabels, stpp
from zspl.observer import Silent
from zspl.records import StepLoss
from zspl.training import rounds, self_labels
from zspl.training.rounds import run_rounds

UNLABELED = tuple("bcdef")


class KilledError(Exception):
    """Stands for a kill at an arbitrary moment."""


class Supervised(Method):
    """Cross-entropy on the labeled crops."""

    def __call__(self, model, labeled, unlabeled, partner):  # noqa: ARG002 - the protocol
        model.train()
        loss = F.cross_entropy(model(labeled.image), labeled.label, ignore_index=255)
        return StepLoss(total=loss)


@pytest.fixture
def self_training(make_course):
    def make(folder):
        method = stpp.build(stpp.Settings(label_scales=(0.5, 1.0)))
        return make_course(method, folder, needs=stpp.NEEDS)

    return make


def test_the_second_round_sees_the_stable_half_and_the_third_all(
    tmp_path, monkeypatch, self_training
):
    lists = []

    class Watching(rounds.TrainingData):
        def __init__(self, records, split, *arguments, **options):
            lists.append(split.unlabeled)
            super().__init__(records, split, *arguments, **options)

    monkeypatch.setattr(rounds, "TrainingData", Watching)
    run_rounds(self_training(tmp_path), Silent())
    stability = json.loads((tmp_path / "stability.json").read_text())
    best = sorted(UNLABELED, key=lambda name: -stability[name])[:2]
    assert lists == [UNLABELED, tuple(sorted(best)), UNLABELED]


def test_a_reliable_image_keeps_the_label_of_the_first_round(tmp_path, self_training, killed_at):
    course = self_training(tmp_path)
    killed_at(course, iteration=8)
    labels = {path.stem: read_label(path) for path in (tmp_path / "labels").iterdir()}
    assert len(labels) == 2
    run_rounds(course, Silent())
    after = {path.stem: read_label(path) for path in (tmp_path / "labels").iterdir()}
    assert sorted(after) == list(UNLABELED)
    for name, label in labels.items():
        np.testing.assert_array_equal(after[name], label)


def test_rounds_killed_in_training_and_in_labeling_end_like_undisturbed_ones(
    tmp_path, monkeypatch, self_training, killed_at, assert_same
):
    undisturbed = run_rounds(self_training(tmp_path / "one"), Silent())
    course = self_training(tmp_path / "two")
    for moment in (5, 9, 15):
        killed_at(course, iteration=moment)
        if moment == 9:
            _kill_labeling_after(course, monkeypatch, count=2)
    outcome = run_rounds(course, Silent())
    assert_same(outcome, undisturbed)


def _kill_labeling_after(course, monkeypatch, *, count):
    written = []

    def write(path, label):
        if len(written) == count:
            raise KilledError
        written.append(path)
        write_label(path, label)

    with monkeypatch.context() as patch:
        patch.setattr(self_labels, "write_label", write)
        with pytest.raises(KilledError):
            run_rounds(course, Silent())
    assert len(list((course.folder / "labels").iterdir())) == 2 + count


def test_iterations_are_counted_over_all_rounds(tmp_path, self_training, lines):
    steps = []

    class Listening(Silent):
        def metrics(self, values, *, step=None):
            if "loss" in values:
                steps.append(step)

    outcome = run_rounds(self_training(tmp_path), Listening())
    assert outcome.iterations == 18
    assert steps == [line["iteration"] for line in lines(outcome) if "loss" in line]
    assert steps == list(range(1, 19))
    assert 12 < outcome.best.iteration <= 18


def test_every_round_starts_from_other_weights_and_lasts_as_long_as_its_list(tmp_path, make_course):
    starts = []

    class Watching(stpp.SelfTraining):
        def prepare(self, network, another, facts):  # noqa: ARG002 - the protocol
            starts.append(network.head.classifier.weight.clone())
            return network

    method = Watching(stpp.Settings(label_scales=(1.0,), lengths=(3.0, 1.0, 1.0)))
    course = make_course(
        method, tmp_path, needs=stpp.NEEDS, iterations=None, epochs=2, selection="val"
    )
    outcome = run_rounds(course, Silent())
    # Batches of two: 6 epochs of one labeled image, 2 of two stable images, 2 of five images.
    assert outcome.iterations == 6 * 1 + 2 * 1 + 2 * 2
    assert not any(torch.equal(starts[k], starts[j]) for k, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {2, 4, 6}),
        ({"iterations": 7}, {2, 4, 7}),
        # Of 8 epochs the models of epochs 2 and 5 are kept, and the last one.
        ({"iterations": None, "epochs": 8, "batch_labeled": 1}, {2, 5, 8}),
    ],
)
def test_the_models_of_one_and_two_thirds_of_the_first_round_are_kept(
    tmp_path, changes, expected, make_course
):
    planned = Round(kept=(Fraction(1, 3), Fraction(2, 3), Fraction(1)))

    class Keeping(Supervised):
        def rounds(self):
            return (planned,)

        def __call__(self, model, labeled, unlabeled, partner):
            twice = replace(
                labeled, image=labeled.image.repeat(2, 1, 1, 1), label=labeled.label.repeat(2, 1, 1)
            )
            return super().__call__(model, twice, unlabeled, partner)

    run_rounds(make_course(Keeping(), tmp_path, **changes), Silent())
    found = {int(path.stem.split("-")[1]) for path in tmp_path.glob("kept-*.safetensors")}
    assert found == expected


def test_a_schedule_that_cannot_run_is_refused(tmp_path, make_course):
    how = SelfLabels(share=0.5, scales=(1.0,), flip=False)

    class Wrong(Supervised):
        def __init__(self, *schedule):
            self.schedule = schedule

        def rounds(self):
            return self.schedule

    first = Wrong(Round(name="one", self_labels=how))
    with pytest.raises(ValueError, match="expected a round before it"):
        run_rounds(make_course(first, tmp_path / "first"), Silent())
    unkept = Wrong(Round(name="one"), Round(name="two", self_labels=how))
    with pytest.raises(ValueError, match="needs an earlier round with `kept` models"):
        run_rounds(make_course(unkept, tmp_path / "unkept"), Silent())


def test_every_method_of_one_round_works_in_the_cells_own_folder(build):
    for name in plugins.names("zspl.methods"):
        module = plugins.load("zspl.methods", name)
        schedule = module.build(module.Settings()).rounds()
        assert len({planned.name for planned in schedule}) == len(schedule)
        assert len(schedule) > 1 or schedule[0].name == ""
