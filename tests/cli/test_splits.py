"""zspl splits: official lists, checks with an exit code, and drawn lists."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from zspl.cli import main
from zspl.datasets import _lists
from zspl.io.splits import read_ids


@pytest.fixture
def photos(tmp_path):
    """Twelve photos: class 1 in every second one, class 2 in one."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for n in range(12):
        mask = np.zeros((8, 8), np.uint8)
        mask[:4] = n % 2
        mask[4:, :2] = 2 if n == 5 else 255
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"images/p{n:02d}.png")
        Image.fromarray(mask).save(tmp_path / f"masks/p{n:02d}.png")
    return tmp_path


def make(folder, *more, sizes="3,6", out="lists"):
    return main(
        ["splits", "make", "--images", str(folder / "images"), "--masks", str(folder / "masks"),
         "--sizes", sizes, "--out", str(folder / out), *more]
    )  # fmt: skip


def test_the_shipped_lists_are_those_of_their_checksums(capsys):
    assert main(["splits", "verify"]) == 0
    assert capsys.readouterr().out == "official lists shipped with zspl: good\n"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_text(path.read_text() + "2007_000032\n"), "sha256"),
        (lambda path: path.write_text("../a\n"), "is no bare file name"),
        (lambda path: path.unlink(), "no such list"),
        (lambda path: (path.parent / "93.txt").write_text("a\n"), "is no official list"),
        (lambda path: path.write_text("a\na\n"), "names 'a' twice"),
    ],
)
def test_a_spoilt_list_is_one_line(tmp_path, spoil, message):
    for kind in ("pascal", "coco2017", "cityscapes_fine"):
        shutil.copytree(_lists.SHIPPED / kind, tmp_path / kind)
    spoil(tmp_path / "pascal/92.txt")
    found = list(_lists.problems_of_shipped(tmp_path))
    assert any(message in problem for problem in found)
    assert all("\n" not in problem for problem in found)


def test_drawn_lists_are_nested_show_each_class_and_come_again_for_the_same_seed(photos, capsys):
    assert make(photos) == 0
    captured = capsys.readouterr()
    small, large = (read_ids(photos / f"lists/made_{n}.txt") for n in (3, 6))
    assert (len(small), len(large)) == (3, 6)
    assert small == large[:3]
    assert "p05" in small  # the only one of class 2
    assert "made_3.txt: 1 image(s) of 'class 2'" in captured.err
    manifest = json.loads((photos / "lists/manifest.json").read_text())
    made = manifest["lists"]["made_6.txt"]
    assert (made["seed"], made["drawn_from"]) == (0, 12)
    assert made["images_per_class"]["class 2"] == 1
    assert made["sha256"] == _lists.sha256(photos / "lists/made_6.txt")
    assert make(photos, out="again") == 0
    assert (photos / "again/made_6.txt").read_bytes() == (photos / "lists/made_6.txt").read_bytes()
    assert make(photos, "--seed", "1", out="other") == 0
    assert (photos / "other/made_6.txt").read_bytes() != (photos / "lists/made_6.txt").read_bytes()


def test_drawn_lists_are_verified_against_their_manifest(photos, capsys):
    assert make(photos) == 0
    assert main(["splits", "verify", "--lists", str(photos / "lists")]) == 0
    with (photos / "lists/made_3.txt").open("a") as file:
        file.write("p00\n")
    capsys.readouterr()
    assert main(["splits", "verify", "--lists", str(photos / "lists")]) == 1
    assert "made_3.txt: sha256" in capsys.readouterr().out
    assert main(["splits", "verify", "--lists", str(photos)]) == 2


def test_lists_drawn_into_the_same_folder_later_stand_beside_the_first_in_the_manifest(photos):
    assert make(photos) == 0
    assert make(photos, "--name", "second", "--seed", "7") == 0
    lists = json.loads((photos / "lists/manifest.json").read_text())["lists"]
    assert {name: facts["seed"] for name, facts in lists.items()} == {
        "made_3.txt": 0, "made_6.txt": 0, "second_3.txt": 7, "second_6.txt": 7,
    }  # fmt: skip
    (photos / "lists/manifest.json").write_text("{")
    assert make(photos, "--name", "third") == 2
    assert not (photos / "lists/third_3.txt").exists()


def test_a_list_with_other_ids_is_not_replaced_and_nothing_else_is_written(photos, capsys):
    (photos / "lists").mkdir()
    (photos / "lists/made_6.txt").write_text("mine\n")
    assert make(photos) == 2
    assert "is there with other ids" in capsys.readouterr().err
    assert [path.name for path in (photos / "lists").iterdir()] == ["made_6.txt"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--sizes", "0"), "is not from 1 to 12"),
        (("--sizes", "13"), "is not from 1 to 12"),
        (("--sizes", "3,x"), "expected numbers of images"),
        (("--name", "../a"), "expected a file name"),
        (("--masks", "/nowhere"), "no mask <id>.png"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(photos, capsys, more, message):
    assert make(photos, *more) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("zspl: ") == 1


def test_the_splits_of_a_benchmark_are_checked_against_its_data(photos, capsys):
    params = photos / "params.yaml"
    (photos / "data/ImageSets/Segmentation").mkdir(parents=True)
    shutil.copytree(photos / "images", photos / "data/JPEGImages")
    shutil.copytree(photos / "masks", photos / "data/SegmentationClass")
    lists = photos / "data/ImageSets/Segmentation"
    (lists / "val.txt").write_text("p00\np01\n")
    (lists / "good.txt").write_text("p02\np03\n")
    (lists / "bad.txt").write_text("p01\np02\np02\np04\n")
    (lists / "gone.txt").write_text("p99\n")
    (photos / "data/SegmentationClass/p04.png").unlink()
    text = (_lists.SHIPPED.parents[1] / "benchmarks/animals/params.yaml").read_text()
    text = text.replace("../../data/voc_animals\n", "data\n").replace("labeled_92", "good")
    a, b = text.index("  dataset:"), text.index("  shards:")
    dataset = "  dataset: {name: folder, classes: [a, b], val_list: val}\n  splits: [good]\n"
    text = text[:a] + dataset + text[b:]
    text = text.replace("splits: [good, labeled_183]", "splits: [good]")
    params.write_text(text)
    assert main(["splits", "verify", "--params", str(params)]) == 0, capsys.readouterr()
    params.write_text(
        text.replace("splits: [good]\n  shards", "splits: [good, bad, gone]\n  shards")
    )
    capsys.readouterr()
    assert main(["splits", "verify", "--params", str(params)]) == 1
    printed = capsys.readouterr().out
    for message in (
        "split bad: the id 'p02' is in labeled twice",
        "split bad: the id 'p01' is in both labeled and val",
        "split bad: labeled image 'p04' has no mask (1 of 4",
        "no image of the id 'p99'",
    ):
        assert message in printed
