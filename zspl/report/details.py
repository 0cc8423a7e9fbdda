"""What score files tell beyond mIoU: the classes' IoU over seeds, and confusions."""

from collections.abc import Mapping, Sequence
from typing import Any

from zspl.evaluation.results import Results, percent
from zspl.report.label_tables import subset_of
from zspl.report.roles import series_name
from zspl.report.tables import Spread, over_seeds


def class_spreads(
    results: Results, names: Sequence[str], *, split: str, checkpoint: str
) -> dict[str, list[Spread]]:
    """Return the IoU of each class in percent over seeds, by method, at one split.

    A method none of whose trainings has classes in its score file is left out.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    for cell, scores in results.cell_scores.items():
        iou = scores.get(checkpoint, {}).get("iou")
        if cell.split == split and iou:
            found.setdefault(series_name(results, cell.name, cell.model), []).append(iou)
    return {
        series: [over_seeds(percent(iou.get(name)) for iou in ious) for name in names]
        for series, ious in found.items()
    }


def label_spreads(results: Results, names: Sequence[str]) -> dict[str, list[Spread]]:
    """Return the IoU of each class in percent of every variant of pseudo labels that has it."""
    found = {}
    for variant, scores in results.label_scores.items():
        iou = scores.get(subset_of(scores), {}).get("iou")
        if iou:
            found[variant] = [over_seeds([percent(iou.get(name))]) for name in names]
    return found


def confusions(
    results: Results, *, labels: Sequence[str], split: str, seed: int, checkpoint: str
) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Return the dearest confusions of the pseudo labels in use and of each training of a seed."""
    found: dict[str, Sequence[Mapping[str, Any]]] = {}
    for variant, scores in results.label_scores.items():
        if variant in labels:
            found[f"labels {variant}"] = scores.get(subset_of(scores), {}).get("confusions", ())
    for cell, scores in results.cell_scores.items():
        if cell.split == split and cell.seed == seed:
            name = series_name(results, cell.name, cell.model)
            found[name] = scores.get(checkpoint, {}).get("confusions", ())
    return found
