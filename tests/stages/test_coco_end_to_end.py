"""128 photos of COCO through the commands: masks of the JSON, a few steps, 81 classes scored."""

import csv
import json
import os
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from zspl.cli import main
from zspl.datasets import coco

tiny = runpy.run_path(str(Path(__file__).with_name("tiny_project.py")))
COCO128 = Path(os.environ.get("ZSPL_SHARED", "../shared")).resolve() / "data" / "coco128"
SPLITS = ("drawn_20", "labeled_3697")
METHODS = {"supervised": {}, "unimatch": {}}

pytestmark = pytest.mark.skipif(
    not COCO128.is_dir(), reason=f"no folder {COCO128}; set ZSPL_SHARED"
)


def params(folder, **dataset):
    """Write params.yaml as a user would for COCO's layout."""
    values = tiny["values"](methods=METHODS, crop_size=65, iterations=5, selection="last")
    values["paths"]["source"] = str(COCO128)
    chosen = {"name": "coco", "restrict_to_present": True, **dataset}
    values["prepare"] |= {"dataset": chosen, "splits": list(SPLITS)}
    values["label"]["calibration_split"] = "drawn_20"
    values["cells"]["splits"] = ["drawn_20"]
    return str(tiny["write"](folder, values))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco")
    assert main(["run", "prepare", "--params", params(folder)]) == 0
    return folder


def masks(folder):
    lines = (folder / "artifacts" / "data" / "records.jsonl").read_text().splitlines()
    return {r["image_id"]: folder / r["label"] for r in map(json.loads, lines)}


def pixels(path):
    with Image.open(path) as mask:
        return np.array(mask)


def test_prepare_paints_every_photo_with_81_contiguous_classes(project):
    table = json.loads((project / "artifacts" / "data" / "classes.json").read_text())
    assert table["names"] == ["background", *coco.NAMES]
    found = masks(project)
    assert len(found) == 128
    ids = set()
    for path in found.values():
        ids |= set(np.unique(pixels(path)).tolist())
    assert ids <= set(range(81))
    annotated = json.loads((COCO128 / "annotations" / "instances_val2017.json").read_text())
    shown = {coco.CLASS_IDS[a["category_id"]] for a in annotated["annotations"]}
    assert shown <= ids


def test_prepare_takes_the_official_list_and_a_drawn_one(project):
    sizes = {}
    for split in SPLITS:
        folder = project / "artifacts" / "data" / "splits" / split
        parts = ("labeled", "unlabeled", "val")
        sizes[split] = [len((folder / f"{part}.txt").read_text().split()) for part in parts]
    assert sizes == {"drawn_20": [20, 80, 28], "labeled_3697": [3, 97, 28]}


@pytest.mark.parametrize(("overlap", "ignores"), [("last", False), ("ignore", True)])
def test_another_rule_of_overlaps_paints_other_masks(project, tmp_path, overlap, ignores):
    assert main(["run", "prepare", "--params", params(tmp_path, overlap=overlap)]) == 0
    default, other = masks(project), masks(tmp_path)
    pairs = [(pixels(path), pixels(other[image_id])) for image_id, path in default.items()]
    assert 20 < sum(not np.array_equal(*pair) for pair in pairs) < 128
    assert any((label == 255).any() for _, label in pairs) == ignores
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours == 0, theirs == 0)


@pytest.mark.parametrize("method", METHODS)
def test_a_cell_of_coco_is_trained_and_scored(project, method):
    cell = [f"method={method}", "model=tiny", "split=drawn_20", "seed=0"]
    for stage in ("train", "evaluate"):
        assert main(["run", stage, *cell, "--params", str(project / "params.yaml")]) == 0
    place = Path(method) / "tiny" / "drawn_20" / "seed-0"
    state = load_file(project / "artifacts" / "cells" / place / "last.safetensors")
    assert len(state["head.classifier.bias"]) == 81
    scores = project / "artifacts" / "scores" / "cells" / place
    with (scores / "per_class.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["checkpoint"] == "last"]
    assert [row["class"] for row in rows] == ["background", *coco.NAMES]
    metrics = json.loads((scores / "metrics.json").read_text())["last"]
    assert 0 < metrics["miou_absent_zero"] <= metrics["miou"] < 1
