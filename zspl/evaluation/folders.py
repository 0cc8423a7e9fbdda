"""Scoring a folder of label maps against a folder of masks."""

from collections.abc import Iterable
from pathlib import Path

import torch

from zspl.errors import DataError
from zspl.evaluation.claims import ClaimMetrics, Claims
from zspl.io.classes import ClassTable
from zspl.io.images import read_label
from zspl.observer import progress


def score_folders(
    predictions: Path,
    labels: Path,
    *,
    table: ClassTable,
    ids: Iterable[str] | None = None,
) -> ClaimMetrics:
    """Score label maps against masks of the same file name (less the suffix).

    Args:
        predictions: PNG label maps with the data set's mask values; 255 claims nothing.
        labels: PNG masks with the data set's mask values; 255 is void.
        table: The data set's classes.
        ids: File names without suffix to score, or None for all: then both folders must
            hold the same names.

    Raises:
        DataError: if a file is missing, unreadable, holds an unknown value, or two differ in size.
    """
    pairs = _pairs(predictions, labels, ids)
    claims = Claims(table.num_classes)
    for predicted, masked in progress(pairs, what="score", total=len(pairs)):
        truth = table.map(read_label(masked), path=masked)
        claim = read_label(predicted)
        if claim.shape != truth.shape:
            raise DataError(
                f"{predicted}: is {claim.shape[1]}x{claim.shape[0]}, its mask {masked} "
                f"{truth.shape[1]}x{truth.shape[0]} pixels; predict at the original size"
            )
        claim = table.map(claim, path=predicted)
        claims.update(torch.from_numpy(claim), torch.from_numpy(truth))
    return claims.compute()


def _pairs(predictions: Path, labels: Path, ids: Iterable[str] | None) -> list[tuple[Path, Path]]:
    found, masks = _pngs(predictions), _pngs(labels)
    wanted = sorted({*found, *masks}) if ids is None else sorted(set(ids))
    if not wanted:
        raise DataError("the list of ids is empty; name at least one file to score")
    hint = "" if ids is not None else "; to score some of the files pass --ids"
    for folder, files in ((predictions, found), (labels, masks)):
        missing = [name for name in wanted if name not in files]
        if missing:
            raise DataError(
                f"{folder}: lacks {missing[0]}.png ({len(missing)} of {len(wanted)} missing){hint}"
            )
    return [(found[name], masks[name]) for name in wanted]


def _pngs(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; pass the folder with the PNG files")
    # A folder of pseudo labels holds <name>.confidence.png beside <name>.png.
    paths = (p for p in sorted(folder.glob("*.png")) if not p.stem.endswith(".confidence"))
    files = {path.stem: path for path in paths}
    if not files:
        raise DataError(f"{folder}: no .png file in it; pass the folder with the PNG files")
    return files
