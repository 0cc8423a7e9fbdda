"""The scores on disk as data frames; what is missing is named, not an error."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from zspl.errors import DataError, SettingsError, suggestion
from zspl.evaluation import METRICS, SEEN
from zspl.io.layout import Cell, Layout
from zspl.io.splits import read_split
from zspl.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """All scores of one benchmark, mIoU in percent.

    `cells` has one row per training that was configured: `row` (its row in a table), `model`,
    `split`, `seed`, `best`, `last`; NaN where the training has no score. `variants` has one
    row per pseudo-label variant, `verdicts` what calibration said of those it was made for.
    `seen` tells how the photos of cells were looked at, and of which cells: `described` -> names.
    `labeled_images` counts the labeled images of each split. `missing` names what has no score.
    `cell_scores` and `label_scores` are the score files as they are, by training and by variant.
    """

    cells: pd.DataFrame
    variants: pd.DataFrame
    labeled_images: dict[str, int]
    missing: tuple[str, ...]
    verdicts: dict[str, str] = field(default_factory=dict)
    seen: dict[str, tuple[str, ...]] = field(default_factory=dict)
    cell_scores: dict[Cell, dict[str, Any]] = field(default_factory=dict)
    label_scores: dict[str, dict[str, Any]] = field(default_factory=dict)


def configured_cells(settings: Settings) -> tuple[Cell, ...]:
    """Return every training that params.yaml asks for, in its order."""
    cells = settings.cells
    rows: list[tuple[str, str | None]] = [(method, None) for method in cells.methods]
    rows += [(method, labels) for method in cells.label_methods for labels in cells.labels]
    return tuple(
        Cell(method=method, labels=labels, model=model, split=split, seed=seed)
        for method, labels in rows
        for model in cells.models
        for split in cells.splits
        for seed in cells.seeds
    )


def read_results(settings: Settings) -> Results:
    """Collect the scores of every configured cell and pseudo-label variant.

    Raises:
        DataError: if a score file exists but cannot be read, or a split is missing.
    """
    layout = Layout(settings.paths.out)
    cells, missing = [], []
    seen: dict[str, tuple[str, ...]] = {}
    cell_scores: dict[Cell, dict[str, Any]] = {}
    for cell in configured_cells(settings):
        scores = _read(layout.cell_score(cell) / METRICS)
        if scores is None:
            missing.append(f"{cell.path}")
        else:
            cell_scores[cell] = scores
            how = described(scores.get(SEEN, {}))
            seen[how] = (*seen.get(how, ()), f"{cell.path}")
        cells.append(_cell_row(cell, scores or {}))
    variants, label_scores = [], {}
    for name in settings.label.variants:
        scores = _read(layout.label_score(name) / METRICS)
        if scores is None:
            missing.append(f"pseudo labels {name}")
        else:
            label_scores[name] = scores
        variants.append({"variant": name, **variant_row(scores or {})})
    splits = {name: read_split(layout.split(name)) for name in settings.cells.splits}
    return Results(
        cells=pd.DataFrame(cells),
        variants=pd.DataFrame(variants),
        labeled_images={n: len(s.labeled) + len(s.holdout) for n, s in splits.items()},
        missing=tuple(missing),
        verdicts={n: str(s["sentence"]) for n, s in label_scores.items() if "sentence" in s},
        seen=seen,
        cell_scores=cell_scores,
        label_scores=label_scores,
    )


def _cell_row(cell: Cell, scores: dict[str, Any]) -> dict[str, Any]:
    found = {key: percent(scores.get(key, {}).get("miou")) for key in ("best", "last")}
    return {
        "row": cell.name,
        "model": cell.model,
        "split": cell.split,
        "seed": cell.seed,
        **found,
    }


def described(how: Mapping[str, Any]) -> str:
    """Return how a network looked at the photos, from the section `evaluate` of a score file.

    Example:
        >>> described({"window": 801, "scales": [0.5, 1.0], "flip": True})
        'windows of 801 pixels, sizes 0.5 and 1, mirror images'
        >>> described({"window": None, "scales": [1.0], "flip": False})
        'whole photos'
    """
    window, scales = how.get("window"), how.get("scales", [1.0])
    parts = ["whole photos" if window is None else f"windows of {window} pixels"]
    if list(scales) != [1.0]:
        *others, last = (f"{scale:g}" for scale in scales)
        parts.append(f"sizes {', '.join(others)} and {last}" if others else f"size {last}")
    if how.get("flip"):
        parts.append("mirror images")
    return ", ".join(parts)


def variant_row(scores: dict[str, Any]) -> dict[str, float]:
    """Return the columns of one pseudo-label variant; shares in percent, NaN where unknown."""
    audit, val = scores.get("audit", {}), scores.get("val", {})
    threshold = scores.get("threshold")
    expected, reliability = scores.get("expected", {}), scores.get("reliability", {})
    return {
        "val mIoU": percent(val.get("miou")),
        "expected mIoU": percent(expected.get("miou")),
        "expected low": percent(expected.get("low")),
        "expected high": percent(expected.get("high")),
        "labeled mIoU": percent(audit.get("miou")),
        "precision": percent(audit.get("mean_precision")),
        "recall": percent(audit.get("mean_recall")),
        "coverage": percent(audit.get("coverage")),
        "foreground": percent(audit.get("foreground")),
        "ECE before": percent(reliability.get("before", {}).get("ece")),
        "ECE after": percent(reliability.get("after", {}).get("ece")),
        "val ECE": percent(val.get("ece")),
        "threshold": float("nan") if threshold is None else float(threshold),
    }


def percent(share: float | None) -> float:
    """Return a share as percent, NaN for None."""
    return float("nan") if share is None else 100 * float(share)


def read_published(dataset: str | None) -> pd.DataFrame:
    """Return the published numbers of one data set, mIoU in percent; empty for None.

    Raises:
        SettingsError: if nothing is known of that data set.
    """
    text = (resources.files("zspl") / "published.csv").read_text(encoding="utf-8")
    table = pd.DataFrame(list(csv.DictReader(text.splitlines()))).astype({"miou": float})
    known = sorted(set(table["dataset"]))
    if dataset is not None and dataset not in known:
        raise SettingsError(
            f"tabulate.published: no published number for {dataset!r}. {suggestion(dataset, known)}"
        )
    return table[table["dataset"] == dataset].reset_index(drop=True)


def read_scores(path: Path) -> dict[str, Any]:
    """Read one metrics.json.

    Raises:
        DataError: if it is missing or no JSON object.
    """
    scores = _read(path)
    if scores is None:
        raise DataError(f"{path}: no such file; run stage evaluate first")
    return scores


def _read(path: Path) -> dict[str, Any] | None:
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is no JSON ({error}); run its stage evaluate again") from error
    if not isinstance(scores, dict):
        raise DataError(f"{path}: expected keys and values; run its stage evaluate again")
    return scores
