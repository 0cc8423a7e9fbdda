"""Coverage, conflict and doubt equal a pixel-by-pixel count."""

import numpy as np
import pytest
import torch

from zspl.labeling._decision import Decision, assign
from zspl.labeling._facts import conflict, coverage, doubt
from zspl.labeling._scoring import Scored


def segments(seed, number):
    random = np.random.default_rng(seed)
    masks = random.random((number, 11, 13)) < 0.2
    return torch.from_numpy(masks), [int(c) for c in random.integers(0, 3, number)]


@pytest.mark.parametrize("number", [0, 1, 2, 9])
def test_coverage_and_conflict_equal_a_count_over_pixels(number):
    masks, classes = segments(number, number)
    covered = disputed = 0
    for y in range(11):
        for x in range(13):
            here = [c for mask, c in zip(masks, classes, strict=True) if mask[y, x]]
            covered += bool(here)
            disputed += len(set(here)) > 1
    assert coverage(masks) == pytest.approx(covered / 143)
    assert conflict(masks, classes) == pytest.approx(disputed / 143)


def test_segments_of_one_class_do_not_conflict():
    masks = torch.ones(3, 4, 4, dtype=torch.bool)
    assert conflict(masks, [2, 2, 2]) == 0
    assert conflict(masks, [2, 1, 2]) == 1


def test_as_many_classes_as_segments_are_needed():
    with pytest.raises(ValueError, match="expected 3 classes, got 1"):
        conflict(torch.ones(3, 2, 2, dtype=torch.bool), [1])


def test_doubt_is_the_mean_of_what_confidence_leaves():
    assert doubt(torch.tensor([[1.0, 0.5], [0.0, 0.5]])) == pytest.approx(0.5)


def test_doubt_puts_the_images_that_are_wrong_first():
    random = np.random.default_rng(0)
    doubts, errors = [], []
    for _ in range(30):
        quality = random.random()
        right = random.random((20, 20)) < quality
        score = np.clip(np.where(right, 0.8, 0.4) + random.normal(0, 0.1, right.shape), 0, 1)
        scored = Scored(
            best=torch.ones(20, 20, dtype=torch.uint8),
            score=torch.from_numpy(score).float(),
            confidence=torch.from_numpy(score).float(),
        )
        doubts.append(doubt(assign(scored, Decision.plain(-1.0), unassigned=0).confidence))
        errors.append(1 - right.mean())
    order = np.argsort(doubts)[::-1]
    rank = np.corrcoef(np.argsort(np.argsort(doubts)), np.argsort(np.argsort(errors)))[0, 1]
    assert rank > 0.95
    assert np.mean(np.array(errors)[order[:5]]) > np.mean(np.array(errors)[order[-5:]]) + 0.5
