"""The charts of scores: against the number of labels, beside published ones, and confidence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from zspl.report.looks import Look, drawing

Points = Sequence[tuple[int, float, float]]
"""(labeled images, mean, standard deviation) in any order; a NaN mean is left out."""

_DODGE = 0.035
"""Octaves between the points of two lines at the same number of labels."""


@dataclass(frozen=True, slots=True)
class Line:
    """One method in a chart: a published line is dashed and its markers are hollow.

    `like` is the name whose colour and marker it takes.
    """

    name: str
    points: Points
    published: bool = False
    like: str = ""


def draw_lines(
    path: Path, lines: Sequence[Line], *, ylabel: str, known: Mapping[str, Look]
) -> None:
    """Draw a score against the number of labeled images, on an axis of octaves.

    Args:
        path: The files, without suffix.
        lines: Ours and published ones.
        ylabel: Name and unit of the score.
        known: The look of each of ours.
    """
    ticks = sorted({x for line in lines for x, mean, _ in line.points if not np.isnan(mean)})
    # Published names are long, and the legend stands beside the axes.
    width = 10.2 if any(line.published for line in lines) else 8.4
    with drawing(width, 4.4, path) as figure:
        axes = figure.subplots()
        ours = [line for line in lines if not line.published]
        for index, line in enumerate(ours):
            shift = (index - (len(ours) - 1) / 2) * _DODGE
            _draw_line(axes, line, known[line.name], shift=shift)
        for line in lines:
            if line.published:
                _draw_line(axes, line, known[line.like], shift=0.0)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        if ticks:
            axes.set_xlim(ticks[0] / 1.35, ticks[-1] * 1.35)
        axes.set_xlabel("labeled images (each step of the axis doubles them)")
        axes.set_ylabel(ylabel)
        axes.grid(visible=True)
        if axes.get_legend_handles_labels()[1]:
            figure.legend(loc="outside right upper", frameon=False, handlelength=2.6)


def _draw_line(axes: Axes, line: Line, look: Look, *, shift: float) -> None:
    finite = sorted(point for point in line.points if not np.isnan(point[1]))
    if not finite:
        return
    x, mean, std = (np.array(values, dtype=float) for values in zip(*finite, strict=True))
    axes.errorbar(
        x * 2**shift,
        mean,
        yerr=np.where(np.isnan(std), 0, std) if np.nan_to_num(std).any() else None,
        color=look.colour,
        marker=look.marker,
        markersize=6,
        markerfacecolor="white" if line.published else look.colour,
        linestyle="--" if line.published else look.stroke,
        linewidth=1.2 if line.published else 1.8,
        capsize=3,
        label=line.name,
    )


@dataclass(frozen=True, slots=True)
class Beside:
    """One bar of ours and one published bar; mIoU in percent, NaN for what was not run."""

    name: str
    ours: float
    std: float
    published: float


def draw_beside(path: Path, panels: Mapping[str, Sequence[Beside]]) -> None:
    """Draw our number and the published one as two bars, one panel per split."""
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    tall = max(len(bars) for bars in panels.values())
    with drawing(max(5.5, 3.4 * columns), rows * (0.55 * tall + 0.7) + 0.7, path) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for axes, (title, bars) in zip(grid.flat, panels.items(), strict=False):
            _draw_beside(axes, bars)
            axes.set_title(title, loc="left")
        figure.supxlabel("mIoU on val, %", fontsize=10)
        handles, names = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=2, frameon=False)


def _draw_beside(axes: Axes, bars: Sequence[Beside]) -> None:
    y = np.arange(len(bars), dtype=float)
    ours = np.array([bar.ours for bar in bars])
    std = np.array([bar.std for bar in bars])
    published = np.array([bar.published for bar in bars])
    ink = "#1F2328"
    axes.barh(y - 0.19, np.nan_to_num(ours), 0.36, color="#0072B2", label="ours")
    spread = std > 0
    axes.errorbar(ours[spread], y[spread] - 0.19, xerr=std[spread], fmt="none", ecolor=ink,
                  capsize=2)  # fmt: skip
    axes.barh(y + 0.19, published, 0.36, color="white", edgecolor=ink, hatch="////",
              label="published")  # fmt: skip
    for place, bar in zip(y, bars, strict=True):
        text = "not run" if np.isnan(bar.ours) else f"{bar.ours:.1f}"
        end = 0 if np.isnan(bar.ours) else bar.ours + (0 if np.isnan(bar.std) else bar.std)
        axes.annotate(text, (end, place - 0.19), (4, 0), textcoords="offset points", va="center",
                      fontsize=8.5)  # fmt: skip
        axes.annotate(f"{bar.published:.1f}", (bar.published, place + 0.19), (4, 0),
                      textcoords="offset points", va="center", fontsize=8.5)  # fmt: skip
    axes.set_yticks(y, [bar.name for bar in bars])
    axes.set_ylim(len(bars) - 0.45, -0.55)
    axes.set_xlim(0, 100)
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", length=0)


Bins = Sequence[tuple[float, float, float]]
"""(confidence, accuracy, share of pixels) of the bins that hold any, all in [0, 1]."""

_BEFORE_AFTER = (("#D55E00", "s", "--"), ("#0072B2", "o", "-"), ("#009E73", "^", ":"))
_PANELS = 3


def draw_reliability(path: Path, panels: Mapping[str, Mapping[str, Bins]]) -> None:
    """Draw accuracy against confidence, one panel per title, beside the diagonal of honesty.

    Args:
        path: The files, without suffix.
        panels: Up to three lines of bins each, such as before and after calibration; a marker's
            area grows with the bin's share of pixels.
    """
    columns = min(_PANELS, len(panels))
    rows = -(-len(panels) // _PANELS)
    with drawing(max(4.2, 2.7 * columns), 2.7 * rows + 0.7, path) as figure:
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        lines: dict[str, Line2D] = {}
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for axes, (title, groups) in zip(grid.flat, panels.items(), strict=False):
            axes.plot((0, 1), (0, 1), color="#59616B", linewidth=1)
            for (name, bins), look in zip(groups.items(), _BEFORE_AFTER, strict=False):
                lines[name] = _draw_bins(axes, bins, look)
            axes.set(aspect="equal", xlim=(0, 1), ylim=(0, 1))
            axes.set_title(title, loc="left")
            axes.grid(visible=True)
        figure.supxlabel("confidence", fontsize=10)
        figure.supylabel("share of pixels that are right", fontsize=10)
        if lines:
            names, handles = list(lines), list(lines.values())
            figure.legend(handles, names, loc="outside upper left", ncols=3, frameon=False)


def _draw_bins(axes: Axes, bins: Bins, look: tuple[str, str, str]) -> Line2D:
    color, marker, style = look
    x, y, share = zip(*bins, strict=True) if bins else ((), (), ())
    area = [200 * part for part in share]
    axes.scatter(x, y, s=area, color=color, marker=marker, alpha=0.4, linewidths=0, clip_on=False)
    return axes.plot(
        x, y, color=color, linestyle=style, marker=marker, markersize=3, clip_on=False
    )[0]
