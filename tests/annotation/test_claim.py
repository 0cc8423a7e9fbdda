"""An output folder belongs to one process and one set of choices."""

import subprocess
import sys

import pytest

from zspl.annotation.claim import claimed, recall, stamp
from zspl.errors import DataError, DiskError


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    out = tmp_path / "out"
    code = (
        "import sys, time, pathlib\n"
        "from zspl.annotation.claim import claimed\n"
        "with claimed(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    first = subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE)
    try:
        assert first.stdout.readline() == b"held\n"
        with pytest.raises(DataError, match="another zspl annotate is writing here"), claimed(out):
            pass
    finally:
        first.kill()
        first.wait()
        first.stdout.close()

    with claimed(out):
        assert out.is_dir()


def test_halves_of_a_killed_write_are_swept_and_nothing_else(tmp_path):
    halves = [".abcd_123.png", "labels/d/.a1b2c3d4.png", "exports/coco/.00000000.json"]
    others = ["annotate.json", ".gitignore", ".htaccess", "labels/a.png", "labels/d/.DS_Store"]
    for name in (*halves, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    with claimed(tmp_path):
        pass

    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {*others, ".zspl-annotate.lock"}


def test_a_folder_that_nothing_came_of_is_gone_again(tmp_path):
    with pytest.raises(ValueError, match="models"), claimed(tmp_path / "a" / "out"):
        raise ValueError("models")

    assert not (tmp_path / "a" / "out").exists()


def test_a_folder_of_something_else_is_refused_and_left_as_it_was(tmp_path):
    (tmp_path / "mine.txt").touch()

    with pytest.raises(DataError, match=r"files of something else \(mine.txt\)"), claimed(tmp_path):
        pass

    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_in_place_of_the_folder_is_one_line(tmp_path):
    (tmp_path / "out").touch()

    with pytest.raises(DiskError, match="is in the way"), claimed(tmp_path / "out"):
        pass


def test_the_same_choices_are_recalled_with_what_was_found(tmp_path):
    choices = {"classes": ("cat", "dog"), "features": {"name": "gem", "settings": {"depth": 7}}}
    assert recall(tmp_path, choices) is None

    stamp(tmp_path, choices, {"decision": {"threshold": 0.5}})

    assert recall(tmp_path, choices)["decision"] == {"threshold": 0.5}


def test_other_choices_are_refused_and_the_first_difference_is_named(tmp_path):
    stamp(tmp_path, {"features": {"settings": {"depth": 7, "model": "a"}}, "batch": 1}, {})

    with pytest.raises(DataError, match=r"\(features.settings.depth was 7, is 5\)"):
        recall(tmp_path, {"features": {"settings": {"depth": 5, "model": "b"}}, "batch": 1})
    with pytest.raises(DataError, match=r"\(batch was 1, is null\)"):
        recall(tmp_path, {"features": {"settings": {"depth": 7, "model": "a"}}})


@pytest.mark.parametrize("content", ["", "[1]", "\x00"])
def test_a_damaged_stamp_is_one_line(tmp_path, content):
    (tmp_path / "annotate.json").write_text(content)

    with pytest.raises(DataError, match=r"annotate.json: is damaged"):
        recall(tmp_path, {})
