"""The contact sheet: photos beside their labels on one picture."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from zspl.annotation.facts import Facts
from zspl.annotation.photos import printable
from zspl.annotation.pictures import class_name, pair, percent, shares
from zspl.annotation.results import Results
from zspl.records import IGNORE_INDEX
from zspl.viz import class_colour, shortened, write_png

CELL = (264, 198)
"""The most width and height of one picture, in pixels."""

_GAP = 4
_MARGIN = 20
_LINE = 20
_CARD = (2 * CELL[0] + _GAP, CELL[1] + 2 * _LINE + 8)
_COLUMNS = ((1, 1), (2, 4), (3, math.inf))
"""Columns, and up to how many photos they are used for."""

_PAPER, _INK, _FAINT, _FRAME = "#ffffff", "#1c1c1c", "#6a6a6a", "#ececec"
_GREY = (110, 110, 110)

Colour = tuple[int, int, int]


def write(results: Results, names: Sequence[str], path: Path) -> None:
    """Draw the contact sheet of some photos and write it as PNG, atomically.

    Args:
        results: Where photos and label maps lie.
        names: The photos, in this order.
        path: The PNG file.

    Raises:
        DataError: if a name is not labeled.
        DiskError: if the file cannot be written.
    """
    facts = [results.facts(name) for name in names]
    columns = next(n for n, room in _COLUMNS if len(facts) <= room)
    width = _MARGIN + columns * (_CARD[0] + _MARGIN)
    legend = _legend_lines(results, facts, width=width)
    top = _MARGIN + len(legend) * (_LINE + 4) + (_MARGIN // 2 if legend else 0)
    rows = -(-len(facts) // columns)
    canvas = Image.new("RGB", (width, top + rows * (_CARD[1] + _MARGIN)), _PAPER)
    for line, entries in enumerate(legend):
        _draw_legend(canvas, entries, top=_MARGIN + line * (_LINE + 4))
    for index, entry in enumerate(facts):
        row, column = divmod(index, columns)
        corner = (_MARGIN + column * (_CARD[0] + _MARGIN), top + row * (_CARD[1] + _MARGIN))
        _draw_card(canvas, results, entry, corner=corner)
    write_png(path, canvas)


def _font(size: int = 14) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _draw_card(
    canvas: Image.Image, results: Results, facts: Facts, *, corner: tuple[int, int]
) -> None:
    draw = ImageDraw.Draw(canvas)
    both = pair(results, facts, box=CELL)
    for place in range(2):
        left = corner[0] + place * (CELL[0] + _GAP)
        draw.rectangle((left, corner[1], left + CELL[0] - 1, corner[1] + CELL[1] - 1), fill=_FRAME)
        if both is not None:
            picture = both.painted if place else both.photo
            x = left + (CELL[0] - picture.width) // 2
            canvas.paste(picture, (x, corner[1] + (CELL[1] - picture.height) // 2))
    if both is None:
        text = "the photo is gone or was changed"
        draw.text((corner[0] + 12, corner[1] + 12), text, fill=_FAINT, font=_font())
    names = results.table.names
    found = ", ".join(
        f"{printable(class_name(names, i))} {percent(share)}" for i, share in shares(facts)
    )
    lines = ((printable(facts.source), _INK), (found or "background only", _FAINT))
    for line, (text, colour) in enumerate(lines):
        fitting = shortened(text, room=_CARD[0], font=_font())
        position = (corner[0], corner[1] + CELL[1] + 6 + line * _LINE)
        draw.text(position, fitting, fill=colour, font=_font())


def _legend_lines(
    results: Results, facts: Sequence[Facts], *, width: int
) -> list[list[tuple[int, Colour, str]]]:
    """Break the legend of the classes shown into lines of (x, colour, name)."""
    lines: list[list[tuple[int, Colour, str]]] = []
    x = width
    for colour, name in _legend(results, facts):
        text = shortened(name, room=width // 2, font=_font())
        room = 24 + int(_font().getlength(text)) + 22
        if x + room > width - _MARGIN or not lines:
            lines.append([])
            x = _MARGIN
        lines[-1].append((x, colour, text))
        x += room
    return lines


def _legend(results: Results, facts: Sequence[Facts]) -> Iterator[tuple[Colour, str]]:
    for class_id in sorted({i for entry in facts for i, _ in shares(entry)}):
        colour = _GREY if class_id == IGNORE_INDEX else class_colour(class_id)
        yield colour, printable(class_name(results.table.names, class_id))


def _draw_legend(
    canvas: Image.Image, entries: Sequence[tuple[int, Colour, str]], *, top: int
) -> None:
    draw = ImageDraw.Draw(canvas)
    for x, colour, name in entries:
        draw.rectangle((x, top + 2, x + 16, top + 16), fill=colour)
        if colour == _GREY:
            for step in (0, 6, 12):
                draw.line((x + 16 - step, top + 2, x, top + 18 - step), fill=_FRAME, width=2)
        draw.text((x + 24, top), name, fill=_INK, font=_font())
