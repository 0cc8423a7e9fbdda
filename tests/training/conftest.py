"""A tiny cell: seven photos of a square, a small network, and a way to kill its training."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from zspl import models
from zspl.io.classes import ClassTable
from zspl.io.images import write_label
from zspl.observer import Silent
from zspl.records import ImageRecord, Split
from zspl.settings import Train
from zspl.training.rounds import Course, run_rounds
from zspl.training.selection import Selection

UNLABELED = tuple("bcdef")


class KilledError(Exception):
    """Stands for a kill at an arbitrary moment."""


class KillAt(Silent):
    """Interrupts a training when it reports an iteration."""

    def __init__(self, iteration):
        self.iteration = iteration

    def metrics(self, values, *, step=None):  # noqa: ARG002 - the Observer protocol
        if step == self.iteration:
            raise KilledError


def _recipe(**changes):
    values = {
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
        "evaluate_every": 3,
        "checkpoint_every": 2,
        "selection": "val",
        "methods": {},
        "models": {},
    }
    return Train.model_validate({**values, **changes})


TINY = {
    "backbone": {"name": "compact", "widths": (4, 4, 6, 6)},
    "head": {"name": "deeplabv3plus", "width": 6, "low_width": 4, "dilations": (2,)},
}


def build_tiny():
    return models.build(**TINY, num_classes=2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Write seven photos of a bright square on a dark ground, with masks."""
    folder, draw, records = tmp_path_factory.mktemp("photos"), np.random.default_rng(0), {}
    for name in ("a", *UNLABELED, "g"):
        label = np.zeros((28, 30), np.uint8)
        top, left = draw.integers(0, 14, 2)
        label[top : top + 14, left : left + 14] = 1
        pixels = np.where(label[..., None] == 1, 220, 40) + draw.integers(0, 30, (28, 30, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{name}.png")
        write_label(folder / "masks" / f"{name}.png", label)
        records[name] = ImageRecord(
            image_id=name,
            image_path=folder / f"{name}.png",
            label_path=folder / "masks" / f"{name}.png",
            digest="",
        )
    return records


def _course(method, photos, folder, *, needs=frozenset({"labeled"}), **changes):
    table = ClassTable.plain(("ground", "square"), prompts=("square",))
    split = Split(name="few", labeled=("a",), holdout=(), unlabeled=UNLABELED, val=("g",))
    return Course(
        name="test",
        recipe=_recipe(**changes),
        seed=0,
        method=method,
        needs=needs,
        records=photos,
        split=split,
        table=table,
        pseudo_labels=None,
        selection=Selection(name="val", records=[photos["g"]], table=table),
        folder=folder,
        workers=0,
        build=build_tiny,
    )


@pytest.fixture
def make_course(photos):
    """Return a function (method, folder, needs, changes of the recipe) -> Course."""

    def make(method, folder, **changes):
        return _course(method, photos, folder, **changes)

    return make


@pytest.fixture
def tiny():
    """Return the section of `train.models` of the cell's network."""
    return TINY


@pytest.fixture
def build():
    """Return what builds the cell's network."""
    return build_tiny


@pytest.fixture
def killed_at():
    """Return a function that runs a course up to a reported iteration, where it is killed."""

    def run(course, *, iteration):
        with pytest.raises(KilledError):
            run_rounds(course, KillAt(iteration))

    return run


def _lines(outcome):
    text = "".join(path.read_text() for path in outcome.histories)
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def lines():
    """Return what reads the histories of an outcome."""
    return _lines


@pytest.fixture
def assert_same():
    """Return a function that compares two outcomes bit by bit."""

    def compare(one, other):
        pairs = ((one.last, other.last), (one.best.model, other.best.model))
        for ours, theirs in pairs:
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        assert one.best.iteration == other.best.iteration
        assert _lines(one) == _lines(other)

    return compare
