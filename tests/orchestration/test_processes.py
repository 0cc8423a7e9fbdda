"""ZSPL_PROCESSES: one cell of the graph, trained by several processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from zspl.errors import SettingsError

pytestmark = pytest.mark.orchestration

CELL = ("method=supervised", "model=small", "split=labeled_4", "seed=0")


@pytest.mark.parametrize("text", ["two", "0", "-1", "1.5"])
def test_a_wrong_number_of_processes_is_one_line(text):
    from tasks.__main__ import processes_from

    with pytest.raises(SettingsError, match=r"ZSPL_PROCESSES is .* expected a whole number"):
        processes_from(text)


def tasks(folder, *words):
    done = subprocess.run(
        [sys.executable, "-m", "tasks", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_two_processes_share_the_batch_of_one_cell_as_the_graph_runs_it(tmp_path, monkeypatch):
    text = (Path(__file__).parent / "tiny_params.yaml").read_text()
    params = tmp_path / "params.yaml"
    text = text.replace("code: code", "code: .")
    text = text.replace("labeled: 2", "labeled: 4")
    params.write_text(text.replace("batch_labeled: 4", "batch_labeled: 3"))
    (tmp_path / "source").mkdir()
    monkeypatch.setenv("ZSPL_PROCESSES", "2")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")

    assert tasks(tmp_path, "prepare")[0] == 0
    code, said = tasks(tmp_path, "train", *CELL)
    assert code != 0
    assert "a batch of 3 images cannot be shared evenly by 2 processes" in said

    params.write_text(text)
    code, said = tasks(tmp_path, "train", *CELL)
    assert code == 0, said
    cell = tmp_path / "artifacts/cells/supervised/small/labeled_4/seed-0"
    assert (cell / "last.safetensors").is_file()
    assert (cell / "metrics.jsonl").read_text().count('"loss"') == 4
