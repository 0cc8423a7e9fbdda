"""Pictures: label maps over photos, alone or as a table with a legend."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from zspl.io import atomic
from zspl.io.images import Pixels, voc_palette
from zspl.records import IGNORE_INDEX

_MARGIN = 8
_LINE = 18
_IGNORED = (235, 235, 235)

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


@dataclass(frozen=True, kw_only=True, slots=True)
class GridRow:
    """One photo and the label maps to show over it; None leaves the place empty."""

    image: Image.Image
    maps: Sequence[Pixels | None]


def overlay(image: Image.Image, label: Pixels, *, opacity: float = 0.6) -> Image.Image:
    """Paint class ids over a photo in the VOC colours; background stays, 255 becomes grey.

    Args:
        image: RGB photo.
        label: UInt8[H W] class ids of the same size.
        opacity: Of the paint, in [0, 1].

    Raises:
        ValueError: if the sizes differ.
    """
    if label.shape != (image.height, image.width):
        raise ValueError(f"expected a label map of {image.size}, got {label.shape[::-1]}")
    palette = np.array(voc_palette(), dtype=np.float64).reshape(256, 3)
    palette[IGNORE_INDEX] = _IGNORED
    weight = np.where(label == 0, 0.0, opacity)[..., None]
    mixed = (1 - weight) * np.asarray(image, dtype=np.float64) + weight * palette[label]
    return Image.fromarray(mixed.round().astype(np.uint8))


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


def grid(
    titles: Sequence[str],
    rows: Sequence[GridRow],
    *,
    class_names: Sequence[str],
    cell: tuple[int, int] = (150, 120),
) -> Image.Image:
    """Draw photos and label maps as a table with a legend of the classes shown.

    Args:
        titles: Headings of the label maps; the photo's own is "image".
        rows: One per photo, each with as many maps as there are titles.
        class_names: Names by class id, background first.
        cell: Width and height of one picture, in pixels; aspect ratios are kept.

    Raises:
        ValueError: if a row has not one map per title.
    """
    for row in rows:
        if len(row.maps) != len(titles):
            raise ValueError(f"expected {len(titles)} maps in each row, got {len(row.maps)}")
    maps = [m for row in rows for m in row.maps if m is not None]
    shown = sorted({int(i) for m in maps for i in np.unique(m)})
    legend = [(i, class_names[i]) for i in shown if 0 < i < len(class_names)]
    step = (cell[0] + _MARGIN, cell[1] + _MARGIN)
    width = _MARGIN + step[0] * (1 + len(titles))
    lines = _legend_lines(legend, width)
    height = _MARGIN + _LINE + step[1] * len(rows) + _LINE * len(lines) + _MARGIN
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    for column, title in enumerate(("image", *titles)):
        _text(draw, (_MARGIN + column * step[0], _MARGIN), text=title, room=cell[0])
    for y, row in enumerate(rows):
        pictures = [
            row.image,
            *(None if m is None else overlay(row.image, m) for m in row.maps),
        ]
        for x, picture in enumerate(pictures):
            corner = (_MARGIN + x * step[0], _MARGIN + _LINE + y * step[1])
            _place(canvas, picture, corner=corner, cell=cell)
    for line, entries in enumerate(lines):
        top = _MARGIN + _LINE + len(rows) * step[1] + line * _LINE
        _draw_legend(draw, entries, top=top)
    return canvas


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


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=12)


def _text(draw: ImageDraw.ImageDraw, corner: tuple[int, int], *, text: str, room: int) -> None:
    font = _font()
    while len(text) > 1 and draw.textlength(text, font=font) > room:
        text = text[:-2] + "…"
    draw.text(corner, text, fill="black", font=font)


def _place(
    canvas: Image.Image,
    picture: Image.Image | None,
    *,
    corner: tuple[int, int],
    cell: tuple[int, int],
) -> None:
    if picture is None:
        middle = (corner[0] + cell[0] // 2, corner[1] + cell[1] // 2)
        ImageDraw.Draw(canvas).text(middle, "—", fill="grey", font=_font())
        return
    scale = min(cell[0] / picture.width, cell[1] / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    canvas.paste(picture.resize(size, Image.Resampling.LANCZOS), corner)


def _legend_lines(
    legend: Sequence[tuple[int, str]], width: int
) -> list[list[tuple[int, int, str]]]:
    """Break the legend into lines of (x, class id, name) that fit the width."""
    lines: list[list[tuple[int, int, str]]] = [[]]
    x = _MARGIN
    for index, name in legend:
        room = 24 + int(_font().getlength(name)) + 12
        if x + room > width and lines[-1]:
            lines.append([])
            x = _MARGIN
        lines[-1].append((x, index, name))
        x += room
    return lines


def _draw_legend(
    draw: ImageDraw.ImageDraw, entries: Sequence[tuple[int, int, str]], *, top: int
) -> None:
    palette = voc_palette()
    for x, index, name in entries:
        colour = tuple(palette[3 * index : 3 * index + 3])
        draw.rectangle((x, top + 2, x + 16, top + 13), fill=colour)
        draw.text((x + 22, top), name, fill="black", font=_font())
