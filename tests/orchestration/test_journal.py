"""The file between a stage and MLflow: whole lines, spaced curves, nothing private."""

import errno
import math
from pathlib import Path
from unittest.mock import Mock

import pytest

from tasks.tracking import journal, privacy
from tasks.tracking.courier import Address
from tasks.tracking.journal import Journal, Sent
from tasks.tracking.observer import Curve, table_of, tracked

TRAIN = {"method": "supervised", "model": "small", "split": "labeled_4", "seed": "0"}


def kinds(path):
    return [line["kind"] for line in journal.read(path, 0)]


def test_a_journal_is_written_until_its_writer_closes_it(tmp_path):
    written = Journal(tmp_path, {"role": "stage"})
    assert journal.waiting(tmp_path) == [written.path]
    assert journal.is_written(written.path)
    written.close()
    assert not journal.is_written(written.path)
    assert journal.header(written.path)["role"] == "stage"


def test_reading_goes_on_where_it_stopped_and_leaves_half_a_line(tmp_path):
    written = Journal(tmp_path, {})
    written.append({"kind": "params"})
    position = journal.read(written.path, 0)[-1]["end"]
    written.append({"kind": "metrics"})
    with written.path.open("a") as file:
        file.write('{"kind": "cl')
    assert [line["kind"] for line in journal.read(written.path, position)] == ["metrics"]
    Sent(bytes=position, run="r").write(written.path)
    assert Sent.read(written.path) == Sent(bytes=position, run="r")


def test_a_line_that_does_not_fit_on_the_disk_leaves_no_part_of_itself(tmp_path, monkeypatch):
    written = Journal(tmp_path, {})
    real = journal.os.write
    monkeypatch.setattr(journal.os, "write", lambda file, content: real(file, content[:5]))
    with pytest.raises(OSError, match="only a part"):
        written.append({"kind": "params"})
    monkeypatch.undo()
    written.append({"kind": "metrics"})
    assert kinds(written.path) == ["open", "metrics"]


def test_a_full_disk_costs_a_line_and_not_the_stage_nor_the_lines_after_it(
    tiny, by_hand, monkeypatch, capsys
):
    with tracked("train", tiny, TRAIN) as observer:
        observer.metrics({"loss": 1.0}, step=1)
        with monkeypatch.context() as patch:
            full = OSError(errno.ENOSPC, "No space left on device")
            patch.setattr(Journal, "append", Mock(side_effect=full))
            observer.metrics({"loss": 0.5}, step=2)
        observer.metrics({"loss": 0.25}, step=3)
    (path,) = journal.waiting(Address.of(tiny).folder)
    steps = [line["step"] for line in journal.read(path, 0) if line["kind"] == "metrics"]
    assert steps == [1, 3]
    assert capsys.readouterr().err.count("zspl: MLflow") == 1


@pytest.mark.parametrize("points", [1, 200, 201, 1000, 100_000])
def test_a_curve_keeps_its_first_and_last_points_and_never_many(points):
    curve = Curve()
    kept = [step for step in range(points) if curve.wants(step, 0.0)]
    kept += [curve.left_out[0]] if curve.left_out else []
    assert kept[: min(points, 200)] == list(range(min(points, 200)))
    assert kept[-1] == points - 1
    assert len(kept) <= 1100


def test_a_table_keeps_numbers_as_numbers(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("method,miou\na,47.1500\nb,\nc,nan\n")
    assert table_of(path) == {
        "columns": ["method", "miou"],
        "data": [["a", 47.15], ["b", ""], ["c", "nan"]],
    }
    assert math.isfinite(table_of(path)["data"][0][1])


def test_what_is_kept_for_sending_names_no_folder_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere/ada")
    monkeypatch.chdir(tmp_path)
    Path("note.json").write_text(f'["{tmp_path}/x", "/somewhere/ada/y", "/somewhere/adair"]')
    Path("map.png").write_bytes(b"\x89PNG\xff")
    written = Journal(tmp_path / "work", {})
    assert written.copy(Path("note.json")).read_text() == '["./x", "~/y", "/somewhere/adair"]'
    assert written.copy(Path("map.png")).read_bytes() == b"\x89PNG\xff"


@pytest.mark.parametrize(
    "reason",
    [
        "http://ada:open-sesame@host/api failed",
        "user ada with open-sesame is not allowed",
        "token tok-123 expired",
    ],
)
def test_a_message_tells_no_credentials(monkeypatch, reason):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:open-sesame@host")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "tok-123")
    said = privacy.for_people(reason)
    assert not {"ada", "open-sesame", "tok-123"} & set(said.replace(":", " ").split())
    assert "sesame" not in said


def test_a_journal_holds_an_address_without_its_credentials(tiny, by_hand, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:open-sesame@127.0.0.1:1")
    with tracked("train", tiny, TRAIN) as observer:
        observer.metrics({"loss": 1.0}, step=1)
    (path,) = journal.waiting(Address.of(tiny).folder)
    assert "open-sesame" not in path.read_text()
    assert journal.header(path)["uri"] == "http://127.0.0.1:1"
