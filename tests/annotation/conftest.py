"""A folder of results made by hand, so that exports and pages can be tested without models."""

import json

import numpy as np
import pytest
from PIL import Image

from zspl.annotation.facts import Facts
from zspl.annotation.results import Results, confidence_path, facts_path, label_path
from zspl.io import atomic
from zspl.io.classes import ClassTable
from zspl.io.images import write_label


class Folder:
    """Photos and results under one temporary folder; `add` puts one labeled photo there."""

    def __init__(self, root, names):
        self.photos, self.out = root / "photos", root / "out"
        ClassTable.plain(("background", *names), prompts=tuple(names)).write(
            self.out / "classes.json"
        )
        self.made_with({"zspl": "0.1.0", "threshold": 0.85})

    @property
    def results(self):
        return Results(self.out, self.photos)

    def made_with(self, values):
        atomic.write_json(self.out / "annotate.json", values)

    def add(self, source, label, *, confidence=None, name=None, **facts):
        label = np.asarray(label, np.uint8)
        name = name or source.rsplit(".", 1)[0]
        if confidence is None:
            confidence = np.full(label.shape, 204)
        confidence = np.asarray(confidence, np.uint8)
        photo = self.photos / source
        photo.parent.mkdir(parents=True, exist_ok=True)
        shades = np.random.default_rng(len(source)).integers(0, 256, (*label.shape, 3), np.uint8)
        Image.fromarray(shades).save(photo)
        write_label(label_path(self.out, name), label)
        atomic.write(
            confidence_path(self.out, name),
            lambda path: Image.fromarray(confidence).save(path, format="PNG"),
        )
        ids, counts = np.unique(label, return_counts=True)
        known = {
            "coverage": 0.9,
            "conflict": 0.05,
            "doubt": float(1 - confidence.mean() / 255),
            "segments": (),
            "stat": (1, 1),
        }
        Facts(
            name=name,
            source=source,
            width=label.shape[1],
            height=label.shape[0],
            pixels=dict(zip(ids.tolist(), counts.tolist(), strict=True)),
            **{**known, **facts},
        ).write(facts_path(self.out, name))
        return label

    def quarantine(self, *rows):
        lines = ["source,reason", *(f'"{source}","{reason}"' for source, reason in rows)]
        (self.out / "quarantine.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    """Return a maker of result folders: `folder("cat", "dog")`."""
    return lambda *names: Folder(tmp_path, names)


def random_label(seed, shape, classes, *, ignored=True):
    """Return blobs of every class, some of them 255 if asked, with single pixels among them."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes + 1 + ignored, (shape[0] // 6 + 1, shape[1] // 6 + 1))
    label = np.kron(coarse, np.ones((6, 6), int))[: shape[0], : shape[1]].astype(np.uint8)
    label[label > classes] = 255
    noise = rng.random(shape) < 0.03
    label[noise] = rng.integers(0, classes + 1, int(noise.sum()))
    return label


@pytest.fixture(name="random_label")
def _random_label():
    return random_label


def every_byte(root):
    """Return the content of each file below a folder, by its relative path."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(name="every_byte")
def _every_byte():
    return every_byte


@pytest.fixture
def read_json():
    """Return what a JSON file holds."""
    return lambda path: json.loads(path.read_text(encoding="utf-8"))
