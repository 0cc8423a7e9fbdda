"""A photo and the same photo with its labels painted on, small enough to show."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from zspl.annotation.facts import Facts
from zspl.annotation.results import Results
from zspl.errors import DataError
from zspl.io.images import Pixels
from zspl.records import IGNORE_INDEX
from zspl.viz import outlined

UNCLAIMED = "not claimed"

_LEAST, _WHOLE = 0.001, 0.0095
"""The smallest share that is written out, and the smallest written without decimals."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A photo and its painted copy, of the same size."""

    photo: Image.Image
    painted: Image.Image


def pair(results: Results, facts: Facts, *, box: tuple[int, int]) -> Pair | None:
    """Return a photo and its painted copy, no larger than `box`; None if the photo is not the same.

    Args:
        results: Where the label map and the photo lie.
        facts: Of the photo.
        box: The most width and height, in pixels; smaller photos keep their size.
    """
    try:
        photo, label = results.image(facts.name), results.label(facts.name)
    except DataError:
        return None
    if label.shape != (photo.height, photo.width):
        return None
    scale = min(1.0, box[0] / photo.width, box[1] / photo.height)
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    small = photo.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    nearest = Image.fromarray(label).resize(size, Image.Resampling.NEAREST)
    shown: Pixels = np.asarray(nearest, dtype=np.uint8)
    return Pair(photo=small, painted=outlined(small, shown))


def shares(facts: Facts) -> list[tuple[int, float]]:
    """Return (class id, share of the pixels in [0, 1]), largest first, background left out."""
    area = facts.width * facts.height
    found = [(count / area, i) for i, count in facts.pixels.items() if i != 0 and count > 0]
    return [(i, share) for share, i in sorted(found, key=lambda entry: (-entry[0], entry[1]))]


def class_name(names: tuple[str, ...], class_id: int) -> str:
    """Return the name of a class, `not claimed` for 255."""
    return UNCLAIMED if class_id == IGNORE_INDEX else names[class_id]


def percent(share: float) -> str:
    """Return a share as people write it; what is there never shows as 0 %.

    Example:
        >>> percent(0.314), percent(0.004), percent(0.0), percent(0.00001)
        ('31 %', '0.4 %', '0 %', '< 0.1 %')
    """
    if share == 0:
        return "0 %"
    if share < _LEAST:
        return "< 0.1 %"
    return f"{100 * share:.1f} %" if share < _WHOLE else f"{100 * share:.0f} %"
