"""zspl splits: which lists of images there are, whether they are good, and new ones."""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from zspl.datasets import Dataset, _lists, cityscapes, coco, pascal_voc
from zspl.datasets._files import images_in
from zspl.datasets._lists import Masked
from zspl.errors import SettingsError, ZsplError
from zspl.io.classes import load_label
from zspl.io.images import read_image, read_label
from zspl.io.layout import Layout
from zspl.io.splits import PARTS, is_safe_id, problems, read_ids, read_split
from zspl.observer import progress
from zspl.records import IGNORE_INDEX, ImageRecord
from zspl.settings import Settings

PROBLEM = 1

OFFICIAL = (
    ("pascal_voc", "pascal", pascal_voc.OFFICIAL),
    ("coco", "coco2017", coco.OFFICIAL),
    ("cityscapes", "cityscapes_fine", cityscapes.OFFICIAL),
)


def run(arguments: argparse.Namespace) -> int:
    """List, verify or make, and return the exit code."""
    action = {"list": _list, "verify": _verify, "make": _make}[arguments.action]
    return action(arguments)


def _list(arguments: argparse.Namespace) -> int:
    """Print the official lists, or the splits of a prepared benchmark."""
    if arguments.params is None:
        for dataset, folder, lists in OFFICIAL:
            print(f"{dataset}, official lists of image ids shipped with zspl")
            for name, file in lists.items():
                print(f"  {name:<14} {len(read_ids(_lists.SHIPPED / folder / f'{file}.txt')):>6}")
        return 0
    with _benchmark(arguments.params) as settings:
        layout = Layout(settings.paths.out)
        print(f"{'split':<16}" + "".join(f"{part:>11}" for part in PARTS))
        for name in settings.prepare.splits:
            split = read_split(layout.split(name))
            counts = (len(getattr(split, part)) for part in PARTS)
            print(f"{name:<16}" + "".join(f"{count:>11}" for count in counts))
    return 0


@contextlib.contextmanager
def _benchmark(params: Path) -> Iterator[Settings]:
    """Read a params.yaml and stay in its folder."""
    if not params.is_file():
        raise SettingsError(f"{params}: no such file; pass --params with a params.yaml")
    with contextlib.chdir(params.absolute().parent):
        yield Settings.read(Path(params.name))


def _verify(arguments: argparse.Namespace) -> int:
    """Print a line per problem."""
    if arguments.lists is not None:
        found, what = list(_lists.problems_of_drawn(arguments.lists)), f"lists in {arguments.lists}"
    elif arguments.params is not None:
        with _benchmark(arguments.params) as settings:
            found = list(_problems_of_benchmark(settings))
        what = f"splits of {arguments.params}"
    else:
        found, what = list(_lists.problems_of_shipped()), "official lists shipped with zspl"
    for problem in found:
        print(" ".join(problem.split()))
    print(f"{what}: {f'{len(found)} problem(s)' if found else 'good'}")
    return PROBLEM if found else 0


def _problems_of_benchmark(settings: Settings) -> Iterator[str]:
    """Yield what is wrong with the splits of a benchmark, seen from its data.

    Raises:
        DataError: if the data cannot be read at all.
    """
    yield from _lists.problems_of_shipped()
    with tempfile.TemporaryDirectory(prefix="zspl-splits-") as folder:
        dataset, records = _read(settings, Path(folder))
        for name in settings.prepare.splits:
            try:
                split = dataset.split(settings.paths.source, Path(folder), name)
            except ZsplError as error:
                yield str(error)
                continue
            yield from problems(split, records)
            for part in ("labeled", "val"):
                ids = [i for i in getattr(split, part) if i in records]
                bare = [i for i in ids if records[i].label_path is None]
                if bare:
                    yield (
                        f"split {name}: {part} image {bare[0]!r} has no mask ({len(bare)} of "
                        f"{len(ids)} have none); add the masks or remove the ids"
                    )


def _read(settings: Settings, folder: Path) -> tuple[Dataset, dict[str, ImageRecord]]:
    dataset: Dataset = settings.prepare.dataset.build("zspl.datasets")
    records = dataset.prepare(settings.paths.source, folder)
    return dataset, {record.image_id: record for record in records}


def _make(arguments: argparse.Namespace) -> int:
    """Draw lists and print what they show."""
    sizes = _sizes(arguments.sizes)
    if not is_safe_id(arguments.name):
        raise SettingsError(f"--name {arguments.name!r}: expected a file name without folders")
    if arguments.out is None:
        raise SettingsError("splits make: pass --out, the folder of the lists")
    out = arguments.out.absolute()
    if arguments.params is not None:
        with _benchmark(arguments.params) as settings:
            images = _of_benchmark(settings)
    elif arguments.images is not None and arguments.masks is not None:
        images = _of_folders(arguments.images, arguments.masks)
    else:
        raise SettingsError("splits make: pass --params, or --images and --masks")
    lists, warnings = _lists.draw_lists(
        images, sizes, seed=arguments.seed, name=arguments.name, out=out
    )
    for line in warnings:
        print(f"zspl: {line}", file=sys.stderr)
    for file, facts in lists.items():
        shown = f"{facts['classes_shown']} of {len(images.class_names)} classes"
        print(f"{out / file}: {facts['images']} images, {shown}, sha256 {facts['sha256'][:16]}")
    print(f"{out / _lists.MANIFEST}: seed {arguments.seed}, drawn from {len(images.ids)} images")
    return 0


def _sizes(text: str | None) -> list[int]:
    parts = (text or "").split(",")
    if not all(part.strip().isascii() and part.strip().isdecimal() for part in parts):
        raise SettingsError(f"--sizes {text!r}: expected numbers of images such as 20,80")
    return [int(part) for part in parts]


def _of_benchmark(settings: Settings) -> Masked:
    """Read which classes the train images of a benchmark show."""
    with tempfile.TemporaryDirectory(prefix="zspl-splits-") as folder:
        dataset, records = _read(settings, Path(folder))
        table = dataset.table
        ids = [i for i in dataset.train_ids(settings.paths.source) if records[i].label_path]
        shown = np.zeros((len(ids), table.num_classes), dtype=bool)
        for row, image_id in enumerate(progress(ids, what="read classes", total=len(ids))):
            record = records[image_id]
            label = load_label(record, table, read_image(record.image_path).size)
            counts = np.bincount(label.reshape(-1), minlength=table.num_classes)
            shown[row] = counts[: table.num_classes] > 0
    first = int(table.has_background)
    return Masked(ids=tuple(ids), shown=shown[:, first:], class_names=table.names[first:])


def _of_folders(photos: Path, masks: Path) -> Masked:
    """Read which mask values, but 0 and 255, the photos of a folder show."""
    names = images_in(photos, layout="photos")
    ids = [i for i in names if (masks / f"{i}.png").is_file()]
    if not ids:
        raise SettingsError(
            f"--masks {masks}: no mask <id>.png of the {len(names)} photos is there"
        )
    unsafe = next((i for i in ids if not is_safe_id(i)), None)
    if unsafe is not None:
        raise SettingsError(f"--images {photos}: {unsafe!r} is no usable id; rename the photo")
    shown = np.zeros((len(ids), IGNORE_INDEX + 1), dtype=bool)
    for row, image_id in enumerate(progress(ids, what="read classes", total=len(ids))):
        shown[row, np.unique(read_label(masks / f"{image_id}.png"))] = True
    values = [v for v in range(1, IGNORE_INDEX) if shown[:, v].any()]
    if not values:
        raise SettingsError(f"--masks {masks}: show no class, only 0 and 255")
    return Masked(
        ids=tuple(ids), shown=shown[:, values], class_names=tuple(f"class {v}" for v in values)
    )
