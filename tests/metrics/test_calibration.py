import math

import numpy as np
import pytest
import torch

from zspl.metrics.calibration import Reliability


def slow_ece(confidence, correct, num_bins):
    total = 0.0
    for m in range(num_bins):
        low, high = m / num_bins, (m + 1) / num_bins
        inside = [
            (c, hit)
            for c, hit in zip(confidence, correct, strict=True)
            if low < c <= high or (m == 0 and c == 0)
        ]
        if inside:
            mean_confidence = sum(c for c, _ in inside) / len(inside)
            accuracy = sum(hit for _, hit in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(accuracy - mean_confidence)
    return total


@pytest.mark.parametrize("num_bins", [1, 7, 10])
def test_ece_equals_the_definition_written_out(num_bins):
    rng = np.random.default_rng(0)
    confidence = rng.random(500)
    correct = rng.random(500) < confidence**2
    reliability = Reliability(num_bins=num_bins)
    reliability.update(torch.from_numpy(confidence), torch.from_numpy(correct))
    assert reliability.compute().ece == pytest.approx(slow_ece(confidence, correct, num_bins))


def test_adding_pixels_in_pieces_changes_nothing():
    confidence = torch.rand(100, generator=torch.Generator().manual_seed(1))
    correct = confidence > 0.4
    whole, pieces = Reliability(), Reliability()
    whole.update(confidence, correct)
    for start in range(0, 100, 30):
        pieces.update(confidence[start : start + 30], correct[start : start + 30])
    assert pieces.compute().ece == pytest.approx(whole.compute().ece, abs=1e-12)


def test_a_confidence_on_a_border_belongs_to_the_lower_bin_and_zero_to_the_first():
    reliability = Reliability(num_bins=2)
    reliability.update(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([False, True, True]))
    assert reliability.compute().count.tolist() == [2, 1]


def test_a_confidence_that_tells_the_truth_has_no_error():
    reliability = Reliability(num_bins=10)
    reliability.update(torch.full((4,), 0.75), torch.tensor([True, True, True, False]))
    assert reliability.compute().ece == pytest.approx(0, abs=1e-7)


def test_without_pixels_the_error_is_nan_and_bins_are_empty():
    metrics = Reliability().compute()
    assert math.isnan(metrics.ece)
    assert metrics.count.sum() == 0


def test_a_percentage_is_refused_as_confidence():
    with pytest.raises(ValueError, match=r"confidence must be in \[0, 1\], got 95 to 95"):
        Reliability().update(torch.tensor([95.0]), torch.tensor([True]))


def test_no_bins_are_refused():
    with pytest.raises(ValueError, match="num_bins must be at least 1, got 0"):
        Reliability(num_bins=0)


def test_an_entry_may_stand_for_many_pixels():
    confidence = torch.tensor([0.2, 0.7, 0.9])
    correct = torch.tensor([False, True, False])
    counted, repeated = Reliability(), Reliability()
    counted.update(confidence, correct, torch.tensor([3, 1, 4]))
    for index, number in enumerate((3, 1, 4)):
        for _ in range(number):
            repeated.update(confidence[index : index + 1], correct[index : index + 1])
    found, expected = counted.compute(), repeated.compute()
    assert torch.equal(found.count, expected.count)
    assert found.ece == pytest.approx(expected.ece)
    filled = [entry for entry in found.as_json()["reliability"] if entry["pixels"]]
    assert [entry["pixels"] for entry in filled] == [3, 1, 4]
    assert found.as_json()["reliability"][0]["accuracy"] is None
