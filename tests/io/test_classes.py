import numpy as np
import pytest

from zspl.errors import DataError
from zspl.io.classes import ClassTable, load_label
from zspl.io.images import write_label
from zspl.records import ImageRecord

IDS = [0, 255, 1, 2, *[-1] * 251, 255]
TABLE = ClassTable(names=("background", "a", "b"), prompts=("a", "b"), source_ids=tuple(IDS))


def record(path):
    return ImageRecord(image_id="x", image_path=path, label_path=path, digest="")


def test_a_table_is_read_as_it_was_written(tmp_path):
    TABLE.write(tmp_path / "classes.json")
    assert ClassTable.read(tmp_path / "classes.json") == TABLE
    assert TABLE.num_classes == 3


def test_mask_values_become_class_ids(tmp_path):
    label = np.array([[0, 1, 2, 3, 255]], np.uint8)
    mapped = TABLE.map(label, path=tmp_path)
    assert mapped.tolist() == [[0, 255, 1, 2, 255]]
    assert mapped.dtype == np.uint8


def test_an_illegal_mask_value_names_file_value_and_legal_range(tmp_path):
    path = tmp_path / "m.png"
    write_label(path, np.array([[0, 9, 9, 255]], np.uint8))
    with pytest.raises(DataError) as caught:
        load_label(record(path), TABLE, (4, 1))
    assert str(caught.value).startswith(f"{path}: holds the id 9 (2 pixels), expected 0..3, 255;")
    assert "\n" not in str(caught.value)


def test_a_mask_of_another_size_than_its_image_is_refused(tmp_path):
    path = tmp_path / "m.png"
    write_label(path, np.zeros((2, 3), np.uint8))
    with pytest.raises(DataError, match=r"mask is 3x2, its image 4x2"):
        load_label(record(path), TABLE, (4, 2))


def test_an_image_without_mask_is_refused_where_one_is_needed(tmp_path):
    without = ImageRecord(image_id="x", image_path=tmp_path, label_path=None, digest="")
    with pytest.raises(DataError, match="has no mask, but one is needed"):
        load_label(without, TABLE, (4, 2))


@pytest.mark.parametrize("content", ["", "[]", '{"names": ["a"]}', '{"names": 3, "prompts": 1}'])
def test_a_broken_table_is_one_line(tmp_path, content):
    path = tmp_path / "classes.json"
    path.write_text(content)
    with pytest.raises(DataError, match="is no class table") as caught:
        ClassTable.read(path)
    assert "\n" not in str(caught.value)


def test_a_missing_table_says_which_stage_writes_it(tmp_path):
    with pytest.raises(DataError, match="run the stage prepare first"):
        ClassTable.read(tmp_path / "classes.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ("background",)}, "expected 2..255 class names, got 1"),
        ({"names": ("a", "a", "b")}, "must differ"),
        ({"prompts": ("a",)}, "expected 2 prompts"),
        ({"prompts": ("a", "b", "c"), "background": ("sky",)}, "takes no texts of a background"),
        ({"source_ids": (0, 1)}, "expected 256 source ids, got 2"),
        ({"source_ids": (3, *IDS[1:])}, "source ids must be"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(changes, message):
    values = {"names": TABLE.names, "prompts": TABLE.prompts, "source_ids": TABLE.source_ids}
    with pytest.raises(ValueError, match=message):
        ClassTable(**(values | changes))
