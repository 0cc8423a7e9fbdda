"""The audit of pseudo labels: how good are they where a mask may be seen?"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zspl.errors import DataError
from zspl.evaluation.claims import ClaimMetrics, Claims
from zspl.evaluation.confusions import dearest_confusions
from zspl.evaluation.report import by_class, number
from zspl.io.classes import ClassTable, load_label
from zspl.io.images import Pixels, read_label
from zspl.metrics.calibration import CalibrationMetrics, Reliability
from zspl.observer import progress
from zspl.records import IGNORE_INDEX, ImageRecord

PROMISES = ("class_thresholds", "expected", "reliability", "verdict", "sentence")
"""What the stage label expected of its labels, cross-validated over the labeled images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """What the audit found on one list of images."""

    images: int
    claims: ClaimMetrics
    calibration: CalibrationMetrics


def label_file(folder: Path, image_id: str) -> Path:
    """Where the pseudo label of an image lies in a variant's folder."""
    return folder / f"{image_id}.png"


def confidence_file(folder: Path, image_id: str) -> Path:
    """Where the confidences of an image's pseudo label lie in a variant's folder."""
    return folder / f"{image_id}.confidence.png"


def read_threshold(folder: Path) -> dict[str, Any]:
    """Return what calibration said of a variant, as the stage label wrote it.

    There are always `threshold` (None if it has none) and `calibrated` (whether it was chosen on
    masks); the other keys of `PROMISES` are there if anything was fitted on masks.

    Raises:
        DataError: if the file that the stage label left is unreadable.
    """
    path = folder / "threshold.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        kept = {key: found[key] for key in PROMISES if key in found}
        return {**kept, "threshold": found["threshold"], "calibrated": bool(found["calibrated"])}
    except FileNotFoundError:
        return {"threshold": None, "calibrated": False}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is no threshold ({error}); run the stage label again") from error


def check_complete(folder: Path, ids: Sequence[str]) -> None:
    """Check that every image has its pseudo label and confidences, before any is read.

    Raises:
        DataError: if `ids` is empty or a file is missing.
    """
    if not ids:
        raise DataError(f"{folder}: no image to audit on; the calibration split has no labeled id")
    missing = [
        path
        for image_id in ids
        for path in (label_file(folder, image_id), confidence_file(folder, image_id))
        if not path.exists()
    ]
    if missing:
        raise DataError(
            f"{missing[0]}: missing, as are {len(missing) - 1} more files of {len(ids)} audited "
            f"images; run stage label for variant {folder.name}"
        )


def audit(
    folder: Path,
    ids: Sequence[str],
    *,
    records: Mapping[str, ImageRecord],
    table: ClassTable,
) -> Audit:
    """Compare a variant's pseudo labels with the masks of the named images.

    Calibration is over the pixels that claim a class and have a truth.

    Raises:
        DataError: if a file is missing, unreadable or of another size than the mask.
    """
    claims, reliability = Claims(table.num_classes), Reliability()
    for image_id in progress(ids, what=f"audit {folder.name}", total=len(ids)):
        path = label_file(folder, image_id)
        claim = read_label(path)
        size = (claim.shape[1], claim.shape[0])
        truth = torch.from_numpy(load_label(records[image_id], table, size))
        check_ids(claim, table, path=path)
        label = torch.from_numpy(claim)
        confidence = torch.from_numpy(read_label(confidence_file(folder, image_id), size=size))
        claims.update(label, truth)
        judged = (label != IGNORE_INDEX) & (truth != IGNORE_INDEX)
        reliability.update(confidence[judged].double() / 255, label[judged] == truth[judged])
    return Audit(images=len(ids), claims=claims.compute(), calibration=reliability.compute())


def check_ids(claim: Pixels, table: ClassTable, *, path: Path) -> None:
    """Check that a label map holds class ids and 255 only.

    Raises:
        DataError: naming the file, the value and the legal range.
    """
    illegal = claim[(claim >= table.num_classes) & (claim != IGNORE_INDEX)]
    if illegal.size:
        raise DataError(
            f"{path}: holds the value {int(illegal.max())}, expected class ids 0 to "
            f"{table.num_classes - 1} or 255; it was made for other classes"
        )


def audit_json(found: Audit, names: Sequence[str]) -> dict[str, Any]:
    """Return an audit as JSON values; every share is in [0, 1]."""
    return {
        "images": found.images,
        **claims_json(found.claims, names),
        "confusions": dearest_confusions(found.claims.confusion, names),
    } | found.calibration.as_json()


def claims_json(claims: ClaimMetrics, names: Sequence[str]) -> dict[str, Any]:
    """Return the scores of label maps as JSON values; every share is in [0, 1]."""
    shares = {
        key: number(getattr(claims, key))
        for key in (
            "miou",
            "miou_absent_zero",
            "miou_claimed",
            "pixel_accuracy",
            "coverage",
        )
    }
    return shares | {
        "foreground": number(claims.foreground),
        "iou": by_class(claims.iou, names),
        "precision": by_class(claims.precision, names),
        "recall": by_class(claims.recall, names),
        "mean_precision": number(claims.precision.nanmean().item()),
        "mean_recall": number(claims.recall.nanmean().item()),
    }
