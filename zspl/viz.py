"""Pictures: label maps over photos, and the colours of classes."""

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFont

from zspl.io import atomic
from zspl.io.images import Pixels
from zspl.records import IGNORE_INDEX

_OKABE_ITO = (
    (0, 0, 0),
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
"""Okabe and Ito's colours, told apart by people who see red and green alike; black first."""

_STRIPE = 5

_LEAST_CHROMA, _DARKEST, _LIGHTEST = 0.07, 0.35, 0.93
"""Of OKLab, for colours that are neither grey nor lost on a dark or light page."""

_LINEAR_UP_TO = 0.04045
_TO_CONES = np.array(
    (
        (0.4122214708, 0.5363325363, 0.0514459929),
        (0.2119034982, 0.6806995451, 0.1073969566),
        (0.0883024619, 0.2817188376, 0.6299787005),
    )
)
_TO_LAB = np.array(
    (
        (0.2104542553, 0.7936177850, -0.0040720468),
        (1.9779984951, -2.4285922050, 0.4505937099),
        (0.0259040371, 0.7827717662, -0.8086757660),
    )
)


def class_colour(class_id: int) -> tuple[int, int, int]:
    """Return the colour of a class on pages for people: Okabe-Ito's, then what differs most.

    Example:
        >>> class_colour(1), class_colour(8) == class_colour(9)
        ((230, 159, 0), False)
    """
    red, green, blue = _colours()[class_id].tolist()
    return red, green, blue


@cache
def _colours() -> Pixels:
    """Return UInt8[256 3]: each next colour is the farthest in OKLab from all before it."""
    steps = np.arange(0, 256, 17)
    candidates = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _oklab(candidates)
    lightness, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    vivid = (chroma > _LEAST_CHROMA) & (lightness > _DARKEST) & (lightness < _LIGHTEST)
    candidates, lab = candidates[vivid], lab[vivid]
    chosen = np.zeros((256, 3), np.uint8)
    chosen[: len(_OKABE_ITO)] = _OKABE_ITO
    known = _oklab(chosen[: len(_OKABE_ITO)])
    distance = ((lab[:, None] - known[None]) ** 2).sum(axis=2).min(axis=1)
    for class_id in range(len(_OKABE_ITO), 256):
        farthest = int(distance.argmax())
        chosen[class_id] = candidates[farthest]
        distance = np.minimum(distance, ((lab - lab[farthest]) ** 2).sum(axis=1))
    return chosen


def _oklab(rgb: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Return lightness, green-red and blue-yellow of sRGB values (Ottosson, OKLab, 2020)."""
    share = rgb / 255
    linear = np.where(share <= _LINEAR_UP_TO, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    lab: npt.NDArray[np.float64] = np.cbrt(linear @ _TO_CONES.T) @ _TO_LAB.T
    return lab


def outlined(image: Image.Image, label: Pixels, *, opacity: float = 0.5) -> Image.Image:
    """Paint classes over a photo in `class_colour` with solid outlines; 255 becomes grey stripes.

    Args:
        image: RGB photo; background shows it as it is.
        label: UInt8[H W] class ids of the same size.
        opacity: Of the paint inside the outlines, in [0, 1].

    Raises:
        ValueError: if the sizes differ.
    """
    if label.shape != (image.height, image.width):
        raise ValueError(f"expected a label map of {image.size}, got {label.shape[::-1]}")
    paint = _colours()[label].astype(np.float64)
    unclaimed = label == IGNORE_INDEX
    diagonal = np.add.outer(np.arange(label.shape[0]), np.arange(label.shape[1])) // _STRIPE % 2
    paint[unclaimed] = np.where(diagonal == 0, 110.0, 215.0)[unclaimed, None]
    weight = np.where(label == 0, 0.0, opacity)
    weight[unclaimed] = max(opacity, 0.6)
    weight[_edges(label) & (label != 0) & ~unclaimed] = 1.0
    mixed = (1 - weight[..., None]) * np.asarray(image, dtype=np.float64)
    return Image.fromarray((mixed + weight[..., None] * paint).round().astype(np.uint8))


def _edges(label: Pixels) -> npt.NDArray[np.bool_]:
    """Return Bool[H W], where a pixel within two steps up, down, left or right is of another id."""
    edges = np.zeros(label.shape, bool)
    for step in (1, 2):
        across = label[:, step:] != label[:, :-step]
        down = label[step:] != label[:-step]
        edges[:, step:] |= across
        edges[:, :-step] |= across
        edges[step:] |= down
        edges[:-step] |= down
    return edges


def shortened(text: str, *, room: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return one line of text no wider than `room` pixels; what does not fit goes from the middle.

    File names differ at the end and say where they are from at the start.
    """
    if font.getlength(text) <= room:
        return text
    kept = len(text)
    while kept > 1 and font.getlength(_without_middle(text, kept)) > room:
        kept -= 1
    return _without_middle(text, kept)


def _without_middle(text: str, kept: int) -> str:
    head = -(-kept // 2)
    return f"{text[:head]}…{text[len(text) - (kept - head) :]}"


def write_png(path: Path, image: Image.Image) -> None:
    """Write a picture atomically."""
    atomic.write(path, lambda temporary: image.save(temporary, format="PNG"))
