"""label: pseudo labels of all images by one variant, with a threshold calibrated on masks."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from zspl.errors import DataError, SettingsError
from zspl.io import atomic, workdir
from zspl.io.classes import ClassTable, load_label
from zspl.io.images import write_confidence, write_label
from zspl.io.layout import Layout
from zspl.io.segments import segment_row, write_segments
from zspl.io.splits import read_split
from zspl.labeling import Labeler
from zspl.labeling._calibration import ThresholdSearch
from zspl.observer import Observer, progress
from zspl.records import PseudoLabel, SegmentRow
from zspl.settings import LabelVariant, Settings, plugin_settings
from zspl.stages._label_inputs import InputReader, Placed, check_needs
from zspl.stages._shard import read_shard

PACKAGE = "zspl.labeling"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """One variant with everything it reads; `calibration` are the images with masks to use."""

    name: str
    labeler: Labeler
    reader: InputReader
    table: ClassTable
    images: tuple[Placed, ...]
    split: str
    calibration: tuple[Placed, ...]
    work: Path


def run(settings: Settings, observer: Observer, *, variant: str) -> Mapping[str, float]:
    """Write the pseudo labels of one variant for the images of all shards.

    A threshold set to "calibrated" is the one with the best mIoU on the labeled and held-out
    images of `label.calibration_split`; val is never read. Each image's result is kept until all
    are there, so that a killed run continues.

    Raises:
        SettingsError: if params.yaml has no such variant, or it does not fit its labeler.
        DataError: if an input is missing or was made for something else.
    """
    layout = Layout(settings.paths.out)
    job = _prepare(settings, layout, variant)
    threshold = _threshold(job)
    done = job.work / "segments"
    whole = job.work / "whole"
    missing = [p for p in job.images if not _finished(job.work, p.record.image_id)]
    for record, inputs in progress(
        job.reader.read(missing), what=f"label {variant}", total=len(missing)
    ):
        scored = job.labeler.score(inputs)
        pseudo = job.labeler.assign(scored, threshold.get("threshold") or 0.0)
        _write_image(job.work, record.image_id, pseudo)
    atomic.write_json(whole / "threshold.json", threshold)
    names = [placed.record.image_id for placed in job.images]
    segments = [(name, _read_rows(done / f"{name}.json")) for name in names]
    write_segments(whole / "segments.parquet", segments)
    atomic.publish(whole, layout.labels(variant))
    shutil.rmtree(job.work)
    summary = {"images": float(len(names)), "segments": float(sum(len(r) for _, r in segments))}
    if threshold["threshold"] is not None:
        summary["threshold"] = threshold["threshold"]
    if threshold["calibrated"]:
        summary["calibration_miou"] = threshold["miou"]
    observer.params({"variant": variant})
    observer.metrics(summary)
    return summary


def _check_watched(files: Sequence[Path], watched: Sequence[Path]) -> None:
    """Refuse ready label maps outside the folders whose changes DVC sees."""
    roots = [path.resolve() for path in watched]
    for folder in {path.parent for path in files}:
        if not any(folder.resolve().is_relative_to(root) for root in roots):
            raise SettingsError(
                f"{folder}: label maps must lie below paths.source ({watched[0]}), where DVC "
                "watches them; move them there"
            )


def _prepare(settings: Settings, layout: Layout, name: str) -> _Job:
    """Check every input that is cheap to check, and open the work folder."""
    variant = _variant(settings, name)
    labeler: Labeler = variant.labeler.build(PACKAGE)
    check_needs(name, variant, labeler)
    table = ClassTable.read(layout.classes)
    shards = settings.prepare.shards
    images = tuple(
        Placed(record=record, shard=shard)
        for shard in shards
        for record in read_shard(layout, shard).records
    )
    split = settings.label.calibration_split
    calibration: tuple[Placed, ...] = ()
    if labeler.threshold == "calibrated":
        calibration = _calibration_images(layout, split, images)
    reader = InputReader(layout, variant, table)
    ready = labeler.files([placed.record.image_id for placed in images])
    _check_watched(ready, (settings.paths.source, layout.data))
    files = reader.files(shards) + ready
    identity = {
        "variant": _identity(variant),
        "classes": asdict(table),
        "images": {placed.record.image_id: placed.record.digest for placed in images},
        "calibration": [placed.record.image_id for placed in calibration],
    }
    made_under = workdir.fingerprint(identity, files)
    work = workdir.open_workdir(layout.work("label", name), made_under=made_under)
    return _Job(
        name=name,
        labeler=labeler,
        reader=reader,
        table=table,
        images=images,
        split=split,
        calibration=calibration,
        work=work,
    )


def _variant(settings: Settings, name: str) -> LabelVariant:
    variants = settings.label.variants
    if name not in variants:
        raise SettingsError(
            f"params.yaml has no label.variants.{name}; there are: {', '.join(sorted(variants))}"
        )
    return variants[name]


def _identity(variant: LabelVariant) -> dict[str, Any]:
    labeler = variant.labeler
    chosen = plugin_settings(PACKAGE, labeler.name, labeler.model_extra or {})
    return {
        "proposals": variant.proposals,
        "features": variant.features,
        "labeler": {"name": labeler.name, **chosen.model_dump(mode="json")},
    }


def _calibration_images(
    layout: Layout, name: str, images: tuple[Placed, ...]
) -> tuple[Placed, ...]:
    """Return the labeled and held-out images of a split, in the order of the shards."""
    split = read_split(layout.split(name))
    wanted = {*split.labeled, *split.holdout}
    found = tuple(placed for placed in images if placed.record.image_id in wanted)
    if len(found) < len(wanted):
        lost = sorted(wanted - {placed.record.image_id for placed in found})
        raise DataError(
            f"{layout.split(name)}: {lost[0]!r} is labeled but in no shard ({len(lost)} such ids); "
            "run the stage prepare again"
        )
    for placed in found:
        if placed.record.label_path is None or not placed.record.label_path.is_file():
            raise DataError(
                f"{placed.record.label_path or placed.record.image_path}: the mask of the labeled "
                f"image {placed.record.image_id!r} is missing; add it, or set a fixed threshold"
            )
    return found


def _threshold(job: _Job) -> dict[str, Any]:
    """Return the content of threshold.json: the threshold, and how it came about."""
    fixed = job.labeler.threshold
    if fixed != "calibrated":
        return {"threshold": fixed, "calibrated": False}
    path = job.work / "threshold.json"
    if not path.is_file():
        atomic.write_json(path, _calibrate(job))
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _calibrate(job: _Job) -> dict[str, Any]:
    search = ThresholdSearch(num_classes=job.table.num_classes, unassigned=job.labeler.unassigned)
    for record, inputs in progress(
        job.reader.read(job.calibration),
        what=f"calibrate {job.name}",
        total=len(job.calibration),
    ):
        truth = load_label(record, job.table, (inputs.size[1], inputs.size[0]))
        search.add(job.labeler.score(inputs), torch.from_numpy(truth))
    try:
        best, curve = search.best(), search.curve()
    except ValueError as error:
        raise DataError(
            f"label.variants.{job.name}: the threshold cannot be calibrated on {job.split} "
            f"({error}); set a number"
        ) from error
    return {
        "threshold": best.threshold,
        "calibrated": True,
        "split": job.split,
        "images": len(job.calibration),
        "miou": best.miou,
        "curve": [asdict(point) for point in curve],
    }


def _write_image(work: Path, name: str, pseudo: PseudoLabel) -> None:
    whole = work / "whole"
    write_label(whole / f"{name}.png", pseudo.label.numpy())
    write_confidence(whole / f"{name}.confidence.png", pseudo.confidence.numpy())
    rows = json.dumps([asdict(row) for row in pseudo.segments])
    atomic.write_text(work / "segments" / f"{name}.json", rows)


def _finished(work: Path, name: str) -> bool:
    parts = (f"whole/{name}.png", f"whole/{name}.confidence.png", f"segments/{name}.json")
    return all((work / part).is_file() for part in parts)


def _read_rows(path: Path) -> tuple[SegmentRow, ...]:
    return tuple(segment_row(row) for row in json.loads(path.read_text(encoding="utf-8")))
