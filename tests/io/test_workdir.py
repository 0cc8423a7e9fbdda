"""Half-finished work is found again under the same fingerprint, and only then."""

import pytest

from zspl.errors import DataError
from zspl.io.workdir import fingerprint, open_workdir


def test_work_survives_under_the_same_fingerprint(tmp_path):
    work = open_workdir(tmp_path / "w", made_under="x")
    (work / "half").touch()

    assert (open_workdir(tmp_path / "w", made_under="x") / "half").exists()


def test_work_of_other_settings_is_deleted(tmp_path):
    work = open_workdir(tmp_path / "w", made_under="x")
    (work / "half").touch()

    assert not (open_workdir(tmp_path / "w", made_under="y") / "half").exists()


def test_the_fingerprint_sees_settings_and_input_bytes(tmp_path):
    path = tmp_path / "in"
    path.write_bytes(b"1")
    first = fingerprint({"a": 1}, [path])

    assert fingerprint({"a": 1}, [path]) == first
    assert fingerprint({"a": 2}, [path]) != first
    path.write_bytes(b"2")
    assert fingerprint({"a": 1}, [path]) != first


def test_halves_of_a_killed_write_are_gone_when_the_work_is_opened_again(tmp_path):
    work = open_workdir(tmp_path / "w", made_under="x")
    (work / "images").mkdir()
    for name in (".half", "images/.a1b2.png", "images/whole.png"):
        (work / name).touch()

    open_workdir(work, made_under="x")

    files = {path.relative_to(work).as_posix() for path in work.rglob("*") if path.is_file()}
    assert files == {"fingerprint.txt", "images/whole.png"}


def test_a_file_in_place_of_the_work_folder_is_one_line(tmp_path):
    (tmp_path / "w").touch()

    with pytest.raises(DataError, match=r"w: expected a folder .* found a file; move it$"):
        open_workdir(tmp_path / "w", made_under="x")
