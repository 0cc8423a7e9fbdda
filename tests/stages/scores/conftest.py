"""A prepared data folder and settings with cells, for the stages that score."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zspl.io.classes import ClassTable
from zspl.io.images import write_label
from zspl.io.layout import Layout
from zspl.io.records import write_records
from zspl.io.splits import write_split
from zspl.records import ImageRecord, Split
from zspl.settings import Settings

NAMES = ("background", "cat", "dog")
VARIANT = {"proposals": "none", "features": "none", "labeler": {"name": "from_folder"}}


def cell_settings(out, **changes):
    """Return settings with two methods, one model, two splits and two seeds."""
    values = {
        "benchmark": "tiny",
        "seed": 0,
        "threads": 1,
        "paths": {"source": "nowhere", "out": str(out), "code": "."},
        "prepare": {
            "dataset": {"name": "pascal_voc"},
            "splits": ["few", "many"],
            "shards": [0],
            "holdout": 0.0,
            "annotate_val": True,
        },
        "propose": {},
        "embed": {},
        "embed_segments": {},
        "label": {"calibration_split": "few", "variants": {"ready": VARIANT}},
        "cells": {
            "methods": ["supervised"],
            "label_methods": ["enhanced"],
            "labels": ["ready"],
            "models": ["small"],
            "splits": ["few", "many"],
            "seeds": [0, 1],
        },
        "train": {
            "crop_size": 8,
            "scale_range": [1, 1],
            "batch_labeled": 1,
            "batch_unlabeled": 1,
            "cutmix_partner": "same_image",
            "views": "pillow",
            "accumulate": 1,
            "precision": "float32",
            "epochs": None,
            "iterations": 1,
            "optimizer": "sgd",
            "learning_rate": 0.1,
            "head_multiplier": 1,
            "momentum": 0,
            "weight_decay": 0,
            "poly_power": 1,
            "evaluate_every": 1,
            "checkpoint_every": 1,
            "selection": "val",
            "methods": {"supervised": {}, "enhanced": {}},
            "models": {
                name: {"backbone": {"name": name}, "head": {"name": name}}
                for name in ("small", "large")
            },
        },
        "evaluate": {"window": None, "scales": [1.0], "flip": False},
        "tabulate": {"checkpoint": "best", "published": None},
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        values[section][name] = value
    return Settings.model_validate(values)


@pytest.fixture
def make_settings():
    return cell_settings


@pytest.fixture
def prepared(tmp_path):
    """Write what prepare leaves: ten 8x6 photos, the truth being cat left and dog right."""
    layout = Layout(tmp_path / "out")
    truth = np.zeros((6, 8), np.uint8)
    truth[1:, :4], truth[1:, 4:], truth[0, 0] = 1, 2, 255
    ids = [f"i{n}" for n in range(10)]
    records = []
    for number, image_id in enumerate(ids):
        image = tmp_path / "photos" / f"{image_id}.png"
        image.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 6), (20 * number, 0, 0)).save(image)
        mask = tmp_path / "masks" / f"{image_id}.png"
        write_label(mask, truth)
        records.append(
            ImageRecord(image_id=image_id, image_path=image, label_path=mask, digest=image_id)
        )
    write_records(layout.records, records)
    ClassTable.plain(NAMES, prompts=NAMES[1:]).write(layout.classes)
    for name, count in (("few", 2), ("many", 4)):
        split = Split(
            name=name,
            labeled=tuple(ids[: count - 1]),
            holdout=(ids[count - 1],),
            unlabeled=(ids[4],),
            val=tuple(ids[5:]),
        )
        write_split(layout.split(name), split)
    return layout


class Recorder:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.facts: dict[str, str | int | float | bool] = {}
        self.numbers: dict[str, float] = {}
        self.files: list[Path] = []

    def params(self, values) -> None:
        self.facts |= values

    def metrics(self, values, *, step=None) -> None:  # noqa: ARG002 - part of the protocol
        self.numbers |= values

    def artifact(self, path) -> None:
        self.files.append(path)


@pytest.fixture
def recorder():
    return Recorder()
