"""What the stage label learns from masks: thresholds, confidence, and what to expect."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch

from zspl.errors import DataError
from zspl.io.classes import ClassTable, load_label
from zspl.io.layout import Layout
from zspl.io.splits import read_split
from zspl.labeling import Labeler, LabelInputs
from zspl.labeling._calibration import Calibrator
from zspl.records import ImageRecord
from zspl.stages._label_inputs import Placed

PER_CLASS = "calibrated_per_class"


def needs_masks(labeler: Labeler) -> bool:
    """Tell whether a labeler wants anything to be fitted on the labeled images."""
    return labeler.threshold in {"calibrated", PER_CLASS} or labeler.confidence == "calibrated"


def calibration_images(layout: Layout, name: str, images: tuple[Placed, ...]) -> tuple[Placed, ...]:
    """Return the labeled and held-out images of a split, in the order of the shards.

    Raises:
        DataError: if one is in no shard or has no mask.
    """
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
                f"image {placed.record.image_id!r} is missing; add it, or set a fixed threshold "
                "and confidence: raw"
            )
    return found


def calibrate(
    labeler: Labeler,
    images: Iterable[tuple[ImageRecord, LabelInputs]],
    *,
    table: ClassTable,
) -> dict[str, Any]:
    """Return what threshold.json says about thresholds and confidence fitted on `images`.

    Raises:
        ValueError: if a threshold is looked for and no pixel depends on it.
        DataError: if a mask is unreadable.
    """
    calibrator = Calibrator(num_classes=table.num_classes, unassigned=labeler.unassigned)
    for record, inputs in images:
        truth = load_label(record, table, (inputs.size[1], inputs.size[0]))
        calibrator.add(labeler.score(inputs), torch.from_numpy(truth))
    fixed = labeler.threshold
    search = isinstance(fixed, str)
    report = calibrator.report(
        per_class=fixed == PER_CLASS,
        confidence=labeler.confidence == "calibrated",
        threshold=None if isinstance(fixed, str) else fixed,
    )
    curve = [asdict(point) for point in calibrator.curve()] if search else []
    return {
        **report.as_json(table.names),
        "threshold": report.decision.threshold,
        "calibrated": search,
        "miou": report.fitted_miou,
        "curve": curve,
    }
