"""Scored images with masks as counts: every threshold and every subset costs sums, no pixels.

An image is kept as the number of its pixels per score, class, confidence and outcome. Segments
share one score, so that is a few hundred numbers; a dense label needs some ten thousand.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
from jaxtyping import UInt8
from torch import Tensor

from zspl.labeling._confidence import log_odds
from zspl.labeling._scoring import Scored
from zspl.records import IGNORE_INDEX

STEPS = 1 << 14
"""Steps between -1 and 1; a power of two, so that each edge is an exact float32 number."""

LEVELS = STEPS + 2
"""One level below all edges, one for scores to which no threshold applies."""

ODDS_STEPS = 1 << 12
"""Steps per unit of log odds; cosines differ by thousandths, and a fit multiplies them by 50."""

_ODDS_BITS = 18
_ODDS_ZERO = 1 << (_ODDS_BITS - 1)

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cells:
    """Pixels with a truth, grouped; all arrays are as long as there are groups.

    `image` is the index of the image; a pixel is above edge e when its `level` is greater than e;
    `best` the class id it would get (255: none); `odds` the log odds of its confidence if painted;
    `correct` whether `best` is the truth; `background` whether the truth is 0; `pixels` how many
    there are of it.
    """

    image: Integers
    level: Integers
    best: Integers
    odds: Floats
    correct: Flags
    background: Flags
    pixels: Integers

    @property
    def scored(self) -> Flags:
        """Where a threshold applies; elsewhere the score is infinite."""
        scored: Flags = self.level < LEVELS - 1
        return scored

    def only(self, chosen: Flags) -> "Cells":
        """Return the chosen groups."""
        return Cells(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})

    def as_one_image(self) -> "Cells":
        """Return all groups as those of one image, index 0."""
        return replace(self, image=np.zeros_like(self.image))


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Some of the images: their indices, their cells, and the true pixels [N K] of all images."""

    cells: Cells
    truth: Integers
    images: Integers

    @property
    def pooled_truth(self) -> Integers:
        """True pixels per class of the images of the sample."""
        pooled: Integers = self.truth[self.images].sum(axis=0)
        return pooled

    def part(self, images: Integers) -> "Sample":
        """Return these images of the sample; an image keeps its index."""
        wanted = np.zeros(len(self.truth), np.bool_)
        wanted[images] = True
        cells = self.cells.only(wanted[self.cells.image])
        return Sample(cells=cells, truth=self.truth, images=images)

    def folds(self, number: int, random: np.random.Generator) -> list[tuple[Integers, Integers]]:
        """Return `number` random pairs of (images to fit on, images held out)."""
        shuffled = random.permutation(self.images)
        parts = [np.sort(shuffled[fold::number]) for fold in range(number)]
        return [(np.setdiff1d(self.images, part), part) for part in parts]


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """What mIoU is made of: pixels per class that are right, painted, and true.

    The arrays end with the class axis; axes before it are images, resamples or thresholds.
    """

    hits: Floats
    painted: Floats
    truth: Floats

    def iou(self) -> Floats:
        """Return hits / (truth + painted - hits) in [0, 1], NaN for a class in neither."""
        union = self.truth + self.painted - self.hits
        empty = np.full(union.shape, np.nan)
        result: Floats = np.divide(self.hits, union, out=empty, where=union > 0)
        return result

    def miou(self) -> Floats:
        """Return the mean over the classes that are true or painted somewhere."""
        return mean_over_classes(self.iou())

    def of(self, images: Integers) -> "Confusion":
        """Return the counts of some images."""
        return Confusion(
            hits=self.hits[images], painted=self.painted[images], truth=self.truth[images]
        )

    def pooled(self, weights: Floats) -> "Confusion":
        """Return the counts [B K] of resamples in which image n counts weights[b, n] times."""
        return Confusion(
            hits=weights @ self.hits, painted=weights @ self.painted, truth=weights @ self.truth
        )


def mean_over_classes(values: Floats) -> Floats:
    """Return the mean over the last axis without NaN; NaN where nothing is left."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0).sum(axis=-1)
    result: Floats = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    return result


class Counts:
    """Collects scored images beside their masks.

    A pixel labeled 255 by the pseudo label counts as missed, not as left out; a pixel that the
    mask ignores does not count.
    """

    def __init__(self, num_classes: int) -> None:
        self._classes = num_classes
        self._keys: list[Integers] = []
        self._pixels: list[npt.NDArray[np.int32]] = []
        self._truth: list[Integers] = []

    @property
    def images(self) -> int:
        """The number of images added so far."""
        return len(self._truth)

    def add(self, scored: Scored, truth: UInt8[Tensor, "H W"]) -> None:
        """Count one image; `truth` holds class ids, 255 where ignored."""
        true = truth.numpy().reshape(-1)
        valid = true != IGNORE_INDEX
        true = true[valid]
        best = scored.best.numpy().reshape(-1)[valid]
        key = level_of(scored.score.numpy().reshape(-1)[valid])
        odds = np.rint(log_odds(scored.confidence).numpy().reshape(-1)[valid] * ODDS_STEPS)
        key = (key << 8) | best
        key = (key << _ODDS_BITS) | (odds.astype(np.int64) + _ODDS_ZERO)
        key = (key << 2) | ((best == true).astype(np.int64) << 1) | (true == 0)
        unique, pixels = np.unique(key, return_counts=True)
        self._keys.append(unique)
        self._pixels.append(pixels.astype(np.int32))
        self._truth.append(np.bincount(true, minlength=self._classes))

    def sample(self) -> "Sample":
        """Return all images added so far."""
        truth = np.array(self._truth, np.int64).reshape(-1, self._classes)
        return Sample(cells=self._cells(), truth=truth, images=np.arange(len(truth)))

    def _cells(self) -> Cells:
        key = np.concatenate(self._keys) if self._keys else np.zeros(0, np.int64)
        pixels = np.concatenate(self._pixels) if self._pixels else np.zeros(0, np.int32)
        lengths = [len(keys) for keys in self._keys]
        odds = ((key >> 2) & ((1 << _ODDS_BITS) - 1)) - _ODDS_ZERO
        return Cells(
            image=np.repeat(np.arange(len(lengths)), lengths),
            level=key >> (_ODDS_BITS + 10),
            best=(key >> (_ODDS_BITS + 2)) & 255,
            odds=odds / ODDS_STEPS,
            correct=(key & 2) > 0,
            background=(key & 1) > 0,
            pixels=pixels.astype(np.int64),
        )


def resamples(images: int, random: np.random.Generator, number: int = 1000) -> Floats:
    """Return how often each image is in each bootstrap resample, as weights [B N]."""
    drawn = random.multinomial(images, np.full(images, 1 / images), number)
    return drawn.astype(np.float64)


def level_of(score: npt.NDArray[np.float32]) -> Integers:
    """Return the level of each score: it exceeds the edges 0 .. level - 1 and no other.

    The cosine of equal vectors may come out a rounding error above 1: it counts as 1. Only an
    infinite score has the level to which no threshold applies.
    """
    steps = np.ceil((score.astype(np.float64) + 1) * (STEPS / 2)).clip(0, STEPS)
    return np.where(np.isposinf(score), LEVELS - 1, steps).astype(np.int64)


def edge_of(threshold: float) -> int:
    """Return the last edge that is not above a threshold in [-1, 1]."""
    return int(np.floor((min(max(threshold, -1.0), 1.0) + 1) * (STEPS / 2)))


def threshold_of(edge: int) -> float:
    """Return the score at an edge."""
    return edge * 2 / STEPS - 1


def claimed(cells: Cells, common: int, own: Mapping[int, int]) -> Flags:
    """Return which cells are painted, with the edge `common` and the classes' `own` edges."""
    edges = np.full(256, common)
    edges[list(own)] = list(own.values())
    kept: Flags = cells.level > edges[cells.best]
    return kept


def painted(cells: Cells, kept: Flags, truth: Integers, *, unassigned: int) -> Confusion:
    """Return the counts per image [N K], with `truth` [N K], when `kept` cells get their class."""
    classes = truth.shape[1]
    label = np.where(kept, cells.best, unassigned)
    right = np.where(kept, cells.correct, cells.background)
    shown = label < classes
    place = (cells.image * classes + label)[shown]
    weights = cells.pixels[shown]
    return Confusion(
        hits=_summed(place, weights * right[shown], truth.size).reshape(truth.shape),
        painted=_summed(place, weights, truth.size).reshape(truth.shape),
        truth=truth.astype(np.float64),
    )


def _summed(place: Integers, pixels: Integers, length: int) -> Floats:
    # Without entries bincount returns integers even when it is given weights.
    return np.bincount(place, pixels, length).astype(np.float64)
