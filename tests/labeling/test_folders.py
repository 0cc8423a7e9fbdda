"""Ready label maps, passed on or refined."""

import numpy as np
import pytest
import torch
from PIL import Image

from zspl.errors import DataError
from zspl.io.classes import ClassTable
from zspl.labeling import Decision, LabelInputs, from_folder, sepl
from zspl.records import SegmentProposals

# The masks of this data set hold 0, 3 and 7; 9 is a class that is left out.
SOURCE_IDS = tuple({0: 0, 3: 1, 7: 2, 9: 255, 255: 255}.get(value, -1) for value in range(256))
TABLE = ClassTable(
    names=("background", "bird", "cat"), prompts=("bird", "cat"), source_ids=SOURCE_IDS
)


def write(folder, name, values):
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.array(values, np.uint8)).save(folder / f"{name}.png")


def given(masks=None):
    proposals = None
    if masks is not None:
        ones = torch.ones(len(masks))
        proposals = SegmentProposals(masks=masks, predicted_iou=ones, stability_score=ones)
    return LabelInputs(image_id="a", size=(2, 3), table=TABLE, proposals=proposals)


def test_values_become_class_ids_and_no_threshold_applies(tmp_path):
    write(tmp_path / "labels", "a", [[0, 3, 7], [9, 255, 3]])
    write(tmp_path / "sure", "a", [[255, 0, 51], [255, 255, 255]])
    labeler = from_folder.build(
        from_folder.Settings(folder=tmp_path / "labels", confidence=tmp_path / "sure")
    )
    scored = labeler.score(given())
    for threshold in (-1.0, 0.0, 5.0):
        pseudo = labeler.assign(scored, Decision.plain(threshold))
        assert pseudo.label.tolist() == [[0, 1, 2], [255, 255, 1]]
        assert pseudo.confidence[0].tolist() == pytest.approx([1, 0, 0.2])
    assert labeler.threshold is None


def test_missing_files_are_found_at_once(tmp_path):
    write(tmp_path / "labels", "a", [[0]])
    labeler = from_folder.build(from_folder.Settings(folder=tmp_path / "labels"))
    assert labeler.files(["a"]) == [tmp_path / "labels" / "a.png"]
    with pytest.raises(DataError, match=r"b\.png: no such label map \(2 of 3"):
        labeler.files(["a", "b", "c"])
    gone = from_folder.build(from_folder.Settings(folder=tmp_path / "gone"))
    with pytest.raises(DataError, match="no such folder"):
        gone.files(["a"])


def test_another_size_and_an_illegal_value_are_refused(tmp_path):
    labeler = from_folder.build(from_folder.Settings(folder=tmp_path / "labels"))
    write(tmp_path / "labels", "a", [[0, 3], [7, 9]])
    with pytest.raises(DataError, match="2x2"):
        labeler.score(given())
    write(tmp_path / "labels", "a", [[0, 3, 5], [7, 9, 0]])
    with pytest.raises(DataError, match="holds the id 5"):
        labeler.score(given())


def test_sepl_refines_the_label_maps_of_a_folder(tmp_path):
    write(tmp_path / "labels", "a", [[3, 3, 0], [255, 0, 255]])
    labeler = sepl.build(sepl.Settings(folder=tmp_path / "labels", rule="max_iou"))
    masks = torch.tensor([[[1, 1, 1], [0, 0, 0]]], dtype=torch.bool)
    pseudo = labeler.assign(labeler.score(given(masks)), Decision.plain(0.0))
    assert pseudo.label.tolist() == [[1, 1, 1], [255, 0, 255]]
    with pytest.raises(ValueError, match="needs proposals"):
        labeler.score(given())
