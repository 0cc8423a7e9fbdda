import errno
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from zspl.errors import DataError, DiskError
from zspl.io.classes import ClassTable
from zspl.records import ImageRecord, Split
from zspl.settings import Train
from zspl.training import checkpoints
from zspl.training.checkpoints import Best, Progress
from zspl.training.history import History
from zspl.training.schedule import build_optimiser, poly_factor, set_learning_rate
from zspl.training.selection import choose


def recipe(**changes):
    values = {
        "crop_size": 16,
        "scale_range": (0.5, 2.0),
        "batch_labeled": 2,
        "batch_unlabeled": 2,
        "cutmix_partner": "same_image",
        "views": "pillow",
        "accumulate": 1,
        "precision": "float32",
        "epochs": None,
        "iterations": 4,
        "optimizer": "sgd",
        "learning_rate": 0.001,
        "head_multiplier": 10.0,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "poly_power": 0.9,
        "evaluate_every": 2,
        "checkpoint_every": 2,
        "selection": "last",
        "methods": {},
        "models": {},
    }
    return Train.model_validate({**values, **changes})


def network():
    torch.manual_seed(0)
    return nn.ModuleDict({"backbone": nn.Linear(2, 3), "head": nn.Linear(3, 2)})


def test_the_first_two_iterations_share_the_full_learning_rate():
    lr, rates = 0.001, []
    for t in range(104_880):
        rates.append(lr)
        lr = 0.001 * (1 - t / 104_880) ** 0.9  # set after the step of iteration t
    ours = [0.001 * poly_factor(t, total=104_880, power=0.9) for t in (0, 1, 2, 50_000, 104_879)]
    assert ours == pytest.approx([rates[t] for t in (0, 1, 2, 50_000, 104_879)], rel=1e-12)
    assert rates[0] == rates[1] == 0.001


def test_the_head_learns_faster_and_everything_decays():
    optimiser = build_optimiser(network(), recipe())
    assert [group["lr"] for group in optimiser.param_groups] == [0.001, 0.01]
    assert [len(group["params"]) for group in optimiser.param_groups] == [2, 2]
    assert {group["weight_decay"] for group in optimiser.param_groups} == {1e-4}
    assert {group["nesterov"] for group in optimiser.param_groups} == {False}
    set_learning_rate(optimiser, recipe(), factor=0.5)
    assert [group["lr"] for group in optimiser.param_groups] == [0.0005, 0.005]


def test_a_checkpoint_brings_back_model_momentum_and_best(tmp_path):
    model = network()
    optimiser = build_optimiser(model, recipe())
    model["head"](model["backbone"](torch.ones(1, 2))).sum().backward()
    optimiser.step()
    best = Best(iteration=3, score=0.5, model=checkpoints.snapshot(model))
    checkpoints.save(tmp_path, model, optimiser, Progress(iteration=4, seconds=1.5, best=best))
    other = network()
    other_optimiser = build_optimiser(other, recipe())
    progress = checkpoints.resume(tmp_path, other, other_optimiser)
    assert (progress.iteration, progress.seconds, progress.best.score) == (4, 1.5, 0.5)
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)
        assert torch.equal(progress.best.model[key], value)
    state = other_optimiser.state_dict()["state"]
    assert torch.equal(
        state[0]["momentum_buffer"], optimiser.state_dict()["state"][0]["momentum_buffer"]
    )


def test_without_a_checkpoint_a_training_starts_at_iteration_zero(tmp_path):
    model = network()
    assert checkpoints.resume(tmp_path, model, build_optimiser(model, recipe())).iteration == 0


def test_a_damaged_checkpoint_is_named_in_one_line(tmp_path):
    (tmp_path / checkpoints.CHECKPOINT).write_bytes(b"torn")
    model = network()
    with pytest.raises(DataError, match=r"checkpoint.pt: not a readable checkpoint") as error:
        checkpoints.resume(tmp_path, model, build_optimiser(model, recipe()))
    assert "\n" not in str(error.value)


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path, monkeypatch):
    model = network()
    optimiser = build_optimiser(model, recipe())
    checkpoints.save(tmp_path, model, optimiser, Progress(iteration=1))

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(tmp_path, model, optimiser, Progress(iteration=2))
    assert checkpoints.resume(tmp_path, model, optimiser).iteration == 1


def test_history_drops_a_torn_line_and_what_will_come_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    history = History(path, iteration=0)
    for iteration in (1, 2, 3):
        history.add({"loss": float(iteration)}, iteration=iteration)
    with path.open("a") as file:
        file.write('{"iteration": 4, "lo')
    History(path, iteration=2).add({"loss": 9.0}, iteration=3)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["iteration"], line["loss"]) for line in lines] == [(1, 1), (2, 2), (3, 9)]


def test_history_is_rewritten_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    History(path, iteration=0).add({"loss": 1.0}, iteration=1)
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskError, match="no disk space left"):
        History(path, iteration=1)
    assert path.read_bytes() == before


def test_a_full_disk_is_one_line_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    model = network()
    optimiser = build_optimiser(model, recipe())
    checkpoints.save(tmp_path, model, optimiser, Progress(iteration=1))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskError, match="no disk space left"):
        checkpoints.save(tmp_path, model, optimiser, Progress(iteration=2))
    with pytest.raises(DiskError, match="no disk space left"):
        checkpoints.save_weights(tmp_path / "last.safetensors", model.state_dict())
    assert checkpoints.resume(tmp_path, model, optimiser).iteration == 1


def test_selection_takes_the_list_it_is_told_and_refuses_an_empty_one(tmp_path):
    table = ClassTable.plain(("background", "thing"), prompts=("thing",))
    split = Split(name="few", labeled=("a",), holdout=(), unlabeled=(), val=("b",))
    records = {
        image_id: ImageRecord(
            image_id=image_id, image_path=tmp_path / image_id, label_path=tmp_path / "m", digest=""
        )
        for image_id in "ab"
    }
    (tmp_path / "b").touch()
    with pytest.raises(DataError, match="m: no such mask"):
        choose("val", split, records=records, table=table)
    (tmp_path / "m").touch()
    chosen = choose("val", split, records=records, table=table)
    assert [record.image_id for record in chosen.records] == ["b"]
    assert choose("last", split, records=records, table=table).records == []
    with pytest.raises(DataError, match=r"split few: train.selection is holdout"):
        choose("holdout", split, records=records, table=table)
