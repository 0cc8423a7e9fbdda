"""The official evaluator with its histograms gives our scores; where we differ, by how much."""

import numpy as np
import pytest

from zspl.metrics import ConfusionMatrix

CLASSES = 6


def photos(count=5, *, absent=()):
    rng = np.random.default_rng(0)
    for _ in range(count):
        shape = (int(rng.integers(5, 30)), int(rng.integers(5, 30)))
        truth = rng.integers(0, CLASSES, shape)
        prediction = np.where(rng.random(shape) < 0.6, truth, rng.integers(0, CLASSES, shape))
        for k in absent:
            truth[truth == k], prediction[prediction == k] = 0, 1
        truth[rng.random(shape) < 0.1] = 255
        yield prediction, truth


def published_iou(pairs):
    """Intersections and unions of per-image histograms, summed; 1e-10 keeps 0/0 a zero."""
    intersection, union = np.zeros(CLASSES), np.zeros(CLASSES)
    bins = np.arange(CLASSES + 1)
    for prediction, truth in pairs:
        output = prediction.copy().reshape(-1)
        target = truth.reshape(-1)
        output[target == 255] = 255
        agreed = output[output == target]
        hits, _ = np.histogram(agreed, bins=bins)
        predicted, _ = np.histogram(output, bins=bins)
        true, _ = np.histogram(target, bins=bins)
        intersection += hits
        union += predicted + true - hits
    return intersection / (union + 1e-10)


def scored(pairs):
    matrix = ConfusionMatrix(CLASSES)
    for prediction, truth in pairs:
        matrix.update(prediction, truth)
    return matrix.compute()


def test_histograms_and_the_confusion_matrix_give_the_same_iou_of_every_class():
    expected = published_iou(photos())
    ours = scored(photos())
    np.testing.assert_allclose(ours.iou.numpy(), expected, rtol=1e-12)
    assert ours.miou == pytest.approx(expected.mean(), rel=1e-12)


def test_a_class_that_is_absent_counts_zero_there_and_stands_in_a_number_of_its_own_here():
    expected = published_iou(photos(absent=(4,)))
    ours = scored(photos(absent=(4,)))
    assert expected[4] == 0
    assert ours.miou_absent_zero == pytest.approx(expected.mean(), rel=1e-9)
    assert ours.miou == pytest.approx(expected.sum() / (CLASSES - 1), rel=1e-9)


def test_images_that_four_gpus_count_twice_are_counted_once_here():
    pairs = list(photos())
    repeated = [*pairs, *pairs[:3]]  # the sampler pads 5 images to 8
    assert published_iou(repeated).mean() != pytest.approx(scored(pairs).miou)
    assert scored(pairs).miou == pytest.approx(published_iou(pairs).mean())
