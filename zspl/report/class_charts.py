"""IoU of each class, methods side by side: bars for some classes, numbers on shades for many."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from zspl.report.formats import ABSENT
from zspl.report.looks import Look, drawing
from zspl.report.tables import Spread

FEW = 30
"""Classes up to which each gets a bar per method."""

_BLOCKS = 3
_GREY = "#59616B"
_SCALE = 160.0
"""IoU in percent that would be the darkest shade: dark digits stand out on all below 100."""


def draw_classes(
    path: Path,
    columns: Mapping[str, Sequence[Spread]],
    names: Sequence[str],
    *,
    sort: str,
    colours: Mapping[str, Look],
) -> None:
    """Draw the IoU of each class in percent, one column per method.

    Args:
        path: The files, without suffix.
        columns: One value per class, by method.
        names: Class names.
        sort: The method whose IoU orders the classes, best first.
        colours: The looks of methods; one without is grey.
    """
    order = sorted(range(len(names)), key=lambda index: _key(columns[sort][index]))
    names = [names[i] for i in order]
    columns = {m: [column[i] for i in order] for m, column in columns.items()}
    if len(names) <= FEW:
        _draw_bars(path, columns, names, colours=colours)
    else:
        _draw_shades(path, columns, names)


def _key(spread: Spread) -> float:
    return math.inf if spread.n == 0 else -spread.mean


def _draw_bars(
    path: Path,
    columns: Mapping[str, Sequence[Spread]],
    names: Sequence[str],
    *,
    colours: Mapping[str, Look],
) -> None:
    width = 1.6 + max(1.35, 6.6 / len(columns)) * len(columns)
    with drawing(width, 0.24 * len(names) + 0.9, path) as figure:
        grid = figure.subplots(1, len(columns), squeeze=False, sharey=True)
        for axes, (method, spreads) in zip(grid.flat, columns.items(), strict=True):
            _draw_column(axes, spreads, colours[method].colour if method in colours else _GREY)
            axes.set_title(broken(method), loc="left")
        grid.flat[0].set_yticks(range(len(names)), names)
        grid.flat[0].set_ylim(len(names) - 0.5, -0.5)
        figure.supxlabel("IoU, %", fontsize=10)


def broken(name: str) -> str:
    """Return a long name on two lines, cut where its words meet."""
    head, dash, tail = name.partition("-")
    return f"{head}{dash}\n{tail}" if tail else name


def _draw_column(axes: Axes, spreads: Sequence[Spread], colour: str) -> None:
    for place, spread in enumerate(spreads):
        if spread.n == 0:
            axes.text(2, place, "absent", va="center", fontsize=8, color="#59616B")
            continue
        std = 0.0 if math.isnan(spread.std) else spread.std
        axes.barh(place, spread.mean, 0.72, color=colour, alpha=0.85)
        if std:
            axes.errorbar(spread.mean, place, xerr=std, ecolor="#1F2328", capsize=2, linewidth=1)
        axes.text(min(spread.mean + std, 112) + 3, place, f"{spread.mean:.0f}", va="center",
                  fontsize=8)  # fmt: skip
    axes.set_xlim(0, 122)
    axes.set_xticks((0, 50, 100))
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", length=0)


def _draw_shades(path: Path, columns: Mapping[str, Sequence[Spread]], names: Sequence[str]) -> None:
    size = -(-len(names) // _BLOCKS)
    width = _BLOCKS * (1.25 + 0.52 * len(columns)) + 0.3
    with drawing(width, 0.215 * size + 1.5, path) as figure:
        colours = _shades()
        for block, axes in enumerate(figure.subplots(1, _BLOCKS)):
            part = slice(block * size, (block + 1) * size)
            parts = {method: spreads[part] for method, spreads in columns.items()}
            _draw_block(axes, parts, names[part], colours=colours, size=size)
        _title(figure)


def _title(figure: Figure) -> None:
    figure.suptitle("IoU, %; the darker the better", x=0.01, ha="left", fontsize=10)


def _shades() -> Colormap:
    from matplotlib import colormaps

    return colormaps["Blues"]


def _draw_block(
    axes: Axes,
    columns: Mapping[str, Sequence[Spread]],
    names: Sequence[str],
    *,
    colours: Colormap,
    size: int,
) -> None:
    values = np.full((size, len(columns)), np.nan)
    for column, spreads in enumerate(columns.values()):
        for row, spread in enumerate(spreads):
            values[row, column] = spread.mean
            text = f"{spread.mean:.0f}" if spread.n else ABSENT
            axes.text(column, row, text, ha="center", va="center", fontsize=8)
    axes.imshow(values, cmap=colours, vmin=0, vmax=_SCALE, aspect="auto")
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks(
        range(len(columns)), list(columns), rotation=40, ha="left", rotation_mode="anchor"
    )
    axes.xaxis.tick_top()
    axes.set_ylim(size - 0.5, -0.5)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
