"""Scores as JSON and as one CSV row per class."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from zspl.evaluation.confusions import dearest_confusions
from zspl.io import atomic
from zspl.records import SegmentationMetrics

COLUMNS = ("class", "iou", "precision", "recall")


def number(value: float) -> float | None:
    """Return `value`, or None for NaN, which JSON cannot hold.

    Example:
        >>> number(0.5), number(float("nan"))
        (0.5, None)
    """
    return None if math.isnan(value) else value


def by_class(values: Float[Tensor, " C"], names: Sequence[str]) -> dict[str, float | None]:
    """Return `values` under their class names, None where a class has no value.

    Raises:
        ValueError: if there are not as many names as values.
    """
    if len(names) != len(values):
        raise ValueError(f"expected {len(values)} class names, got {len(names)}")
    return {name: number(v) for name, v in zip(names, values.tolist(), strict=True)}


def metrics_json(metrics: SegmentationMetrics, names: Sequence[str]) -> dict[str, Any]:
    """Return the scores of one checkpoint as JSON values; every share is in [0, 1]."""
    return {
        "miou": number(metrics.miou),
        "miou_absent_zero": number(metrics.miou_absent_zero),
        "pixel_accuracy": number(metrics.pixel_accuracy),
        "iou": by_class(metrics.iou, names),
        "precision": by_class(metrics.precision, names),
        "recall": by_class(metrics.recall, names),
        "confusions": dearest_confusions(metrics.confusion, names),
    }


def write_per_class(path: Path, groups: Mapping[str, Mapping[str, Any]], *, group: str) -> None:
    """Write one row per group and class.

    Args:
        path: The CSV file.
        groups: What `metrics_json` returns, under the name of each group.
        group: Heading of the first column, such as `checkpoint`.
    """
    rows = ((name, *row) for name, values in groups.items() for row in per_class_rows(values))
    write_csv(path, (group, *COLUMNS), rows)


def per_class_rows(values: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return (class, iou, precision, recall) with six decimals, empty where there is no value."""
    shares = [values[key] for key in COLUMNS[1:]]
    return [(name, *(_decimals(share[name]) for share in shares)) for name in values["iou"]]


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV file atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    atomic.write_text(path, text.getvalue())


def _decimals(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
