import logging
from dataclasses import replace

import pytest
import torch
from torch import nn

from zspl import plugins
from zspl.errors import WeightsError, ZsplError
from zspl.io.classes import ClassTable
from zspl.io.images import write_label
from zspl.methods import Method
from zspl.observer import Silent
from zspl.records import Split, StepLoss
from zspl.training import checkpoints, inputs
from zspl.training.health import Drift, check_weights
from zspl.training.rounds import run_rounds

NAMES = ("ground", "boat", "bird")
GROUND_AND_BOAT = torch.tensor([0, 0, 0, 1] * 4).view(1, 4, 4)


def one_method(name, **settings):
    module = plugins.load("zspl.methods", name)
    return module.build(module.Settings(**settings))


def lines_of(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "zspl.training"]


def test_the_drift_is_half_the_difference_between_found_and_taught_shares():
    drift = Drift("x", NAMES)
    drift.update(GROUND_AND_BOAT, torch.tensor([6, 0, 2]))
    expected = (abs(6 / 8 - 3 / 4) + abs(0 - 1 / 4) + abs(2 / 8 - 0)) / 2
    assert drift.report(done=0.5) == {"class_drift": pytest.approx(expected)}


def test_the_drift_remembers_earlier_steps_a_hundredth_less_each():
    drift = Drift("x", NAMES)
    drift.update(GROUND_AND_BOAT, torch.tensor([8, 0, 0]))
    drift.update(GROUND_AND_BOAT, torch.tensor([0, 8, 0]))
    found = (0.99 * 8 / (1.99 * 8), 8 / (1.99 * 8))
    expected = (abs(found[0] - 3 / 4) + abs(found[1] - 1 / 4)) / 2
    assert drift.report(done=0.5)["class_drift"] == pytest.approx(expected)


def test_ignored_pixels_are_no_class_and_without_pseudo_labels_there_is_no_drift():
    drift = Drift("x", NAMES)
    assert drift.report(done=0.5) == {}
    drift.update(GROUND_AND_BOAT.masked_fill(GROUND_AND_BOAT == 1, 255), torch.tensor([5, 0, 0]))
    assert drift.report(done=0.5) == {"class_drift": 0.0}


def test_a_class_that_vanishes_is_named_once_until_it_has_come_back(caplog):
    drift = Drift("the cell", NAMES)

    def after(found, *, done=0.5, steps=600):
        caplog.clear()
        for _ in range(steps):
            drift.update(GROUND_AND_BOAT, torch.tensor(found))
        drift.report(done=done)
        return lines_of(caplog)

    with caplog.at_level(logging.WARNING):
        assert after([6, 2, 0], steps=1, done=0.01) == []
        assert after([6, 2, 0], steps=1) == []
        (line,) = after([8, 0, 0])
        assert "train the cell: the model has stopped finding 'boat' in unlabeled images" in line
        assert "bird" not in line
        assert after([8, 0, 0], steps=1) == []
        assert after([6, 2, 0]) == []
        assert len(after([8, 0, 0])) == 1


def test_the_drift_continues_from_a_checkpoint_bit_by_bit(caplog):
    one, two = Drift("x", NAMES), Drift("x", NAMES)
    one.update(GROUND_AND_BOAT, torch.tensor([6, 2, 0]))
    one.report(done=0.5)
    two.load_state_dict(one.state_dict())
    for drift in (one, two):
        for _ in range(600):
            drift.update(GROUND_AND_BOAT, torch.tensor([8, 0, 0]))
    with caplog.at_level(logging.WARNING):
        assert one.report(done=0.6) == two.report(done=0.6)
    assert len(lines_of(caplog)) == 2


def test_weights_that_are_not_finite_are_named():
    model = nn.Linear(2, 2)
    check_weights(model, where="here", stays="nothing stays")
    with torch.no_grad():
        model.bias[1] = float("nan")
    with pytest.raises(ZsplError, match=r"here: the weights bias are not .*\(nothing stays\)"):
        check_weights(model, where="here", stays="nothing stays")


class Bursting(Method):
    """Its loss is finite at every step, and its gradient is not at the fourth."""

    def at(self, moment):
        burst = Bursting()
        burst.now = moment.iteration == 3
        return burst

    def __call__(self, model, labeled, unlabeled, partner):  # noqa: ARG002 - the protocol
        model.train()
        logits = model(labeled.image)
        zero = logits.sum() * 0
        return StepLoss(total=logits.square().mean() + (zero.abs().sqrt() if self.now else 0))


def test_weights_that_burst_between_two_checkpoints_leave_the_last_good_one(tmp_path, make_course):
    with pytest.raises(ZsplError, match=r"iteration 4: the weights .* are not finite") as error:
        run_rounds(make_course(Bursting(), tmp_path), Silent())
    assert "\n" not in str(error.value)
    saved = torch.load(tmp_path / checkpoints.CHECKPOINT, weights_only=True)
    assert saved["iteration"] == 2
    assert all(v.isfinite().all() for v in saved["model"].values() if v.is_floating_point())


@pytest.mark.parametrize(
    ("method", "place", "message"),
    [
        ("supervised", "labeled", "image 'a' holds values that are not finite"),
        ("unimatch", "unlabeled", "image '[b-f]' holds values that are not finite"),
    ],
)
def test_an_image_that_is_no_number_is_named_and_the_checkpoint_stays(
    tmp_path, make_course, monkeypatch, method, place, message
):
    from zspl.data.loading import TrainingData

    load = TrainingData.load

    def with_a_hole(data, step, *rest, **more):
        labeled, unlabeled, partner = load(data, step, *rest, **more)
        if step == 3:
            crops = labeled.image if place == "labeled" else unlabeled.strong2
            crops[1, 2] = float("nan")
        return labeled, unlabeled, partner

    monkeypatch.setattr(TrainingData, "load", with_a_hole)
    needs = plugins.load("zspl.methods", method).NEEDS
    course = make_course(one_method(method), tmp_path, needs=needs)
    with pytest.raises(ZsplError, match=f"the loss is nan at iteration 3 of 6: {message}") as error:
        run_rounds(course, Silent())
    assert "\n" not in str(error.value)
    assert torch.load(tmp_path / checkpoints.CHECKPOINT, weights_only=True)["iteration"] == 2


@pytest.mark.parametrize("method", ["unimatch", "fixmatch", "cps"])
def test_a_method_whose_model_labels_images_reports_how_its_classes_drift(
    tmp_path, make_course, lines, method
):
    course = make_course(one_method(method), tmp_path, needs=frozenset({"labeled", "unlabeled"}))
    reported = [line for line in lines(run_rounds(course, Silent())) if "loss" in line]
    assert len(reported) == 6
    assert all(0 <= line["class_drift"] <= 1 for line in reported)


def test_a_class_in_no_mask_and_a_list_below_a_batch_are_said_in_a_line_each(
    photos, make_course, caplog
):
    recipe = make_course(one_method("supervised"), photos["a"].image_path.parent).recipe
    table = ClassTable.plain(("ground", "square", "boat"), prompts=("square", "boat"))
    split = Split(name="few", labeled=("a",), holdout=(), unlabeled=tuple("bc"), val=())
    with caplog.at_level(logging.WARNING):
        inputs.warn(split, photos, table, recipe, needs=frozenset({"labeled", "unlabeled"}))
    short, missing = lines_of(caplog)
    assert short.startswith("split few: 1 labeled image(s) for a batch of 2")
    assert missing.startswith("split few: no mask of the 1 labeled image(s) shows 'boat'")


def test_masks_are_read_until_every_class_was_seen(photos, tmp_path):
    table = ClassTable.plain(("ground", "square"), prompts=("square",))
    split = Split(name="few", labeled=("a", "b"), holdout=(), unlabeled=(), val=())
    assert inputs.missing_classes(split, photos, table) == ()
    blank = tmp_path / "blank.png"
    label = torch.zeros(28, 30, dtype=torch.uint8).numpy()
    write_label(blank, label)
    records = {key: replace(photos[key], label_path=blank) for key in "ab"}
    assert inputs.missing_classes(split, records, table) == ("square",)


def test_a_checkpoint_of_another_architecture_is_refused_in_one_line(tmp_path):
    small, large = nn.Linear(2, 2), nn.Linear(2, 3)
    optimisers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (small, large)]
    checkpoints.save(tmp_path, small, optimisers[0], checkpoints.Progress(iteration=1))
    with pytest.raises(WeightsError, match=r"checkpoint.pt: is of another model") as error:
        checkpoints.resume(tmp_path, large, optimisers[1])
    assert "\n" not in str(error.value)
    assert "delete the file" in str(error.value)
