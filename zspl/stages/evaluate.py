"""evaluate: score one training on val, or audit one variant of pseudo labels."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from zspl import inference
from zspl.errors import DataError, SettingsError, suggestion
from zspl.evaluation.audit import audit, audit_json, check_complete
from zspl.evaluation.checkpoints import sample_ids, score_images
from zspl.evaluation.report import metrics_json, write_per_class
from zspl.io import atomic
from zspl.io.classes import ClassTable
from zspl.io.images import Pixels, write_label
from zspl.io.layout import Cell, Layout
from zspl.io.records import read_records
from zspl.io.splits import read_split
from zspl.observer import Observer
from zspl.records import ImageRecord
from zspl.settings import Settings

CHECKPOINTS = ("best", "last")
SHOWN_IMAGES = 6


def run(
    settings: Settings,
    observer: Observer,
    *,
    method: str | None = None,
    model: str | None = None,
    split: str | None = None,
    seed: int = 0,
    labels: str | None = None,
    variant: str | None = None,
) -> Mapping[str, float]:
    """Score a cell (method, model, split, seed, labels) or a pseudo-label variant.

    Returns:
        The headline numbers, as shares in [0, 1].

    Raises:
        SettingsError: if the instance is neither a whole cell nor a known variant.
        DataError: if an input is missing or inconsistent.
    """
    if variant is not None:
        if method or model or split or labels:
            raise SettingsError(
                "stage evaluate takes variant=... alone, or a cell without it"
            )
        return _run_variant(settings, observer, variant)
    if method is None or model is None or split is None:
        raise SettingsError(
            "stage evaluate takes method=... model=... split=... [seed=...] [labels=...], "
            "or variant=..."
        )
    cell = Cell(method=method, labels=labels, model=model, split=split, seed=seed)
    return _run_cell(settings, observer, cell)


def _run_cell(
    settings: Settings, observer: Observer, cell: Cell
) -> Mapping[str, float]:
    layout = Layout(settings.paths.out)
    files = {name: layout.cell(cell) / f"{name}.safetensors" for name in CHECKPOINTS}
    for path in files.values():
        if not path.is_file():
            raise DataError(
                f"{path}: no such checkpoint; run stage train for this cell first"
            )
    table = ClassTable.read(layout.classes)
    known = read_records(layout.records)
    split = read_split(layout.split(cell.split))
    records = _records(known, split.val, what=f"val of {cell.split}")
    observer.params(
        _cell_params(settings, cell, images=len(split.labeled) + len(split.holdout))
    )

    work = _fresh(layout.work("evaluate", *cell.path.parts))
    scores: dict[str, Any] = {}
    digests: dict[str, str] = {}
    for name, path in files.items():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        same = digests.get(digest)
        if same is not None:
            scores[name] = scores[same]
            shutil.copytree(work / "predictions" / same, work / "predictions" / name)
            continue
        digests[digest] = name
        scores[name], kept = _score(settings, path, records=records, table=table)
        _write_predictions(work / "predictions" / name, kept)
    write_per_class(work / "per_class.csv", scores, group="checkpoint")
    atomic.write_json(work / "metrics.json", {**scores, "cell": _cell_json(cell)})
    return _finish(
        work, layout.cell_score(cell), observer, numbers=_cell_numbers(scores)
    )


def _score(
    settings: Settings, path: Path, *, records: Sequence[ImageRecord], table: ClassTable
) -> tuple[dict[str, Any], Mapping[str, Pixels]]:
    model = inference.load_model(settings, path, table.num_classes)
    metrics, kept = score_images(
        partial(inference.predict, model),
        records,
        table=table,
        keep=frozenset(sample_ids([r.image_id for r in records], SHOWN_IMAGES)),
        what=f"evaluate {path.stem}",
    )
    return metrics_json(metrics, table.names), kept


def _write_predictions(folder: Path, predictions: Mapping[str, Pixels]) -> None:
    for image_id, prediction in predictions.items():
        write_label(folder / f"{image_id}.png", prediction)


def _run_variant(
    settings: Settings, observer: Observer, variant: str
) -> Mapping[str, float]:
    if variant not in settings.label.variants:
        hint = suggestion(variant, settings.label.variants)
        raise SettingsError(f"label.variants has no {variant!r}. {hint}")
    layout = Layout(settings.paths.out)
    folder = layout.labels(variant)
    table = ClassTable.read(layout.classes)
    known = read_records(layout.records)
    split = read_split(layout.split(settings.label.calibration_split))
    groups = {"audit": (*split.labeled, *split.holdout)}
    if settings.prepare.annotate_val:
        groups["val"] = split.val
    for name, ids in groups.items():
        _records(known, ids, what=f"{name} of {split.name}")
        check_complete(folder, ids)
    observer.params(
        {
            "dataset": settings.prepare.dataset.name,
            "split": split.name,
            "labels": len(groups["audit"]),
            "method": f"labels-{variant}",
            "variant": variant,
            "seed": settings.seed,
        }
    )
    work = _fresh(layout.work("evaluate", "labels", variant))
    scores = {
        name: audit_json(audit(folder, ids, records=known, table=table), table.names)
        for name, ids in groups.items()
    }
    write_per_class(work / "per_class.csv", scores, group="subset")
    notes = {
        "threshold": read_threshold(folder),
        "variant": variant,
        "calibration_split": split.name,
        "note": "the threshold may have been calibrated on the audited images; val was not used",
    }
    atomic.write_json(work / "metrics.json", {**scores, **notes})
    numbers = _variant_numbers(scores)
    return _finish(work, layout.label_score(variant), observer, numbers=numbers)


def _records(
    known: Mapping[str, ImageRecord], ids: Sequence[str], *, what: str
) -> list[ImageRecord]:
    if not ids:
        raise DataError(
            f"{what}: no image in the list; run stage prepare with a split that has some"
        )
    for image_id in ids:
        if image_id not in known:
            raise DataError(
                f"{what}: no image {image_id!r} in records.jsonl; run stage prepare again"
            )
        if known[image_id].label_path is None:
            raise DataError(
                f"{what}: {image_id!r} has no mask, nothing to score it against"
            )
    return [known[image_id] for image_id in ids]


def _cell_params(
    settings: Settings, cell: Cell, *, images: int
) -> Mapping[str, str | int | float | bool]:
    return {
        "dataset": settings.prepare.dataset.name,
        "split": cell.split,
        "labels": images,
        "method": cell.name,
        "backbone": cell.model,
        "seed": cell.seed,
    }


def _cell_json(cell: Cell) -> dict[str, str | int | None]:
    return {
        "method": cell.method,
        "labels": cell.labels,
        "model": cell.model,
        "split": cell.split,
        "seed": cell.seed,
    }


def _cell_numbers(scores: Mapping[str, Any]) -> dict[str, float | None]:
    keys = ("miou", "miou_absent_zero", "pixel_accuracy")
    return {
        f"{key}_{name}": scores[name][key] for name in CHECKPOINTS for key in keys
    } | {
        f"iou_{name}/{index:03d}": value
        for name in CHECKPOINTS
        for index, value in enumerate(scores[name]["iou"].values())
    }


def _variant_numbers(scores: Mapping[str, Any]) -> dict[str, float | None]:
    keys = ("miou", "coverage", "ece", "mean_precision", "mean_recall")
    return {f"{key}_{name}": scores[name][key] for name in scores for key in keys}


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _finish(
    work: Path, final: Path, observer: Observer, *, numbers: Mapping[str, float | None]
) -> Mapping[str, float]:
    """Publish the folder, tell the observer, and return the numbers that exist."""
    atomic.publish(work, final)
    finite = {key: value for key, value in numbers.items() if value is not None}
    observer.metrics(finite)
    observer.artifact(final / "metrics.json")
    observer.artifact(final / "per_class.csv")
    return {key: value for key, value in finite.items() if "/" not in key}
