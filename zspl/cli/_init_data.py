"""Photos and masks of a new project: looked at once, linked, and split."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from zspl.annotation import masks as mask_files
from zspl.annotation import photos
from zspl.annotation.photos import Found, Photo, printable
from zspl.annotation.quarantine import reason_of
from zspl.datasets import folder as dataset
from zspl.errors import DataError, ZsplError
from zspl.io import atomic
from zspl.io.classes import ClassTable
from zspl.io.images import Pixels, read_image, read_label
from zspl.io.splits import is_safe_id, read_ids, write_ids
from zspl.observer import progress
from zspl.records import IGNORE_INDEX, Split

PHOTOS, MASKS, LISTS = "photos", "masks", "lists"
"""Folders below the project's data."""

LABELED, VAL = "labeled", "val"
_FEWEST_MASKS = 2
_LISTED = 5


@dataclass(kw_only=True)
class Collected:
    """What lies in the folders of photos and masks.

    Attributes:
        photos: File by id, of the photos that can be read.
        masks: File by id, of the masks that can be used.
        sizes: (width, height) by id, in pixels.
        left_out: (file, reason) of what is not used.
        strangers: Masks that belong to no photo.
        ignored: Files that are no images, counted by suffix.
        pixels: Pixels by class id, 255 included, over all masks.
        shown: Masks that show a class, by class id.
    """

    photos: dict[str, Path] = field(default_factory=dict)
    masks: dict[str, Path] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    strangers: tuple[str, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    pixels: Counter[int] = field(default_factory=Counter)
    shown: Counter[int] = field(default_factory=Counter)

    @property
    def long_side(self) -> int:
        """The median of the photos' longer sides, in pixels."""
        return int(np.median([max(size) for size in self.sizes.values()]))

    @property
    def short_side(self) -> int:
        """The median of the photos' shorter sides, in pixels."""
        return int(np.median([min(size) for size in self.sizes.values()]))

    def roots(self, *folders: Path) -> tuple[Path, ...]:
        """Return these folders and those outside of them in which a linked file really lies."""
        roots = {folder.resolve() for folder in folders}
        files = (path.resolve() for path in (*self.photos.values(), *self.masks.values()))
        roots |= {file.parent for file in files if not roots & set(file.parents)}
        return tuple(p for p in sorted(roots) if not roots & set(p.parents))


def collect(
    images: Path, masks: Path, table: ClassTable, *, apart_from: Sequence[Path]
) -> Collected:
    """Decode every photo and mask once; what cannot be used is left out, with the reason.

    Raises:
        DataError: if a folder is missing, or fewer than two masks can be used.
    """
    found = photos.find(images, apart_from=[*apart_from, masks])
    known = mask_files.find(masks, found.photos)
    collected = Collected(
        left_out=list(found.refused), strangers=known.strangers, ignored=found.ignored
    )
    ids = _ids(found, collected)
    for photo, size in _decoded(list(ids)):
        if isinstance(size, str):
            collected.left_out.append((photo.source, size))
            continue
        collected.photos[ids[photo]], collected.sizes[ids[photo]] = photo.path, size
        if photo.name in known.files:
            _take_mask(collected, ids[photo], known.files[photo.name], table)
    if len(collected.masks) < _FEWEST_MASKS:
        reasons = [f"; {printable(file)}: {why}" for file, why in collected.left_out[:1]]
        raise DataError(
            f"{masks}: {len(collected.masks)} of {len(known.files)} masks can be used, expected "
            f"{_FEWEST_MASKS} or more, one to learn from and one to score on{''.join(reasons)}"
        )
    return collected


def _ids(found: Found, collected: Collected) -> dict[Photo, str]:
    """Name each photo without folders."""
    names = {photo: photo.name.replace("/", "__") for photo in found.photos}
    often = Counter(names.values())
    ids = {}
    for photo, name in names.items():
        if often[name] > 1 or not is_safe_id(name):
            reason = "has the name of another photo" if often[name] > 1 else "is no usable name"
            collected.left_out.append((photo.source, f"{reason}; rename it"))
        else:
            ids[photo] = name
    return ids


def _decoded(found: Sequence[Photo]) -> Iterable[tuple[Photo, tuple[int, int] | str]]:
    """Yield each photo with its (width, height), or why it cannot be read."""

    def size_of(photo: Photo) -> tuple[int, int] | str:
        try:
            return read_image(photo.path).size
        except ZsplError as error:
            return reason_of(error, photo)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        sizes = progress(pool.map(size_of, found), what="read photos", total=len(found))
        yield from zip(found, sizes, strict=True)


def _take_mask(collected: Collected, image_id: str, path: Path, table: ClassTable) -> None:
    """Count a mask's pixels, or leave it out."""
    try:
        mask = read_label(path, size=collected.sizes[image_id])
        _check_values(mask, table)
    except DataError as error:
        reason = " ".join(str(error).removeprefix(f"{path}: ").split())
        collected.left_out.append((f"mask {path.name}", reason))
        return
    counts = np.bincount(mask.reshape(-1), minlength=256)
    collected.masks[image_id] = path
    for value in np.flatnonzero(counts).tolist():
        collected.pixels[value] += int(counts[value])
        collected.shown[value] += 1


def _check_values(mask: Pixels, table: ClassTable) -> None:
    values = np.unique(mask)
    unknown = [v for v in values.tolist() if v >= table.num_classes and v != IGNORE_INDEX]
    if unknown:
        more = ", ..." if len(unknown) > _LISTED else ""
        listed = ", ".join(map(str, unknown[:_LISTED])) + more
        raise DataError(
            f"holds the values {listed}, expected 0 to {table.num_classes - 1} or 255; correct the "
            "mask or --classes"
        )


def link(collected: Collected, data: Path) -> None:
    """Link photos and masks below `data`; links of an earlier try stay, nothing is replaced.

    Raises:
        DiskError: if that cannot be written.
        DataError: if something else lies there; nothing is written then.
    """
    wanted = {
        data / name / f"{image_id}{path.suffix}": path.resolve()
        for name, files in ((PHOTOS, collected.photos), (MASKS, collected.masks))
        for image_id, path in files.items()
    }
    for folder in (data / PHOTOS, data / MASKS):
        if folder.is_symlink():
            raise DataError(f"{folder}: is a link, expected a folder; pass another DIR")
        for old in sorted(folder.iterdir()) if folder.is_dir() else ():
            if not (old.is_symlink() and old in wanted and old.resolve() == wanted[old]):
                raise DataError(f"{old}: is no link that zspl init would make; pass another DIR")
    for place, target in wanted.items():
        with atomic.disk_errors(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.is_symlink():
                place.symlink_to(target)


def split(
    data: Path, classes: tuple[str, ...], collected: Collected, *, roots: Sequence[Path]
) -> Split:
    """Draw what is scored on and what teaches, each class in both as far as its masks go.

    Writes both lists, so that photos that come later change neither.

    Raises:
        DataError: if the masks show no class.
    """
    settings = dataset.Settings(
        classes=classes, images=Path(PHOTOS), masks=Path(MASKS), linked_from=tuple(roots)
    )
    number = len(collected.masks)
    teaching = number - max(1, round(settings.val_share * number))
    drawn = dataset.build(settings).split(data, data, f"drawn_{teaching}")
    lists = {VAL: drawn.val, LABELED: sorted(drawn.labeled)}
    for name, ids in lists.items():
        path = data / LISTS / f"{name}.txt"
        if path.exists() and read_ids(path) != tuple(ids):
            raise DataError(f"{path}: is another list; pass another DIR, or move it away")
    for name, ids in lists.items():
        write_ids(data / LISTS / f"{name}.txt", ids)
    return drawn
