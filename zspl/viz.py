"""Pictures: label maps over photos, alone or as a table with a legend."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from zspl.io import atomic
from zspl.io.images import Pixels, voc_palette
from zspl.records import IGNORE_INDEX

_MARGIN = 8
_LINE = 18
_IGNORED = (235, 235, 235)


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
