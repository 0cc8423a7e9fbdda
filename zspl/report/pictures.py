"""The grids of photos and label maps, as the paper's Figs. 3 and 4."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from PIL import Image

from zspl.io.images import Pixels
from zspl.metrics import ConfusionMatrix
from zspl.records import IGNORE_INDEX
from zspl.report.class_charts import broken
from zspl.report.looks import drawing
from zspl.viz import class_colour, outlined

_SIDE = 260
"""Longest side of a picture in a grid, in pixels; more would only make the page heavy."""

_CELL = 1.3
_TALLEST = 1.3
_NAMED = 0.015
"""Share of an image above which a region of a class bears the class's number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One photo, its truth, and label maps to compare; None leaves the place empty."""

    image_id: str
    image: Image.Image
    truth: Pixels
    maps: Sequence[Pixels | None]


def image_score(claim: Pixels, truth: Pixels, *, num_classes: int) -> float:
    """Return the mIoU of one label map in percent; a pixel with no label is a miss.

    The mean is over the classes in truth or map; void pixels are left out.
    """
    # Silence is counted as one more class, which is then left out of the mean.
    confusion = ConfusionMatrix(num_classes + 1)
    said = np.where(claim == IGNORE_INDEX, num_classes, claim)
    confusion.update(said, truth)
    return 100 * float(confusion.compute().iou[:num_classes].nanmean())


def draw_grid(
    path: Path, titles: Sequence[str], rows: Sequence[Row], *, class_names: Sequence[str]
) -> None:
    """Draw photo, truth and maps of each row, the maps' own mIoU below them, and a legend.

    Args:
        path: The files, without suffix.
        titles: Headings of the maps.
        rows: One per photo, each with as many maps as there are titles.
        class_names: Names by class id, background first.

    Raises:
        ValueError: if a row has not one map per title.
    """
    for row in rows:
        if len(row.maps) != len(titles):
            raise ValueError(f"expected {len(titles)} maps in each row, got {len(row.maps)}")
    shapes = [min(row.image.height / row.image.width, _TALLEST) for row in rows]
    columns = 2 + len(titles)
    height = sum(0.92 * _CELL * shape + 0.22 for shape in shapes)
    legend = _legend(rows, class_names)
    lines = -(-len(legend) // max(1, columns - 1))
    with drawing(columns * _CELL + 0.3, height + 0.45 + 0.22 * lines, path) as figure:
        grid = figure.subplots(len(rows), columns, squeeze=False, height_ratios=shapes)
        for axes in grid.flat:
            axes.set_axis_off()
        for line, row in zip(grid, rows, strict=True):
            _draw_row(list(line), row, num_classes=len(class_names))
        for axes, title in zip(grid[0], ("image", "truth", *titles), strict=True):
            axes.set_title(broken(title), fontsize=9)
        _draw_legend(figure, legend, columns=max(1, columns - 1))


def _draw_row(line: Sequence[Axes], row: Row, *, num_classes: int) -> None:
    small = _fitted(row.image)
    line[0].imshow(small, interpolation="none")
    _below(line[0], row.image_id)
    _draw_map(line[1], small, row.truth)
    for axes, found in zip(line[2:], row.maps, strict=True):
        if found is None:
            axes.text(0.5, 0.5, "not there", ha="center", fontsize=8, transform=axes.transAxes)
            continue
        _draw_map(axes, small, found)
        _below(axes, f"{image_score(found, row.truth, num_classes=num_classes):.0f} %")


def _fitted(image: Image.Image) -> Image.Image:
    small = image.copy()
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    return small


def _below(axes: Axes, text: str) -> None:
    axes.text(0.5, -0.03, text, ha="center", va="top", fontsize=8, transform=axes.transAxes)


def _draw_map(axes: Axes, image: Image.Image, label: Pixels) -> None:
    small = np.asarray(Image.fromarray(label).resize(image.size, Image.Resampling.NEAREST))
    axes.imshow(outlined(image, small), interpolation="none")
    for class_id in np.unique(small):
        place = small == class_id
        if 0 < class_id < IGNORE_INDEX and place.mean() > _NAMED:
            y, x = _inside(place)
            axes.text(x, y, str(class_id), ha="center", va="center", fontsize=7, color="black",
                      path_effects=[withStroke(linewidth=2, foreground="white")])  # fmt: skip


def _inside(place: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Return row and column of a pixel amid the places that are True: never outside them."""
    rows = np.flatnonzero(place.any(axis=1))
    weights = place.sum(axis=1)[rows].cumsum()
    row = rows[np.searchsorted(weights, weights[-1] / 2)]
    across = np.flatnonzero(place[row])
    return int(row), int(across[len(across) // 2])


def _legend(rows: Sequence[Row], names: Sequence[str]) -> list[Patch]:
    """Return a patch for every class shown, with its number, and one for pixels without."""
    maps = [m for row in rows for m in (row.truth, *row.maps) if m is not None]
    shown = sorted({int(i) for m in maps for i in np.unique(m)})
    patches = [
        Patch(color=_hex(class_colour(i)), label=f"{i} {names[i]}")
        for i in shown
        if 0 < i < len(names)
    ]
    if IGNORE_INDEX in shown:
        patches.append(
            Patch(
                facecolor="#D7D7D7", edgecolor="#6E6E6E", hatch="//////", label="void or no label"
            )
        )
    return patches


def _hex(colour: tuple[int, int, int]) -> str:
    return "#" + bytes(colour).hex()


def _draw_legend(figure: Figure, patches: Sequence[Patch], *, columns: int) -> None:
    if patches:
        figure.legend(
            handles=list(patches), loc="outside lower left", ncols=columns, frameon=False,
            fontsize=8, handlelength=1.2, columnspacing=1.2,
        )  # fmt: skip
