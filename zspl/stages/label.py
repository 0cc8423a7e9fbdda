"""label: pseudo labels of all images by one variant, calibrated on the masks there are."""

import csv
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zspl.errors import DataError, SettingsError
from zspl.io import atomic, workdir
from zspl.io.classes import ClassTable
from zspl.io.images import write_confidence, write_label
from zspl.io.layout import Layout
from zspl.io.segments import segment_row, write_segments
from zspl.labeling import Decision, Labeler, LabelInputs, Scored
from zspl.labeling._facts import conflict, coverage, doubt
from zspl.observer import Observer, progress
from zspl.records import PseudoLabel
from zspl.sections import plugin_settings
from zspl.settings import LabelVariant, Settings
from zspl.stages._label_calibration import calibrate, calibration_images, needs_masks
from zspl.stages._label_inputs import InputReader, Placed, check_needs
from zspl.stages._shard import read_shard

PACKAGE = "zspl.labeling"
FACTS = ("coverage", "conflict", "doubt")


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

    Calibrated thresholds and confidence are fitted on the labeled and held-out images of
    `label.calibration_split`; val is never read. threshold.json says what came of it and what to
    expect, images.csv which images to look at first. Each image's result is kept until all are
    there, so that a killed run continues.

    Raises:
        SettingsError: if params.yaml has no such variant, or it does not fit its labeler.
        DataError: if an input is missing or was made for something else.
    """
    layout = Layout(settings.paths.out)
    job = _prepare(settings, layout, variant)
    threshold = _threshold(job)
    decision = _decision(threshold)
    whole = job.work / "whole"
    missing = [p for p in job.images if not _finished(job.work, p.record.image_id)]
    for record, inputs in progress(
        job.reader.read(missing), what=f"label {variant}", total=len(missing)
    ):
        scored = job.labeler.score(inputs)
        pseudo = job.labeler.assign(scored, decision)
        _write_image(job.work, record.image_id, pseudo, _facts(inputs, scored, pseudo))
    atomic.write_json(whole / "threshold.json", threshold)
    names = [placed.record.image_id for placed in job.images]
    segments = _write_tables(job.work, names)
    atomic.publish(whole, layout.labels(variant))
    shutil.rmtree(job.work)
    summary = {"images": float(len(names)), "segments": float(segments)}
    if threshold["threshold"] is not None:
        summary["threshold"] = threshold["threshold"]
    if threshold["calibrated"]:
        summary["calibration_miou"] = threshold["miou"]
    if "expected" in threshold and threshold["expected"]["miou"] is not None:
        summary["expected_miou"] = threshold["expected"]["miou"]
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
    if needs_masks(labeler):
        calibration = calibration_images(layout, split, images)
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


def _threshold(job: _Job) -> dict[str, Any]:
    """Return the content of threshold.json: the decision, and how it came about."""
    if not needs_masks(job.labeler):
        return {"threshold": job.labeler.threshold, "calibrated": False}
    path = job.work / "threshold.json"
    if not path.is_file():
        images = progress(
            job.reader.read(job.calibration),
            what=f"calibrate {job.name}",
            total=len(job.calibration),
        )
        try:
            found = calibrate(job.labeler, images, table=job.table)
        except ValueError as error:
            raise DataError(
                f"label.variants.{job.name}: the threshold cannot be calibrated on {job.split} "
                f"({error}); set a number"
            ) from error
        atomic.write_json(path, {**found, "split": job.split})
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _decision(threshold: Mapping[str, Any]) -> Decision:
    """Return the decision in threshold.json; without a threshold every label is kept."""
    if "decision" in threshold:
        return Decision.from_json(threshold["decision"])
    return Decision.plain(threshold["threshold"] or 0.0)


def _facts(inputs: LabelInputs, scored: Scored, pseudo: PseudoLabel) -> dict[str, float | None]:
    """Return an image's row of images.csv; None without segments or their classes."""
    doubtful = doubt(pseudo.confidence)
    if inputs.proposals is None:
        return {"coverage": None, "conflict": None, "doubt": doubtful}
    masks, best = inputs.proposals.masks, [row.assigned for row in scored.segments]
    return {
        "coverage": coverage(masks),
        "conflict": conflict(masks, best) if len(masks) == len(best) else None,
        "doubt": doubtful,
    }


def _write_image(
    work: Path, name: str, pseudo: PseudoLabel, facts: Mapping[str, float | None]
) -> None:
    whole = work / "whole"
    write_label(whole / f"{name}.png", pseudo.label.numpy())
    write_confidence(whole / f"{name}.confidence.png", pseudo.confidence.numpy())
    rows = [asdict(row) for row in pseudo.segments]
    atomic.write_text(_record(work, name), json.dumps({"segments": rows, "facts": facts}))


def _write_tables(work: Path, names: Sequence[str]) -> int:
    """Write the tables over all images and return the number of segments."""
    records = {name: json.loads(_record(work, name).read_text(encoding="utf-8")) for name in names}
    segments = [
        (name, tuple(segment_row(row) for row in record["segments"]))
        for name, record in records.items()
    ]
    write_segments(work / "whole" / "segments.parquet", segments)
    facts = {name: record["facts"] for name, record in records.items()}
    doubtful = sorted(names, key=lambda name: (-facts[name]["doubt"], name))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("image_id", *FACTS))
    writer.writerows((name, *(_decimals(facts[name][key]) for key in FACTS)) for name in doubtful)
    atomic.write_text(work / "whole" / "images.csv", table.getvalue())
    return sum(len(rows) for _, rows in segments)


def _decimals(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _record(work: Path, name: str) -> Path:
    return work / "segments" / f"{name}.json"


def _finished(work: Path, name: str) -> bool:
    parts = (f"whole/{name}.png", f"whole/{name}.confidence.png")
    return _record(work, name).is_file() and all((work / part).is_file() for part in parts)
