"""What `dvc plots show` and `dvc plots diff` draw: one CSV per plot, one line per point.

dvc.yaml names the files and their columns; .dvc/plots holds the templates.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zspl.errors import DataError
from zspl.evaluation import CURVES, METRICS
from zspl.evaluation.results import configured_cells
from zspl.io import atomic
from zspl.io.layout import Cell, Layout
from zspl.io.splits import read_split
from zspl.settings import Settings

POINTS = 100
"""At most so many points of a loss are kept: each the mean over a stretch of iterations."""


def write_curve(history: Path, path: Path) -> None:
    """Write a training's loss and val mIoU as a CSV of `iteration, loss, val_miou`.

    A cell is empty where the training told nothing; a training without a history has no lines.

    Raises:
        DataError: if the history is broken.
    """
    try:
        text = history.read_text(encoding="utf-8") if history.is_file() else ""
        lines = [json.loads(line) for line in text.splitlines()]
        losses = [(int(line["iteration"]), line["loss"]) for line in lines if "loss" in line]
        scores = [
            (int(line["iteration"]), line["val_miou"]) for line in lines if "val_miou" in line
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{history}: expected a JSON object per line: {error}") from error
    rows = [{"iteration": at, "loss": loss} for at, loss in _thinned(losses)]
    rows += [{"iteration": at, "val_miou": score} for at, score in scores]
    _write(path, ("iteration", "loss", "val_miou"), rows)


def write_plot_data(settings: Settings, folder: Path) -> None:
    """Write curves.csv, class_iou.csv and miou.csv of all scored cells; mIoU as shares in [0, 1].

    Raises:
        DataError: if a score file is broken.
    """
    layout = Layout(settings.paths.out)
    cells = [c for c in configured_cells(settings) if (layout.cell_score(c) / METRICS).is_file()]
    _write(
        folder / "curves.csv",
        ("cell", "iteration", "loss", "val_miou"),
        (
            {"cell": _short(cell), **row}
            for cell in cells
            for row in _read(layout.cell_score(cell) / CURVES)
        ),
    )
    checkpoint = settings.tabulate.checkpoint
    scores = {cell: _scores(layout.cell_score(cell), checkpoint) for cell in cells}
    _write(
        folder / "class_iou.csv",
        ("cell", "class", "iou"),
        (
            {"cell": _short(cell), "class": name, "iou": iou}
            for cell in cells
            for name, iou in scores[cell]["iou"].items()
        ),
    )
    _write(
        folder / "miou.csv",
        ("method", "labeled_images", "seed", "miou"),
        (
            {
                "method": cell.name
                if len(settings.cells.models) == 1
                else f"{cell.name} {cell.model}",
                "labeled_images": _labeled(layout, cell.split),
                "seed": cell.seed,
                "miou": scores[cell]["miou"],
            }
            for cell in cells
        ),
    )


def _short(cell: Cell) -> str:
    return " ".join((cell.name, cell.model, cell.split, str(cell.seed)))


def _labeled(layout: Layout, name: str) -> int:
    split = read_split(layout.split(name))
    return len(split.labeled) + len(split.holdout)


def _scores(folder: Path, checkpoint: str) -> Mapping[str, Any]:
    path = folder / METRICS
    try:
        scores: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))[checkpoint]
    except (ValueError, KeyError) as error:
        raise DataError(f"{path}: {error}; run stage evaluate again") from error
    return scores


def _thinned(points: Sequence[tuple[int, float | None]]) -> Iterator[tuple[int, float]]:
    length = max(1, -(-len(points) // POINTS))
    for start in range(0, len(points), length):
        stretch = points[start : start + length]
        values = [value for _, value in stretch if value is not None]
        if values:
            yield stretch[-1][0], sum(values) / len(values)


def _read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic.write_text(path, text.getvalue())
