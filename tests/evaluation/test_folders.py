import numpy as np
import pytest
from PIL import Image

from zspl.errors import DataError
from zspl.evaluation.folders import score_folders
from zspl.io.classes import ClassTable
from zspl.io.images import write_label

TABLE = ClassTable.plain(("background", "cat", "dog"), prompts=("cat", "dog"))


@pytest.fixture
def folders(tmp_path):
    for name in ("a", "b"):
        write_label(tmp_path / "masks" / f"{name}.png", np.array([[0, 1, 2, 255]], np.uint8))
        write_label(tmp_path / "predicted" / f"{name}.png", np.array([[0, 1, 1, 2]], np.uint8))
    return tmp_path / "predicted", tmp_path / "masks"


def score(folders, ids=None):
    return score_folders(*folders, table=TABLE, ids=ids)


def test_iou_is_over_all_files_of_the_same_name(folders):
    assert score(folders).iou.tolist() == [1.0, 0.5, 0.0]


def test_a_mask_without_prediction_is_named(folders):
    (folders[0] / "b.png").unlink()
    with pytest.raises(DataError, match=r"predicted: lacks b.png \(1 of 2 missing\); .*--ids"):
        score(folders)


def test_ids_choose_what_is_scored(folders):
    (folders[0] / "b.png").unlink()
    assert score(folders, ids=["a"]).iou.tolist() == [1.0, 0.5, 0.0]


def test_an_id_without_files_is_named(folders):
    with pytest.raises(DataError, match=r"predicted: lacks c.png \(1 of 1 missing\)$"):
        score(folders, ids=["c"])


def test_another_size_is_named_with_both_sizes(folders):
    write_label(folders[0] / "a.png", np.zeros((2, 3), np.uint8))
    with pytest.raises(DataError, match=r"a.png: is 3x2, its mask .*a.png 4x1 pixels"):
        score(folders)


@pytest.mark.parametrize("side", [0, 1])
def test_an_id_that_is_no_class_is_named(folders, side):
    write_label(folders[side] / "a.png", np.array([[0, 1, 9, 0]], np.uint8))
    with pytest.raises(DataError, match=r"a.png: holds the id 9 \(1 pixels\)"):
        score(folders)


def test_a_colour_image_is_no_prediction(folders):
    Image.new("RGB", (4, 1)).save(folders[0] / "a.png")
    with pytest.raises(DataError, match=r"a\.png: mask has mode RGB"):
        score(folders)


def test_confidences_beside_pseudo_labels_are_not_predictions(folders):
    write_label(folders[0] / "a.confidence.png", np.zeros((1, 4), np.uint8))
    assert score(folders).iou.tolist() == [1.0, 0.5, 0.0]


def test_an_empty_or_missing_folder_is_named(folders, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no \.png file in it"):
        score((tmp_path / "empty", folders[1]))
    with pytest.raises(DataError, match="gone: no such folder"):
        score((tmp_path / "gone", folders[1]))
