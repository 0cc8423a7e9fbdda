"""A benchmark as the stages leave it: photos, splits and scores that are drawn, not trained."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from zspl.evaluation.results import configured_cells
from zspl.io.classes import ClassTable
from zspl.io.images import write_label
from zspl.io.layout import Layout
from zspl.io.records import write_records
from zspl.io.splits import write_split
from zspl.io.timings import Timing, path_of, signature
from zspl.records import ImageRecord, Split
from zspl.settings import Settings

VAL = tuple(f"val_{n:02d}" for n in range(12))
SIZE = (64, 48)
LABELER = {"name": "region_pool", "threshold": "calibrated"}


def settings_of(out, *, splits, published=None, seeds=(0,), models=("r101",), **cells):
    """Return settings like those of benchmarks/pascal."""
    backbones = {"r101": {"name": "resnet101s"}, "segformer_b4": {"name": "mit", "size": "b4"}}
    chosen = {"methods": ["supervised", "unimatch"], "label_methods": ["paper", "recommended"]}
    chosen |= {"labels": ["sam_gem"], "models": models, "splits": splits, "seeds": seeds} | cells
    methods = {name: {} for name in (*chosen["methods"], *chosen["label_methods"])}
    variants = {
        "gem": {"proposals": "none", "features": "gem", "labeler": {"name": "pixel_argmax"}},
        "sam_gem": {"proposals": "sam", "features": "gem", "labeler": LABELER},
    }
    values = {
        "benchmark": "drawn",
        "seed": 0,
        "threads": 1,
        "paths": {"source": str(out / "photos"), "out": str(out), "code": "."},
        "prepare": {
            "dataset": {"name": "pascal_voc", "root": str(out / "VOC2012")},
            "splits": splits,
            "shards": [0],
            "holdout": 0.0,
            "annotate_val": True,
        },
        "propose": {"sam": {"model": "vit_h"}},
        "embed": {"gem": {"model": "ViT-B-16"}},
        "embed_segments": {},
        "label": {
            "calibration_split": splits[0],
            "variants": variants if chosen["labels"] else {},
        },
        "cells": chosen,
        "train": {
            "crop_size": 321,
            "scale_range": [0.5, 2.0],
            "batch_labeled": 8,
            "batch_unlabeled": 8,
            "cutmix_partner": "same_image",
            "views": "pillow",
            "accumulate": 1,
            "precision": "float32",
            "epochs": 80,
            "iterations": None,
            "optimizer": "sgd",
            "learning_rate": 0.001,
            "head_multiplier": 10,
            "momentum": 0.9,
            "weight_decay": 0.0001,
            "poly_power": 0.9,
            "evaluate_every": 1300,
            "checkpoint_every": 500,
            "selection": "val",
            "methods": methods,
            "models": {n: {"backbone": backbones[n], "head": {"name": "x"}} for n in models},
        },
        "evaluate": {"window": None, "scales": [1.0], "flip": False},
        "tabulate": {"checkpoint": "best", "published": published},
    }
    return Settings.model_validate(values)


class World:
    """A drawn benchmark; every method is a little better than the one before it."""

    def __init__(self, settings, *, classes):
        self.settings, self.layout = settings, Layout(settings.paths.out)
        self.names = ("background", *(f"class_{n}" for n in range(1, classes)))
        self.chance = np.random.default_rng(0)

    @property
    def tables(self):
        return self.layout.tables

    def draw_data(self):
        layout, records = self.layout, []
        for image_id in VAL:
            photo = layout.out / "photos" / f"{image_id}.png"
            photo.parent.mkdir(parents=True, exist_ok=True)
            noise = self.chance.integers(60, 200, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
            Image.fromarray(noise).save(photo)
            mask = layout.out / "masks" / f"{image_id}.png"
            write_label(mask, self.draw_map())
            records.append(
                ImageRecord(image_id=image_id, image_path=photo, label_path=mask, digest=image_id)
            )
        write_records(layout.records, records)
        ClassTable.plain(self.names, prompts=self.names[1:]).write(layout.classes)
        for name in self.settings.prepare.splits:
            ids = tuple(f"train_{n}" for n in range(int(name.split("_")[1])))
            split = Split(name=name, labeled=ids, holdout=(), unlabeled=("u",), val=VAL)
            write_split(layout.split(name), split)

    def draw_map(self):
        found = np.zeros((SIZE[1], SIZE[0]), np.uint8)
        one, two = self.chance.integers(1, len(self.names), 2)
        found[8:30, 5:30], found[20:44, 34:60], found[0] = one, two, 255
        return found

    def draw_scores(self, *, skip=()):
        for cell in configured_cells(self.settings):
            if not any(part in cell.path.as_posix() for part in skip):
                rank = list(self.settings.train.methods).index(cell.method)
                labels = int(cell.split.split("_")[1])
                base = 0.3 + 0.05 * rank + 0.03 * np.log2(labels) + 0.01 * cell.seed
                scores = self.scores(base)
                folder = self.layout.cell_score(cell)
                self.write(folder, {"best": scores, "last": scores})
                self.predict(folder / "predictions" / "best")
        for rank, name in enumerate(self.settings.label.variants):
            found = self.scores(0.4 + 0.1 * rank)
            bins = [{"pixels": 100, "confidence": c, "accuracy": c**2} for c in (0.35, 0.75, 0.95)]
            audit = found | {"mean_precision": 0.7, "mean_recall": 0.6, "coverage": 0.9}
            audit |= {"foreground": 0.3, "ece": 0.1, "reliability": bins}
            promised = {"miou": 0.5, "low": 0.4, "high": 0.6}
            both = {"ece": 0.1, "reliability": bins}
            content = {"audit": audit, "val": found, "threshold": 0.2, "expected": promised}
            content |= {"sentence": "Go: expected mIoU 50 %.", "calibrated": True}
            content["reliability"] = {"before": both, "after": {**both, "ece": 0.02}}
            self.write(self.layout.label_score(name), content)
            self.predict(self.layout.label_score(name) / "predictions")

    def scores(self, base):
        ious = np.clip(base + self.chance.normal(0, 0.12, len(self.names)), 0, 1)
        iou = dict(zip(self.names, ious.tolist(), strict=True))
        errors = [{"truth": self.names[1], "called": self.names[0], "share": 0.4, "gain": 0.03}]
        return {"miou": float(ious.mean()), "iou": iou, "confusions": errors}

    def write(self, folder, content):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps(content))

    def predict(self, folder):
        for image_id in VAL[::2]:
            write_label(folder / f"{image_id}.png", self.draw_map())

    def draw_costs(self):
        for cell in configured_cells(self.settings):
            took = Timing(
                stage="train",
                instance=cell.instance,
                what=signature(self.settings, "train", cell.instance),
                device="cpu",
                seconds=60.0,
                cpu_seconds=60.0,
                units=500,
                peak_memory_mib=1024,
            )
            path = path_of(self.layout.out, "train", cell.instance)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(asdict(took)))


@pytest.fixture
def make_world(tmp_path):
    """Return a function that draws a benchmark and its data, without scores."""

    def make(*, classes=5, splits=("labeled_92", "labeled_183"), **choices):
        settings = settings_of(tmp_path / "out", splits=list(splits), **choices)
        world = World(settings, classes=classes)
        world.draw_data()
        return world

    return make
