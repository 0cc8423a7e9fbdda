"""Choosing a threshold: the curve equals labeling and scoring again at every candidate."""

import math

import numpy as np
import pytest
import torch

from zspl.labeling._calibration import Calibrator
from zspl.labeling._calibration_counts import LEVELS, STEPS, level_of
from zspl.labeling._decision import Decision, assign
from zspl.labeling._scoring import Scored

CLASSES = 4


def image(seed, *, fixed):
    random = np.random.default_rng(seed)
    truth = random.integers(0, CLASSES, (12, 15)).astype(np.uint8)
    best = np.where(
        random.random(truth.shape) < 0.6, truth, random.integers(1, CLASSES, truth.shape)
    )
    best = np.maximum(best, 1).astype(np.uint8)
    score = random.normal(0.25, 0.05, truth.shape) + 0.05 * (best == truth)
    score = score.astype(np.float32)
    if fixed is not None:
        score[:2], best[:2] = math.inf, fixed
    truth[random.random(truth.shape) < 0.1] = 255
    scored = Scored(
        best=torch.from_numpy(best),
        score=torch.from_numpy(score),
        confidence=torch.ones(truth.shape),
    )
    return scored, torch.from_numpy(truth)


def plain_miou(images, threshold, unassigned):
    correct, predicted, true = np.zeros((3, CLASSES))
    for scored, truth in images:
        label = assign(scored, Decision.plain(threshold), unassigned=unassigned).label.numpy()
        true_class = truth.numpy()
        for c in range(CLASSES):
            valid = true_class != 255
            correct[c] += (valid & (label == c) & (true_class == c)).sum()
            predicted[c] += (valid & (label == c)).sum()
            true[c] += (true_class == c).sum()
    union = true + predicted - correct
    return np.mean(correct[union > 0] / union[union > 0])


@pytest.mark.parametrize("fixed", [None, 0, 255])
@pytest.mark.parametrize("unassigned", [0, 255])
def test_the_curve_equals_the_miou_of_the_painted_labels(fixed, unassigned):
    images = [image(seed, fixed=fixed) for seed in range(4)]
    search = Calibrator(num_classes=CLASSES, unassigned=unassigned)
    for scored, truth in images:
        search.add(scored, truth)
    curve = search.curve()
    assert 32 < len(curve) <= 64
    for point in curve:
        assert point.miou == pytest.approx(plain_miou(images, point.threshold, unassigned))
    assert search.best().miou == max(point.miou for point in curve)


def test_the_first_candidate_assigns_all_pixels_and_the_last_none():
    scored, truth = image(0, fixed=None)
    search = Calibrator(num_classes=CLASSES, unassigned=0)
    search.add(scored, truth)
    curve = search.curve()
    valid = truth != 255
    assert (scored.score[valid] > curve[0].threshold).all()
    assert not (scored.score[valid] > curve[-1].threshold).any()


def test_a_threshold_that_separates_background_is_found():
    truth = torch.tensor([[0, 0, 0, 1, 2, 3]], dtype=torch.uint8)
    scored = Scored(
        best=torch.tensor([[1, 2, 3, 1, 2, 3]], dtype=torch.uint8),
        score=torch.tensor([[0.20, 0.21, 0.22, 0.24, 0.25, 0.26]]),
        confidence=torch.ones(1, 6),
    )
    search = Calibrator(num_classes=CLASSES, unassigned=0)
    search.add(scored, truth)
    best = search.best()
    assert best.miou == 1
    assert 0.22 <= best.threshold < 0.24


def test_without_any_scored_pixel_there_is_nothing_to_calibrate():
    search = Calibrator(num_classes=CLASSES, unassigned=0)
    with pytest.raises(ValueError, match="nothing to calibrate"):
        search.best()


def test_a_score_a_rounding_error_above_one_still_has_a_threshold():
    """The cosine of equal vectors may come out so; only an infinite score has none."""
    scores = np.array([1.0, np.nextafter(np.float32(1), np.float32(2)), math.inf], np.float32)
    one, above, infinite = level_of(scores)
    assert one == above == STEPS
    assert infinite == LEVELS - 1 > STEPS
