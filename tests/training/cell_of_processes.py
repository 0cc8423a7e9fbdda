"""One process's share of the training of a tiny cell, for the tests of several processes.

torchrun starts it as `cell_of_processes.py <folder> <plan as JSON>`.
"""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from zspl import models, plugins
from zspl.io import processes
from zspl.io.classes import ClassTable
from zspl.io.images import write_label
from zspl.observer import Silent
from zspl.records import ImageRecord, Split
from zspl.settings import Train
from zspl.training import checkpoints
from zspl.training.rounds import Course, run_rounds
from zspl.training.selection import Selection

NAMES = "abcdefghij"
SPLIT = Split(
    name="few", labeled=tuple("ab"), holdout=(), unlabeled=tuple("cdefg"), val=tuple("hij")
)
TABLE = ClassTable.plain(("ground", "square"), prompts=("square",))


class KillsAt(Silent):
    """Ends its process as `kill -9` does when a step is reported."""

    def __init__(self, iteration):
        self.iteration = iteration

    def metrics(self, values, *, step=None):
        if step == self.iteration and "loss" in values:
            os.kill(os.getpid(), signal.SIGKILL)


def write_photos(folder):
    """Write ten photos of a bright square on a dark ground, with masks and void borders."""
    draw, records = np.random.default_rng(0), {}
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        label = np.zeros((28, 30), np.uint8)
        top, left, void = draw.integers(0, 14, 3)
        label[top : top + 14, left : left + 14] = 1
        label[:void] = 255
        pixels = np.where(label[..., None] == 1, 220, 40) + draw.integers(0, 30, (28, 30, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{name}.png")
        write_label(folder / "masks" / f"{name}.png", label)
    return records


def read_photos(folder):
    return {
        name: ImageRecord(
            image_id=name,
            image_path=folder / f"{name}.png",
            label_path=folder / "masks" / f"{name}.png",
            digest="",
        )
        for name in NAMES
    }


def network(batch_norm):
    made = models.build(
        backbone={"name": "compact", "widths": (4, 4, 6, 6)},
        head={"name": "deeplabv3plus", "width": 6, "low_width": 4, "dilations": (2,)},
        num_classes=2,
    )
    for parent in [] if batch_norm else list(made.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.GroupNorm(1, child.num_features))
    return made


def recipe(changes):
    values = {
        "crop_size": 24,
        "scale_range": (0.8, 1.2),
        "batch_labeled": 8,
        "batch_unlabeled": 4,
        "cutmix_partner": "same_image",
        "views": "pillow",
        "accumulate": 1,
        "precision": "float32",
        "epochs": None,
        "iterations": 4,
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "head_multiplier": 1.0,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "poly_power": 0.9,
        "evaluate_every": 2,
        "checkpoint_every": 2,
        "selection": "val",
        "methods": {},
        "models": {},
    }
    return Train.model_validate({**values, **changes})


def run(folder, plan):
    """Train in `folder`/`plan.name` and leave there weights and numbers, written by one process."""
    module = plugins.load("zspl.methods", plan["method"])
    records, work = read_photos(folder / "photos"), folder / plan["name"]
    torch.set_num_threads(1)
    with processes.joined():
        course = Course(
            name=plan["name"],
            recipe=recipe(plan.get("recipe", {})),
            seed=0,
            method=module.build(module.Settings(**plan.get("settings", {}))),
            needs=module.NEEDS,
            records=records,
            split=SPLIT,
            table=TABLE,
            pseudo_labels=folder / "photos" / "masks",
            selection=Selection(name="val", records=[records[k] for k in SPLIT.val], table=TABLE),
            folder=work,
            workers=0,
            build=lambda: network(plan.get("batch_norm", False)),
        )
        killed = plan.get("killed")
        outcome = run_rounds(course, Silent() if killed is None else KillsAt(killed))
        checkpoints.save_weights(work / f"last-of-{processes.rank()}.safetensors", outcome.last)


def run_as(environment, folder, plan):
    """Run in a new process, with the environment that torchrun would give it."""
    os.environ.update(environment)
    run(folder, plan)


if __name__ == "__main__":
    run(Path(sys.argv[1]), json.loads(sys.argv[2]))
