"""What goes wrong in a training says so in one line and costs nothing that was computed.

Every case is the command `zspl run ...` on a small project; its stderr is what a user reads.
"""

import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from zspl.cli import main

tiny = runpy.run_path(str(Path(__file__).with_name("tiny_project.py")))
METHODS = {"supervised": {}, "unimatch": {"min_confidence": 0.3}, "stpp": {}}
DIVERGING = ("train.learning_rate=1.0e+6", "train.iterations=40")
WIDER = {**tiny["HEAD"], "width": 8}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The artifacts of `prepare`."""
    folder = tmp_path_factory.mktemp("prepared")
    params = tiny["write"](folder, tiny["values"](methods=METHODS))
    assert main(["run", "prepare", "--params", str(params)]) == 0
    return folder / "artifacts"


@pytest.fixture
def project(tmp_path, prepared, capsys, caplog, monkeypatch):
    monkeypatch.setenv("ZSPL_DEVICE", "cpu")
    monkeypatch.setenv("ZSPL_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    return tiny["Project"](
        tmp_path / "project", prepared, methods=METHODS, capsys=capsys, caplog=caplog
    )


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("method", ["supervised", "unimatch"])
def test_a_run_that_diverges_stops_and_keeps_the_last_good_checkpoint(project, method):
    line = project.refused("train", method, *DIVERGING)
    where = f"zspl: train {method}/tiny/labeled_20/seed-0: the loss is nan at iteration 3 of 40"
    assert line == (
        f"{where}; lower train.learning_rate or train.head_multiplier (the last good checkpoint "
        f"stays in artifacts/.work/train/{method}/tiny/labeled_20/seed-0 until other settings "
        "train anew)"
    )
    assert project.steps(method) == 2
    assert not project.cell(method).exists()
    assert project.refused("train", method, *DIVERGING) == line


def test_a_run_that_diverges_at_once_promises_no_checkpoint(project):
    line = project.refused("train", "supervised", "train.learning_rate=1.0e+30")
    assert "the loss is nan at iteration 1 of 6; lower train.learning_rate" in line
    assert line.endswith("(there was no checkpoint yet)")
    assert not (project.work("supervised") / "checkpoint.pt").exists()


def test_a_run_that_diverges_leaves_the_finished_one_of_other_settings(project):
    assert project.run("train", "supervised")[0] == 0
    finished = content(project.cell("supervised"))
    project.refused("train", "supervised", *DIVERGING)
    assert content(project.cell("supervised")) == finished


def blot(path):
    """Replace a photo by one of floating numbers, one of which is none."""
    pixels = np.asarray(Image.open(path).convert("L")).astype(np.float32)
    pixels[3, 3] = np.nan
    Image.fromarray(pixels).save(path, format="TIFF")


def test_a_labeled_photo_that_is_no_number_is_named_before_the_first_step(project):
    image_id = project.list_of("labeled").read_text().split()[0]
    path = project.path(image_id)
    blot(path)
    line = project.refused("train", "supervised")
    assert line == (
        f"zspl: {path.relative_to(project.folder)}: image has mode F, expected 8 or 16 bits per "
        "channel; convert to 8 bit"
    )
    assert not list(project.work("supervised").glob("checkpoint*"))


def test_an_unlabeled_photo_that_is_no_number_is_named_and_once_mended_the_training_goes_on(
    project,
):
    assert project.run("train", "unimatch")[0] == 0
    undisturbed = content(project.cell("unimatch"))
    for image_id in project.list_of("unlabeled").read_text().split():
        path = project.path(image_id)
        good = path.read_bytes()
        blot(path)
        line = project.refused("train", "unimatch")
        assert line.startswith(f"zspl: {path.relative_to(project.folder)}: image has mode F")
        path.write_bytes(good)
        if (project.work("unimatch") / "checkpoint.pt").exists():
            break
    done = project.steps("unimatch")
    history = (project.work("unimatch") / "metrics.jsonl").read_text().splitlines()
    assert 2 <= done < 6
    assert len(history) >= done
    assert project.run("train", "unimatch")[0] == 0
    assert content(project.cell("unimatch")) == undisturbed


@pytest.mark.parametrize("method", ["supervised", "unimatch"])
def test_a_class_that_no_mask_shows_is_named_and_the_run_ends(project, method):
    for image_id in project.list_of("labeled").read_text().split():
        path = project.path(image_id, "label")
        with Image.open(path) as mask:
            label, palette = np.array(mask), mask.getpalette()
        label[label == 5] = 0
        new = Image.fromarray(label)
        new.putpalette(palette)
        new.save(path)
    name = json.loads((project.artifacts / "data" / "classes.json").read_text())["names"][5]
    code, lines, warnings = project.run("train", method)
    assert (code, lines) == (0, [])
    assert warnings == [
        f"split labeled_20: no mask of the 20 labeled image(s) shows {name!r}, so masks cannot "
        "teach it; take a larger split or a method with zero-shot labels"
    ]
    assert project.run("evaluate", method)[0] == 0


@pytest.mark.parametrize("method", ["supervised", "unimatch"])
def test_a_labeled_split_smaller_than_the_batch_is_said_and_the_run_ends(project, method):
    code, lines, warnings = project.run("train", method, "train.batch_labeled=24")
    assert (code, lines) == (0, [])
    assert warnings == [
        "split labeled_20: 20 labeled image(s) for a batch of 24, so a step meets an image more "
        "than once; lower train.batch_labeled or take a larger split"
    ]
    summary = json.loads((project.cell(method) / "summary.json").read_text())
    assert summary["iterations"] == 6


def test_a_labeled_split_smaller_than_the_batch_still_has_epochs(project):
    length = ("train.epochs=2", "train.iterations=null", "train.batch_labeled=24")
    assert project.run("train", "supervised", *length)[0] == 0
    summary = json.loads((project.cell("supervised") / "summary.json").read_text())
    assert summary["iterations"] == 2


@pytest.mark.parametrize("method", ["unimatch", "stpp"])
def test_an_empty_unlabeled_list_is_refused_by_a_method_that_reads_it(project, method):
    project.list_of("unlabeled").write_text("")
    assert project.refused("train", method) == (
        "zspl: split labeled_20: no unlabeled images, but the method reads them; check "
        "unlabeled.txt or choose another method"
    )
    assert project.run("train", "supervised")[:2] == (0, [])


def test_an_empty_labeled_list_is_refused(project):
    project.list_of("labeled").write_text("")
    assert "no labeled images, but the method reads them" in project.refused("train", "unimatch")


@pytest.mark.parametrize("method", ["supervised", "stpp"])
def test_a_checkpoint_of_another_architecture_in_the_work_folder_is_refused_and_kept(
    project, method
):
    project.refused("train", method, *DIVERGING)
    path = next(project.work(method).rglob("checkpoint.pt"))
    state = torch.load(path, weights_only=True)
    expected = tuple(state["model"]["head.classifier.weight"].shape)
    state["model"]["head.classifier.weight"] = torch.zeros(11, 9, 1, 1)
    torch.save(state, path)
    before = content(path.parent)
    assert project.refused("train", method, *DIVERGING) == (
        f"zspl: {path.relative_to(project.folder)}: is of another model or version "
        f"(head.classifier.weight has shape (11, 9, 1, 1), expected {expected}); delete the file "
        "to train from the start"
    )
    assert content(path.parent) == before
    path.unlink()
    assert "the loss is nan at iteration 3 of 40" in project.refused("train", method, *DIVERGING)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "not a readable checkpoint; delete the file to train"),
        ({"model": {}}, "holds no state of a training, expected iteration, seconds"),
        ([1, 2], "holds no state of a training, expected iteration, seconds"),
    ],
    ids=["torn", "no checkpoint", "no mapping"],
)
def test_a_damaged_checkpoint_in_the_work_folder_is_refused(project, state, message):
    project.refused("train", "supervised", *DIVERGING)
    path = project.work("supervised") / "checkpoint.pt"
    if state is None:
        path.write_bytes(path.read_bytes()[:100])
    else:
        torch.save(state, path)
    line = project.refused("train", "supervised", *DIVERGING)
    assert line.startswith(f"zspl: {path.relative_to(project.folder)}: {message}")


def test_another_model_in_params_yaml_starts_over_and_leaves_the_finished_cell_until_it_ends(
    project,
):
    assert project.run("train", "supervised")[0] == 0
    finished = content(project.cell("supervised"))
    project.change_model(head=WIDER)
    project.refused("train", "supervised", *DIVERGING)
    assert content(project.cell("supervised")) == finished
    assert project.run("train", "supervised")[0] == 0
    trained = load_file(project.cell("supervised") / "last.safetensors")
    assert trained["head.classifier.weight"].shape[1] == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: {**state, "head.more.weight": torch.zeros(2)},
            "(holds 1 tensor(s) too many (first: head.more.weight))",
        ),
        (
            lambda state: {k: v for k, v in state.items() if "backbone" in k},
            "(lacks 44 of 98 tensors (first: head.aspp.branches.0.0.weight))",
        ),
        (
            lambda state: {**state, "head.classifier.bias": torch.zeros(7)},
            "(head.classifier.bias has shape (7,), expected (11,))",
        ),
    ],
    ids=["too many", "too few", "another shape"],
)
def test_evaluate_refuses_a_best_model_of_another_architecture_and_keeps_the_scores(
    project, change, message
):
    assert project.run("train", "supervised")[0] == 0
    assert project.run("evaluate", "supervised")[0] == 0
    scores = project.artifacts / "scores" / "cells" / "supervised" / "tiny" / "labeled_20"
    before = content(scores / "seed-0" / "predictions" / "best")
    metrics = (scores / "seed-0" / "metrics.json").read_bytes()
    best = project.cell("supervised") / "best.safetensors"
    state = load_file(best)
    save_file(change(state), best)
    assert project.refused("evaluate", "supervised") == (
        f"zspl: {best.relative_to(project.folder)}: does not fit compact + deeplabv3plus with 11 "
        f"classes {message}; train the cell again, or name the model it is of"
    )
    assert (scores / "seed-0" / "metrics.json").read_bytes() == metrics
    assert content(scores / "seed-0" / "predictions" / "best") == before
    save_file(state, best)
    assert project.run("evaluate", "supervised")[0] == 0


def test_evaluate_refuses_a_torn_best_model(project):
    assert project.run("train", "supervised")[0] == 0
    best = project.cell("supervised") / "best.safetensors"
    best.write_bytes(best.read_bytes()[:50])
    line = project.refused("evaluate", "supervised")
    assert line.startswith(f"zspl: {best.relative_to(project.folder)}: not a readable checkpoint (")
    assert line.endswith("; fetch or make it again")


def mobilenet(pretrained):
    return {"backbone": {"name": "mobilenetv2_100", "pretrained": pretrained}}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            mobilenet("trained.safetensors"),
            "lacks 255 of 306 tensors of this backbone (first: conv_stem.weight); it is a "
            "checkpoint of another network (zspl's own checkpoint), choose the backbone and the "
            "settings that fit",
        ),
        (
            {"head": {**WIDER, "pretrained": "trained.safetensors"}},
            "aspp.branches.0.0.weight of the head has shape (6, 6, 1, 1), expected (8, 6, 1, 1); it"
            " is a checkpoint of another network (zspl's own checkpoint), choose the head and the "
            "settings that fit",
        ),
        (
            mobilenet("nowhere.pth"),
            "no such checkpoint; put the file there, or point ZSPL_WEIGHTS at the folder that "
            "holds it",
        ),
    ],
    ids=["backbone", "head", "missing"],
)
def test_pretrained_weights_of_another_architecture_are_refused_before_a_step(
    project, parts, message
):
    assert project.run("train", "supervised")[0] == 0
    finished = content(project.cell("supervised"))
    weights = project.folder.parent / "weights"
    shutil.copy(project.cell("supervised") / "best.safetensors", weights / "trained.safetensors")
    project.change_model(**parts)
    name = next(part["pretrained"] for part in parts.values())
    assert project.refused("train", "supervised") == f"zspl: {weights / name}: {message}"
    assert not (project.work("supervised") / "checkpoint.pt").exists()
    assert content(project.cell("supervised")) == finished
