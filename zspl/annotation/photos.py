"""Finding the photos of a folder, whatever else lies in it, and giving each a name."""

import os
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from zspl.annotation.results import PREDICTED, STAMP
from zspl.errors import DataError
from zspl.io.images import SUFFIXES

_LONGEST = 255 - len(".json")
"""Bytes of a file name without the results' suffix, on every common file system."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Photo:
    """A file that looks like a photo.

    `name` is where its results lie, `source` its path below the images folder, both with `/`
    between folders.
    """

    name: str
    source: str
    path: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What lies in a folder of photos.

    Attributes:
        photos: Sorted by name.
        refused: (source, reason) of what cannot be read whatever it holds.
        ignored: Files without an image suffix, counted by suffix.
        left_out: Folders that hold results of zspl annotate or predict, which are no photos.
    """

    photos: tuple[Photo, ...]
    refused: tuple[tuple[str, str], ...]
    ignored: Mapping[str, int]
    left_out: tuple[str, ...] = ()


def find(images: Path, *, apart_from: Iterable[Path] = ()) -> Found:
    """Find the photos in a folder and the folders below it.

    Each real folder is visited once, by its own path where it has one below `images`, so that a
    loop of links ends. Hidden files and folders, and results of zspl, are left out.

    Args:
        images: The folder.
        apart_from: Folders that are left out.

    Raises:
        DataError: if there is no such folder, or it may not be read.
    """
    if not images.is_dir():
        raise DataError(f"{images}: no such folder; pass --images with a folder of photos")
    try:
        next(images.iterdir(), None)
    except OSError as error:
        raise DataError(f"{images}: not readable ({error.strerror}); check its rights") from error
    walk = _Walk(images=images)
    walk.seen.update(_identity(path) for path in apart_from if path.is_dir())
    walk.run()
    photos, nameless = _named(walk.files, images)
    return Found(
        photos=tuple(sorted(photos, key=lambda photo: photo.name)),
        refused=tuple(sorted([*walk.refused, *nameless])),
        ignored=dict(sorted(walk.ignored.items())),
        left_out=tuple(sorted(walk.left_out)),
    )


def printable(text: str) -> str:
    r"""Return a file name as one line: what cannot be printed is escaped.

    Example:
        >>> printable("caf\u00e9\n\udce9.jpg")
        'café\\n\\udce9.jpg'
    """
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )


@dataclass(kw_only=True)
class _Walk:
    images: Path
    seen: set[tuple[int, int]] = field(default_factory=set)
    files: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)

    def run(self) -> None:
        """Visit the tree; linked folders come after all others."""
        folders, links = deque([self.images]), deque[Path]()
        while folders or links:
            folder = folders.popleft() if folders else links.popleft()
            try:
                self._visit(folder, folders, links)
            except OSError as error:
                reason = f"folder is not readable ({error.strerror}); check its rights"
                self.refused.append((f"{self._source(folder)}/", reason))

    def _visit(self, folder: Path, folders: deque[Path], links: deque[Path]) -> None:
        identity = _identity(folder)
        if identity in self.seen:
            return
        self.seen.add(identity)
        if folder != self.images and _holds_results(folder):
            self.left_out.append(self._source(folder))
            return
        for path in sorted(folder.iterdir()):
            if path.name.startswith("."):
                continue
            try:
                if path.is_dir():
                    (links if path.is_symlink() else folders).append(path)
                else:
                    self._take(path)
            except OSError as error:
                # One link into a forbidden place must not hide the photos beside it.
                reason = f"cannot be reached ({error.strerror}); mend or delete it"
                self.refused.append((self._source(path), reason))

    def _take(self, path: Path) -> None:
        source, suffix = self._source(path), path.suffix.lower()
        if suffix not in SUFFIXES:
            self.ignored[printable(suffix) or "no suffix"] += 1
        elif path.is_file():
            self.files.append(source)
        elif not path.exists():
            self.refused.append((source, "link leads nowhere; mend or delete it"))
        else:
            self.refused.append((source, "is no ordinary file; delete it"))

    def _source(self, path: Path) -> str:
        return path.relative_to(self.images).as_posix()


def _holds_results(folder: Path) -> bool:
    stamped = (folder / STAMP).is_file() or (folder / PREDICTED).is_file()
    return stamped and (folder / "labels").is_dir()


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _named(sources: Sequence[str], images: Path) -> tuple[list[Photo], list[tuple[str, str]]]:
    """Name each photo by its path without suffix; where two would share a name both keep it."""
    folders = {str(parent) for source in sources for parent in PurePosixPath(source).parents}
    names = {source: str(PurePosixPath(source).with_suffix("")) for source in sources}
    while True:
        shared = Counter(names.values())
        unclear = [
            source
            for source, name in names.items()
            if name != source and (shared[name] > 1 or _blocked(name, folders))
        ]
        if not unclear:
            break
        names.update((source, source) for source in unclear)
    photos, refused = [], []
    for source, name in names.items():
        if len(os.fsencode(PurePosixPath(name).name)) > _LONGEST:
            refused.append((source, "file name is too long for the results; shorten it"))
        elif _blocked(name, folders):
            refused.append((source, "a folder has the name of its results; rename one"))
        else:
            photos.append(Photo(name=name, source=source, path=images / source))
    return photos, refused


def _blocked(name: str, folders: set[str]) -> bool:
    """Return whether a results file of this name lies where a folder of results belongs."""
    return f"{name}.png" in folders or f"{name}.json" in folders
