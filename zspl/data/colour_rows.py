"""The draws of strong views as numbers, for `zspl.data.views` to compute all views at once.

N is a number of views, K is `ROW`.
"""

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from zspl.data.strong import CONTRAST, NUM_CHANGES, SATURATION, TURN, Colours

BLENDS = NUM_CHANGES - 1
"""Changes that blend with another picture: all but the hue, before which and after which as many
can come; a blend that does not come has the factor 1 and changes nothing."""

BLEND = 3
"""Numbers of a blend: its factor, whether it is contrast, whether it is saturation."""

PASSES = 3
"""Box blurs that make up Pillow's Gaussian blur."""

REACH = 2
"""Pixels that one box blur reaches to each side, for the radii that are drawn."""

ROW = 2 * BLENDS * BLEND + 2 + REACH + 1
"""Numbers of one view: blends before the hue, its turn, blends after it, greyness, box weights."""


def rows(colours: Iterable[Colours]) -> Float[Tensor, "N K"]:
    """Return draws as `strong_views` reads them, K numbers each."""
    return torch.tensor([_row(drawn) for drawn in colours])


def box_weights(radius: float) -> tuple[float, ...]:
    """Return the weights at distance 0, 1, ... of the box whose three passes blur by `radius`.

    Gwosdek et al. (SSVM 2011): an extended box, whose outermost pixels count in part, has exactly
    the variance radius^2 / 3.

    Args:
        radius: Standard deviation of the blur in pixels, small enough for a box of 5 pixels.
    """
    variance = radius * radius / PASSES
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    length = 2 * whole + 1
    part = length * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    inner = 1 / (length + 2 * part)
    outside = [0.0] * (REACH - whole - 1)
    return (*[inner] * (whole + 1), part * inner, *outside)


def _row(drawn: Colours) -> list[float]:
    kinds = [kind for kind, _ in drawn.changes]
    turned = kinds.index(TURN) if TURN in kinds else 0
    # As Pillow's hue has 256 steps, so has its turn.
    turn = float(int(drawn.changes[turned][1] * 255) % 256) if TURN in kinds else -1.0
    return [
        *_blends(drawn.changes[:turned]),
        turn,
        *_blends(drawn.changes[turned + 1 :] if TURN in kinds else drawn.changes),
        float(drawn.grey),
        *box_weights(drawn.radius),
    ]


def _blends(changes: tuple[tuple[int, float], ...]) -> list[float]:
    made = [(factor, float(k == CONTRAST), float(k == SATURATION)) for k, factor in changes]
    made += [(1.0, 0.0, 0.0)] * (BLENDS - len(made))
    return [number for blend in made for number in blend]
