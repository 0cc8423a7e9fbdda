import csv

import numpy as np
import pytest

from zspl import cli
from zspl.io.images import write_label


@pytest.fixture
def folders(tmp_path):
    write_label(tmp_path / "masks" / "a.png", np.array([[0, 8, 12, 255]], np.uint8))
    write_label(tmp_path / "predicted" / "a.png", np.array([[0, 8, 8, 12]], np.uint8))
    return tmp_path


def score(folders, *more):
    where = ["--predictions", str(folders / "predicted"), "--labels", str(folders / "masks")]
    return cli.main(["score", *where, *more])


def test_score_prints_a_line_per_class_and_the_mean_over_classes_that_occur(folders, capsys):
    assert score(folders) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 21 + 3
    assert next(line.split() for line in lines if line.startswith("cat")) == [
        "cat",
        "50.00",
        "50.00",
        "100.00",
    ]
    assert "mIoU 50.00 %" in lines
    # 1 + 0.5 + 0 over all 21 classes
    assert lines[-1].endswith("7.14 %")


def test_score_keeps_the_classes_it_is_told_to(folders, capsys):
    assert score(folders, "--set", "classes=[cat]") == 0
    out = capsys.readouterr().out
    assert "dog" not in out
    assert "mIoU 100.00 %" in out


def test_score_says_when_predictions_are_silent(folders, capsys):
    write_label(folders / "predicted" / "a.png", np.array([[0, 8, 255, 255]], np.uint8))
    assert score(folders) == 0
    out = capsys.readouterr().out
    assert "50.00 % of pixels have no label and count as misses; mIoU without them 100.00 %" in out


def test_score_writes_the_table_as_csv(folders):
    path = folders / "new" / "table.csv"
    assert score(folders, "--csv", str(path)) == 0
    with path.open() as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    assert len(rows) == 21
    assert rows["cat"]["iou"] == "0.500000"
    assert rows["bird"]["iou"] == ""


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "predicted" / "a.png").write_bytes(b"\x89PNG"), "is not readable"),
        (lambda f: (f / "predicted" / "a.png").rename(f / "predicted" / "b.png"), "lacks a.png"),
        (
            lambda f: write_label(f / "predicted" / "a.png", np.zeros((2, 2), np.uint8)),
            "is 2x2, its mask",
        ),
        (
            lambda f: write_label(f / "predicted" / "a.png", np.full((1, 4), 77, np.uint8)),
            "holds the id 77",
        ),
    ],
)
def test_score_stops_at_bad_input_with_one_line(folders, capsys, spoil, message):
    spoil(folders)
    assert score(folders) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("zspl:")]
    assert len(lines) == 1
    assert message in lines[0]


def test_score_names_an_unknown_data_set_and_an_unknown_class(folders, capsys):
    assert score(folders, "--dataset", "pascal") == 2
    assert "zspl/datasets/ has no plugin 'pascal'" in capsys.readouterr().err
    assert score(folders, "--set", "classes=[cta]") == 2
    assert "VOC has no class 'cta'. Did you mean 'cat'?" in capsys.readouterr().err


def test_score_takes_a_list_of_ids(folders, tmp_path, capsys):
    write_label(folders / "masks" / "b.png", np.zeros((1, 1), np.uint8))
    (tmp_path / "ids.txt").write_text("a\n")
    assert score(folders) == 2
    assert score(folders, "--ids", str(tmp_path / "ids.txt")) == 0
