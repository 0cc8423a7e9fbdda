"""Splits on disk: four lists of image ids in one folder, and the checks they must pass."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from zspl.errors import DataError
from zspl.io import atomic
from zspl.records import Split
from zspl.seeding import generator

PARTS = ("labeled", "holdout", "unlabeled", "val")
"""The lists of a split; each is a file `<part>.txt`."""

_SAFE_ID = re.compile(r"[^/\\\x00-\x1f]+")
_LONGEST = 200
"""Bytes of an id; file systems take names of 255, and endings are added."""


def is_safe_id(image_id: str) -> bool:
    """Return whether an id is a bare file name stem that cannot lead out of a folder.

    Example:
        >>> is_safe_id("2007_000032"), is_safe_id("../secret"), is_safe_id("/etc/passwd")
        (True, False, False)
    """
    return (
        _SAFE_ID.fullmatch(image_id) is not None
        and image_id.isprintable()
        and not image_id.startswith(".")
        and len(image_id.encode()) <= _LONGEST
    )


def read_ids(path: Path) -> tuple[str, ...]:
    """Read a list of image ids, one per line; blank lines do not count.

    Raises:
        DataError: if the file is missing, is no text, or an id leads out of the data folder.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such list of image ids; run the stage prepare") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is no readable list of image ids ({error})") from error
    ids = tuple(line.strip() for line in lines if line.strip())
    for image_id in ids:
        _check_safe(image_id, where=str(path))
    return ids


def _check_safe(image_id: str, *, where: str) -> None:
    if not is_safe_id(image_id):
        raise DataError(_unsafe(image_id, where=where))


def _unsafe(image_id: str, *, where: str) -> str:
    return (
        f"{where}: the id {image_id!r} is no bare file name, it could leave the data folder; "
        "write ids without folders, such as 2007_000032"
    )


def write_ids(path: Path, ids: Iterable[str]) -> None:
    """Write a list of image ids atomically, one per line, in the given order."""
    atomic.write_text(path, "".join(f"{image_id}\n" for image_id in ids))


def read_split(folder: Path) -> Split:
    """Read the split that `write_split` wrote.

    Raises:
        DataError: if a list is missing or unreadable.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such split; add it to prepare.splits and run prepare")
    labeled, holdout, unlabeled, val = (read_ids(folder / f"{part}.txt") for part in PARTS)
    return Split(name=folder.name, labeled=labeled, holdout=holdout, unlabeled=unlabeled, val=val)


def write_split(folder: Path, split: Split) -> None:
    """Write the four lists of a split into `folder`, each atomically."""
    for part in PARTS:
        write_ids(folder / f"{part}.txt", getattr(split, part))


def check(split: Split, known_ids: Collection[str]) -> None:
    """Check that a split can be trained on and scored.

    No id may be unknown, twice in the split or lead out of the data folder; there must be
    labeled and val images. `unlabeled` may be empty: a method that reads it says so itself.

    Args:
        split: The split.
        known_ids: The image ids of the data set; give a set or a mapping.

    Raises:
        DataError: at the first thing that is wrong.
    """
    for problem in problems(split, known_ids):
        raise DataError(problem)


def problems(split: Split, known_ids: Collection[str]) -> Iterator[str]:
    """Yield all that is wrong with a split, one line each; see `check`."""
    where = f"split {split.name}"
    for part in ("labeled", "val"):
        if not getattr(split, part):
            yield f"{where}: no {part} images; check the id list and the data folder"
    seen: dict[str, str] = {}
    for part in PARTS:
        for image_id in getattr(split, part):
            wrong = _wrong(image_id, part, seen, known_ids, where=where)
            if wrong:
                yield wrong
            seen.setdefault(image_id, part)


def _wrong(
    image_id: str, part: str, seen: Mapping[str, str], known_ids: Collection[str], *, where: str
) -> str | None:
    """Return what is wrong with one id of a split, None if nothing is."""
    if not is_safe_id(image_id):
        return _unsafe(image_id, where=f"{where} ({part})")
    if image_id in seen:
        both = f"in {part} twice"
        if seen[image_id] != part:
            both = f"in both {seen[image_id]} and {part}"
        return f"{where}: the id {image_id!r} is {both}; remove one"
    if image_id not in known_ids:
        return (
            f"{where}: {part} names the id {image_id!r}, but the data set has no such "
            "image; remove the id or add the image"
        )
    return None


def hold_out(split: Split, *, share: float, seed: int) -> Split:
    """Move a random share of the labeled ids to the hold-out that selects a model.

    Args:
        split: A split without hold-out.
        share: In [0, 1); at least one id is moved when it is not 0.
        seed: Draws the ids; both lists keep the order of the file.

    Raises:
        DataError: if no labeled image would be left.
    """
    if share == 0:
        return split
    number = max(1, round(share * len(split.labeled)))
    if number >= len(split.labeled):
        raise DataError(
            f"split {split.name}: a hold-out of {share} leaves none of its "
            f"{len(split.labeled)} labeled images to train on; lower prepare.holdout"
        )
    order = generator(seed, "holdout", split.name).permutation(len(split.labeled))
    held = {split.labeled[int(k)] for k in order[:number]}
    return replace(
        split,
        labeled=tuple(i for i in split.labeled if i not in held),
        holdout=tuple(i for i in split.labeled if i in held),
    )
