"""Choosing thresholds on images with masks: those with the best pooled mIoU."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from zspl.labeling._calibration_counts import (
    LEVELS,
    STEPS,
    Cells,
    Confusion,
    Floats,
    Integers,
    claimed,
    edge_of,
    painted,
    threshold_of,
)

_CANDIDATES = 64
_SWEEPS = 10
_GAIN = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePoint:
    """The pooled mIoU in [0, 1] that one threshold gives on the calibration images."""

    threshold: float
    miou: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Levels:
    """Pixels at or above (`kept`) and below each edge of `edges`, by what they would be."""

    edges: Integers
    kept: Floats
    right: Floats
    dropped: Floats
    background: Floats


def curve(cells: Cells, truth: Integers, *, unassigned: int) -> tuple[CurvePoint, ...]:
    """Return the mIoU at evenly spaced quantiles of the scores, by ascending threshold.

    The first threshold assigns every pixel, the last one none. `truth` are pixels per class.

    Raises:
        ValueError: if no pixel was counted whose label depends on a threshold.
    """
    edges = _candidates(cells)
    classes = len(truth)
    counts = Confusion(
        hits=np.zeros((len(edges), classes)),
        painted=np.zeros((len(edges), classes)),
        truth=truth.astype(np.float64),
    )
    for c in range(classes):
        levels = _levels(cells.only(cells.best == c), edges)
        counts.hits[:, c] += levels.right
        counts.painted[:, c] += levels.kept
    if unassigned == 0:
        levels = _levels(cells, edges)
        counts.hits[:, 0] += levels.background
        counts.painted[:, 0] += levels.dropped
    return tuple(
        CurvePoint(threshold=threshold_of(int(edge)), miou=float(value))
        for edge, value in zip(edges, counts.miou(), strict=True)
    )


def best(points: Iterable[CurvePoint]) -> CurvePoint:
    """Return the point with the highest mIoU, the first among equals."""
    return max(points, key=lambda point: point.miou)


def ascend(
    cells: Cells, truth: Integers, *, common: float, classes: Iterable[int], unassigned: int
) -> dict[int, float]:
    """Give classes thresholds of their own by coordinate ascent on the pooled mIoU.

    One class after the other takes the candidate with the best mIoU while all others stay, until
    a sweep changes nothing. A change must gain, so the result is never worse than `common` alone.

    Args:
        cells: The images to fit on.
        truth: Pixels per class on these images.
        common: The threshold of all classes, where the ascent starts.
        classes: The ids that may leave it; 0 stays.
        unassigned: The label below the threshold, 0 or 255.

    Returns:
        The thresholds that differ from `common`, by class id.
    """
    start = edge_of(common)
    now = _pooled(cells, truth, common=common, own={}, unassigned=unassigned)
    options = {c: _options(cells.only(cells.best == c), start) for c in classes if c}
    at = {c: int(np.searchsorted(levels.edges, start)) for c, levels in options.items()}
    for _ in range(_SWEEPS):
        before = dict(at)
        for c, levels in options.items():
            trials = _trials(now, levels, c, at=at[c], unassigned=unassigned)
            values = trials.miou()
            winner = int(values.argmax())
            if values[winner] > values[at[c]] + _GAIN:
                at[c] = winner
                now = Confusion(
                    hits=trials.hits[winner], painted=trials.painted[winner], truth=now.truth
                )
        if at == before:
            break
    chosen = {c: int(levels.edges[at[c]]) for c, levels in options.items()}
    return {c: threshold_of(edge) for c, edge in chosen.items() if edge != start}


def decided(
    cells: Cells, truth: Integers, *, common: float, own: Mapping[int, float], unassigned: int
) -> Confusion:
    """Return the counts per image [N K] under these thresholds, with `truth` [N K]."""
    edges = {c: edge_of(threshold) for c, threshold in own.items()}
    kept = claimed(cells, edge_of(common), edges)
    return painted(cells, kept, truth, unassigned=unassigned)


def _pooled(
    cells: Cells, truth: Integers, *, common: float, own: Mapping[int, float], unassigned: int
) -> Confusion:
    """Return the counts of all images together; `truth` are pixels per class."""
    single = cells.as_one_image()
    found = decided(single, truth[None], common=common, own=own, unassigned=unassigned)
    return Confusion(hits=found.hits[0], painted=found.painted[0], truth=found.truth[0])


def _candidates(cells: Cells) -> Integers:
    """Return edges at evenly spaced quantiles of the scores, from all painted to none."""
    finite = cells.only(cells.scored)
    pixels = np.bincount(finite.level, finite.pixels, LEVELS - 1)
    up_to = pixels.cumsum()
    if not up_to[-1]:
        raise ValueError("no pixel depends on the threshold; nothing to calibrate")
    edges = np.searchsorted(up_to, np.linspace(0, 1, _CANDIDATES) * up_to[-1])
    edges[0] = max(0, np.flatnonzero(pixels)[0] - 1)
    return np.unique(edges.clip(0, STEPS))


def _options(cells: Cells, start: int) -> _Levels:
    """Return the candidates of one class, the common edge `start` among them."""
    own = _candidates(cells) if cells.scored.any() else np.zeros(0, np.int64)
    return _levels(cells, np.union1d(own, [start]))


def _levels(cells: Cells, edges: Integers) -> _Levels:
    """Count the pixels above and not above each edge."""
    order = np.argsort(cells.level, kind="stable")
    places = np.searchsorted(cells.level[order], np.append(edges, LEVELS), side="right")

    def up_to(pixels: Integers) -> Floats:
        counted = np.append(0.0, pixels[order].cumsum())
        result: Floats = counted[places]
        return result

    everything = up_to(cells.pixels)
    right = up_to(cells.pixels * cells.correct)
    background = up_to(cells.pixels * cells.background)
    return _Levels(
        edges=edges,
        kept=everything[-1] - everything[:-1],
        right=right[-1] - right[:-1],
        dropped=everything[:-1],
        background=background[:-1],
    )


def _trials(
    now: Confusion, levels: _Levels, class_id: int, *, at: int, unassigned: int
) -> Confusion:
    """Return the counts [n K] with each candidate of one class in the place of candidate `at`."""
    shape = (len(levels.edges), len(now.truth))
    hits, shown = (np.broadcast_to(a, shape).copy() for a in (now.hits, now.painted))
    hits[:, class_id] += levels.right - levels.right[at]
    shown[:, class_id] += levels.kept - levels.kept[at]
    if unassigned == 0:
        hits[:, 0] += levels.background - levels.background[at]
        shown[:, 0] += levels.dropped - levels.dropped[at]
    return Confusion(hits=hits, painted=shown, truth=now.truth)
