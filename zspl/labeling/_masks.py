"""What is asked of many masks at once, answered without a copy of them in floating point."""

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from torch import Tensor

_BAND = 16
"""Rows whose masks are in floating point at a time."""


def windows(masks: Bool[Tensor, "N H W"]) -> list[tuple[int, int, int, int]]:
    """Return (top, bottom, left, right) of each mask, ends excluded; zeros for an empty one."""
    pixels = masks.numpy()
    top, bottom = _extent(np.logical_or.reduce(pixels, axis=2))
    left, right = _extent(np.logical_or.reduce(pixels, axis=1))
    return list(zip(top, bottom, left, right, strict=True))


def areas(masks: Bool[Tensor, "N H W"]) -> list[int]:
    """Return the number of pixels of each mask."""
    return [int(np.count_nonzero(mask)) for mask in masks.numpy()]


def bands(masks: Bool[Tensor, "N H W"]) -> list[tuple[slice, list[int]]]:
    """Cut the image into bands of rows; return each with the masks that reach into it."""
    extents = [(top, bottom) for top, bottom, _, _ in windows(masks)]
    found = []
    for start in range(0, masks.shape[1], _BAND):
        rows = slice(start, start + _BAND)
        inside = [k for k, (top, end) in enumerate(extents) if top < rows.stop and end > start]
        if inside:
            found.append((rows, inside))
    return found


def as_float(masks: Bool[Tensor, "*N H W"]) -> Float[Tensor, "*N H W"]:
    """Turn masks into zeros and ones; from bytes torch does that twice as fast as from bools."""
    return masks.view(torch.uint8).float()


def _extent(occupied: npt.NDArray[np.bool_]) -> tuple[list[int], list[int]]:
    """Return the first occupied position of each row and the one after the last."""
    some = occupied.any(axis=1)
    first = occupied.argmax(axis=1) * some
    beyond = (occupied.shape[1] - occupied[:, ::-1].argmax(axis=1)) * some
    return first.tolist(), beyond.tolist()
