import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from zspl import inference, plugins
from zspl.errors import DataError, SettingsError, WeightsError, ZsplError
from zspl.io.classes import ClassTable
from zspl.io.images import read_image, write_confidence, write_label
from zspl.io.layout import Cell, Layout
from zspl.io.records import read_records, write_records
from zspl.io.splits import write_split
from zspl.methods import needs, supervised
from zspl.metrics import ConfusionMatrix
from zspl.observer import Silent
from zspl.records import ImageRecord, Split, StepLoss
from zspl.settings import Evaluate, Settings
from zspl.stages import train

METHODS = plugins.names("zspl.methods")
FILES = ["best.safetensors", "last.safetensors", "metrics.jsonl", "model.json", "summary.json"]


class KilledError(Exception):
    """Stands for a kill at an arbitrary moment."""


class KillAt(Silent):
    """Interrupts a training when it reports an iteration."""

    def __init__(self, iteration):
        self.iteration = iteration

    def metrics(self, values, *, step=None):  # noqa: ARG002 - the Observer protocol
        if step == self.iteration:
            raise KilledError


class Counting(Silent):
    """Remembers which iterations were trained."""

    def __init__(self):
        self.steps = []

    def metrics(self, values, *, step=None):
        if step is not None and "loss" in values:
            self.steps.append(step)


def settings(out, **changes):
    tiny = {"name": "compact", "widths": (4, 4, 6, 6)}
    head = {"name": "deeplabv3plus", "width": 6, "low_width": 4, "dilations": (2,)}
    recipe = {
        "crop_size": 24,
        "scale_range": (0.8, 1.2),
        "batch_labeled": 2,
        "batch_unlabeled": 2,
        "cutmix_partner": "same_image",
        "views": "pillow",
        "accumulate": 1,
        "precision": "float32",
        "epochs": None,
        "iterations": 6,
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "head_multiplier": 1.0,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "poly_power": 0.9,
        "evaluate_every": 2,
        "checkpoint_every": 2,
        "selection": "holdout",
        "methods": {**{name: {} for name in METHODS}, "unimatch": {"min_confidence": 0.3}},
        "models": {"tiny": {"backbone": tiny, "head": head}},
    }
    labeler = {"name": "from_folder"}
    fake = {"proposals": "none", "features": "none", "labeler": labeler}
    return Settings.model_validate(
        {
            "benchmark": "test",
            "seed": 0,
            "threads": 1,
            "paths": {"source": "x", "out": str(out), "code": "."},
            "prepare": {
                "dataset": {"name": "toyworld"},
                "splits": ["few", "alone", "strange"],
                "shards": [0],
                "holdout": 0.2,
                "annotate_val": False,
            },
            "propose": {},
            "embed": {},
            "embed_segments": {},
            "label": {"calibration_split": "few", "variants": {"fake": fake}},
            "cells": {
                "methods": ["supervised", "unimatch"],
                "label_methods": ["enhanced"],
                "labels": ["fake"],
                "models": ["tiny"],
                "splits": ["few"],
                "seeds": [0],
            },
            "train": {**recipe, **changes},
            "evaluate": {"window": None, "scales": [1.0], "flip": False},
            "tabulate": {"checkpoint": "best", "published": None},
        }
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Eight photos of a bright square on a dark ground, with masks and pseudo labels."""
    out = tmp_path_factory.mktemp("world")
    layout, draw, records = Layout(out), np.random.default_rng(0), []
    layout.labels("fake").mkdir(parents=True)
    for name in "abcdefgh":
        label = np.zeros((30, 34), np.uint8)
        top, left = draw.integers(0, 15, 2)
        label[top : top + 14, left : left + 14] = 1
        pixels = np.where(label[..., None] == 1, 220, 40) + draw.integers(0, 30, (30, 34, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(out / f"{name}.jpg")
        write_label(out / f"{name}.png", label)
        write_label(layout.labels("fake") / f"{name}.png", label)
        sure = draw.uniform(0.5, 1, label.shape)
        write_confidence(layout.labels("fake") / f"{name}.confidence.png", sure)
        records.append(
            ImageRecord(
                image_id=name,
                image_path=out / f"{name}.jpg",
                label_path=out / f"{name}.png",
                digest=name,
            )
        )
    write_records(layout.records, records)
    ClassTable.plain(("background", "square"), prompts=("square",)).write(layout.classes)
    parts = {"labeled": ("a",), "holdout": ("b",), "unlabeled": tuple("cdef"), "val": ("g", "h")}
    write_split(layout.split("few"), Split(name="few", **parts))
    write_split(layout.split("alone"), Split(name="alone", **{**parts, "unlabeled": ()}))
    write_split(layout.split("strange"), Split(name="strange", **{**parts, "val": ("z",)}))
    return out


def run(world, method, *, observer=None, split="few", seed=0, seen=None, **changes):
    labels = "fake" if "labels" in needs(method) else None
    train.run(
        settings(world, **changes).model_copy(update={"evaluate": seen} if seen else {}),
        observer or Silent(),
        method=method,
        model="tiny",
        split=split,
        seed=seed,
        labels=labels,
    )
    return Layout(world).cell(
        Cell(method=method, labels=labels, model="tiny", split=split, seed=seed)
    )


def weights(folder):
    return [(folder / name).read_bytes() for name in ("best.safetensors", "last.safetensors")]


@pytest.mark.parametrize("method", METHODS)
def test_a_training_killed_twice_ends_like_an_undisturbed_one(world, method):
    folder = run(world, method)
    undisturbed, history = weights(folder), (folder / "metrics.jsonl").read_text()
    for moment in (3, 5):
        with pytest.raises(KilledError):
            run(world, method, observer=KillAt(moment))
    folder = run(world, method)
    assert weights(folder) == undisturbed
    assert (folder / "metrics.jsonl").read_text() == history


def gates(**chosen):
    """Return the changes of the recipe that set gates of `enhanced`."""
    return {"methods": {"enhanced": chosen}}


def test_a_training_with_every_gate_killed_twice_ends_like_an_undisturbed_one(world):
    every = gates(
        min_zero_shot_confidence=0.6,
        min_precision=0.9,
        agreement=2,
        final_zero_shot_weight=0.1,
        teacher_ratio=0.9,
        smoothing=0.1,
    )
    folder = run(world, "enhanced", **every)
    undisturbed, history = weights(folder), (folder / "metrics.jsonl").read_text()
    for moment in (3, 5):
        with pytest.raises(KilledError):
            run(world, "enhanced", observer=KillAt(moment), **every)
    folder = run(world, "enhanced", **every)
    assert weights(folder) == undisturbed
    assert (folder / "metrics.jsonl").read_text() == history
    plain = load_file(run(world, "paper") / "last.safetensors")
    assert load_file(folder / "last.safetensors").keys() == plain.keys()


def test_with_gates_open_a_cell_of_enhanced_is_one_of_the_paper_s(world):
    assert weights(run(world, "enhanced")) == weights(run(world, "paper"))


def test_every_gate_changes_a_cell(world):
    found = [
        weights(run(world, "enhanced", **gates(smoothing=0.1, **chosen)))[1]
        for chosen in (
            {},
            {"min_zero_shot_confidence": 0.8},
            {"min_precision": 1.0, "min_zero_shot_confidence": 0.9},
            {"agreement": 1},
            {"final_zero_shot_weight": 0.0},
            {"counted": "all", "agreement": 1},
            {"teacher_ratio": 0.9},
        )
    ]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("name", ["a.confidence.png", "a.png", "c.confidence.png"])
def test_what_a_gate_reads_and_is_missing_is_named_before_training(world, name):
    path = Layout(world).labels("fake") / name
    path.rename(world / "away.png")
    try:
        with pytest.raises(DataError, match=name.replace(".", r"\.")) as caught:
            run(world, "enhanced", **gates(min_precision=0.9))
        run(world, "paper")
    finally:
        (world / "away.png").rename(path)
    assert "\n" not in str(caught.value)


def test_a_cell_leaves_two_models_a_history_and_a_summary(world):
    folder = run(world, "enhanced")
    assert sorted(path.name for path in folder.iterdir()) == FILES
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["iterations"] == 6
    assert summary["selection"] == "holdout"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    scores = {line["iteration"]: line["holdout_miou"] for line in lines if "holdout_miou" in line}
    assert sorted(scores) == [2, 4, 6]
    assert summary["best_selection_miou"] == max(scores.values())
    assert scores[summary["best_iteration"]] == max(scores.values())
    told = {"zero_shot_share", "disagreement", "class_drift"}
    assert all(told <= line.keys() for line in lines if "loss" in line)


def test_a_cell_of_several_rounds_counts_them_all_and_tells_which_images_were_stable(world):
    folder = run(world, "stpp")
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "stability.json"])
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["iterations"] == 18
    assert 12 < summary["best_iteration"] <= 18
    assert sorted(json.loads((folder / "stability.json").read_text())) == list("cdef")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line["iteration"] for line in lines if "loss" in line]
    assert steps == list(range(1, 19))
    assert not list(Layout(world).work("train", "stpp").rglob("*.*"))


def test_a_cell_of_two_networks_leaves_the_one_that_is_evaluated(world):
    folder = run(world, "cps")
    section = settings(world).train.models["tiny"]
    one = load_file(run(world, "supervised") / "last.safetensors")
    assert load_file(folder / "last.safetensors").keys() == one.keys()
    inference.load_model(section, folder / "last.safetensors", num_classes=2)


def test_another_seed_gives_other_weights_and_the_same_seed_the_same(world):
    first = weights(run(world, "supervised", selection="last"))
    again = weights(run(world, "supervised", selection="last"))
    other = weights(run(world, "supervised", selection="last", seed=1))
    assert first == again != other


def test_loading_processes_change_no_bit(world, monkeypatch):
    alone = weights(run(world, "unimatch", iterations=2, selection="last"))
    monkeypatch.setenv("ZSPL_WORKERS", "1")
    assert weights(run(world, "unimatch", iterations=2, selection="last")) == alone


def test_without_a_selection_the_last_model_is_the_best(world):
    best, last = weights(run(world, "supervised", selection="last"))
    assert best == last


def seen(**how):
    return Evaluate.model_validate({"window": None, "scales": (1.0,), "flip": False, **how})


def test_the_selection_looks_through_the_windows_of_evaluate(world):
    folder = run(world, "supervised", iterations=40, evaluate_every=40, seen=seen(window=16))
    model = inference.load_model(
        settings(world).train.models["tiny"], folder / "best.safetensors", num_classes=2
    )
    record = read_records(Layout(world).records)["b"]
    scores = {}
    for window in (None, 16):
        matrix = ConfusionMatrix(2)
        label = inference.predictor(model, window=window)(read_image(record.image_path))
        matrix.update(label, np.array(Image.open(record.label_path)))
        scores[window] = matrix.compute().miou
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["best_selection_miou"] == scores[16] != scores[None]


def test_sizes_and_mirror_images_of_evaluate_take_part_in_no_training(world):
    with pytest.raises(KilledError):
        run(world, "supervised", observer=KillAt(5))
    ours = seen(scales=(0.5, 1.0), flip=True)
    counted = Counting()
    folder = run(world, "supervised", observer=counted, seen=ours)
    assert counted.steps == [5, 6]
    found = weights(folder), (folder / "summary.json").read_text()
    folder = run(world, "supervised")
    assert found == (weights(folder), (folder / "summary.json").read_text())


def test_a_training_that_was_selected_through_other_windows_is_not_continued(world):
    with pytest.raises(KilledError):
        run(world, "supervised", observer=KillAt(5))
    counted = Counting()
    run(world, "supervised", observer=counted, seen=seen(window=16))
    assert counted.steps == [1, 2, 3, 4, 5, 6]


def test_an_epoch_passes_over_the_list_that_the_method_draws_from(world):
    changes = {"iterations": None, "epochs": 3, "selection": "last"}
    for method, expected in (("supervised", 3), ("unimatch", 6)):
        summary = json.loads((run(world, method, **changes) / "summary.json").read_text())
        assert summary["iterations"] == expected


def test_changed_settings_do_not_continue_an_old_training(world):
    with pytest.raises(KilledError):
        run(world, "supervised", observer=KillAt(5))
    changed = weights(run(world, "supervised", learning_rate=0.01))
    assert changed == weights(run(world, "supervised", learning_rate=0.01))


def test_a_loss_that_is_not_finite_stops_with_one_line_and_keeps_the_checkpoint(world, monkeypatch):
    calls = []

    class Diverging(supervised.Supervised):
        def __call__(self, model, labeled, unlabeled, partner):
            calls.append(1)
            loss = super().__call__(model, labeled, unlabeled, partner)
            return StepLoss(total=loss.total / (0 if len(calls) == 4 else 1))

    monkeypatch.setattr(supervised, "build", Diverging)
    with pytest.raises(ZsplError, match=r"the loss is inf at iteration 3 of 6") as error:
        run(world, "supervised", seed=7)
    assert "\n" not in str(error.value)
    work = Layout(world).work("train", "supervised", "tiny", "few", "seed-7")
    assert torch.load(work / "checkpoint.pt", weights_only=True)["iteration"] == 2


def test_a_method_that_reads_unlabeled_images_needs_some(world):
    with pytest.raises(DataError, match="split alone: no unlabeled images"):
        run(world, "unimatch", split="alone")
    run(world, "supervised", split="alone", iterations=1)


def test_a_split_id_without_an_image_is_named(world):
    with pytest.raises(DataError, match="split strange: no image 'z' in the records"):
        run(world, "supervised", split="strange")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "magic"}, r"method=magic is not in train\.methods\. Known: allspark"),
        ({"model": "huge"}, "model=huge is not in train.models"),
        ({"split": "many"}, "split=many is not in prepare.splits"),
        ({"labels": "fake"}, "method supervised reads no labels, got labels=fake"),
        ({"method": "enhanced"}, "method enhanced reads one of fake, got labels=None"),
        ({"method": "enhanced", "labels": "gem"}, "labels=gem is not in label.variants"),
    ],
)
def test_an_instance_that_does_not_exist_is_refused_before_anything_is_read(
    tmp_path, changes, message
):
    instance = {"method": "supervised", "model": "tiny", "split": "few", "seed": 0, **changes}
    with pytest.raises(SettingsError, match=message):
        train.run(settings(tmp_path), Silent(), **instance)


def test_missing_data_names_the_stage_to_run(tmp_path):
    with pytest.raises(DataError, match=r"records.jsonl: no such file; run the stage prepare"):
        run(tmp_path, "supervised")


def test_a_trained_cell_predicts_at_the_original_size(world):
    folder = run(world, "supervised", iterations=40, selection="last")
    section = settings(world).train.models["tiny"]
    model = inference.load_model(section, folder / "last.safetensors", num_classes=2)
    record = read_records(Layout(world).records)["h"]
    prediction = inference.predict(model, read_image(record.image_path))
    truth = torch.from_numpy(np.array(Image.open(record.label_path)))
    assert prediction.shape == (30, 34)
    assert (prediction == truth).float().mean() > 0.8
    assert not model.training


def test_a_checkpoint_of_another_model_is_refused_in_one_line(world, tmp_path):
    folder = run(world, "supervised", selection="last")
    section = settings(world).train.models["tiny"]
    with pytest.raises(WeightsError, match="does not fit compact") as error:
        inference.load_model(section, folder / "last.safetensors", num_classes=5)
    assert "\n" not in str(error.value)
    with pytest.raises(WeightsError, match="no such checkpoint"):
        inference.load_model(section, tmp_path / "x.safetensors", num_classes=2)
    assert load_file(folder / "last.safetensors")
