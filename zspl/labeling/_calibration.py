"""Choosing a threshold on images with masks: the one with the best pooled mIoU.

Pixels are counted once, by score and class; every threshold then costs one cumulative sum.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import UInt8
from torch import Tensor

from zspl.labeling._scoring import Scored
from zspl.records import IGNORE_INDEX

_STEPS = 1 << 14
"""Steps between -1 and 1; a power of two, so that each edge is an exact float32 number."""

_LEVELS = _STEPS + 2
"""One level below all edges, one for scores to which no threshold applies."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePoint:
    """The pooled mIoU in [0, 1] that one threshold gives on the calibration images."""

    threshold: float
    miou: float


class ThresholdSearch:
    """Collects scored images with their masks, then compares thresholds.

    A pixel labeled 255 by the pseudo label counts as missed, not as left out; a pixel that the
    mask ignores does not count.

    Args:
        num_classes: Number of classes, background included.
        unassigned: The label below the threshold, 0 or 255.
    """

    def __init__(self, *, num_classes: int, unassigned: int) -> None:
        self._classes = num_classes
        self._unassigned = unassigned
        self._predicted = np.zeros((_LEVELS, num_classes), np.int64)
        self._correct = np.zeros((_LEVELS, num_classes), np.int64)
        self._pixels = np.zeros(_LEVELS, np.int64)
        self._background = np.zeros(_LEVELS, np.int64)
        self._truth = np.zeros(num_classes, np.int64)

    def add(self, scored: Scored, truth: UInt8[Tensor, "H W"]) -> None:
        """Count one image; `truth` holds class ids, 255 where ignored."""
        true = truth.numpy().reshape(-1)
        valid = true != IGNORE_INDEX
        true = true[valid]
        best = scored.best.numpy().reshape(-1)[valid]
        level = _level(scored.score.numpy().reshape(-1)[valid])
        self._truth += np.bincount(true, minlength=self._classes)
        self._pixels += np.bincount(level, minlength=_LEVELS)
        self._background += np.bincount(level[true == 0], minlength=_LEVELS)
        for counts, chosen in (
            (self._predicted, best != IGNORE_INDEX),
            (self._correct, best == true),
        ):
            cell = level[chosen] * self._classes + best[chosen]
            counts[:] += np.bincount(cell, minlength=counts.size).reshape(counts.shape)

    def curve(self, candidates: int = 64) -> tuple[CurvePoint, ...]:
        """Return the mIoU at evenly spaced quantiles of the scores, by ascending threshold.

        The first threshold assigns every pixel, the last one none.

        Raises:
            ValueError: if no pixel was counted whose label depends on a threshold.
        """
        finite = self._pixels[: _LEVELS - 1].cumsum()
        if not finite[-1]:
            raise ValueError("no pixel depends on the threshold; nothing to calibrate")
        ranks = np.linspace(0, 1, candidates) * finite[-1]
        edges = np.searchsorted(finite, ranks)
        edges[0] = max(0, np.flatnonzero(self._pixels)[0] - 1)
        edges = np.unique(edges.clip(0, _STEPS))
        return tuple(
            CurvePoint(threshold=float(edge * 2 / _STEPS - 1), miou=float(value))
            for edge, value in zip(edges, self._miou(edges), strict=True)
        )

    def best(self, candidates: int = 64) -> CurvePoint:
        """Return the candidate with the highest mIoU, the lowest threshold among equals.

        Raises:
            ValueError: if no pixel was counted whose label depends on a threshold.
        """
        return max(self.curve(candidates), key=lambda point: point.miou)

    def _miou(self, edges: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return the pooled mIoU when exactly the pixels above each edge are assigned."""
        predicted = _above(self._predicted)[edges]
        correct = _above(self._correct)[edges]
        if self._unassigned == 0:
            predicted[:, 0] += self._pixels.cumsum()[edges]
            correct[:, 0] += self._background.cumsum()[edges]
        union = self._truth + predicted - correct
        iou = np.divide(correct, union, out=np.full(union.shape, np.nan), where=union > 0)
        result: npt.NDArray[np.float64] = np.nanmean(iou, axis=1)
        return result


def _above(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return for each level the sum over all higher levels."""
    above: npt.NDArray[np.int64] = counts.sum(axis=0) - counts.cumsum(axis=0)
    return above


def _level(score: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return the level of each score: it exceeds the edges 0 .. level - 1 and no other."""
    steps = np.ceil((score.astype(np.float64) + 1) * (_STEPS / 2))
    return steps.clip(0, _LEVELS - 1).astype(np.int64)
