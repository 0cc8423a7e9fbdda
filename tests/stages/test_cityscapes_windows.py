"""Cityscapes from its files to its scores, on wide photos that are seen through windows."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zspl import inference
from zspl.cli import main
from zspl.data.loading import normalise
from zspl.io.images import read_image, read_label, write_label
from zspl.io.layout import Cell, Layout
from zspl.settings import Settings

tiny = runpy.run_path(str(Path(__file__).with_name("tiny_project.py")))

HEIGHT, WIDTH, WINDOW, STRIDE = 64, 128, 50, 33
"""A sixteenth of Cityscapes' 1024 x 2048 and of UniMatch's window of 801."""

IDS = {
    "train": [f"{city}_{k:06d}_000019" for city in ("aachen", "ulm") for k in range(3)],
    "val": ["lindau_000000_000019", "lindau_000001_000019"],
}
ROAD, CAR, SKY, OUT_OF_VIEW = 7, 26, 23, 3
CELL = Cell(method="unimatch", labels=None, model="tiny", split="drawn_3", seed=0)
INSTANCE = ["method=unimatch", "model=tiny", "split=drawn_3", "seed=0"]


def street(rng):
    """Return a photo of a grey road below a bright sky with a red car, and its label ids."""
    label = np.full((HEIGHT, WIDTH), ROAD, np.uint8)
    label[:24], label[-4:] = SKY, OUT_OF_VIEW
    left = int(rng.integers(4, WIDTH - 40))
    label[30:46, left : left + 30] = CAR
    colours = {ROAD: (90, 90, 90), CAR: (200, 30, 30), SKY: (190, 210, 250), OUT_OF_VIEW: (0, 0, 0)}
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.int64)
    for value, colour in colours.items():
        pixels[label == value] = colour
    pixels += rng.integers(-20, 20, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), label


@pytest.fixture(scope="module")
def params(tmp_path_factory):
    """A project with six train and two val photos in Cityscapes' layout, prepared and trained."""
    folder, rng = tmp_path_factory.mktemp("cityscapes"), np.random.default_rng(0)
    for part, ids in IDS.items():
        for image_id in ids:
            place = Path(part) / image_id.split("_")[0] / image_id
            photo, label = street(rng)
            target = folder / "photos/leftImg8bit" / f"{place}_leftImg8bit.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            photo.save(target)
            write_label(folder / "photos/gtFine" / f"{place}_gtFine_labelIds.png", label)
    # As few steps as make a network that tells sky, car and road apart.
    values = tiny["values"](methods={"unimatch": {}}, iterations=60, evaluate_every=60)
    values["paths"] = {"source": "photos", "out": "artifacts", "code": "."}
    values["prepare"] |= {"dataset": {"name": "cityscapes"}, "splits": ["drawn_3"]}
    values["label"]["calibration_split"] = "drawn_3"
    values["cells"] |= {"methods": ["unimatch"], "splits": ["drawn_3"]}
    values["evaluate"] = {"window": WINDOW, "scales": [1.0], "flip": False}
    path = tiny["write"](folder, values)
    for stage, instance in (("prepare", []), ("train", INSTANCE)):
        assert main(["run", stage, *instance, "--params", str(path)]) == 0
    return path


def evaluate(params, *changes):
    """Run the stage as a user types it; return its scores and its last predictions."""
    sets = [part for change in changes for part in ("--set", change)]
    assert main(["run", "evaluate", *INSTANCE, "--params", str(params), *sets]) == 0
    folder = Layout(params.parent / "artifacts").cell_score(CELL)
    maps = {i: read_label(folder / "predictions" / "last" / f"{i}.png") for i in IDS["val"]}
    return json.loads((folder / "metrics.json").read_text()), maps


def windows(model, image):
    """Return the mean of the softmax of UniMatch's windows, written out."""
    total, times = torch.zeros(19, HEIGHT, WIDTH), torch.zeros(HEIGHT, WIDTH)
    for top in range(0, HEIGHT, STRIDE):
        for left in range(0, WIDTH, STRIDE):
            part = (slice(top, top + WINDOW), slice(left, left + WINDOW))
            total[:, *part] += model(image[:, :, *part])[0].softmax(dim=0)
            times[part] += 1
    return total / times


@pytest.mark.parametrize("flip", [False, True])
@torch.no_grad()
def test_predictions_are_those_of_windows_smaller_than_the_photo(params, flip):
    scores, found = evaluate(params, *(["evaluate.flip=true"] if flip else []))
    section = Settings.read(params).train.models["tiny"]
    cell = Layout(params.parent / "artifacts").cell(CELL)
    model = inference.load_model(section, cell / "last.safetensors", num_classes=19)
    for image_id, label in found.items():
        path = params.parent / "photos/leftImg8bit/val/lindau" / f"{image_id}_leftImg8bit.png"
        image = normalise(read_image(path)).unsqueeze(0)
        mean = windows(model, image)
        if flip:
            mean = (mean + windows(model, image.flip(3)).flip(2)) / 2
        two = mean.topk(2, dim=0).values
        clear = (two[0] - two[1] > 1e-5).numpy()
        assert clear.mean() > 0.9
        assert len(np.unique(label)) > 1
        assert (label == mean.argmax(dim=0).numpy())[clear].all()
    assert scores["evaluate"] == {"window": WINDOW, "scales": [1.0], "flip": flip}


def test_the_whole_photo_gives_other_predictions_and_sizes_others_again(params):
    _, windowed = evaluate(params)
    _, whole = evaluate(params, "evaluate.window=null")
    _, sized = evaluate(params, "evaluate.window=null", "evaluate.scales=[0.5, 1, 1.5]")
    for image_id in IDS["val"]:
        assert (windowed[image_id] != whole[image_id]).any()
        assert (sized[image_id] != whole[image_id]).any()


def test_the_table_says_that_photos_were_seen_through_windows(params, capsys):
    evaluate(params, "evaluate.flip=true")
    assert main(["run", "tabulate", "--params", str(params)]) == 0
    note = f"Evaluated on windows of {WINDOW} pixels, mirror images; probabilities are averaged."
    assert note in capsys.readouterr().out


def test_a_window_that_is_no_number_is_one_line_that_names_the_key(params, capsys):
    command = ["run", "evaluate", *INSTANCE, "--params", str(params), "--set"]
    assert main([*command, "evaluate.window=wide"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "evaluate.window: Input should be a valid integer" in line
    assert main([*command, "evaluate.flips=true"]) == 2
    assert "evaluate.flips: there is no such setting" in capsys.readouterr().err
