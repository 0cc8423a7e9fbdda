"""train: one cell of the matrix, from a split and a seed to a trained network.

Reads the records, the classes, one split and, for a method that reads them, one variant of the
pseudo labels. Writes best.safetensors, last.safetensors, model.json, which tells what these are
of, metrics.jsonl and summary.json, and stability.json where the method chose images by it.
"""

import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from zspl.data.label_quality import measure
from zspl.errors import DataError, SettingsError
from zspl.inference import build_model
from zspl.io import atomic, processes
from zspl.io.classes import ClassTable
from zspl.io.layout import Cell, Layout
from zspl.io.model_card import FILE, ModelCard
from zspl.io.records import check_files, read_records
from zspl.io.splits import read_split
from zspl.io.workdir import fingerprint, open_workdir
from zspl.methods import Method
from zspl.methods import needs as needs_of
from zspl.observer import Observer, Silent
from zspl.records import ImageRecord, Split
from zspl.sections import build_plugin
from zspl.settings import Settings
from zspl.stages._cell import card_of, check_cell, facts_of
from zspl.training import checkpoints, inputs
from zspl.training.rounds import STABILITY, Course, Outcome, run_rounds
from zspl.training.selection import choose

Summary = dict[str, str | int | float | None]


def run(  # noqa: PLR0913 - a cell is named by all of these
    settings: Settings,
    observer: Observer,
    *,
    method: str,
    model: str,
    split: str,
    seed: int,
    labels: str | None = None,
) -> Mapping[str, float]:
    """Train one cell, or continue a killed training, and return its headline numbers.

    Started by torchrun, its processes share every batch; the first one writes and reports.

    Args:
        settings: All settings.
        observer: Gets the cell's facts, its losses and its scores.
        method: A key of `train.methods`.
        model: A key of `train.models`.
        split: One of `prepare.splits`.
        seed: Of the initial weights, the order of the images and all augmentation.
        labels: A key of `label.variants`, for a method that reads pseudo labels.

    Raises:
        SettingsError: if the instance names something that params.yaml does not hold.
        DataError: if an input is missing or the split does not fit the method.
        ZsplError: if the loss is not finite.
    """
    cell = Cell(method=method, labels=labels, model=model, split=split, seed=seed)
    check_cell("train", settings, cell)
    with processes.joined():
        outcome, summary = _train(settings, cell, observer)
    numbers = {key: float(v) for key, v in summary.items() if isinstance(v, int | float)}
    return {**numbers, "seconds": round(outcome.seconds, 3)}


def _train(settings: Settings, cell: Cell, observer: Observer) -> tuple[Outcome, Summary]:
    layout = Layout(settings.paths.out)
    work = layout.work("train", *cell.path.parts)
    if processes.is_first():
        open_workdir(work, made_under=_fingerprint(settings, layout, cell))
    processes.wait()
    course = _prepare(settings, layout, cell, folder=work)
    observer = observer if processes.is_first() else Silent()
    observer.params({"stage": "train", **facts_of(settings, cell)})
    outcome = run_rounds(course, observer)
    summary = _summary(course, outcome)
    if processes.is_first():
        card = card_of(settings, cell, course.table)
        _publish(outcome, summary, card, work=work, place=layout.cell(cell))
        observer.artifact(layout.cell(cell) / "summary.json")
    processes.wait()
    return outcome, summary


def _fingerprint(settings: Settings, layout: Layout, cell: Cell) -> str:
    """Stamp unfinished work with all that decides its numbers."""
    recipe: dict[str, Any] = settings.train.model_dump(exclude={"methods", "models"})
    recipe["method"] = settings.train.methods[cell.method]
    recipe["model"] = settings.train.models[cell.model].model_dump()
    recipe["cell"] = str(cell.path)
    if settings.train.selection != "last":
        recipe["window"] = settings.evaluate.window
    inputs = [layout.records, layout.classes, *sorted(layout.split(cell.split).glob("*.txt"))]
    if cell.labels is not None:
        inputs += [p for p in sorted(layout.labels(cell.labels).rglob("*")) if p.is_file()]
    for path in inputs[:2]:
        if not path.exists():
            raise DataError(f"{path}: no such file; run the stage prepare first")
    return fingerprint(recipe, inputs)


def _prepare(settings: Settings, layout: Layout, cell: Cell, *, folder: Path) -> Course:
    """Read and check every input before a model is built."""
    recipe, needs = settings.train, needs_of(cell.method)
    records, table = read_records(layout.records), ClassTable.read(layout.classes)
    split = read_split(layout.split(cell.split))
    _check_split(split, records, needs=needs)
    check_files((records[image_id] for image_id in split.labeled), masks=True)
    inputs.warn(split, records, table, recipe, needs=needs)
    method: Method = build_plugin("zspl.methods", cell.method, recipe.methods[cell.method])
    labels = None if cell.labels is None else layout.labels(cell.labels)
    quality = None
    if labels is not None and any("label_quality" in (r.needs or needs) for r in method.rounds()):
        quality = measure([records[i] for i in split.labeled], table, pseudo_labels=labels)
    return Course(
        name=str(cell.path),
        recipe=recipe,
        seed=cell.seed,
        method=method,
        needs=needs,
        records=records,
        split=split,
        table=table,
        pseudo_labels=labels,
        label_quality=quality,
        selection=choose(
            recipe.selection,
            split,
            records=records,
            table=table,
            window=settings.evaluate.window,
        ),
        folder=folder,
        workers=_workers(),
        build=partial(build_model, recipe.models[cell.model], num_classes=table.num_classes),
    )


def _check_split(
    split: Split, records: Mapping[str, ImageRecord], *, needs: frozenset[str]
) -> None:
    for part in ("labeled", "unlabeled"):
        if part in needs and not getattr(split, part):
            raise DataError(
                f"split {split.name}: no {part} images, but the method reads them; check "
                f"{part}.txt or choose another method"
            )
    for image_id in (*split.labeled, *split.holdout, *split.unlabeled, *split.val):
        if image_id not in records:
            raise DataError(
                f"split {split.name}: no image {image_id!r} in the records; run prepare again"
            )


def _workers() -> int:
    text = os.environ.get("ZSPL_WORKERS") or "0"
    if not text.isdecimal():
        raise SettingsError(f"ZSPL_WORKERS is {text!r}, expected a number of processes such as 2")
    return int(text)


def _summary(course: Course, outcome: Outcome) -> Summary:
    best = outcome.best
    return {
        "iterations": outcome.iterations,
        "selection": course.selection.name,
        "best_iteration": None if best is None else best.iteration,
        "best_selection_miou": None if best is None else best.score,
    }


def _publish(
    outcome: Outcome, summary: Mapping[str, Any], card: ModelCard, *, work: Path, place: Path
) -> None:
    """Move what is worth keeping into the cell's folder, and delete the rest."""
    finished = work / "finished"
    shutil.rmtree(finished, ignore_errors=True)
    finished.mkdir()
    if outcome.best is not None:
        checkpoints.save_weights(finished / "best.safetensors", outcome.best.model)
    checkpoints.save_weights(finished / "last.safetensors", outcome.last)
    histories = [path.read_text(encoding="utf-8") for path in outcome.histories]
    atomic.write_text(finished / "metrics.jsonl", "".join(histories))
    if (work / STABILITY).exists():
        shutil.copyfile(work / STABILITY, finished / STABILITY)
    card.write(finished / FILE)
    atomic.write_json(finished / "summary.json", summary)
    atomic.publish(finished, place)
    shutil.rmtree(work)
