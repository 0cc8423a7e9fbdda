"""The verdict and the sentence that says why."""

import numpy as np
import pytest

from zspl.labeling._calibration_counts import Confusion
from zspl.labeling._expectation import Expectation, Interval, expect, judge, sentence

NAMES = ("background", "cat", "zebra")


def expected(low, value, high, *, images=20, **changes):
    return Expectation(
        images=images,
        miou=Interval(value=value, low=low, high=high),
        iou={0: Interval(value=0.9), 2: Interval(value=0.12)},
        unmeasured=changes.get("unmeasured", ()),
        held_out=images > 1,
    )


@pytest.mark.parametrize(
    ("low", "value", "high", "images", "than", "verdict"),
    [
        (0.61, 0.66, 0.70, 20, None, "Go"),
        (0.61, 0.66, 0.70, 4, None, "Caution"),
        (0.44, 0.55, 0.64, 20, None, "Caution"),
        (0.20, 0.25, 0.29, 20, None, "No-go"),
        (0.20, 0.25, 0.31, 20, None, "Caution"),
        (0.61, 0.66, 0.70, 20, 0.55, "Go"),
        (0.61, 0.66, 0.70, 20, 0.65, "Caution"),
        (0.61, 0.66, 0.70, 20, 0.75, "No-go"),
        (0.35, 0.40, 0.45, 20, 0.32, "Go"),
        (None, 0.66, None, 1, None, "Caution"),
        (None, 0.10, None, 1, None, "No-go"),
    ],
)
def test_the_verdict_compares_the_interval_with_what_labels_must_reach(
    low, value, high, images, than, verdict
):
    assert judge(expected(low, value, high, images=images), than=than) == verdict


def test_the_sentence_names_verdict_number_interval_and_weakest_class():
    assert sentence(expected(0.61, 0.66, 0.7), NAMES) == (
        "Go by rule of thumb: expected mIoU 66 % (90 % interval 61-70, 20 images); "
        "weakest: zebra 12 %."
    )
    assert sentence(expected(0.61, 0.66, 0.7, unmeasured=(1,)), NAMES, than=0.75) == (
        "No-go: expected mIoU 66 % (90 % interval 61-70, 20 images), a model without these labels "
        "has 75 %; weakest: zebra 12 %; not in the labeled images: cat."
    )


def test_the_interval_holds_the_middle_of_a_bootstrap_and_is_wider_for_few_images():
    random = np.random.default_rng(0)
    number, classes = 40, 3
    truth = random.integers(50, 100, (number, classes)).astype(float)
    hits = truth * random.random((number, classes))
    found = Confusion(hits=hits, painted=truth, truth=truth)
    whole = expect(found, held_out=True, random=np.random.default_rng(1)).miou
    mious = []
    for _ in range(2000):
        drawn = random.integers(0, number, number)
        h, t = hits[drawn].sum(axis=0), truth[drawn].sum(axis=0)
        mious.append(np.mean(h / (t + t - h)))
    low, high = np.quantile(mious, [0.05, 0.95])
    assert whole.low == pytest.approx(low, abs=0.01)
    assert whole.high == pytest.approx(high, abs=0.01)
    few = expect(found.of(np.arange(4)), held_out=True, random=np.random.default_rng(1)).miou
    assert few.high - few.low > 2 * (whole.high - whole.low)


def test_a_class_painted_but_nowhere_true_is_not_measured():
    counts = Confusion(
        hits=np.array([[4.0, 0.0], [4.0, 0.0]]),
        painted=np.array([[4.0, 2.0], [4.0, 2.0]]),
        truth=np.array([[6.0, 0.0], [6.0, 0.0]]),
    )
    found = expect(counts, held_out=True, random=np.random.default_rng(0))
    assert found.unmeasured == (1,)
    assert found.miou.value == pytest.approx(8 / 12)
