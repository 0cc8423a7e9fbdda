"""The charts of the report."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

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


def draw_reliability(path: Path, bins: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Draw accuracy against confidence, one line per name, with the diagonal of honesty.

    Args:
        path: The PNG file.
        bins: (confidence, accuracy) of the non-empty bins, both in [0, 1].
    """

    def plot(axes: Axes) -> None:
        axes.plot((0, 1), (0, 1), color="grey", linewidth=1, label="calibrated")
        for name, points in bins.items():
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", label=name)
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")

    _chart(path, plot)


def _chart(path: Path, plot: Callable[[Axes], None]) -> None:
    # The object interface needs no display and leaves no global state, unlike pyplot.
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    plot(axes)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False)
    FigureCanvasAgg(figure)
    atomic.write(
        path,
        lambda temporary: figure.savefig(
            temporary, format="png", dpi=110, metadata={"Software": None}
        ),
    )
