"""The charts of the report."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from zspl.io import atomic


def draw_lines(
    path: Path, lines: Mapping[str, Sequence[tuple[int, float, float]]], *, ylabel: str
) -> None:
    """Draw a score against the number of labeled images, one line per name.

    Args:
        path: The PNG file.
        lines: (labeled images, mean, standard deviation) in any order; NaN is left out.
        ylabel: Name and unit of the score.
    """

    def plot(axes: Axes) -> None:
        ticks: set[int] = set()
        for name, points in lines.items():
            finite = sorted(p for p in points if not np.isnan(p[1]))
            if not finite:
                continue
            x, mean, std = zip(*finite, strict=True)
            ticks.update(x)
            axes.errorbar(x, mean, yerr=np.nan_to_num(std), marker="o", capsize=3, label=name)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted(ticks), [str(tick) for tick in sorted(ticks)])
        axes.set_xlabel("labeled images")
        axes.set_ylabel(ylabel)

    _chart(path, plot)


Bins = Sequence[tuple[float, float, float]]
"""(confidence, accuracy, share of pixels) of the bins that hold any, all in [0, 1]."""

# Okabe and Ito's colours for the colour-blind; the marker tells the lines apart without colour.
_BEFORE_AFTER = (("#D55E00", "s", "--"), ("#0072B2", "o", "-"), ("#009E73", "^", ":"))
_PANELS = 4


def draw_reliability(path: Path, panels: Mapping[str, Mapping[str, Bins]]) -> None:
    """Draw accuracy against confidence, one panel per title, beside the diagonal of honesty.

    Args:
        path: The PNG file.
        panels: Up to three lines of bins each, such as before and after calibration; a marker's
            area grows with the bin's share of pixels.
    """
    columns = min(_PANELS, len(panels))
    rows = -(-len(panels) // _PANELS)
    figure = Figure(figsize=(max(4.2, 3.0 * columns), 3.3 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    lines: dict[str, Line2D] = {}
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, groups) in zip(grid.flat, panels.items(), strict=False):
        axes.plot((0, 1), (0, 1), color="grey", linewidth=1)
        for (name, bins), look in zip(groups.items(), _BEFORE_AFTER, strict=False):
            lines[name] = _draw_bins(axes, bins, look)
        axes.set(title=title, aspect="equal", xlim=(0, 1), ylim=(0, 1))
        axes.grid(alpha=0.3)
    figure.supxlabel("confidence")
    figure.supylabel("accuracy")
    if lines:
        names, handles = list(lines), list(lines.values())
        figure.legend(handles, names, loc="outside upper center", ncols=len(lines), frameon=False)
    _save(figure, path)


def _draw_bins(axes: Axes, bins: Bins, look: tuple[str, str, str]) -> Line2D:
    color, marker, style = look
    x, y, share = zip(*bins, strict=True) if bins else ((), (), ())
    area = [200 * part for part in share]
    axes.scatter(x, y, s=area, color=color, marker=marker, alpha=0.4, linewidths=0, clip_on=False)
    return axes.plot(
        x, y, color=color, linestyle=style, marker=marker, markersize=3, clip_on=False
    )[0]


def _chart(path: Path, plot: Callable[[Axes], None]) -> None:
    # The object interface needs no display and leaves no global state, unlike pyplot.
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    plot(axes)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    atomic.write(
        path,
        lambda temporary: figure.savefig(
            temporary, format="png", dpi=110, metadata={"Software": None}
        ),
    )
