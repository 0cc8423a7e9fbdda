from dataclasses import replace

import pytest
import torch

from zspl import plugins
from zspl.errors import SettingsError
from zspl.io import devices
from zspl.observer import Silent
from zspl.training import checkpoints
from zspl.training.health import Drift
from zspl.training.rounds import run_rounds
from zspl.training.step import build_learner

HALVES = ("bfloat16", "float16")


@pytest.fixture
def any_precision(monkeypatch):
    """Let this processor compute in half precision, however slowly."""
    known = {"auto": torch.float32, **{name: getattr(torch, name) for name in HALVES}}
    monkeypatch.setattr(devices, "dtype", lambda name: known.get(name, torch.float32))


def unimatch_course(make_course, folder, **changes):
    module = plugins.load("zspl.methods", "unimatch")
    method = module.build(module.Settings(min_confidence=0.3))
    return make_course(method, folder, needs=module.NEEDS, **changes)


def losses_of(lines):
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.usefixtures("any_precision")
@pytest.mark.parametrize("precision", HALVES)
def test_half_precision_trains_nearly_like_full(tmp_path, make_course, lines, precision):
    full = run_rounds(unimatch_course(make_course, tmp_path / "full"), Silent())
    half_course = unimatch_course(make_course, tmp_path / "half", precision=precision)
    half = run_rounds(half_course, Silent())
    ours, theirs = losses_of(lines(half)), losses_of(lines(full))
    assert ours[0] == pytest.approx(theirs[0], rel=0.02)
    assert ours != theirs
    assert all(v.dtype != getattr(torch, precision) for v in half.last.values())


@pytest.mark.usefixtures("any_precision")
def test_a_teacher_without_gradient_takes_none_from_the_student(tmp_path, make_course, build):
    """Its casts of the weights would carry no gradient if they were used again."""
    changes = {"precision": "bfloat16", "iterations": 1, "weight_decay": 0.0}
    network = build()
    start = {key: value.clone() for key, value in network.state_dict().items()}
    course = unimatch_course(make_course, tmp_path, **changes)
    course = replace(course, build=lambda: network)
    last = run_rounds(course, Silent()).last
    still = [key for key, _ in network.named_parameters() if torch.equal(last[key], start[key])]
    assert still == []


@pytest.mark.usefixtures("any_precision")
@pytest.mark.parametrize("precision", HALVES)
def test_a_killed_training_in_half_precision_continues_bit_by_bit(
    tmp_path, make_course, killed_at, assert_same, precision
):
    undisturbed = run_rounds(
        unimatch_course(make_course, tmp_path / "one", precision=precision), Silent()
    )
    course = unimatch_course(make_course, tmp_path / "two", precision=precision)
    for moment in (3, 5):
        killed_at(course, iteration=moment)
    assert_same(run_rounds(course, Silent()), undisturbed)


@pytest.mark.usefixtures("any_precision")
def test_the_scale_of_float16_gradients_is_in_the_checkpoint(tmp_path, make_course):
    recipe = unimatch_course(make_course, tmp_path, precision="float16").recipe
    model = torch.nn.Linear(2, 2)

    def learner():
        return build_learner(model, recipe, Drift("x", ("a", "b")))

    one, two = learner(), learner()
    # Two overflows halve the scale twice.
    for _ in range(2):
        model.weight.grad = torch.full_like(model.weight, float("inf"))
        one.scaler.scale(torch.zeros(()))
        one.scaler.step(one.optimiser)
        one.scaler.update()
    assert one.scaler.get_scale() == two.scaler.get_scale() / 4
    checkpoints.save(
        tmp_path,
        model,
        one.optimiser,
        checkpoints.Progress(iteration=1),
        others={"scaler": one.scaler},
    )
    checkpoints.resume(tmp_path, model, two.optimiser, others={"scaler": two.scaler})
    assert two.scaler.get_scale() == one.scaler.get_scale()


def test_auto_is_full_precision_on_a_processor_bit_by_bit(
    tmp_path, make_course, assert_same, monkeypatch
):
    monkeypatch.setenv("ZSPL_DEVICE", "cpu")
    courses = [
        unimatch_course(make_course, tmp_path / precision, precision=precision)
        for precision in ("auto", "float32")
    ]
    assert_same(*(run_rounds(course, Silent()) for course in courses))


def test_a_processor_without_bfloat16_refuses_it_before_the_first_step(
    tmp_path, make_course, monkeypatch
):
    monkeypatch.setenv("ZSPL_DEVICE", "cpu")
    monkeypatch.setattr(devices, "_cpu_has", lambda _: False)
    course = unimatch_course(make_course, tmp_path, precision="bfloat16")
    with pytest.raises(SettingsError, match="bfloat16 but this CPU has neither"):
        run_rounds(course, Silent())
    assert not (tmp_path / checkpoints.CHECKPOINT).exists()


def test_no_processor_trains_in_float16(tmp_path, make_course, monkeypatch):
    monkeypatch.setenv("ZSPL_DEVICE", "cpu")
    with pytest.raises(SettingsError, match="float16, which no CPU computes fast"):
        run_rounds(unimatch_course(make_course, tmp_path, precision="float16"), Silent())
