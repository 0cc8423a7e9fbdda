"""Prepare the data: records, classes, splits and shards, each checked before it is written."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from zspl.datasets import Dataset
from zspl.errors import DataError, SettingsError
from zspl.io import atomic, workdir
from zspl.io.classes import ClassTable, load_label
from zspl.io.images import read_image
from zspl.io.layout import Layout
from zspl.io.records import write_records
from zspl.io.splits import check, hold_out, is_safe_id, write_ids, write_split
from zspl.observer import Observer, progress
from zspl.records import ImageRecord, Split
from zspl.settings import Settings

NONE = "What depends on this file reads no artifact of this kind.\n"


def run(settings: Settings, observer: Observer) -> Mapping[str, float]:
    """Write the data folder and return the numbers of images, classes and ids.

    The folder appears at once when it is whole; the same settings and source give the same bytes.
    What a killed run of the same settings left is offered to the data set, which may go on there.

    Raises:
        SettingsError: if the data set has no such split, or there are more shards than images.
        DataError: if a list, an image or a mask is wrong.
    """
    dataset: Dataset = settings.prepare.dataset.build("zspl.datasets")
    layout = Layout(settings.paths.out)
    source = settings.paths.source
    chosen = settings.prepare.model_dump(mode="json")
    made_under = workdir.fingerprint({"source": source.resolve(), "prepare": chosen})
    work = Layout(workdir.open_workdir(layout.work("prepare"), made_under=made_under))

    records = dataset.prepare(source, work.data)
    splits = [_split(settings, dataset, work.data, name) for name in settings.prepare.splits]
    _check(records, splits)
    shards = _shards(settings, dataset.train_ids(source), splits)
    _check_files(records, dataset.table)

    moved = [_moved(record, work.data, layout.data) for record in records]
    write_records(work.records, moved)
    dataset.table.write(work.classes)
    for split in splits:
        write_split(work.split(split.name), split)
    for shard, ids in enumerate(shards):
        write_ids(work.shard(shard), ids)
    atomic.publish(work.data, layout.data)
    for kind in ("proposals", "features"):
        atomic.write_text(layout.out / kind / "none" / "NONE", NONE)
    shutil.rmtree(work.out, ignore_errors=True)

    counts = _counts(records, dataset.table, splits)
    observer.metrics(counts)
    return counts


def _split(settings: Settings, dataset: Dataset, folder: Path, name: str) -> Split:
    if not is_safe_id(name):
        raise SettingsError(f"prepare.splits: {name!r} is no split name; write it without folders")
    split = dataset.split(settings.paths.source, folder, name)
    return hold_out(split, share=settings.prepare.holdout, seed=settings.seed)


def _check(records: Sequence[ImageRecord], splits: Sequence[Split]) -> None:
    """Check the splits, and that each id that is learnt from or scored on has a mask."""
    known = {record.image_id: record for record in records}
    for split in splits:
        check(split, known)
        for part in ("labeled", "holdout", "val"):
            for image_id in getattr(split, part):
                if known[image_id].label_path is None:
                    raise DataError(
                        f"split {split.name}: {part} names {image_id!r}, but "
                        f"{known[image_id].image_path} has no mask; add the mask or remove the id"
                    )


def _check_files(records: Sequence[ImageRecord], table: ClassTable) -> None:
    """Open every image; check that every mask has its size and legal ids."""
    for record in progress(records, what="check images", total=len(records)):
        image = read_image(record.image_path)
        if record.label_path is not None:
            load_label(record, table, image.size)


def _shards(
    settings: Settings, train_ids: Sequence[str], splits: Sequence[Split]
) -> list[tuple[str, ...]]:
    """Deal the ids of the images to annotate to the shards, in turn."""
    ids = set(train_ids)
    if settings.prepare.annotate_val:
        ids.update(*(split.val for split in splits))
    number = len(settings.prepare.shards)
    if number > len(ids):
        raise SettingsError(
            f"prepare.shards: {number} shards for {len(ids)} images; use at most one per image"
        )
    in_order = sorted(ids)
    return [tuple(in_order[shard::number]) for shard in range(number)]


def _moved(record: ImageRecord, folder: Path, target: Path) -> ImageRecord:
    """Return the record with paths below `folder` moved below `target`."""

    def move(path: Path) -> Path:
        return target / path.relative_to(folder) if path.is_relative_to(folder) else path

    label_path = None if record.label_path is None else move(record.label_path)
    return replace(record, image_path=move(record.image_path), label_path=label_path)


def _counts(
    records: Sequence[ImageRecord], table: ClassTable, splits: Sequence[Split]
) -> dict[str, float]:
    counts = {"images": float(len(records)), "classes": float(table.num_classes)}
    for split in splits:
        for part in ("labeled", "holdout", "unlabeled", "val"):
            counts[f"{split.name}/{part}"] = float(len(getattr(split, part)))
    return counts
