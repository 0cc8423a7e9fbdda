import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zspl.errors import WeightsError
from zspl.inference import load_model
from zspl.methods import Ensemble, Facts, Method, deployed
from zspl.models.network import SegmentationNetwork
from zspl.observer import Silent
from zspl.records import StepLoss
from zspl.settings import Model
from zspl.training import checkpoints
from zspl.training.rounds import run_rounds


class Supervised(Method):
    """Cross-entropy on the labeled crops, by whatever network is trained."""

    def __call__(self, model, labeled, unlabeled, partner):  # noqa: ARG002 - the protocol
        model.train()
        logits = (model.student if isinstance(model, Averaged) else model)(labeled.image)
        return StepLoss(total=F.cross_entropy(logits, labeled.label, ignore_index=255))


class Averaged(Ensemble):
    """A student, and the running average of its weights, which is evaluated."""

    def __init__(self, student):
        super().__init__(copy.deepcopy(student).requires_grad_(False))
        self.student = student


class MeanTeacher(Supervised):
    """UniMatch V2's average of the weights, with ratio min(1 - 1 / (t + 1), 0.996)."""

    def prepare(self, network, another, facts):  # noqa: ARG002 - the protocol
        return Averaged(network)

    def after_step(self, model, moment):
        ratio = min(1 - 1 / (moment.iteration + 1), 0.996)
        pairs = zip(model.deployed.parameters(), model.student.parameters(), strict=True)
        for mean, new in pairs:
            mean.mul_(ratio).add_(new, alpha=1 - ratio)
        for mean, new in zip(model.deployed.buffers(), model.student.buffers(), strict=True):
            mean.copy_(new)


class OwnDecoder(Supervised):
    """Replaces the decoder by one convolution."""

    def adapt(self, network, facts):
        return SegmentationNetwork(network.backbone, OneConvolution(len(facts.class_names)))


class OneConvolution(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv = nn.Conv2d(4, classes, 1)

    def forward(self, features, size):
        return F.interpolate(self.conv(features[0]), size)


class Annealed(Supervised):
    """A method whose loss is scaled by how far the training is."""

    def __init__(self, seen, scale=1.0):
        self.seen, self.scale = seen, scale

    def at(self, moment):
        self.seen.append((moment.iteration, moment.total, moment.epoch))
        return Annealed(self.seen, scale=1 - moment.iteration / moment.total)

    def __call__(self, model, labeled, unlabeled, partner):
        loss = super().__call__(model, labeled, unlabeled, partner).total * self.scale
        return StepLoss(total=loss, parts={"scale": torch.tensor(self.scale)})


def test_what_a_method_trains_beside_the_network_is_in_no_finished_model(
    tmp_path, make_course, build
):
    outcome = run_rounds(make_course(MeanTeacher(), tmp_path), Silent())
    assert outcome.last.keys() == outcome.best.model.keys() == build().state_dict().keys()
    unfinished = torch.load(tmp_path / checkpoints.CHECKPOINT, weights_only=True)["model"]
    assert {key.split(".")[0] for key in unfinished} == {"deployed", "student"}
    learning = len(list(build().parameters()))
    state = torch.load(tmp_path / checkpoints.CHECKPOINT, weights_only=True)["optimiser"]["state"]
    assert len(state) == learning


def test_a_teacher_is_the_average_of_the_student_after_each_step(tmp_path, make_course):
    states = []

    class Watching(MeanTeacher):
        def after_step(self, model, moment):
            super().after_step(model, moment)
            states.append(copy.deepcopy(model.student.state_dict()))

    outcome = run_rounds(make_course(Watching(), tmp_path), Silent())
    key = "head.classifier.weight"
    mean = states[0][key]
    for step in range(1, 6):
        ratio = min(1 - 1 / (step + 1), 0.996)
        mean = mean * ratio + states[step][key] * (1 - ratio)
    torch.testing.assert_close(outcome.last[key], mean)
    assert not torch.equal(outcome.last[key], states[-1][key])


@pytest.mark.parametrize("method", [MeanTeacher(), OwnDecoder(), Annealed([])])
def test_a_killed_training_continues_whatever_the_method_changes(
    tmp_path, method, make_course, killed_at, assert_same
):
    undisturbed = run_rounds(make_course(method, tmp_path / "one"), Silent())
    course = make_course(method, tmp_path / "two")
    for moment in (3, 5):
        killed_at(course, iteration=moment)
    outcome = run_rounds(course, Silent())
    assert_same(outcome, undisturbed)


def test_a_method_can_replace_the_decoder_and_a_finished_model_loads_into_it(tmp_path, make_course):
    course = make_course(OwnDecoder(), tmp_path)
    outcome = run_rounds(course, Silent())
    assert "head.conv.weight" in outcome.last
    network = course.load(outcome.last)
    assert isinstance(network.head, OneConvolution)
    assert not network.training


def test_a_finished_model_with_its_own_decoder_is_loaded_through_the_method(
    tmp_path, make_course, tiny
):
    outcome = run_rounds(make_course(OwnDecoder(), tmp_path), Silent())
    path = tmp_path / "own.safetensors"
    checkpoints.save_weights(path, outcome.last)
    section = Model.model_validate(tiny)
    facts = Facts(class_names=("ground", "square"), crop_size=24)
    adapt = partial(OwnDecoder().adapt, facts=facts)
    loaded = load_model(section, path, num_classes=2, adapt=adapt)
    assert torch.equal(loaded.head.conv.weight, outcome.last["head.conv.weight"])
    with pytest.raises(WeightsError, match="does not fit compact"):
        load_model(section, path, num_classes=2)


def test_a_method_is_told_the_moment_of_every_step(tmp_path, make_course, lines):
    seen = []
    course = make_course(Annealed(seen), tmp_path, iterations=None, epochs=5)
    outcome = run_rounds(course, Silent())
    assert seen == [(t, 5, t) for t in range(5)]
    scales = [line["scale"] for line in lines(outcome) if "scale" in line]
    assert scales == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])


def test_what_is_neither_a_network_nor_an_ensemble_is_refused():
    with pytest.raises(TypeError, match="a SegmentationNetwork or an Ensemble, got Linear"):
        deployed(nn.Linear(1, 1))
