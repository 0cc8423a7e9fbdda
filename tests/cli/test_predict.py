"""`zspl predict`: a trained cell labels a folder of photos, as the stage evaluate would."""

import csv
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from zspl import cli
from zspl.inference import load_carded, predict, predict_logits, predictor
from zspl.io.images import read_image, read_label
from zspl.io.model_card import ModelCard

tiny = runpy.run_path(str(Path(__file__).parents[1] / "stages" / "tiny_project.py"))
METHODS = {"supervised": {}, "allspark": {"memory_from": 1}}

# Some photos are labeled, then the process dies with no chance to tidy up.
KILLED = """
import os, signal, sys, time
from pathlib import Path
from zspl.annotation import network
from zspl.cli import main
real, calls = network.TrainedNetwork.annotate, []
def dying(self, photos):
    calls.append(photos)
    if len(calls) == 4:
        while not list(Path(sys.argv[-1]).glob("facts/**/*.json")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, photos)
network.TrainedNetwork.annotate = dying
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with a prepared data set and one trained cell of each method."""
    folder = tmp_path_factory.mktemp("project")
    os.environ["ZSPL_DEVICE"] = "cpu"
    params = tiny["write"](folder, tiny["values"](methods=METHODS))
    assert cli.main(["run", "prepare", "--params", str(params)]) == 0
    for method in METHODS:
        words = ["run", "train", f"method={method}", *tiny["CELL"], "--params", str(params)]
        assert cli.main(words) == 0
        _shake(cell(folder, method) / "last.safetensors")
    return folder


def _shake(checkpoint):
    """So short a training sees background everywhere; another last layer sees more."""
    state, generator = load_file(checkpoint), torch.Generator().manual_seed(0)
    for key, tensor in state.items():
        if key.endswith("classifier.weight"):
            tensor.normal_(generator=generator)
        if key.endswith("classifier.bias"):
            tensor.zero_()
    save_file(state, checkpoint)


def cell(project, method="supervised"):
    return project / "artifacts" / "cells" / method / "tiny" / "labeled_20" / "seed-0"


@pytest.fixture
def photos(project, tmp_path):
    """Six photos of two sizes, some in a folder below."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    known = sorted((project / "artifacts" / "data" / "images" / "Images").iterdir())[:6]
    for index, path in enumerate(known):
        with Image.open(path) as image:
            shown = image.resize((64, 48)) if index % 2 else image
            shown.save(folder / ("sub" if index > 3 else "") / path.name)
    return folder


def run(checkpoint, photos, out, *more):
    where = ["--checkpoint", checkpoint, "--images", photos, "--out", out]
    return cli.main(["predict", *map(str, (*where, *more))])


def content(folder):
    paths = (p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def names(folder):
    return sorted(p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.*"))


def test_training_leaves_a_card_that_tells_network_classes_and_normalisation(project):
    card = ModelCard.read(cell(project) / "model.json")
    assert card.network == "compact + deeplabv3plus"
    assert card.classes[:2] == ("background", "zebra")
    assert card.mean == (0.485, 0.456, 0.406)
    assert card.trained == {
        "method": "supervised", "labels": None, "model": "tiny", "split": "labeled_20", "seed": 0,
    }  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_labels_are_those_of_the_networks_own_prediction_at_the_photos_size(
    project, photos, tmp_path, method, capsys
):
    assert run(cell(project, method), photos, tmp_path / "out", "--batch", 2) == 0
    card = ModelCard.read(cell(project, method) / "model.json")
    model = load_carded(cell(project, method) / "last.safetensors", card)
    assert names(tmp_path / "out" / "labels") == names(photos)
    seen = set()
    for name in names(photos):
        image = read_image(photos / f"{name}.png")
        label = read_label(tmp_path / "out" / "labels" / f"{name}.png", size=image.size)
        assert (label == predict(model, image).numpy()).mean() > 0.999
        seen |= set(np.unique(label).tolist())
    assert len(seen) > 1
    assert "6 of 6 photos labeled" in capsys.readouterr().out


def test_windows_sizes_and_mirror_images_look_as_the_section_evaluate_does(
    project, photos, tmp_path
):
    look = {"window": 32, "scales": (0.5, 1.0), "flip": True}
    words = ["--window", 32, "--scales", "0.5,1", "--flip"]
    assert run(cell(project), photos, tmp_path / "out", *words) == 0
    card = ModelCard.read(cell(project) / "model.json")
    expected = predictor(load_carded(cell(project) / "last.safetensors", card), **look)
    name = names(photos)[1]
    label = read_label(tmp_path / "out" / "labels" / f"{name}.png")
    assert np.array_equal(label, expected(read_image(photos / f"{name}.png")).numpy())


def test_the_table_gives_each_class_its_share_and_the_page_its_pictures(project, photos, tmp_path):
    out = tmp_path / "out"
    assert run(cell(project), photos, out) == 0
    with (out / "images.csv").open() as handle:
        rows = {row["name"]: row for row in csv.DictReader(handle)}
    name = names(photos)[0]
    label = read_label(out / "labels" / f"{name}.png")
    assert float(rows[name]["zebra"]) == pytest.approx((label == 1).mean(), abs=1e-4)
    shares = [float(rows[name][c]) for c in ModelCard.read(cell(project) / "model.json").classes]
    assert sum(shares) == pytest.approx(1, abs=1e-2)
    page = (out / "index.html").read_text()
    assert "Predicted by compact + deeplabv3plus, trained by supervised" in page
    assert page.count("data:image/jpeg") == 12
    with Image.open(out / "overlays" / f"{name}.jpg") as overlay:
        assert overlay.size == (label.shape[1], label.shape[0])


def test_a_killed_run_ends_with_the_bytes_of_an_undisturbed_one(project, photos, tmp_path):
    assert run(cell(project), photos, tmp_path / "whole") == 0
    where = ["--checkpoint", cell(project), "--images", photos, "--out", tmp_path / "killed"]
    child = [sys.executable, "-c", KILLED, "predict", *map(str, where)]
    assert subprocess.run(child, capture_output=True, check=False).returncode == -9
    done = len(list((tmp_path / "killed" / "facts").rglob("*.json")))
    assert 0 < done < 6
    assert run(cell(project), photos, tmp_path / "killed") == 0
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_what_cannot_be_read_is_put_aside_and_the_rest_is_labeled(
    project, photos, tmp_path, capsys
):
    (photos / "broken.jpg").write_bytes(b"no photo")
    assert run(cell(project), photos, tmp_path / "out") == 1
    assert "broken.jpg" in (tmp_path / "out" / "quarantine.csv").read_text()
    assert "6 of 7 photos labeled" in capsys.readouterr().out


def test_results_of_two_looks_never_mix(project, photos, tmp_path, capsys):
    assert run(cell(project), photos, tmp_path / "out") == 0
    assert run(cell(project), photos, tmp_path / "out", "--flip") == 2
    assert "look.flip was false, is true" in capsys.readouterr().err


def test_a_cell_without_a_card_is_told_so_and_works_with_its_params(
    project, photos, tmp_path, capsys
):
    card = cell(project) / "model.json"
    kept = card.read_text()
    card.unlink()
    try:
        assert run(cell(project), photos, tmp_path / "out") == 2
        err = capsys.readouterr().err
        assert "model.json: no such file, so nothing tells which network" in err
        assert "--params" in err
        assert err.count("\n") == 1
        params = project / "params.yaml"
        assert run(cell(project), photos, tmp_path / "out", "--params", params) == 0
    finally:
        card.write_text(kept)


@pytest.mark.parametrize("text", ["{}", "[1]", "no json", '{"classes": "ab"}'])
def test_a_damaged_card_is_one_line(project, photos, tmp_path, capsys, text):
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "last.safetensors").write_bytes((cell(project) / "last.safetensors").read_bytes())
    (copy / "model.json").write_text(text)
    assert run(copy, photos, tmp_path / "out") == 2
    assert "model.json: is no model card" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_card_of_another_network_is_one_line(project, photos, tmp_path, capsys):
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "last.safetensors").write_bytes((cell(project) / "last.safetensors").read_bytes())
    values = json.loads((cell(project) / "model.json").read_text())
    values["head"]["width"] = 8
    (copy / "model.json").write_text(json.dumps(values))
    assert run(copy, photos, tmp_path / "out") == 2
    assert "does not fit compact + deeplabv3plus" in capsys.readouterr().err


def test_a_folder_of_several_cells_names_them(project, photos, tmp_path, capsys):
    assert run(project / "artifacts", photos, tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert "holds several trained cells" in err
    assert str(cell(project)) in err


def test_confidence_is_the_probability_of_the_label(project, photos, tmp_path):
    assert run(cell(project), photos, tmp_path / "out") == 0
    card = ModelCard.read(cell(project) / "model.json")
    model = load_carded(cell(project) / "last.safetensors", card)
    name = names(photos)[0]
    logits = predict_logits(model, read_image(photos / f"{name}.png"))
    expected = torch.softmax(logits, dim=0).max(dim=0).values
    found = read_label(tmp_path / "out" / "confidence" / f"{name}.png") / 255
    assert np.abs(found - expected.numpy()).max() <= 0.5 / 255 + 1e-5
