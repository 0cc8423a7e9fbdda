"""A file is whole or not there."""

import errno

import pytest

from zspl.errors import DiskError
from zspl.io import atomic


def test_a_failing_writer_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "a.txt"
    atomic.write_text(path, "old")

    def half(temporary):
        temporary.write_text("ne")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        atomic.write(path, half)

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line_that_says_finished_work_stays(tmp_path):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskError, match=r"no disk space left.*finished work stays"):
        atomic.write(tmp_path / "deep" / "a.txt", full)


def test_publishing_a_folder_replaces_the_old_one(tmp_path):
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "old").touch()
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "new").touch()

    atomic.publish(tmp_path / "work", tmp_path / "final")

    assert [p.name for p in (tmp_path / "final").iterdir()] == ["new"]


@pytest.mark.parametrize("name", ["file/a.txt", "file/deep/a.txt", "folder"])
def test_a_file_or_folder_in_the_way_is_one_line_that_names_it(tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()

    with pytest.raises(DiskError, match=rf"{name.split('/')[0]} is in the way .*; move it") as got:
        atomic.write_text(tmp_path / name, "new")

    assert "\n" not in str(got.value)
