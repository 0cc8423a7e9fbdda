"""The plan as text and as CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from zspl.planning.rates import ESTIMATE, MEASURED, UNKNOWN
from zspl.planning.rows import Row
from zspl.report.formats import duration

MARKS = {MEASURED: "", ESTIMATE: " ~", UNKNOWN: ""}
ABSENT = "-"
KEYS = ("method", "labels", "model", "split", "seed")
COLUMNS = (
    "stage", "instance", *KEYS, "images", "steps", "device", "hours", "bytes", "rate", "basis",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Total:
    """The sum of some rows.

    `seconds` and `bytes` add up what is known, None if nothing is; `at_least` names those of the
    two that miss a part.
    """

    rows: int
    images: int
    steps: int
    seconds: float | None
    bytes: float | None
    at_least: frozenset[str]
    kind: str


def total(rows: Sequence[Row]) -> Total:
    """Add rows up; the sum of times is as sure as its least sure part."""
    known = {"seconds": [row.seconds for row in rows], "bytes": [row.bytes for row in rows]}
    sums = {name: [v for v in values if v is not None] for name, values in known.items()}
    kinds = {row.kind for row in rows if row.kind != UNKNOWN} or {UNKNOWN}
    return Total(
        rows=len(rows),
        images=sum(row.images for row in rows),
        steps=sum(row.steps for row in rows),
        seconds=sum(sums["seconds"]) if sums["seconds"] else None,
        bytes=sum(sums["bytes"]) if sums["bytes"] else None,
        at_least=frozenset(name for name, values in known.items() if None in values and sums[name]),
        kind=next(kind for kind in (UNKNOWN, ESTIMATE, MEASURED) if kind in kinds),
    )


def lines(rows: Sequence[Row], *, device: str) -> list[str]:
    """Return the tables of stages and cells, as lines for a terminal.

    Args:
        rows: Of one benchmark, in the order of their stages.
        device: `cpu`, or the name of a GPU.
    """
    time = "core time" if device == "cpu" else "GPU time"
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(_group(row), []).append(row)
    stages: list[tuple[str, ...]] = [("stage", "runs", "images", "steps", time, "disk")]
    stages += [(name, *_cells(total(found))) for name, found in groups.items()]
    everything = total(rows)
    stages.append(("all", *_cells(everything)))
    cells: list[tuple[str, ...]] = [
        ("method", "model", "split", "seed", "images", "steps", time, "disk")
    ]
    for row in rows:
        if row.stage == "train":
            mine = [r for r in rows if r.stage == "evaluate" and r.instance == row.instance]
            cells.append(_cell(row, total([row, *mine])))
    return [*_aligned(stages, text=1, ruled=2), "", *_aligned(cells, text=3, ruled=1)]


def _group(row: Row) -> str:
    """Return the line a row is added to: shards together, and all cells of a method."""
    named = row.instance
    if "method" in named:
        return f"{row.stage} {named['method']}"
    rest = [value for key, value in named.items() if key != "shard"]
    return " ".join((row.stage, *rest))


def _cells(sums: Total) -> tuple[str, ...]:
    return (
        str(sums.rows),
        f"{sums.images:,}",
        f"{sums.steps:,}" if sums.steps else "",
        _bound("seconds", sums) + _time(sums.seconds) + MARKS[sums.kind],
        _bound("bytes", sums) + space(sums.bytes),
    )


def _cell(row: Row, sums: Total) -> tuple[str, ...]:
    named = row.instance
    method = named["method"] + (f" {named['labels']}" if "labels" in named else "")
    return (
        method,
        named["model"],
        named["split"],
        named["seed"],
        f"{row.images:,}",
        f"{row.steps:,}",
        _bound("seconds", sums) + _time(sums.seconds) + MARKS[sums.kind],
        _bound("bytes", sums) + space(sums.bytes),
    )


def _bound(what: str, sums: Total) -> str:
    return "> " if what in sums.at_least else ""


def _time(seconds: float | None) -> str:
    return ABSENT if seconds is None else duration(seconds)


def space(size: float | None) -> str:
    """Return a number of bytes in the unit that reads best.

    Example:
        >>> space(900.0), space(2_500_000.0), space(None)
        ('1 kB', '2.5 MB', '-')
    """
    if size is None:
        return ABSENT
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size / 1e3:.0f} kB"


def _aligned(table: Sequence[Sequence[str]], *, text: int, ruled: int) -> list[str]:
    """Return the rows with columns aligned: `text` to the left, numbers to the right.

    A rule stands under the head and, if `ruled` is 2, above the last row.
    """
    # The mark of an estimate stands behind the number, so that the digits stay in line.
    marks = any(cell.endswith("~") for row in table for cell in row)
    padded = [
        [c if n < text or c.endswith("~") or not _timed(n, row) or not marks else f"{c}  "
         for n, c in enumerate(row)]
        for row in table
    ]  # fmt: skip
    widths = [max(len(row[n]) for row in padded) for n in range(len(padded[0]))]
    done = [
        "  ".join(
            cell.ljust(width) if n < text else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in padded
    ]
    rule = "-" * max(map(len, done))
    body = done[1:] if ruled == 1 else [*done[1:-1], rule, done[-1]]
    return [done[0], rule, *body]


def _timed(column: int, row: Sequence[str]) -> bool:
    return column == len(row) - 2


def to_csv(rows: Iterable[Row], *, device: str) -> str:
    """Return the plan as CSV, one line per stage instance; an unknown number is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        hours = "" if row.seconds is None else f"{row.seconds / 3600:.6f}"
        size = "" if row.bytes is None else round(row.bytes)
        instance = " ".join(f"{key}={value}" for key, value in row.instance.items())
        named = (row.instance.get(key, "") for key in KEYS)
        facts = (row.images, row.steps, device, hours, size, row.kind, row.basis)
        writer.writerow((row.stage, instance, *named, *facts))
    return text.getvalue()
