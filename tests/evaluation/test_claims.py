import math

import numpy as np
import pytest
import torch

from zspl.evaluation.claims import Claims

CLASSES = 4


def slow_scores(claim, truth, num_classes):
    """Count pixel by pixel; 255 in the truth is void, 255 in the claim finds nothing."""
    hit, true, found = ([0] * num_classes for _ in range(3))
    for c, t in zip(claim.flatten().tolist(), truth.flatten().tolist(), strict=True):
        if t == 255:
            continue
        true[t] += 1
        if c != 255:
            found[c] += 1
        if c == t:
            hit[t] += 1
    iou = [
        hit[k] / (true[k] + found[k] - hit[k]) if true[k] + found[k] else math.nan
        for k in range(num_classes)
    ]
    precision = [hit[k] / found[k] if found[k] else math.nan for k in range(num_classes)]
    recall = [hit[k] / true[k] if true[k] else math.nan for k in range(num_classes)]
    return iou, precision, recall


def random_maps(seed, silent=0.2):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, CLASSES - 1, (13, 9))
    claim = np.where(rng.random((13, 9)) < 0.6, truth, rng.integers(0, CLASSES - 1, (13, 9)))
    truth[rng.random((13, 9)) < 0.1] = 255
    claim[rng.random((13, 9)) < silent] = 255
    return torch.from_numpy(claim.astype(np.uint8)), torch.from_numpy(truth.astype(np.uint8))


@pytest.mark.parametrize("silent", [0.0, 0.3, 1.0])
def test_scores_equal_a_count_pixel_by_pixel(silent):
    claim, truth = random_maps(3, silent)
    claims = Claims(CLASSES)
    claims.update(claim, truth)
    found = claims.compute()
    iou, precision, recall = slow_scores(claim, truth, CLASSES)
    assert found.iou.tolist() == pytest.approx(iou, nan_ok=True)
    assert found.precision.tolist() == pytest.approx(precision, nan_ok=True)
    assert found.recall.tolist() == pytest.approx(recall, nan_ok=True)
    assert found.miou == pytest.approx(np.nanmean(iou))
    assert found.miou_absent_zero == pytest.approx(np.nan_to_num(iou).mean())


def test_silence_lowers_recall_and_nobodys_precision():
    truth = torch.tensor([[1, 1, 2, 2]], dtype=torch.uint8)
    claims = Claims(3)
    claims.update(torch.tensor([[1, 255, 2, 2]], dtype=torch.uint8), truth)
    found = claims.compute()
    assert found.precision[1:].tolist() == [1.0, 1.0]
    assert found.recall[1:].tolist() == [0.5, 1.0]
    assert found.miou == 0.75
    assert found.miou_claimed == 1.0


def test_images_are_pooled_before_dividing():
    claims = Claims(2)
    one = torch.ones(1, 9, dtype=torch.uint8)
    claims.update(one, one)
    claims.update(torch.zeros(1, 1, dtype=torch.uint8), torch.ones(1, 1, dtype=torch.uint8))
    assert claims.compute().iou[1] == pytest.approx(9 / 10)


def test_coverage_counts_all_pixels_even_void_ones():
    claims = Claims(3)
    claims.update(
        torch.tensor([[0, 1, 2, 255]], dtype=torch.uint8),
        torch.tensor([[255, 255, 255, 255]], dtype=torch.uint8),
    )
    found = claims.compute()
    assert (found.coverage, found.foreground) == (0.75, 0.5)
    assert math.isnan(found.miou)


@pytest.mark.parametrize("side", [0, 1])
def test_a_value_that_is_no_class_is_refused(side):
    maps = [torch.zeros(1, 2, dtype=torch.uint8), torch.zeros(1, 2, dtype=torch.uint8)]
    maps[side][0, 0] = 3
    with pytest.raises(ValueError, match=r"holds 3, expected class ids 0\.\.2 or 255"):
        Claims(3).update(*maps)
