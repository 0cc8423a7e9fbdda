import os
from pathlib import Path

import numpy as np
import pytest
import torch

from zspl.io.images import read_label
from zspl.metrics import ConfusionMatrix

VOC_LABELS = Path(os.environ.get("ZSPL_SHARED", "../shared")) / "data" / "voc_labels"


def test_scores_of_a_hand_made_example():
    matrix = ConfusionMatrix(3)
    label = torch.tensor([[0, 0, 1, 255], [0, 1, 1, 255]])
    prediction = torch.tensor([[0, 1, 1, 2], [0, 1, 0, 0]])
    matrix.update(prediction, label)
    scores = matrix.compute()
    assert scores.confusion.tolist() == [[2, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert scores.iou[:2].tolist() == pytest.approx([2 / 4, 2 / 4])
    assert scores.precision[0].item() == pytest.approx(2 / 3)
    assert scores.recall[1].item() == pytest.approx(2 / 3)
    assert scores.pixel_accuracy == pytest.approx(4 / 6)


def test_a_class_in_neither_truth_nor_prediction_is_nan_and_left_out():
    matrix = ConfusionMatrix(3)
    matrix.update(torch.tensor([[0, 1]]), torch.tensor([[0, 1]]))
    scores = matrix.compute()
    assert scores.iou[2].isnan()
    assert scores.miou == 1
    assert scores.miou_absent_zero == pytest.approx(2 / 3)


def test_a_class_that_is_only_predicted_counts_zero():
    matrix = ConfusionMatrix(2)
    matrix.update(torch.tensor([[0, 1]]), torch.tensor([[0, 0]]))
    scores = matrix.compute()
    assert scores.iou.tolist() == [0.5, 0]
    assert scores.miou == scores.miou_absent_zero == 0.25


def test_iou_pools_pixels_over_images_before_dividing():
    pooled, generator = ConfusionMatrix(4), np.random.default_rng(0)
    label = generator.integers(0, 4, (3, 5, 7)).astype(np.uint8)
    prediction = generator.integers(0, 4, (3, 5, 7)).astype(np.uint8)
    for one_prediction, one_label in zip(prediction, label, strict=True):
        pooled.update(one_prediction, one_label)
    expected = []
    for c in range(4):
        both = sum(p == c and t == c for p, t in zip(prediction.flat, label.flat, strict=True))
        any_ = sum(c in (p, t) for p, t in zip(prediction.flat, label.flat, strict=True))
        expected.append(both / any_)
    assert pooled.compute().iou.tolist() == pytest.approx(expected)
    assert pooled.compute().miou == pytest.approx(np.mean(expected))


def test_an_id_without_a_class_is_refused_and_named():
    with pytest.raises(ValueError, match=r"prediction holds 0\.\.7, expected class ids 0\.\.2"):
        ConfusionMatrix(3).update(torch.tensor([0, 7]), torch.tensor([0, 1]))


def test_maps_of_different_shape_are_refused():
    with pytest.raises((ValueError, TypeError)):
        ConfusionMatrix(3).update(torch.zeros(2, 3).long(), torch.zeros(3, 2).long())


def test_an_illegal_prediction_under_an_ignored_label_does_not_matter():
    matrix = ConfusionMatrix(2)
    matrix.update(torch.tensor([255, 1]), torch.tensor([255, 1]))
    assert matrix.counts.sum() == 1


@pytest.mark.skipif(not VOC_LABELS.is_dir(), reason=f"{VOC_LABELS} is not here; set ZSPL_SHARED")
def test_transcam_labels_of_voc_score_70_14_percent():
    matrix = ConfusionMatrix(21)
    for path in sorted((VOC_LABELS / "SegmentationClass").glob("*.png")):
        matrix.update(read_label(VOC_LABELS / "PseudoLabelsTransCAM" / path.name), read_label(path))
    assert round(100 * matrix.compute().miou, 2) == 70.14


def counted_one_by_one(prediction, label, num_classes, ignore_index):
    counts = np.zeros((num_classes, num_classes), np.int64)
    for p, t in zip(prediction.flat, label.flat, strict=True):
        if t != ignore_index:
            counts[int(t), int(p)] += 1
    return counts.tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64])
@pytest.mark.parametrize(
    ("num_classes", "ignore_index"), [(2, 255), (21, 255), (21, 3), (21, 0), (81, 255), (200, 255)]
)
def test_counts_are_exact_for_any_type_and_number_of_classes(dtype, num_classes, ignore_index):
    rng = np.random.default_rng(num_classes)
    highest = min(num_classes, np.iinfo(dtype).max)
    prediction, label = rng.integers(0, highest, (2, 23, 31)).astype(dtype)
    if ignore_index <= np.iinfo(dtype).max:
        label[rng.random(label.shape) < 0.2] = ignore_index
    for as_given in (np.asarray, torch.from_numpy):
        matrix = ConfusionMatrix(num_classes, ignore_index=ignore_index)
        for _ in range(2):
            matrix.update(as_given(prediction), as_given(label))
        expected = counted_one_by_one(prediction, label, num_classes, ignore_index)
        assert matrix.counts.tolist() == (2 * np.array(expected)).tolist()


def test_whatever_was_predicted_where_the_label_is_ignored_does_not_count():
    for prediction, ignored in ((255, 255), (-1, 255), (2**40, 255), (7, -1), (0, 10**6)):
        matrix = ConfusionMatrix(3, ignore_index=ignored)
        matrix.update(torch.tensor([1, prediction]), torch.tensor([2, ignored]))
        assert matrix.counts.tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("wrong", [3, 20, 254, 300, 70_000, -1])
@pytest.mark.parametrize("which", ["prediction", "label"])
def test_any_id_without_a_class_is_refused_and_nothing_is_counted(which, wrong):
    given = {"prediction": torch.tensor([0, 1, 2]), "label": torch.tensor([2, 255, 0])}
    given[which] = given[which].clone()
    given[which][0] = wrong
    matrix = ConfusionMatrix(3)
    with pytest.raises(ValueError, match=rf"{which} holds .*{wrong}.*, expected class ids 0\.\.2"):
        matrix.update(**given)
    assert matrix.counts.sum() == 0


def test_an_image_without_a_pixel_counts_nothing():
    matrix = ConfusionMatrix(3)
    matrix.update(np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.uint8))
    assert matrix.counts.sum() == 0
