"""The connected regions of a label map, with their size, box and mean confidence."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from zspl.io.images import Pixels
from zspl.records import IGNORE_INDEX

Integers = npt.NDArray[np.int64]

EIGHT = np.ones((3, 3), np.uint8)
"""Pixels that touch at a corner belong together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """One connected region of one class.

    Attributes:
        class_id: Of 1..K.
        area: In pixels.
        bbox: XYWH in pixels.
        confidence: Mean over its pixels, in [0, 1].
        counts: Run lengths down the columns, left to right, first the pixels outside.
        inside: Bool[h w], the region within its box.
    """

    class_id: int
    area: int
    bbox: tuple[int, int, int, int]
    confidence: float
    counts: list[int]
    inside: npt.NDArray[np.bool_]


def regions(label: Pixels, confidence: Pixels) -> Iterator[Region]:
    """Yield the 8-connected regions of every class but the background, by class, then by row.

    Args:
        label: UInt8[H W] class ids, 255 where nothing is claimed.
        confidence: UInt8[H W], 255 for a confidence of 1.
    """
    from scipy import ndimage

    ids, classes = _number(label)
    if not classes:
        return
    area = np.bincount(ids.reshape(-1))
    total = np.bincount(ids.reshape(-1), weights=confidence.reshape(-1))
    boxes = ndimage.find_objects(ids)
    for index, counts in enumerate(_counts(ids, len(classes)), start=1):
        rows, columns = boxes[index - 1]
        width, height = columns.stop - columns.start, rows.stop - rows.start
        yield Region(
            class_id=classes[index - 1],
            area=int(area[index]),
            bbox=(columns.start, rows.start, width, height),
            confidence=float(total[index] / area[index] / 255),
            counts=counts,
            inside=ids[rows, columns] == index,
        )


def mask_counts(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Return the run lengths of one mask, as in `Region.counts`."""
    return next(_counts(mask.astype(np.int64), 1))


def _number(label: Pixels) -> tuple[Integers, list[int]]:
    """Return Int64[H W] with regions numbered from 1 and the class of each."""
    from scipy import ndimage

    ids = np.zeros(label.shape, np.int64)
    classes: list[int] = []
    for class_id in np.unique(label).tolist():
        if class_id in {0, IGNORE_INDEX}:
            continue
        numbered, found = ndimage.label(label == class_id, structure=EIGHT)
        ids += np.where(numbered > 0, numbered + len(classes), 0)
        classes += [class_id] * found
    return ids, classes


def _counts(ids: Integers, regions: int) -> Iterator[list[int]]:
    """Yield for ids 1..regions the run lengths, first of pixels outside, down the columns."""
    flat = ids.T.reshape(-1)
    starts = np.concatenate(([0], np.flatnonzero(np.diff(flat)) + 1))
    ends = np.concatenate((starts[1:], [flat.size]))
    values = flat[starts]
    order = np.argsort(values, kind="stable")
    bounds = np.searchsorted(values[order], np.arange(1, regions + 2))
    for first, stop in pairwise(bounds.tolist()):
        runs = order[first:stop]
        edges = np.stack((starts[runs], ends[runs]), axis=1).reshape(-1)
        yield np.diff(edges, prepend=0, append=flat.size).tolist()
