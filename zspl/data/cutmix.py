"""CutMix: boxes, and pasting what lies in them from one batch into another."""

import math

import numpy as np
import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

PROBABILITY = 0.5
"""Of a box at all."""

AREA = (0.02, 0.4)
"""Range of a box's share of the crop, before its sides are cut to whole pixels."""

RATIO = (0.3, 1 / 0.3)
"""Range of a box's height / width."""


def draw_box(size: int, rng: np.random.Generator) -> Bool[Tensor, "S S"]:
    """Draw the box of one strong view: True inside; with probability 1/2 it is empty.

    As in UniMatch, the area is drawn once, and ratio and corner until the box fits.

    Args:
        size: S, the side of the crop, in pixels.
        rng: Where the random numbers come from.
    """
    box = torch.zeros(size, size, dtype=torch.bool)
    if rng.random() > PROBABILITY:
        return box
    area = rng.uniform(*AREA) * size * size
    while True:
        ratio = rng.uniform(*RATIO)
        width, height = int(math.sqrt(area / ratio)), int(math.sqrt(area * ratio))
        x, y = int(rng.integers(size)), int(rng.integers(size))
        if x + width <= size and y + height <= size:
            box[y : y + height, x : x + width] = True
            return box


def paste(
    target: Shaped[Tensor, "B *C S S"],
    source: Shaped[Tensor, "B *C S S"],
    box: Bool[Tensor, "B S S"],
) -> Shaped[Tensor, "B *C S S"]:
    """Return `target` with what lies in `box` taken from `source`; neither is changed.

    Args:
        target: Images [B 3 S S], or labels, confidences or masks [B S S].
        source: What is pasted, of the same shape.
        box: True where `source` shows.

    Raises:
        ValueError: if the shapes do not fit.
    """
    if target.shape != source.shape or box.shape != (target.shape[0], *target.shape[-2:]):
        raise ValueError(
            f"expected target and source of one shape and a box [B S S], got "
            f"{tuple(target.shape)}, {tuple(source.shape)} and {tuple(box.shape)}"
        )
    return torch.where(box if target.ndim == box.ndim else box[:, None], source, target)
