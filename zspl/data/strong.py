"""The strong view's colours: jitter, grey and blur, as UniMatch draws them.

The distributions and the 8-bit arithmetic are those of torchvision's ColorJitter and
RandomGrayscale on Pillow images; the random numbers come from one numpy generator, so samples
are not those of the official code for any seed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageFilter

JITTER_PROBABILITY = 0.8
STRENGTH = 0.5
"""Brightness, contrast and saturation factors are uniform in [1 - STRENGTH, 1 + STRENGTH]."""

HUE = 0.25
"""The hue turns by a uniform share of the circle in [-HUE, HUE]."""

GREY_PROBABILITY = 0.2
BLUR_PROBABILITY = 0.5
BLUR_SIGMA = (0.1, 2.0)
"""Range of the blur's radius, in pixels."""


def turn_hue(image: Image.Image, share: float) -> Image.Image:
    """Turn the hue of an RGB image by a share of the circle in [-0.5, 0.5]."""
    hue, saturation, value = image.convert("HSV").split()
    step = int(share * 255) % 256
    hue = hue.point([(level + step) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def _brightness(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


def _contrast(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(factor)


def _saturation(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Color(image).enhance(factor)


_CHANGES: tuple[tuple[Callable[[Image.Image, float], Image.Image], float, float], ...] = (
    (_brightness, 1 - STRENGTH, 1 + STRENGTH),
    (_contrast, 1 - STRENGTH, 1 + STRENGTH),
    (_saturation, 1 - STRENGTH, 1 + STRENGTH),
    (turn_hue, -HUE, HUE),
)


NUM_CHANGES = len(_CHANGES)
BRIGHTNESS, CONTRAST, SATURATION, TURN = range(NUM_CHANGES)
"""Places of the changes, which `Colours` names them by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Colours:
    """One draw of what makes a strong view.

    Attributes:
        changes: Place and factor (of the hue: share of the circle) of each change, in the order
            they are made; empty without jitter.
        grey: Whether the view is grey after them.
        radius: Of the blur that comes last, in pixels; 0 for none.
    """

    changes: tuple[tuple[int, float], ...]
    grey: bool
    radius: float


def draw_colours(rng: np.random.Generator) -> Colours:
    """Draw a strong view: jitter with p 0.8, grey with 0.2, blur with 0.5."""
    changes = _draw_changes(rng) if rng.random() < JITTER_PROBABILITY else ()
    grey = bool(rng.random() < GREY_PROBABILITY)
    radius = float(rng.uniform(*BLUR_SIGMA)) if rng.random() < BLUR_PROBABILITY else 0.0
    return Colours(changes=changes, grey=grey, radius=radius)


def _draw_changes(rng: np.random.Generator) -> tuple[tuple[int, float], ...]:
    order = rng.permutation(len(_CHANGES)).tolist()
    return tuple((k, float(rng.uniform(*_CHANGES[k][1:]))) for k in order)


def strong_view(
    crop: UInt8[np.ndarray, "S S 3"], rng: np.random.Generator
) -> UInt8[np.ndarray, "S S 3"]:
    """Return a strong view of a weak crop under a new draw."""
    return coloured(crop, draw_colours(rng))


def coloured(crop: UInt8[np.ndarray, "S S 3"], drawn: Colours) -> UInt8[np.ndarray, "S S 3"]:
    """Return a strong view of a weak crop under a draw."""
    image = Image.fromarray(crop)
    for k, factor in drawn.changes:
        image = _CHANGES[k][0](image, factor)
    if drawn.grey:
        image = image.convert("L").convert("RGB")
    if drawn.radius:
        image = image.filter(ImageFilter.GaussianBlur(drawn.radius))
    return np.asarray(image)
