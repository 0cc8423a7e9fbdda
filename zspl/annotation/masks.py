"""Masks of some of the photos: they choose thresholds and say how far to trust the labels."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zspl.annotation.annotator import Annotator, Seen, resized
from zspl.annotation.photos import Photo
from zspl.errors import DataError
from zspl.io.classes import ClassTable
from zspl.io.images import Pixels, read_image, read_label
from zspl.labeling import Decision
from zspl.labeling._calibration import Calibrator
from zspl.observer import progress
from zspl.records import IGNORE_INDEX


@dataclass(frozen=True, kw_only=True, slots=True)
class Masks:
    """Photos with masks: `files` by name; `strangers` are files that belong to no photo."""

    photos: tuple[Photo, ...]
    files: Mapping[str, Path]
    strangers: tuple[str, ...]

    def digest(self) -> str:
        """Return a sha256 over names and bytes of the masks."""
        digest = hashlib.sha256()
        for name, path in sorted(self.files.items()):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{name}\n{content}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()


def find(folder: Path, photos: Sequence[Photo]) -> Masks:
    """Find the masks of photos: `<name>.png`, or `<file name>.png`, in the same subfolders.

    Raises:
        DataError: if there is no such folder, or no mask in it belongs to a photo.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; pass --masks with a folder of label maps")
    files = {}
    for photo in photos:
        for stem in (photo.name, photo.source):
            path = folder / f"{stem}.png"
            if photo.name not in files and path.is_file():
                files[photo.name] = path
    taken = set(files.values())
    strangers = (
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.png")
        if path not in taken and not path.name.startswith(".")
    )
    if not files:
        raise DataError(
            f"{folder}: no mask of the photos in it; expected label maps such as "
            f"{photos[0].name if photos else 'name'}.png"
        )
    known = tuple(photo for photo in photos if photo.name in files)
    return Masks(photos=known, files=files, strangers=tuple(sorted(strangers)))


def check(masks: Masks, table: ClassTable) -> None:
    """Read all masks once, so that a wrong one is found before any model is loaded.

    Raises:
        DataError: if a mask or its photo is unreadable, their sizes differ, or it holds an id
            that is no class.
    """
    for photo in masks.photos:
        _truth(photo, masks.files[photo.name], read_image(photo.path).size, table)


def calibrate(
    masks: Masks, annotator: Annotator, *, max_side: int | None
) -> tuple[Decision, dict[str, Any]]:
    """Fit thresholds and confidence on the photos with masks.

    Args:
        masks: The photos and their masks.
        annotator: What will label the photos.
        max_side: The side in pixels to which larger photos are shrunk.

    Returns:
        The decision, and the report on how good labels made so will be, as JSON values.

    Raises:
        DataError: if a mask or photo is unreadable or does not fit, or nothing can be fitted.
    """
    table, labeler = annotator.table, annotator.labeler
    calibrator = Calibrator(num_classes=table.num_classes, unassigned=labeler.unassigned)
    for photo in progress(masks.photos, what="calibrate", total=len(masks.photos)):
        image = read_image(photo.path)
        truth = _truth(photo, masks.files[photo.name], image.size, table)
        seen = Seen.of(photo, image, max_side)
        scored = annotator.look([seen])[0].scored
        calibrator.add(scored, torch.from_numpy(resized(truth, seen.image.size)))
    try:
        report = calibrator.report(per_class=True)
    except ValueError as error:
        raise DataError(
            f"--masks: thresholds cannot be fitted ({error}); pass --threshold instead"
        ) from error
    return report.decision, report.as_json(table.names)


def _truth(photo: Photo, path: Path, size: tuple[int, int], table: ClassTable) -> Pixels:
    """Read a mask of an image of `size` (width, height)."""
    mask = read_label(path, size=size)
    ids, counts = np.unique(mask, return_counts=True)
    for value, count in zip(ids.tolist(), counts.tolist(), strict=True):
        if value >= table.num_classes and value != IGNORE_INDEX:
            shown = ", ".join(f"{i} {name}" for i, name in enumerate(table.names[:6]))
            more = ", ..." if table.num_classes > len(table.names[:6]) else ""
            raise DataError(
                f"{path}: mask of {photo.source} holds the id {value} ({count} pixels), expected "
                f"{shown}{more} or 255 (ignored); correct the mask or --classes"
            )
    return mask
