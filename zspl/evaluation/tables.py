"""The comparison tables: mean and standard deviation over seeds, published numbers apart."""

import itertools
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pandas as pd

from zspl.evaluation.results import Results, described
from zspl.io import atomic

ABSENT = "—"

_CHOSEN = {
    "val": "best checkpoint (chosen on val, as in the papers: an optimistic number)",
    "holdout": "best checkpoint (chosen on the labeled hold-out; val chose nothing)",
    "last": "last checkpoint (nothing chose another)",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """One comparison: `display` for people (text), `numbers` for programs."""

    name: str
    title: str
    display: pd.DataFrame
    numbers: pd.DataFrame
    notes: tuple[str, ...] = ()


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


def methods_table(
    results: Results, published: pd.DataFrame, *, checkpoint: str, selection: str
) -> Table:
    """Methods x splits: our runs in our columns, the literature in columns of its own.

    Args:
        results: Our scores.
        published: What `read_published` returns.
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
            shown[_heading(split, results)] = str(spread)
            raw |= spread.columns(str(split))
        display.append(shown)
        numbers.append(raw)
    for entry in _published_rows(published, results.labeled_images):
        display.append({k: v if isinstance(v, str) else f"{v:.2f}" for k, v in entry.items()})
        numbers.append(entry)
    chosen = _chosen(checkpoint, selection)
    notes = [f"Ours: mIoU % on val at original size, {chosen}, mean ± std (seeds)."]
    if len(published):
        notes.append(
            "Published: % as printed by the source named, under its own backbone, crop and "
            "schedule; most are the best epoch on val."
        )
    return Table(
        name="methods",
        title="Methods x splits, mIoU %",
        display=_published_last(pd.DataFrame(display)).fillna(ABSENT),
        numbers=_published_last(pd.DataFrame(numbers)),
        notes=(*notes, *seen_notes(results)),
    )


def _chosen(checkpoint: str, selection: str) -> str:
    return _CHOSEN[selection] if checkpoint == "best" else "last checkpoint"


def _heading(split: object, results: Results) -> str:
    return f"{split} ({results.labeled_images[str(split)]} images)"


def _published_last(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with the source as its last column."""
    return frame[sorted(frame.columns, key=lambda column: column == "published by")]


def _published_rows(
    published: pd.DataFrame, splits: Collection[str]
) -> list[dict[str, str | float]]:
    """Return one row per published (method, backbone, source) with a number on our splits."""
    rows: dict[tuple[str, str, str], dict[str, float]] = {}
    for entry in published.to_dict("records"):
        key = (str(entry["method"]), str(entry["backbone"]), str(entry["source"]))
        if entry["split"] in splits:
            rows.setdefault(key, {})[f"published {entry['split']}"] = float(entry["miou"])
    return [
        {"method": method, "model": backbone or ABSENT, **numbers, "published by": source}
        for (method, backbone, source), numbers in rows.items()
    ]


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
            f"mIoU % on val, {_chosen(checkpoint, selection)}, mean ± std (seeds).",
            *seen_notes(results),
        ),
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
    )


def seen_notes(results: Results) -> tuple[str, ...]:
    """Return how photos were looked at, nothing where it was one pass over each whole photo."""
    if set(results.seen) <= {described({})}:
        return ()
    if len(results.seen) == 1:
        return (f"Evaluated on {next(iter(results.seen))}; probabilities are averaged.",)
    apart = (f"on {how}: {', '.join(cells)}" for how, cells in results.seen.items())
    return (f"Not all were evaluated alike, so do not compare them: {'; '.join(apart)}.",)


def zero_shot_table(results: Results, *, calibration_split: str) -> Table:
    """Pseudo-label variants x their quality, before any training, and what was expected of it."""
    numbers = results.variants
    display = numbers.copy().astype(object)
    for column in numbers.columns[1:]:
        digits = 4 if column == "threshold" else 2
        display[column] = [ABSENT if math.isnan(v) else f"{v:.{digits}f}" for v in numbers[column]]
    bounds = (numbers["expected mIoU"], numbers["expected low"], numbers["expected high"])
    display["expected mIoU"] = [_expected(*row) for row in zip(*bounds, strict=True)]
    display = display.drop(columns=["expected low", "expected high"])
    return Table(
        name="zero_shot",
        title="Zero-shot pseudo labels (ablation), %",
        display=display,
        numbers=numbers,
        notes=(
            f"All but the val columns: on the labeled images of {calibration_split}, where "
            "thresholds are calibrated; val is untouched by any choice.",
            "Expected mIoU with its 90 % interval, and ECE (expected calibration error, 10 bins) "
            "before and after calibration: cross-validated over the labeled images.",
            "A pixel with no label counts as a miss. Precision and recall: mean over classes. "
            "Foreground: share of pixels labeled other than background.",
            *(f"{name}: {sentence}" for name, sentence in results.verdicts.items()),
        ),
    )


def _expected(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return ABSENT
    return f"{value:.1f}" if math.isnan(low) else f"{value:.1f} ({low:.1f}-{high:.1f})"


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
    )


def write_table(table: Table, folder: Path) -> list[Path]:
    """Write a table as CSV (numbers), Markdown and HTML (for people) and return the paths."""
    contents: Mapping[str, str] = {
        "csv": table.numbers.to_csv(index=False, float_format="%.4f", lineterminator="\n"),
        "md": markdown(table),
        "html": f"<!doctype html>\n<meta charset='utf-8'>\n{html(table)}\n",
    }
    paths = [folder / f"{table.name}.{suffix}" for suffix in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        atomic.write_text(path, content)
    return paths


def markdown(table: Table) -> str:
    """Return a table as Markdown with its title and notes."""
    body = table.display.to_markdown(index=False, disable_numparse=True)
    return "\n\n".join([f"## {table.title}", body, *table.notes]) + "\n"


def html(table: Table) -> str:
    """Return a table as an HTML section with its title and notes."""
    body = table.display.to_html(index=False, border=0, justify="left")
    notes = "".join(f"<p class='note'>{escape(note)}</p>" for note in table.notes)
    return f"<section id='{table.name}'><h2>{table.title}</h2>\n{body}\n{notes}</section>"


def terminal(table: Table) -> str:
    """Return a table as aligned text with its title and notes."""
    body = table.display.to_markdown(index=False, tablefmt="simple", disable_numparse=True)
    return "\n".join([table.title, "", body, "", *table.notes]) + "\n"
