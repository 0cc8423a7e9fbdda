"""Half-finished work is found again under the same fingerprint, and only then."""

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
