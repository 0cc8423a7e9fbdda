"""Photos, id lists and records of data sets that are read from a folder."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from zspl.datasets._stratified import drawn_number
from zspl.errors import DataError, SettingsError, suggestion
from zspl.io.images import SUFFIXES
from zspl.io.records import digest
from zspl.io.splits import is_safe_id, read_ids
from zspl.records import ImageRecord, Sizes, Split


def images_in(
    folder: Path, *, layout: str, suffixes: Collection[str] = SUFFIXES
) -> dict[str, Path]:
    """Return image id -> file for the photos of one folder, sorted; deeper ones do not count.

    Args:
        folder: The folder.
        layout: What the data folder should hold, for the message.
        suffixes: Endings of the photos, in lower case.

    Raises:
        DataError: if the folder is missing or holds no photo, or two photos have the same id.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; point paths.source at a folder with {layout}")
    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes:
            if path.stem in images:
                raise DataError(f"{path}: {images[path.stem].name} has the same id; rename one")
            images[path.stem] = path
    if not images:
        raise DataError(f"{folder}: holds no photo; expected files such as name.jpg")
    return images


def listed(
    ids: Iterable[str],
    images: Mapping[str, Path],
    *,
    name: str,
    folder: Path,
    restrict_to_present: bool,
) -> tuple[str, ...]:
    """Return the ids of a list that have an image.

    Args:
        ids: The ids of the list.
        images: Image id -> file.
        name: The list's name, for the message.
        folder: Where the images lie, for the message.
        restrict_to_present: Leave out ids without an image instead of complaining.

    Raises:
        DataError: if an id has no image and none may be left out.
    """
    found = tuple(ids)
    missing = [image_id for image_id in found if image_id not in images]
    if missing and not restrict_to_present:
        raise DataError(
            f"{folder}: no image of the id {missing[0]!r}, which the list {name} names "
            f"({len(missing)} of its {len(found)} are missing); add the images, or set "
            "prepare.dataset.restrict_to_present: true for a part of the data set"
        )
    return tuple(image_id for image_id in found if image_id in images)


def own_list(folder: Path, name: str, *, known: Iterable[str] = ()) -> tuple[str, ...]:
    """Read an id list of the user's, `folder`/`name`.txt; the ending may be given.

    Args:
        folder: Where lists lie.
        name: The list's name.
        known: Names that exist besides files, for the message.

    Raises:
        SettingsError: if there is no such list.
        DataError: if it cannot be read, or is a link that leads out of `folder`.
    """
    if not is_safe_id(name):
        raise SettingsError(
            f"prepare.dataset: {name!r} is no name of an id list; write it without folders"
        )
    path = folder / f"{name.removesuffix('.txt')}.txt"
    if not path.is_file():
        here = {file.stem for file in folder.glob("*.txt")} | set(known)
        hint = suggestion(name, here) if here else "There is none."
        raise SettingsError(f"prepare.dataset: no id list {name!r}: {path} does not exist. {hint}")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{path}: is a link out of {folder}; copy the list there")
    return read_ids(path)


def without(ids: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
    """Return the ids that are not in `others`, in their order."""
    left_out = set(others)
    return tuple(image_id for image_id in ids if image_id not in left_out)


def if_there(path: Path) -> Path | None:
    """Return a mask's path, None if there is no such file; a broken link counts as a file."""
    return path if path.exists() or path.is_symlink() else None


def record(
    source: Path,
    image_id: str,
    image_path: Path,
    *,
    label_path: Path | None,
    made: bool = False,
    linked_from: Iterable[Path] = (),
) -> ImageRecord:
    """Return the record of one image and its mask, if it has one.

    Args:
        source: The data folder.
        image_id: The image's id.
        image_path: The photo, inside `source`.
        label_path: The mask, if any.
        made: The mask was made by the data set itself and lies elsewhere.
        linked_from: Other folders that links may lead to.

    Raises:
        DataError: if a file cannot be read, or is a link that leads out of these folders.
    """
    roots = [folder.resolve() for folder in (source, *linked_from)]
    for path in (image_path, None if made else label_path):
        if path is not None and not any(path.resolve().is_relative_to(root) for root in roots):
            raise DataError(
                f"{path}: is a link to {path.resolve()}, outside {source}; copy the file, or "
                "point paths.source at the folder that holds it"
            )
    return ImageRecord(
        image_id=image_id,
        image_path=image_path,
        label_path=label_path,
        digest=digest(image_path, label_path),
    )


def counted(split: Split, *, train: int, pixels: int) -> Sizes:
    """Return the numbers of images of a split that has been read."""
    return Sizes(
        train=train,
        labeled=len(split.labeled),
        unlabeled=len(split.unlabeled),
        val=len(split.val),
        pixels=pixels,
    )


def official_sizes(
    name: str, official: Mapping[str, int], *, train: int, val: int, pixels: int
) -> Sizes:
    """Return the numbers of images of a split of a data set that is not here.

    Args:
        name: A key of `official`, or `drawn_<n>`.
        official: How many images each official split labels.
        train: Train images of the data set.
        val: Val images.
        pixels: Of a usual image.

    Raises:
        SettingsError: if the split is a list of the user's own, which only the data tells.
    """
    labeled = official.get(name) or drawn_number(name, limit=train)
    if labeled is None:
        raise SettingsError(
            f"prepare.splits: {name!r} is no official list, so its size is known only where the "
            f"data is; mount paths.source. {suggestion(name, official)}"
        )
    return Sizes(train=train, labeled=labeled, unlabeled=train - labeled, val=val, pixels=pixels)
