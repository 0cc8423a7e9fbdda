import csv
import json
import shutil

import numpy as np
import pytest
import torch

from zspl import inference, stages
from zspl.errors import DataError, SettingsError
from zspl.io.images import read_label, write_confidence, write_label
from zspl.io.layout import Cell
from zspl.observer import Silent

CELL = Cell(method="supervised", labels=None, model="small", split="few", seed=1)
INSTANCE = {"method": "supervised", "model": "small", "split": "few", "seed": "1"}


class Loads(list):
    """Names of the checkpoints that were loaded; `asked` tells how each was to predict."""

    def __init__(self):
        super().__init__()
        self.asked = []


@pytest.fixture
def loads(monkeypatch):
    """Replace the network: bytes b"cat" predict class 1 everywhere, others class 2."""
    loaded = Loads()

    def load_model(settings, path, *, num_classes, adapt=None):
        loaded.append(path.name)
        return path.read_bytes()

    def predictor(model, **how):
        loaded.asked.append(how)
        value = 1 if model == b"cat" else 2
        return lambda image: torch.full((image.height, image.width), value, dtype=torch.uint8)

    monkeypatch.setattr(inference, "load_model", load_model)
    monkeypatch.setattr(inference, "predictor", predictor)
    return loaded


def train(layout, *, best=b"cat", last=b"dog"):
    folder = layout.cell(CELL)
    folder.mkdir(parents=True)
    (folder / "last.safetensors").write_bytes(last)
    if best is not None:
        (folder / "best.safetensors").write_bytes(best)


def evaluate(layout, settings, observer=None, **instance):
    return stages.run("evaluate", settings, observer or Silent(), **instance)


def scores(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_both_checkpoints_are_scored_on_val_pooled(prepared, make_settings, loads):
    train(prepared)
    summary = evaluate(prepared, make_settings(prepared.out), **INSTANCE)
    # Of 47 pixels 20 are cat, 20 dog, 7 background: an all-cat map gives 20 / 47 for cat.
    assert summary["miou_best"] == pytest.approx((0 + 20 / 47 + 0) / 3)
    found = scores(prepared.cell_score(CELL))
    assert found["best"]["iou"] == {"background": 0.0, "cat": pytest.approx(20 / 47), "dog": 0.0}
    assert found["last"]["iou"]["dog"] == pytest.approx(20 / 47)
    assert found["best"]["precision"]["dog"] is None
    assert found["cell"] == {
        "method": "supervised",
        "labels": None,
        "model": "small",
        "split": "few",
        "seed": 1,
    }


def test_equal_checkpoints_are_scored_once(prepared, make_settings, loads):
    train(prepared, best=b"cat", last=b"cat")
    summary = evaluate(prepared, make_settings(prepared.out), **INSTANCE)
    assert loads == ["best.safetensors"]
    assert summary["miou_best"] == summary["miou_last"]
    folder = prepared.cell_score(CELL) / "predictions"
    assert sorted(p.name for p in (folder / "last").iterdir()) == [
        f"i{n}.png" for n in range(5, 10)
    ]


def test_without_a_selected_checkpoint_the_last_is_the_best(prepared, make_settings, loads):
    train(prepared, best=None)
    evaluate(prepared, make_settings(prepared.out), **INSTANCE)
    found = scores(prepared.cell_score(CELL))
    assert loads == ["last.safetensors"]
    assert found["best"] == found["last"]


def test_each_class_has_a_row_per_checkpoint(prepared, make_settings, loads):
    train(prepared)
    evaluate(prepared, make_settings(prepared.out), **INSTANCE)
    with (prepared.cell_score(CELL) / "per_class.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["checkpoint"], r["class"]) for r in rows] == [
        (c, n) for c in ("best", "last") for n in ("background", "cat", "dog")
    ]
    assert rows[1]["iou"] == f"{20 / 47:.6f}"
    assert rows[2]["precision"] == ""


def test_predictions_of_val_images_are_kept_as_class_ids(prepared, make_settings, loads):
    train(prepared)
    evaluate(prepared, make_settings(prepared.out), **INSTANCE)
    kept = prepared.cell_score(CELL) / "predictions"
    assert read_label(kept / "best" / "i5.png").tolist() == [[1] * 8] * 6
    assert read_label(kept / "last" / "i5.png").tolist() == [[2] * 8] * 6


def test_the_observer_learns_what_identifies_the_cell(prepared, make_settings, loads, recorder):
    train(prepared)
    evaluate(prepared, make_settings(prepared.out), recorder, **INSTANCE)
    assert recorder.facts == {
        "dataset": "pascal_voc",
        "method": "supervised",
        "labels": "none",
        "model": "small",
        "backbone": "small",
        "head": "small",
        "split": "few",
        "seed": 1,
        "labeled_images": 2,
        "evaluate.window": "none",
        "evaluate.scales": "1.0",
        "evaluate.flip": False,
    }
    assert recorder.numbers["iou_best/cat"] == pytest.approx(20 / 47)
    assert [p.name for p in recorder.files] == ["metrics.json", "per_class.csv"]
    assert all(p.is_file() for p in recorder.files)


def test_how_photos_were_looked_at_stands_in_the_scores_and_reaches_the_predictor(
    prepared, make_settings, loads, recorder
):
    train(prepared)
    settings = make_settings(
        prepared.out, evaluate__window=16, evaluate__scales=[0.5, 1], evaluate__flip=True
    )
    evaluate(prepared, settings, recorder, **INSTANCE)
    assert loads.asked == [{"window": 16, "scales": (0.5, 1.0), "flip": True}] * 2
    found = scores(prepared.cell_score(CELL))
    assert found["evaluate"] == {"window": 16, "scales": [0.5, 1.0], "flip": True}
    told = {key: value for key, value in recorder.facts.items() if key.startswith("evaluate.")}
    assert told == {
        "evaluate.window": 16, "evaluate.scales": "0.5, 1.0", "evaluate.flip": True,
    }  # fmt: skip


def test_a_missing_checkpoint_is_named_before_a_model_is_loaded(prepared, make_settings, loads):
    with pytest.raises(DataError, match=r"last\.safetensors: no such checkpoint; run stage train"):
        evaluate(prepared, make_settings(prepared.out), **INSTANCE)
    assert loads == []


def test_an_instance_that_is_neither_cell_nor_variant_is_refused(prepared, make_settings):
    settings = make_settings(prepared.out)
    with pytest.raises(SettingsError, match=r"takes method=\.\.\. model=\.\.\."):
        evaluate(prepared, settings, method="supervised")
    with pytest.raises(SettingsError, match=r"takes variant=\.\.\. alone"):
        evaluate(prepared, settings, variant="ready", method="supervised")
    with pytest.raises(
        SettingsError, match=r"label\.variants has no .redy.\. Did you mean .ready."
    ):
        evaluate(prepared, settings, variant="redy")
    with pytest.raises(SettingsError, match=r"evaluate: model=big is not in train\.models"):
        evaluate(prepared, settings, **(INSTANCE | {"model": "big"}))
    with pytest.raises(SettingsError, match=r"labels=redy .* Did you mean .ready."):
        evaluate(prepared, settings, **(INSTANCE | {"method": "enhanced", "labels": "redy"}))
    with pytest.raises(SettingsError, match="method supervised reads no labels, got labels=ready"):
        evaluate(prepared, settings, **INSTANCE, labels="ready")


def annotate(layout, ids, *, value=1, confidence=1.0):
    """Write pseudo labels: `value` on the left half, nothing on the right."""
    folder = layout.labels("ready")
    label = np.full((6, 8), 255, np.uint8)
    label[:, :4] = value
    for image_id in ids:
        write_label(folder / f"{image_id}.png", label)
        write_confidence(folder / f"{image_id}.confidence.png", np.full((6, 8), confidence))


def test_the_audit_is_about_labeled_and_held_out_images_and_val_apart(prepared, make_settings):
    annotate(prepared, ["i0", "i1"])
    annotate(prepared, [f"i{n}" for n in range(5, 10)], value=2)
    summary = evaluate(prepared, make_settings(prepared.out), variant="ready")
    found = scores(prepared.label_score("ready"))
    assert (found["audit"]["images"], found["val"]["images"]) == (2, 5)
    # The left half has 3 background and 20 cat pixels beside the void one; the rest is silent.
    assert found["audit"]["iou"] == {
        "background": 0.0,
        "cat": pytest.approx(20 / 23),
        "dog": 0.0,
    }
    assert found["audit"]["recall"]["cat"] == 1.0
    assert found["audit"]["precision"]["cat"] == pytest.approx(20 / 23)
    assert found["audit"]["coverage"] == 0.5
    assert found["audit"]["ece"] == pytest.approx(3 / 23)
    assert found["val"]["iou"]["cat"] == 0.0
    assert summary["miou_audit"] == pytest.approx(20 / 23 / 3)


def test_reliability_bins_hold_the_claimed_pixels_that_have_a_truth(prepared, make_settings):
    annotate(prepared, ["i0", "i1"], confidence=0.6)
    settings = make_settings(prepared.out, prepare__annotate_val=False)
    evaluate(prepared, settings, variant="ready")
    found = scores(prepared.label_score("ready"))
    filled = [b for b in found["audit"]["reliability"] if b["pixels"]]
    assert filled == [
        {"pixels": 46, "confidence": pytest.approx(0.6), "accuracy": pytest.approx(20 / 23)}
    ]
    assert "val" not in found


@pytest.mark.parametrize("calibrated", [True, False])
def test_the_threshold_and_its_origin_are_recorded(prepared, make_settings, calibrated):
    annotate(prepared, ["i0", "i1"])
    (prepared.labels("ready") / "threshold.json").write_text(
        json.dumps({"threshold": 0.25, "calibrated": calibrated})
    )
    settings = make_settings(prepared.out, prepare__annotate_val=False)
    evaluate(prepared, settings, variant="ready")
    found = scores(prepared.label_score("ready"))
    assert found["threshold"] == 0.25
    assert ("calibrated on the labeled images" in found["note"]) is calibrated


def test_what_calibration_promised_stands_beside_what_was_measured(prepared, make_settings):
    annotate(prepared, ["i0", "i1"])
    promised = {
        "expected": {"miou": 0.5, "low": 0.4, "high": None, "iou": {}},
        "reliability": {
            "before": {"ece": 0.3, "reliability": []},
            "after": {"ece": 0.1, "reliability": []},
        },
        "class_thresholds": {"cat": 0.5},
        "verdict": "Caution",
        "sentence": "Caution: expected mIoU 50 %.",
    }
    (prepared.labels("ready") / "threshold.json").write_text(
        json.dumps({**promised, "threshold": 0.25, "calibrated": False, "curve": []})
    )
    settings = make_settings(prepared.out, prepare__annotate_val=False)
    summary = evaluate(prepared, settings, variant="ready")
    found = scores(prepared.label_score("ready"))
    assert {key: found[key] for key in promised} == promised
    assert found["note"].startswith("the threshold was given, the confidence was calibrated on")
    assert summary["miou_expected"] == 0.5
    assert "miou_expected_high" not in summary
    assert (summary["ece_before"], summary["ece_after"]) == (0.3, 0.1)


def test_a_missing_pseudo_label_is_named(prepared, make_settings):
    annotate(prepared, ["i0"])
    settings = make_settings(prepared.out, prepare__annotate_val=False)
    with pytest.raises(DataError, match=r"i1\.png: missing.* run stage label for variant ready"):
        evaluate(prepared, settings, variant="ready")


def test_a_pseudo_label_of_other_classes_is_named(prepared, make_settings):
    annotate(prepared, ["i0", "i1"], value=7)
    settings = make_settings(prepared.out, prepare__annotate_val=False)
    with pytest.raises(DataError, match=r"i0\.png: holds the value 7, expected class ids 0 to 2"):
        evaluate(prepared, settings, variant="ready")


def test_evaluating_again_replaces_the_scores_byte_by_byte(prepared, make_settings, loads):
    train(prepared)
    settings = make_settings(prepared.out)
    folder = prepared.cell_score(CELL)
    evaluate(prepared, settings, **INSTANCE)
    first = {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    shutil.copy(folder / "metrics.json", folder / "stale.json")
    evaluate(prepared, settings, **INSTANCE)
    assert {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == first


@pytest.mark.parametrize("name", ["photos/i7.png", "masks/i9.png"])
def test_a_missing_val_file_is_named_before_a_model_is_loaded(prepared, make_settings, loads, name):
    train(prepared)
    (prepared.out.parent / name).unlink()
    with pytest.raises(DataError, match=rf"{name}: no such (image|mask)"):
        evaluate(prepared, make_settings(prepared.out), **INSTANCE)
    assert loads == []
