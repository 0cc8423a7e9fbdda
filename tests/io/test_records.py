import hashlib
import json
from pathlib import Path

import pytest

from zspl.errors import DataError
from zspl.io.records import digest, read_records, write_records
from zspl.records import ImageRecord


def record(image_id, label="m.png"):
    return ImageRecord(
        image_id=image_id,
        image_path=Path("data/ü") / f"{image_id}.jpg",
        label_path=None if label is None else Path(label),
        digest="d",
    )


def test_records_are_read_as_written_sorted_by_id(tmp_path):
    path = tmp_path / "records.jsonl"
    write_records(path, [record("b"), record("a", label=None)])
    assert read_records(path) == {"a": record("a", label=None), "b": record("b")}
    assert path.read_text().splitlines()[0] == (
        '{"image_id": "a", "image": "data/ü/a.jpg", "label": null, "digest": "d"}'
    )


def test_two_records_of_one_id_are_refused(tmp_path):
    with pytest.raises(DataError, match="have the same id 'a'"):
        write_records(tmp_path / "r.jsonl", [record("a"), record("a")])


def test_the_digest_covers_image_and_mask(tmp_path):
    image, mask = tmp_path / "i", tmp_path / "m"
    image.write_bytes(b"image")
    mask.write_bytes(b"mask")
    assert digest(image, mask) == hashlib.sha256(b"imagemask").hexdigest()
    assert digest(image, None) == hashlib.sha256(b"image").hexdigest()
    with pytest.raises(DataError, match="cannot be read"):
        digest(tmp_path / "none", None)


@pytest.mark.parametrize("line", ["x", "{}", "[]", '{"image_id": "a"}'])
def test_a_broken_line_is_named(tmp_path, line):
    path = tmp_path / "records.jsonl"
    write_records(path, [record("a")])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=r"records\.jsonl:2: is no image record"):
        read_records(path)


def test_missing_records_say_which_stage_writes_them(tmp_path):
    with pytest.raises(DataError, match="run the stage prepare first"):
        read_records(tmp_path / "records.jsonl")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_id", "../../x"),
        ("image_id", "/etc/passwd"),
        ("image_id", "a/b"),
        ("image_id", ".a"),
        ("image_id", "a\0b"),
        ("image_id", "a" * 201),
        ("image_id", 5),
        ("image", "a\0.png"),
        ("label", "a\0.png"),
        ("label", ["a"]),
    ],
)
def test_a_record_that_could_leave_the_artifacts_folder_is_one_clear_line(tmp_path, field, value):
    path = tmp_path / "records.jsonl"
    good = {"image_id": "a", "image": "a.jpg", "label": None, "digest": "0"}
    path.write_text(json.dumps({**good, field: value}) + "\n")
    with pytest.raises(DataError, match=r"records\.jsonl:1.*run the stage prepare again") as caught:
        read_records(path)
    assert "\n" not in str(caught.value)
