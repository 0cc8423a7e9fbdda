"""What dvc plots draws: curves that stay short, and nothing for what was not told."""

import csv
import json

import pytest

from zspl.errors import DataError
from zspl.evaluation.plot_data import POINTS, write_curve


def curve(tmp_path, lines):
    history = tmp_path / "metrics.jsonl"
    history.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_curve(history, tmp_path / "curves.csv")
    with (tmp_path / "curves.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_curve_holds_losses_and_scores_in_rows_of_their_own(tmp_path):
    rows = curve(tmp_path, [{"iteration": 1, "loss": 2.0}, {"iteration": 1, "val_miou": 0.5}])
    assert rows == [
        {"iteration": "1", "loss": "2.0", "val_miou": ""},
        {"iteration": "1", "loss": "", "val_miou": "0.5"},
    ]


def test_a_long_curve_is_the_mean_over_stretches_without_what_was_not_finite(tmp_path):
    lines = [{"iteration": k, "loss": float(k)} for k in range(1, 2 * POINTS + 1)]
    lines[1]["loss"] = None
    rows = curve(tmp_path, lines)
    assert len(rows) == POINTS
    assert rows[0] == {"iteration": "2", "loss": "1.0", "val_miou": ""}
    assert rows[1] == {"iteration": "4", "loss": "3.5", "val_miou": ""}


def test_a_training_without_history_has_an_empty_curve(tmp_path):
    write_curve(tmp_path / "none.jsonl", tmp_path / "curves.csv")
    assert (tmp_path / "curves.csv").read_text() == "iteration,loss,val_miou\n"


def test_a_broken_history_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("{half a li")
    with pytest.raises(DataError, match=r"metrics\.jsonl: expected a JSON object per line"):
        write_curve(tmp_path / "metrics.jsonl", tmp_path / "curves.csv")
