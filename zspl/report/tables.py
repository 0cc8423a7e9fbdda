"""The comparison tables of trainings: mean and standard deviation over seeds."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from zspl.evaluation.results import Results, described
from zspl.report.formats import ABSENT, Table

MEANS = "mean ± std (seeds)."

_CHOSEN = {
    "val": "best checkpoint (chosen on val, as in the papers: an optimistic number)",
    "holdout": "best checkpoint (chosen on the labeled hold-out; val chose nothing)",
    "last": "last checkpoint (nothing chose another)",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Mean and sample standard deviation (NaN for one seed) of `n` seeds of `wanted`."""

    mean: float
    std: float
    n: int
    wanted: int

    def __str__(self) -> str:
        if self.n == 0:
            return ABSENT
        spread = "" if math.isnan(self.std) else f" ± {self.std:.2f}"
        count = f"{self.n}" if self.n == self.wanted else f"{self.n} of {self.wanted}"
        return f"{self.mean:.2f}{spread} (n={count})"

    def columns(self, name: str) -> dict[str, str | float]:
        """Return the numbers as columns whose headings begin with `name`."""
        return {f"{name} mean": self.mean, f"{name} std": self.std, f"{name} n": self.n}


def over_seeds(values: Iterable[float]) -> Spread:
    """Summarise the seeds of one table cell; NaN is a seed without a score.

    Example:
        >>> str(over_seeds([70.0, 72.0])), str(over_seeds([70.0, float("nan")]))
        ('71.00 ± 1.41 (n=2)', '70.00 (n=1 of 2)')
    """
    series = pd.Series(list(values), dtype="float64")
    scored = series.dropna()
    return Spread(
        mean=float(scored.mean()),
        std=float(scored.std()),
        n=len(scored),
        wanted=len(series),
    )


def methods_table(results: Results, *, checkpoint: str, selection: str) -> Table:
    """Methods x splits, our own runs only.

    Args:
        results: Our scores.
        checkpoint: `best` or `last`.
        selection: What chose the best checkpoint: `val`, `holdout` or `last`.
    """
    display: list[dict[str, str]] = []
    numbers: list[dict[str, str | float]] = []
    for (row, model), group in results.cells.groupby(["row", "model"], sort=False):
        shown = {"method": str(row), "model": str(model)}
        raw: dict[str, str | float] = {**shown}
        for split, runs in group.groupby("split", sort=False):
            spread = over_seeds(runs[checkpoint])
            shown[heading(str(split), results)] = str(spread)
            raw |= spread.columns(str(split))
        display.append(shown)
        numbers.append(raw)
    note = f"Ours: mIoU % on val at original size, {chosen(checkpoint, selection)}, {MEANS}"
    return Table(
        name="methods",
        title="Methods x splits, mIoU %",
        display=pd.DataFrame(display).fillna(ABSENT),
        numbers=pd.DataFrame(numbers),
        notes=(note, *seen_notes(results)),
        headings=2,
    )


def chosen(checkpoint: str, selection: str) -> str:
    """Return which checkpoint the main number is of, and what chose it."""
    return _CHOSEN[selection] if checkpoint == "best" else "last checkpoint"


def heading(split: str, results: Results) -> str:
    """Return a split's name with the number of its labeled images."""
    return f"{split} ({results.labeled_images[split]} images)"


def backbones_table(results: Results, *, checkpoint: str, selection: str) -> Table:
    """Backbones x methods, one block of rows per split."""
    display: list[dict[str, str]] = []
    numbers: list[dict[str, str | float]] = []
    cells = results.cells
    for split, model in itertools.product(cells["split"].unique(), cells["model"].unique()):
        shown = {"split": str(split), "model": str(model)}
        raw: dict[str, str | float] = {**shown}
        group = cells[(cells["split"] == split) & (cells["model"] == model)]
        for row, runs in group.groupby("row", sort=False):
            spread = over_seeds(runs[checkpoint])
            shown[str(row)] = str(spread)
            raw |= spread.columns(str(row))
        display.append(shown)
        numbers.append(raw)
    return Table(
        name="backbones",
        title="Backbones x methods, mIoU %",
        display=pd.DataFrame(display),
        numbers=pd.DataFrame(numbers),
        notes=(
            f"mIoU % on val, {chosen(checkpoint, selection)}, {MEANS}",
            *seen_notes(results),
        ),
        headings=2,
    )


def checkpoints_table(results: Results, *, selection: str) -> Table:
    """The best and the last checkpoint of each method, model and split, over its seeds."""
    display: list[dict[str, str]] = []
    numbers: list[dict[str, str | float]] = []
    for names, runs in results.cells.groupby(["row", "model", "split"], sort=False):
        shown = dict(zip(("method", "model", "split"), map(str, names), strict=True))
        spreads = {name: over_seeds(runs[name]) for name in ("best", "last")}
        display.append(shown | {name: str(spread) for name, spread in spreads.items()})
        numbers.append(
            {**shown, **spreads["best"].columns("best")} | spreads["last"].columns("last")
        )
    return Table(
        name="checkpoints",
        title="Best and last checkpoint, mIoU %",
        display=pd.DataFrame(display),
        numbers=pd.DataFrame(numbers),
        notes=(f"best: {_CHOSEN[selection]}. Mean ± std (seeds).", *seen_notes(results)),
        headings=3,
    )


def seen_notes(results: Results) -> tuple[str, ...]:
    """Return how photos were looked at, nothing where it was one pass over each whole photo."""
    if set(results.seen) <= {described({})}:
        return ()
    if len(results.seen) == 1:
        return (f"Evaluated on {next(iter(results.seen))}; probabilities are averaged.",)
    apart = (f"on {how}: {', '.join(cells)}" for how, cells in results.seen.items())
    return (f"Not all were evaluated alike, so do not compare them: {'; '.join(apart)}.",)


def cells_table(results: Results, *, selection: str) -> Table:
    """Every training with its best and its last checkpoint."""
    display = results.cells.rename(columns={"row": "method"}).astype(object)
    for column in ("best", "last"):
        display[column] = [ABSENT if math.isnan(v) else f"{v:.2f}" for v in results.cells[column]]
    return Table(
        name="cells",
        title="Every training, best and last checkpoint, mIoU %",
        display=display,
        numbers=results.cells.rename(columns={"row": "method"}),
        notes=(f"best: {_CHOSEN[selection]}.", *seen_notes(results)),
        headings=4,
    )
