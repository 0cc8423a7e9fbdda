"""What is fitted on images with masks, and what the report promises of other images."""

import json
import math

import numpy as np
import pytest
import torch

from zspl.labeling._calibration import Calibrator
from zspl.labeling._confidence import ConfidenceFit
from zspl.labeling._decision import Decision, assign
from zspl.labeling._scoring import Scored

CLASSES = 4
NAMES = ("background", "cat", "cow", "zebra")


def image(random, *, present=(1, 2, 3), noise=0.1, shift=0.0):
    """Return a scored image of 16 segments, whose score tells how likely they are right."""
    truth = random.choice([0, 0, *present], 16)
    wrong = random.integers(1, CLASSES, 16)
    right = random.random(16) < 0.8
    best = np.where((truth > 0) & right, truth, wrong)
    score = np.where(best == truth, 0.7, 0.45) + random.normal(0, noise, 16)
    score = score + shift * (best == 3)
    grow = np.kron(np.arange(16).reshape(4, 4), np.ones((3, 3), int))
    mask = truth[grow].astype(np.uint8)
    mask[random.random(mask.shape) < 0.05] = 255
    plane = torch.from_numpy(score.astype(np.float32)[grow])
    scored = Scored(
        best=torch.from_numpy(best.astype(np.uint8)[grow]),
        score=plane,
        confidence=((1 + plane) / 2).clamp(0, 1),
    )
    return scored, torch.from_numpy(mask)


def images(seed, number, **changes):
    random = np.random.default_rng(seed)
    return [image(random, **changes) for _ in range(number)]


def calibrator(pairs, unassigned=0):
    found = Calibrator(num_classes=CLASSES, unassigned=unassigned)
    for scored, truth in pairs:
        found.add(scored, truth)
    return found


def plain_iou(pairs, decision, unassigned=0):
    correct, predicted, true = np.zeros((3, CLASSES))
    for scored, truth in pairs:
        label = assign(scored, decision, unassigned=unassigned).label.numpy()
        valid = truth.numpy() != 255
        for c in range(CLASSES):
            correct[c] += (valid & (label == c) & (truth.numpy() == c)).sum()
            predicted[c] += (valid & (label == c)).sum()
            true[c] += (truth.numpy() == c).sum()
    union = true + predicted - correct
    return np.where(union > 0, correct / np.maximum(union, 1), np.nan), true


def plain_miou(pairs, decision, unassigned=0):
    return np.nanmean(plain_iou(pairs, decision, unassigned)[0])


@pytest.mark.parametrize("unassigned", [0, 255])
@pytest.mark.parametrize("seed", range(4))
def test_thresholds_per_class_never_lower_the_fitted_miou(seed, unassigned):
    pairs = images(seed, 20, shift=0.2)
    found = calibrator(pairs, unassigned)
    single, several = found.fit(), found.fit(per_class=True)
    assert several.threshold == single.threshold
    one, own = (plain_miou(pairs, decision, unassigned) for decision in (single, several))
    assert own >= one


def test_a_class_with_other_scores_gets_a_threshold_of_its_own_that_holds_on_other_images():
    found = calibrator(images(0, 40, shift=0.25))
    several = found.fit(per_class=True)
    assert 3 in several.class_thresholds
    assert several.class_thresholds[3] > several.threshold + 0.1
    fresh = images(99, 60, shift=0.25)
    assert plain_miou(fresh, several) > plain_miou(fresh, found.fit()) + 0.02


def test_few_images_keep_the_common_threshold():
    found = calibrator(images(0, 8, shift=0.25))
    assert found.fit(per_class=True).class_thresholds == {}


def test_a_class_that_no_image_has_keeps_the_common_threshold():
    found = calibrator(images(0, 30, present=(1, 2)))
    assert 3 not in found.fit(per_class=True).class_thresholds


def test_coordinate_ascent_finds_what_a_search_over_all_pairs_finds():
    from zspl.labeling._calibration_counts import Counts
    from zspl.labeling._calibration_thresholds import ascend, best, curve

    pairs = images(3, 12, shift=0.25)
    counts = Counts(CLASSES)
    for scored, truth in pairs:
        counts.add(scored, truth)
    sample = counts.sample()
    common = best(curve(sample.cells, sample.pooled_truth, unassigned=0)).threshold
    own = ascend(sample.cells, sample.pooled_truth, common=common, classes=(1, 3), unassigned=0)
    found = plain_miou(pairs, Decision(threshold=common, class_thresholds=own))
    grid = np.linspace(0.2, 1.2, 13)
    best_pair = max(
        plain_miou(pairs, Decision(threshold=common, class_thresholds={1: a, 3: b}))
        for a in grid
        for b in grid
    )
    assert found >= best_pair - 0.01


def test_calibrated_confidence_is_honest_on_images_it_was_not_fitted_on():
    report = calibrator(images(0, 30)).report()
    assert report.after.ece < 0.05
    assert report.before.ece > 0.15
    decision = report.decision
    assert decision.confidence.claimed is not None
    sure = hits = total = 0.0
    for scored, truth in images(77, 60):
        pseudo = assign(scored, decision, unassigned=0)
        valid = truth != 255
        sure += pseudo.confidence[valid].sum().item()
        hits += (pseudo.label == truth)[valid].sum().item()
        total += valid.sum().item()
    assert sure / total == pytest.approx(hits / total, abs=0.03)


def test_the_expected_miou_is_that_of_labels_fitted_on_the_other_images():
    pairs = images(5, 6)
    report = calibrator(pairs).report(confidence=False)
    correct, predicted, true = np.zeros((3, CLASSES))
    for held_out, (scored, truth) in enumerate(pairs):
        others = [pair for k, pair in enumerate(pairs) if k != held_out]
        decision = calibrator(others).fit(confidence=False)
        label = assign(scored, decision, unassigned=0).label.numpy()
        valid = truth.numpy() != 255
        for c in range(CLASSES):
            correct[c] += (valid & (label == c) & (truth.numpy() == c)).sum()
            predicted[c] += (valid & (label == c)).sum()
            true[c] += (truth.numpy() == c).sum()
    iou = correct / (true + predicted - correct)
    assert report.expected.miou.value == pytest.approx(iou.mean())
    assert {c: found.value for c, found in report.expected.iou.items()} == pytest.approx(
        dict(enumerate(iou))
    )


def test_the_interval_contains_what_many_other_images_have_nine_times_in_ten():
    below = above = 0
    world = images(10_000, 150)
    trials = 40
    truth = plain_miou(world, Decision.plain(0.55))
    for seed in range(trials):
        report = calibrator(images(seed, 12)).report(threshold=0.55, confidence=False)
        interval = report.expected.miou
        below += truth < interval.low
        above += truth > interval.high
    assert 0.78 <= 1 - (below + above) / trials <= 1
    assert max(below, above) / trials <= 0.15


def test_five_images_are_enough_for_a_report():
    report = calibrator(images(1, 5)).report(per_class=True)
    assert report.images == 5
    assert report.expected.miou.low < report.expected.miou.value < report.expected.miou.high
    assert not math.isnan(report.after.ece)


def test_a_class_that_no_image_has_is_said_to_be_unmeasured():
    report = calibrator(images(2, 8, present=(1, 2))).report()
    assert report.expected.unmeasured == (3,)
    assert "not in the labeled images: zebra." in report.sentence(NAMES)
    found = report.as_json(NAMES)["expected"]
    assert found["unmeasured"] == ["zebra"]
    assert set(found["iou"]) == {"background", "cat", "cow"}


def test_a_single_image_gives_a_number_without_an_interval_and_no_go_ahead():
    report = calibrator(images(3, 1)).report()
    assert report.expected.miou.low is None
    assert not report.expected.held_out
    assert report.decision.confidence == ConfidenceFit()
    assert report.sentence(NAMES).startswith("Caution by rule of thumb: expected mIoU ")
    assert "1 image: fitted and judged on the same one, no interval" in report.sentence(NAMES)


def test_a_report_without_images_or_scores_is_a_callers_mistake():
    with pytest.raises(ValueError, match="no image was added"):
        Calibrator(num_classes=CLASSES, unassigned=0).report()
    scored, truth = images(0, 1)[0]
    ready = Scored(
        best=scored.best,
        score=torch.full(scored.score.shape, math.inf),
        confidence=scored.confidence,
    )
    found = calibrator([(ready, truth)] * 6, unassigned=255)
    with pytest.raises(ValueError, match="nothing to calibrate"):
        found.report()
    report = found.report(threshold=0.0)
    known = plain_miou([(ready, truth)], Decision.plain(0.0), unassigned=255)
    assert report.expected.miou.value == pytest.approx(known)
    assert report.after.ece < report.before.ece


def test_an_image_whose_labels_have_no_score_can_be_held_out():
    pairs = images(0, 2)
    scored, truth = pairs[1]
    ready = Scored(
        best=scored.best,
        score=torch.full(scored.score.shape, math.inf),
        confidence=scored.confidence,
    )
    report = calibrator([pairs[0], (ready, truth)]).report()
    assert 0 <= report.expected.miou.value <= 1


def test_masks_without_a_class_can_not_be_judged_and_that_is_said():
    scored, truth = images(0, 1)[0]
    report = calibrator([(scored, torch.full_like(truth, 255))] * 2).report(threshold=0.5)
    assert report.sentence(NAMES).startswith("Caution: nothing could be measured")
    assert json.loads(json.dumps(report.as_json(NAMES), allow_nan=False))["fitted_miou"] is None


def test_the_same_images_give_the_same_report_twice():
    first, second = (calibrator(images(4, 8)).report(per_class=True) for _ in range(2))
    text = json.dumps(first.as_json(NAMES), allow_nan=False)
    assert text == json.dumps(second.as_json(NAMES), allow_nan=False)


def test_the_fit_of_a_fixed_threshold_changes_the_confidence_only():
    decision = calibrator(images(4, 12)).fit(threshold=0.85)
    assert decision.threshold == 0.85
    assert decision.confidence is not None
