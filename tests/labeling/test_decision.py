"""Painting by a decision: thresholds per class, and confidences that keep their order."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zspl.labeling._confidence import ConfidenceFit, Temperature, fit_temperature, log_odds
from zspl.labeling._decision import Decision, assign
from zspl.labeling._scoring import Scored
from zspl.records import SegmentRow

FIT = ConfidenceFit(
    claimed=Temperature(temperature=0.2, bias=-1.0),
    unclaimed=Temperature(temperature=3.0, bias=2.0),
)


def drawn(seed=0, shape=(9, 7)):
    random = np.random.default_rng(seed)
    score = random.random(shape).astype(np.float32)
    return Scored(
        best=torch.from_numpy(random.integers(1, 4, shape).astype(np.uint8)),
        score=torch.from_numpy(score),
        confidence=torch.from_numpy(score),
    )


@pytest.mark.parametrize("unassigned", [0, 255])
def test_each_class_is_painted_above_its_own_threshold(unassigned):
    scored = drawn()
    decision = Decision(threshold=0.5, class_thresholds={2: 0.8, 3: -1.0})
    found = assign(scored, decision, unassigned=unassigned)
    limits = {1: 0.5, 2: 0.8, 3: -1.0}
    for y, x in np.ndindex(*scored.best.shape):
        best, score = int(scored.best[y, x]), float(scored.score[y, x])
        above = score > limits[best]
        assert found.label[y, x] == (best if above else unassigned)
        expected = score if above else 1 - score
        assert found.confidence[y, x] == pytest.approx(expected, abs=1e-6)


def test_a_segment_is_assigned_by_the_threshold_of_its_class():
    row = SegmentRow(
        area=1,
        bbox=(0, 0, 1, 1),
        predicted_iou=1.0,
        stability_score=1.0,
        classes=(2, 1),
        cosines=(0.3, 0.2),
        probabilities=(0.6, 0.4),
        assigned=2,
    )
    base = drawn()
    scored = Scored(
        best=base.best,
        score=base.score,
        confidence=base.confidence,
        segments=(row, row),
        segment_scores=(0.7, 0.9),
    )
    decision = Decision(threshold=0.1, class_thresholds={2: 0.8})
    found = assign(scored, decision, unassigned=255)
    assert [r.assigned for r in found.segments] == [255, 2]


def test_a_fitted_confidence_moves_no_label_and_keeps_the_order_of_the_claimed():
    scored = drawn(3)
    plain = assign(scored, Decision.plain(0.4), unassigned=0)
    fitted = assign(scored, Decision(threshold=0.4, confidence=FIT), unassigned=0)
    assert torch.equal(plain.label, fitted.label)
    for part in (plain.label > 0, plain.label == 0):
        assert torch.equal(plain.confidence[part].argsort(), fitted.confidence[part].argsort())
    claimed = plain.label > 0
    for before, after in zip(plain.confidence[claimed], fitted.confidence[claimed], strict=True):
        odds = math.log(before / (1 - before))
        assert after == pytest.approx(1 / (1 + math.exp(-(odds / 0.2 - 1))), abs=1e-5)


def test_a_label_without_threshold_has_a_map_of_its_own():
    scored = drawn(1)
    ready = Scored(
        best=scored.best,
        score=torch.full(scored.score.shape, math.inf),
        confidence=scored.confidence,
    )
    kept = assign(ready, Decision(threshold=0.4, confidence=FIT), unassigned=0)
    assert torch.equal(kept.confidence, ready.confidence)
    certain = ConfidenceFit(fixed=Temperature(temperature=1.0, bias=30.0))
    sure = assign(ready, Decision(threshold=0.4, confidence=certain), unassigned=0)
    assert (sure.confidence > 0.99).all()


@pytest.mark.parametrize(
    "decision",
    [
        Decision.plain(0.85),
        Decision(threshold=-0.25, class_thresholds={3: 0.5, 11: 0.125}, confidence=FIT),
        Decision(threshold=0.0, confidence=ConfidenceFit()),
    ],
)
def test_a_decision_survives_json(decision):
    text = json.dumps(decision.as_json())
    assert Decision.from_json(json.loads(text)) == decision


def test_a_map_that_would_turn_the_order_round_is_refused():
    with pytest.raises(ValueError, match="positive temperature"):
        Temperature(temperature=-1.0, bias=0.0)
    with pytest.raises(ValueError, match="finite bias"):
        Temperature(temperature=1.0, bias=math.inf)


@given(
    st.lists(st.floats(0, 1, width=32), min_size=2, max_size=20),
    st.floats(0.05, 20),
    st.floats(-5, 5),
)
def test_a_temperature_never_changes_the_ranking(confidences, temperature, bias):
    raw = torch.tensor(sorted(confidences))
    found = Temperature(temperature=temperature, bias=bias)(raw)
    assert (found.diff() >= 0).all()
    assert ((found >= 0) & (found <= 1)).all()


def simulated(temperature, bias, number=20_000):
    random = np.random.default_rng(5)
    odds = random.normal(0.4, 0.05, number)
    chance = 1 / (1 + np.exp(-(odds / temperature + bias)))
    right = random.random(number) < chance
    return torch.from_numpy(odds), torch.from_numpy(right), torch.ones(number, dtype=torch.int64)


def loss(odds, right, pixels, temperature, bias):
    total = 0.0
    for x, hit, n in zip(odds.tolist(), right.tolist(), pixels.tolist(), strict=True):
        p = 1 / (1 + math.exp(-(x / temperature + bias)))
        total -= n * math.log(p if hit else 1 - p)
    return total / sum(pixels.tolist())


def test_temperature_and_bias_of_simulated_hits_are_found_again():
    found = fit_temperature(*simulated(temperature=0.05, bias=-7.0), images=9)
    assert found.temperature == pytest.approx(0.05, rel=0.1)
    assert found.bias == pytest.approx(-7.0, rel=0.1)


def test_no_neighbour_of_the_fit_has_a_lower_likelihood_loss():
    odds, right, _ = simulated(temperature=0.1, bias=-3.5, number=400)
    pixels = torch.arange(1, 401)
    found = fit_temperature(odds, right, pixels, images=9)
    least = loss(odds, right, pixels, found.temperature, found.bias)
    for step_t in (0.7, 1.0, 1.4):
        for step_b in (-0.7, 0.0, 0.7):
            moved = loss(odds, right, pixels, found.temperature * step_t, found.bias + step_b)
            assert moved > least - 1e-3


def test_hits_that_get_rarer_with_confidence_still_keep_the_order():
    odds = torch.linspace(-2, 2, 50).double()
    found = fit_temperature(odds, odds < 0, torch.ones(50, dtype=torch.int64), images=9)
    assert found.temperature > 0
    assert (found(odds.sigmoid()).diff() > 0).all()


def test_labels_that_are_all_right_get_the_rule_of_succession():
    odds, pixels = torch.linspace(-1, 1, 4).double(), torch.ones(4, dtype=torch.int64)
    for right, share in ((torch.ones(4), 19 / 20), (torch.zeros(4), 1 / 20)):
        found = fit_temperature(odds, right.bool(), pixels, images=18)(odds.sigmoid())
        assert found.tolist() == pytest.approx([share] * 4, abs=0.01)
        assert (found.diff() > 0).all()


def test_one_confidence_for_all_becomes_the_share_of_hits():
    odds, pixels = torch.full((4,), -13.8).double(), torch.tensor([3, 1, 1, 1])
    found = fit_temperature(odds, torch.tensor([True, False, True, False]), pixels, images=9)
    assert found(odds.sigmoid()).tolist() == pytest.approx([4 / 6] * 4, abs=1e-3)


def test_log_odds_of_certainty_are_finite():
    assert torch.isfinite(log_odds(torch.tensor([0.0, 0.5, 1.0]))).all()
