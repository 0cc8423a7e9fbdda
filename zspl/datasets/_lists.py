"""Lists of labeled images: those shipped with zspl, and drawing new ones.

A drawn list comes with manifest.json: how it was drawn, how many images of each class it has, and
the checksums of the lists.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zspl.datasets._stratified import draw
from zspl.errors import DataError, SettingsError
from zspl.io import atomic
from zspl.io.splits import read_ids
from zspl.seeding import generator

SHIPPED = Path(__file__).parent
CHECKSUMS = SHIPPED / "checksums.txt"
MANIFEST = "manifest.json"
FEW = 2
"""A class in fewer images of a list is warned of."""


def sha256(path: Path) -> str:
    """Return the sha256 of a file, as 64 hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def checksums() -> dict[str, str]:
    """Return the file below `SHIPPED` -> sha256 of every official list."""
    lines = CHECKSUMS.read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def problems_of_shipped(folder: Path = SHIPPED) -> Iterator[str]:
    """Yield what is wrong with the official lists, one line each."""
    expected = checksums()
    for name, digest in expected.items():
        yield from problems_of_list(folder / name, digest)
    known = {name.partition("/")[0] for name in expected}
    for kind in sorted(known):
        for path in sorted((folder / kind).glob("*.txt")):
            if f"{kind}/{path.name}" not in expected:
                yield f"{path}: is no official list; remove it"


def problems_of_list(path: Path, digest: str) -> Iterator[str]:
    """Yield what is wrong with one list that should have a checksum."""
    try:
        ids = read_ids(path)
    except DataError as error:
        yield str(error)
        return
    if sha256(path) != digest:
        yield f"{path}: sha256 {sha256(path)[:16]}..., expected {digest[:16]}...; restore the list"
    twice = [image_id for image_id, times in Counter(ids).items() if times > 1]
    if twice:
        yield f"{path}: names {twice[0]!r} twice ({len(twice)} such ids); remove one"


def problems_of_drawn(folder: Path) -> Iterator[str]:
    """Yield what is wrong with lists that `draw_lists` wrote.

    Raises:
        DataError: if the folder has no manifest.
    """
    manifest = folder / MANIFEST
    digests = {name: str(facts["sha256"]) for name, facts in _entries(manifest).items()}
    for name, digest in digests.items():
        if Path(name).name != name:
            yield f"{manifest}: {name!r} is no file name; draw the lists again"
        else:
            yield from problems_of_list(folder / name, digest)


def _entries(manifest: Path) -> dict[str, Mapping[str, Any]]:
    try:
        lists = json.loads(manifest.read_text(encoding="utf-8"))["lists"]
        for facts in lists.values():
            str(facts["sha256"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{manifest}: is no manifest of lists ({error!r}); delete it and draw the lists"
        ) from error
    return dict(lists)


@dataclass(frozen=True, kw_only=True, slots=True)
class Masked:
    """The images to draw from: Bool[N C] says which classes each shows; background left out."""

    ids: tuple[str, ...]
    shown: npt.NDArray[np.bool_]
    class_names: tuple[str, ...]


def draw_lists(
    images: Masked, sizes: Sequence[int], *, seed: int, name: str, out: Path
) -> tuple[Mapping[str, Mapping[str, Any]], list[str]]:
    """Draw nested lists in which each class has its share, and write them with a manifest.

    Args:
        images: What to draw from.
        sizes: Numbers of images; the smaller list is a part of the larger one.
        seed: Of the draw.
        name: The lists are `<name>_<size>.txt`.
        out: Their folder; other files in it stay, lists drawn before in its manifest, too.

    Returns:
        What the manifest says of each list, and a line for each class that a list hardly shows.

    Raises:
        SettingsError: if a size is none, or exceeds the images with a mask.
        DataError: if a list of that name has other ids, or the manifest there cannot be read.
    """
    for size in sizes:
        if not 1 <= size <= len(images.ids):
            raise SettingsError(
                f"--sizes: {size} is not from 1 to {len(images.ids)}, the images with a mask"
            )
    rng = generator(seed, "splits make")
    order = draw(images.ids, images.shown, number=max(sizes), rng=rng)
    row = {image_id: n for n, image_id in enumerate(images.ids)}
    lists, texts, warnings = {}, {}, []
    for size in sorted(set(sizes)):
        file, ids = f"{name}_{size}.txt", order[:size]
        counts = images.shown[[row[i] for i in ids]].sum(axis=0)
        per_class = {c: int(n) for c, n in zip(images.class_names, counts, strict=True)}
        texts[file] = "".join(f"{image_id}\n" for image_id in ids)
        lists[file] = {
            "images": size,
            "seed": seed,
            "drawn_from": len(images.ids),
            "sha256": hashlib.sha256(texts[file].encode()).hexdigest(),
            "classes_shown": sum(n > 0 for n in per_class.values()),
            "images_per_class": per_class,
        }
        warnings += [
            f"{file}: {n or 'no'} image(s) of {c!r}; take more images or another seed"
            for c, n in per_class.items()
            if n < FEW
        ]
    _write(out, texts, lists)
    return lists, warnings


def _write(out: Path, texts: Mapping[str, str], lists: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the lists, the manifest last; nothing if one of them would replace another list."""
    manifest = out / MANIFEST
    before = _entries(manifest) if manifest.exists() else {}
    before = {name: facts for name, facts in before.items() if (out / name).is_file()}
    for file, text in texts.items():
        path = out / file
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise DataError(f"{path}: is there with other ids; give another --name or delete it")
    for file, text in texts.items():
        atomic.write_text(out / file, text)
    atomic.write_json(manifest, {"lists": {**before, **lists}})
