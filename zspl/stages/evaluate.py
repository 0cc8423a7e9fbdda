"""evaluate: score one training on val, or audit one variant of pseudo labels."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from zspl import inference
from zspl.errors import DataError, SettingsError, suggestion
from zspl.evaluation import CURVES, METRICS, PREDICTIONS, SEEN, SHOWN_IMAGES
from zspl.evaluation.audit import audit, audit_json, check_complete, label_file, read_threshold
from zspl.evaluation.checkpoints import Predictor, sample_ids, score_images
from zspl.evaluation.plot_data import write_curve
from zspl.evaluation.report import metrics_json, write_per_class
from zspl.io import atomic
from zspl.io.classes import ClassTable
from zspl.io.images import Pixels, read_label, write_label
from zspl.io.layout import Cell, Layout
from zspl.io.records import check_files, read_records
from zspl.io.splits import read_split
from zspl.io.weights import file_sha256
from zspl.methods import Facts, Method
from zspl.observer import Observer
from zspl.records import ImageRecord
from zspl.sections import build_plugin
from zspl.settings import Evaluate, Settings
from zspl.stages._cell import check_cell, facts_of

CALIBRATED_HERE = (
    "{what} calibrated on the labeled images that `audit` is about; `expected` and `reliability` "
    "are cross-validated over them; no choice has seen val, so `val` is the untouched figure"
)


def run(  # noqa: PLR0913 - the parameters are the instance's keys on the command line
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
            raise SettingsError("stage evaluate takes variant=... alone, or a cell without it")
        return _run_variant(settings, observer, variant)
    if method is None or model is None or split is None:
        raise SettingsError(
            "stage evaluate takes method=... model=... split=... [seed=...] [labels=...], "
            "or variant=..."
        )
    cell = Cell(method=method, labels=labels, model=model, split=split, seed=seed)
    return _run_cell(settings, observer, cell)


def _run_cell(settings: Settings, observer: Observer, cell: Cell) -> Mapping[str, float]:
    check_cell("evaluate", settings, cell)
    layout = Layout(settings.paths.out)
    files = _checkpoints(layout.cell(cell))
    table = ClassTable.read(layout.classes)
    split = read_split(layout.split(cell.split))
    images = read_records(layout.records)
    records = _records(images, split.val, what=f"val of {cell.split}")
    labeled = len(split.labeled) + len(split.holdout)
    observer.params(
        {**facts_of(settings, cell), "labeled_images": labeled, **_seen_facts(settings.evaluate)}
    )

    work = _fresh(layout.work("evaluate", *cell.path.parts))
    load = _loader(settings, cell, table)
    scores: dict[str, Any] = {}
    for name, path in files.items():
        same = next((n for n in scores if file_sha256(files[n]) == file_sha256(path)), None)
        if same is None:
            scores[name], kept = _score(load, path, records=records, table=table)
            _write_predictions(work / PREDICTIONS / name, kept)
        else:
            scores[name] = scores[same]
            shutil.copytree(work / PREDICTIONS / same, work / PREDICTIONS / name)
    write_per_class(work / "per_class.csv", scores, group="checkpoint")
    write_curve(layout.cell(cell) / "metrics.jsonl", work / CURVES)
    how = settings.evaluate.model_dump(mode="json")
    atomic.write_json(work / METRICS, {**scores, "cell": asdict(cell), SEEN: how})
    return _finish(work, layout.cell_score(cell), observer, scores=scores)


def _checkpoints(folder: Path) -> dict[str, Path]:
    """Return the two checkpoints; without a selection the last one is also the best."""
    last = folder / "last.safetensors"
    if not last.is_file():
        raise DataError(f"{last}: no such checkpoint; run stage train for this cell first")
    best = folder / "best.safetensors"
    return {"best": best if best.is_file() else last, "last": last}


def _loader(settings: Settings, cell: Cell, table: ClassTable) -> Callable[[Path], Predictor]:
    """Return what loads a checkpoint into the network that the cell's method evaluates."""
    recipe, how = settings.train, settings.evaluate
    method: Method = build_plugin("zspl.methods", cell.method, recipe.methods[cell.method])
    facts = Facts(class_names=table.names, crop_size=recipe.crop_size)

    def load(path: Path) -> Predictor:
        model = inference.load_model(
            recipe.models[cell.model],
            path,
            num_classes=table.num_classes,
            adapt=partial(method.adapt, facts=facts),
        )
        return inference.predictor(model, window=how.window, scales=how.scales, flip=how.flip)

    return load


def _score(
    load: Callable[[Path], Predictor],
    path: Path,
    *,
    records: Sequence[ImageRecord],
    table: ClassTable,
) -> tuple[dict[str, Any], Mapping[str, Pixels]]:
    metrics, kept = score_images(
        load(path),
        records,
        table=table,
        keep=frozenset(sample_ids([r.image_id for r in records], SHOWN_IMAGES)),
        what=f"evaluate {path.stem}",
    )
    return metrics_json(metrics, table.names), kept


def _write_predictions(folder: Path, predictions: Mapping[str, Pixels]) -> None:
    for image_id, prediction in predictions.items():
        write_label(folder / f"{image_id}.png", prediction)


def _run_variant(settings: Settings, observer: Observer, variant: str) -> Mapping[str, float]:
    if variant not in settings.label.variants:
        hint = suggestion(variant, settings.label.variants)
        raise SettingsError(f"label.variants has no {variant!r}. {hint}")
    layout = Layout(settings.paths.out)
    folder = layout.labels(variant)
    table = ClassTable.read(layout.classes)
    split = read_split(layout.split(settings.label.calibration_split))
    groups = {"audit": (*split.labeled, *split.holdout)}
    if settings.prepare.annotate_val:
        groups["val"] = split.val
    known = read_records(layout.records)
    for name, ids in groups.items():
        _records(known, ids, what=f"{name} of {split.name}")
        check_complete(folder, ids)
    observer.params(_variant_facts(settings, variant, images=len(groups["audit"])))

    work = _fresh(layout.work("evaluate", "labels", variant))
    scores = {
        name: audit_json(audit(folder, ids, records=known, table=table), table.names)
        for name, ids in groups.items()
    }
    shown = sample_ids(groups.get("val", ()), SHOWN_IMAGES)
    maps = {image_id: read_label(label_file(folder, image_id)) for image_id in shown}
    _write_predictions(work / PREDICTIONS, maps)
    write_per_class(work / "per_class.csv", scores, group="subset")
    threshold = read_threshold(folder)
    notes = {
        **threshold,
        "variant": variant,
        "calibration_split": split.name,
        "note": _note(threshold),
    }
    atomic.write_json(work / METRICS, {**scores, **notes})
    headline = _finish(work, layout.label_score(variant), observer, scores=scores)
    return {**headline, **_promised(threshold)}


def _note(threshold: Mapping[str, Any]) -> str:
    if threshold["calibrated"]:
        return CALIBRATED_HERE.format(what="the threshold was")
    if "expected" in threshold:
        return CALIBRATED_HERE.format(what="the threshold was given, the confidence was")
    return "the threshold was given"


def _promised(threshold: Mapping[str, Any]) -> dict[str, float]:
    """Return the headline of what calibration expected, nothing where it expected nothing."""
    if "expected" not in threshold:
        return {}
    expected, reliability = threshold["expected"], threshold["reliability"]
    found = {
        "miou_expected": expected["miou"],
        "miou_expected_low": expected["low"],
        "miou_expected_high": expected["high"],
        "ece_before": reliability["before"]["ece"],
        "ece_after": reliability["after"]["ece"],
    }
    return {key: value for key, value in found.items() if value is not None}


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
            raise DataError(f"{what}: {image_id!r} has no mask, nothing to score it against")
    records = [known[image_id] for image_id in ids]
    check_files(records, masks=True)
    return records


def _seen_facts(how: Evaluate) -> Mapping[str, str | int | float | bool]:
    return {
        "evaluate.window": "none" if how.window is None else how.window,
        "evaluate.scales": ", ".join(map(str, how.scales)),
        "evaluate.flip": how.flip,
    }


def _variant_facts(
    settings: Settings, variant: str, *, images: int
) -> Mapping[str, str | int | float | bool]:
    return {
        "dataset": settings.prepare.dataset.name,
        "variant": variant,
        "split": settings.label.calibration_split,
        "seed": settings.seed,
        "labeled_images": images,
    }


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / PREDICTIONS).mkdir(parents=True)
    return folder


def _finish(
    work: Path, final: Path, observer: Observer, *, scores: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, float]:
    """Publish the folder, tell the observer the classes' scores, and return the headline."""
    atomic.publish(work, final)
    observer.artifact(final / METRICS)
    observer.artifact(final / "per_class.csv")
    classes = {
        f"iou_{name}/{class_name}": iou
        for name, values in scores.items()
        for class_name, iou in values["iou"].items()
    }
    observer.metrics({key: value for key, value in classes.items() if value is not None})
    return {
        f"{key}_{name}": value
        for name, values in scores.items()
        for key, value in values.items()
        if isinstance(value, float)
    }
