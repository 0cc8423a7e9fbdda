"""Calibration of pseudo labels on images with masks: thresholds, confidence, what to expect."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from zspl.labeling._calibration_counts import Cells, Confusion, Counts, Sample
from zspl.labeling._calibration_fit import Rule, fit, kept
from zspl.labeling._calibration_thresholds import CurvePoint, best, curve, decided
from zspl.labeling._decision import Decision, confidence_of
from zspl.labeling._expectation import Expectation, Verdict, expect, judge, sentence
from zspl.labeling._scoring import Scored
from zspl.metrics.calibration import CalibrationMetrics, Reliability
from zspl.records import IGNORE_INDEX

__all__ = ["CalibrationReport", "Calibrator", "CurvePoint", "Rule"]

_FOLDS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationReport:
    """What calibration chose, and what to expect of it on images without masks.

    `decision` was fitted on all images. `before` (raw) and `after` (calibrated) are the
    reliability of the confidence and `expected` the mIoU, each image judged by a decision fitted
    on others; with a single image it is judged by its own. `fitted_miou` is the optimistic mIoU on
    the images of the fit. `than` is the mIoU of a model trained without these labels, if known.
    """

    decision: Decision
    images: int
    fitted_miou: float
    expected: Expectation
    before: CalibrationMetrics
    after: CalibrationMetrics
    than: float | None = None

    @property
    def verdict(self) -> Verdict:
        """Whether training with the labels promises a gain."""
        return judge(self.expected, than=self.than)

    def sentence(self, names: Sequence[str]) -> str:
        """Return the verdict and its reason in one sentence; `names` are the classes'."""
        return sentence(self.expected, names, than=self.than)

    def as_json(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the report as JSON values, classes by name; every share is in [0, 1]."""
        own = self.decision.class_thresholds
        return {
            "decision": self.decision.as_json(),
            "class_thresholds": {names[c]: threshold for c, threshold in sorted(own.items())},
            "images": self.images,
            "fitted_miou": _number(self.fitted_miou),
            "expected": self.expected.as_json(names),
            "reliability": {"before": self.before.as_json(), "after": self.after.as_json()},
            "than": self.than,
            "verdict": self.verdict,
            "sentence": self.sentence(names),
        }


class Calibrator:
    """Collects scored images with their masks, then chooses thresholds and fits the confidence.

    Images are kept as counts: one pass over them, then no pixel is touched again.

    Args:
        num_classes: Number of classes, background included.
        unassigned: The label below the threshold, 0 or 255.
    """

    def __init__(self, *, num_classes: int, unassigned: int) -> None:
        self._unassigned = unassigned
        self._counts = Counts(num_classes)

    def add(self, scored: Scored, truth: UInt8[Tensor, "H W"]) -> None:
        """Count one image; `truth` holds class ids, 255 where ignored."""
        self._counts.add(scored, truth)

    def curve(self) -> tuple[CurvePoint, ...]:
        """Return the mIoU at evenly spaced quantiles of the scores, by ascending threshold.

        Raises:
            ValueError: if no pixel was counted whose label depends on a threshold.
        """
        sample = self._counts.sample()
        return curve(sample.cells, sample.pooled_truth, unassigned=self._unassigned)

    def best(self) -> CurvePoint:
        """Return the point of the curve with the highest mIoU, the lowest among equals.

        Raises:
            ValueError: if no pixel was counted whose label depends on a threshold.
        """
        return best(self.curve())

    def fit(
        self,
        *,
        per_class: bool = False,
        confidence: bool = True,
        threshold: float | None = None,
        seed: int = 0,
    ) -> Decision:
        """Fit a decision on all images.

        Args:
            per_class: Whether classes may get thresholds of their own.
            confidence: Whether the confidence is calibrated.
            threshold: The common threshold; None: the one with the best mIoU.
            seed: Draws the folds that guard the class thresholds.

        Raises:
            ValueError: if a threshold is looked for and no pixel depends on it.
        """
        return fit(self._counts.sample(), self._rule(threshold, per_class, confidence), seed=seed)

    def report(
        self,
        *,
        per_class: bool = False,
        confidence: bool = True,
        threshold: float | None = None,
        seed: int = 0,
        than: float | None = None,
    ) -> CalibrationReport:
        """Fit a decision, and cross-validate over images what to expect of it.

        The arguments are those of `fit`; `than` is the mIoU in [0, 1] of a model trained without
        these labels, for the verdict.

        Raises:
            ValueError: if no image was added, or a threshold is looked for and no pixel depends
                on it.
        """
        sample = self._counts.sample()
        if not len(sample.images):
            raise ValueError("no image was added; nothing to report")
        rule = self._rule(threshold, per_class, confidence)
        random = np.random.default_rng(seed)
        decision = fit(sample, rule, seed=seed)
        fitted = _judged(sample, decision, rule)
        found = _cross_validated(sample, rule, seed=seed, random=random)
        return CalibrationReport(
            decision=decision,
            images=len(sample.images),
            fitted_miou=float(fitted.pooled(np.ones((1, len(sample.images)))).miou()[0]),
            expected=expect(found.counts, held_out=len(sample.images) > 1, random=random),
            before=found.before.compute(),
            after=found.after.compute(),
            than=than,
        )

    def _rule(self, threshold: float | None, per_class: bool, confidence: bool) -> Rule:
        return Rule(
            unassigned=self._unassigned,
            threshold=threshold,
            per_class=per_class,
            confidence=confidence,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _CrossValidated:
    counts: Confusion
    before: Reliability
    after: Reliability


def _cross_validated(
    sample: Sample, rule: Rule, *, seed: int, random: np.random.Generator
) -> _CrossValidated:
    """Judge every image by a decision fitted on others; a single image by its own."""
    number = min(_FOLDS, len(sample.images))
    folds = sample.folds(number, random) if number > 1 else [(sample.images, sample.images)]
    blank = np.zeros(sample.truth.shape)
    hits, painted = blank.copy(), blank.copy()
    before, after = Reliability(), Reliability()
    for fitted, held_out in folds:
        train, test = sample.part(fitted), sample.part(held_out)
        # The images left may hold only labels without a score; then any threshold does.
        known = rule if train.cells.scored.any() else replace(rule, threshold=-1.0)
        decision = fit(train, known, seed=seed)
        found = _judged(test, decision, rule)
        hits += found.hits
        painted += found.painted
        _reliable(test.cells, decision, rule, before=before, after=after)
    counts = Confusion(hits=hits, painted=painted, truth=sample.truth.astype(np.float64))
    return _CrossValidated(counts=counts, before=before, after=after)


def _judged(sample: Sample, decision: Decision, rule: Rule) -> Confusion:
    """Return the counts per image [N K] of what a decision paints."""
    return decided(
        sample.cells,
        sample.truth,
        common=decision.threshold,
        own=decision.class_thresholds,
        unassigned=rule.unassigned,
    )


def _reliable(
    cells: Cells, decision: Decision, rule: Rule, *, before: Reliability, after: Reliability
) -> None:
    """Add the pixels that have a label to the reliability of raw and calibrated confidence."""
    keeps = kept(cells, decision)
    label = np.where(keeps, cells.best, rule.unassigned)
    shown = label != IGNORE_INDEX
    cells, keeps = cells.only(shown), keeps[shown]
    right = torch.from_numpy(np.where(keeps, cells.correct, cells.background))
    pixels = torch.from_numpy(cells.pixels)
    painted = torch.from_numpy(keeps)
    fixed = torch.from_numpy(~cells.scored)
    sure = torch.from_numpy(cells.odds).sigmoid()
    for reliability, fitted in ((before, None), (after, decision.confidence)):
        found = confidence_of(sure, painted, fixed=fixed, fit=fitted)
        reliability.update(found, right, pixels)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
