"""What a confusion costs is what mIoU gains when its pixels are put right."""

import numpy as np
import pytest
import torch

from zspl.evaluation.confusions import SILENCE, dearest_confusions

NAMES = ("background", "cat", "dog")


def miou(counts):
    """Return mIoU of a confusion matrix with a last column of silence, written out."""
    ious = []
    for c in range(len(NAMES)):
        union = counts[c].sum() + counts[:, c].sum() - counts[c, c]
        if union:
            ious.append(counts[c, c] / union)
    return np.mean(ious)


def test_the_gain_is_the_miou_after_correction_less_the_miou_before():
    counts = np.random.default_rng(0).integers(1, 50, (3, 4))
    found = dearest_confusions(torch.from_numpy(counts), NAMES, kept=100)
    assert len(found) == 3 * 3
    for entry in found:
        row = NAMES.index(entry["truth"])
        column = (*NAMES, SILENCE).index(entry["called"])
        mended = counts.copy()
        mended[row, row] += mended[row, column]
        mended[row, column] = 0
        assert entry["gain"] == pytest.approx(miou(mended) - miou(counts))
        assert entry["share"] == pytest.approx(counts[row, column] / counts[row].sum())
    gains = [entry["gain"] for entry in found]
    assert gains == sorted(gains, reverse=True)


def test_right_pixels_and_absent_classes_are_no_confusion():
    counts = torch.tensor([[5, 0, 0], [0, 0, 0], [0, 0, 7]])
    assert dearest_confusions(counts, NAMES) == []


def test_as_many_are_kept_as_asked_for():
    counts = torch.ones(3, 3, dtype=torch.int64)
    assert len(dearest_confusions(counts, NAMES, kept=2)) == 2
