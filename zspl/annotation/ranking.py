"""images.csv: one row per labeled photo, the most doubtful first, which are worth labeling next."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from zspl.annotation.facts import Facts
from zspl.annotation.photos import printable
from zspl.annotation.results import Results
from zspl.io import atomic
from zspl.records import IGNORE_INDEX

TABLE = "images.csv"
_DIGITS = 4


def write(results: Results) -> Path:
    """Write images.csv and return its path; shares are in [0, 1], signs of names escaped.

    Raises:
        DataError: if the facts of a photo are damaged.
        DiskError: if it cannot be written.
    """
    classes = results.table.names
    rows = sorted(_rows(results, len(classes)))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_COLUMNS, "nothing_claimed", *classes])
    writer.writerows(row for _, row in rows)
    path = results.out / TABLE
    atomic.write_bytes(path, text.getvalue().encode())
    return path


_COLUMNS = ("name", "source", "width", "height", "doubt", "coverage", "conflict", "segments")


def _rows(
    results: Results, classes: int
) -> Iterator[tuple[tuple[float, str], Sequence[str | int]]]:
    """Yield (sorting key, cells) of each photo."""
    for name in results.names():
        facts = results.facts(name)
        area = facts.width * facts.height
        ids = (IGNORE_INDEX, *range(classes))
        yield (
            (-facts.doubt, facts.name),
            (
                *(printable(text) for text in (facts.name, facts.source)),
                *(facts.width, facts.height),
                *_quality(facts),
                *(_share(facts.pixels.get(class_id, 0) / area) for class_id in ids),
            ),
        )


def _quality(facts: Facts) -> tuple[str | int, ...]:
    return (
        _share(facts.doubt),
        _share(facts.coverage),
        _share(facts.conflict),
        len(facts.segments),
    )


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.{_DIGITS}f}"
