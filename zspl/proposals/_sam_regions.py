"""Filling the small holes of masks and dropping their small islands."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from zspl.proposals._sam_masks import Outline, boxes_of
from zspl.proposals._sam_segments import Segments

Mask = npt.NDArray[np.bool_]
_Numbers = npt.NDArray[np.integer[Any]]


def mended(
    segments: Segments, size: tuple[int, int], *, least_area: int, overlap: float
) -> Segments:
    """Mend the masks of an image, then drop the duplicates that this makes, changed ones first."""
    outlines, boxes, untouched = [], [], []
    for outline in segments.outlines:
        mask = np.zeros(size, np.bool_)
        outline.paint(mask)
        mask, changed = mended_mask(mask, least_area)
        outlines.append(Outline.of(mask) if changed else outline)
        boxes.append(boxes_of(torch.from_numpy(mask)[None]))
        untouched.append(float(not changed))
    all_mended = Segments(
        scores=segments.scores,
        stability=segments.stability,
        boxes=torch.cat([segments.boxes[:0], *boxes]),
        outlines=outlines,
    )
    return all_mended.suppressed(torch.tensor(untouched), overlap)


def mended_mask(mask: Mask, least_area: int) -> tuple[Mask, bool]:
    """Fill holes, then drop islands, of fewer than `least_area` pixels; diagonals connect.

    When every island is smaller the largest stays.

    Returns:
        The mask and whether it changed.
    """
    holes, sizes = _regions(~mask)
    small = np.flatnonzero(sizes < least_area) + 1
    filled = mask | np.isin(holes, small) if len(small) else mask
    islands, sizes = _regions(filled)
    kept = np.flatnonzero(sizes >= least_area) + 1
    if len(kept) == len(sizes):
        return filled, len(small) > 0
    if len(kept) == 0:
        kept = np.array([int(sizes.argmax()) + 1])
    return np.isin(islands, kept), True


def _regions(mask: Mask) -> tuple[_Numbers, _Numbers]:
    """Return the mask's regions, numbered from 1, and the pixels of each."""
    from skimage import measure

    label: Any = measure.label
    regions = label(mask, connectivity=2)
    return regions, np.bincount(regions.ravel(), minlength=1)[1:]
