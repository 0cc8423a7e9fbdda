"""The embedded data set: rendered scenes whose classes are textures, in VOC layout."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import Field

from zspl.errors import DataError, SettingsError
from zspl.io import atomic
from zspl.io.classes import ClassTable
from zspl.io.images import read_label, write_label
from zspl.io.records import digest
from zspl.observer import progress
from zspl.records import ImageRecord, Sizes, Split
from zspl.seeding import generator
from zspl.settings import Section
from zspl.toyworld.scene import BENCHMARK, render

WORLD_STRIDE = 10_000
"""Scene seeds of world `seed` start at `seed * WORLD_STRIDE`."""

VAL_OFFSET = 5_000
"""Scene seeds of val images start here within a world, whatever the number of train images."""

SMALLEST_SPLIT = 20
"""The first so many ids of the labeled order hold each class in two images or more."""

MIN_PIXELS = 64
"""A class counts as seen in an image from so many pixels on."""

_ATTEMPTS = 1000


class Settings(Section):
    """How many scenes, and of which world."""

    num_train: int = Field(default=320, ge=1, le=VAL_OFFSET, description="Train images.")
    num_val: int = Field(default=150, ge=1, le=VAL_OFFSET, description="Val images.")
    seed: int = Field(
        default=0,
        ge=0,
        lt=9,
        description="World; those from 9 on served to tune the tiny weights and are closed.",
    )


@dataclass(frozen=True)
class Toyworld:
    """Scenes of one world; a split `labeled_<n>` labels the first n ids of a balanced order."""

    settings: Settings

    @property
    def table(self) -> ClassTable:
        """The background and the benchmark's textures; mask values are class ids."""
        names = BENCHMARK.class_names
        return ClassTable.plain(("background", *names), prompts=names)

    def train_ids(self, source: Path) -> tuple[str, ...]:  # noqa: ARG002 - nothing is read
        """Return train_0001, train_0002, ..."""
        return tuple(f"train_{n + 1:04d}" for n in range(self.settings.num_train))

    def prepare(self, source: Path, folder: Path) -> list[ImageRecord]:  # noqa: ARG002
        """Render every scene into `folder`/images/{Images,SegmentationClass} as PNG files."""
        world = self.settings.seed * WORLD_STRIDE
        seeds = {i: world + n for n, i in enumerate(self.train_ids(folder))}
        seeds |= {i: world + VAL_OFFSET + n for n, i in enumerate(self._val_ids())}
        return [
            _render(folder, image_id, seed)
            for image_id, seed in progress(seeds.items(), what="render scenes", total=len(seeds))
        ]

    def split(self, source: Path, folder: Path, name: str) -> Split:
        """Return the split `labeled_<n>`; a smaller one is part of every larger one.

        Raises:
            SettingsError: if the name is another or n exceeds the train images.
        """
        ids, number = self.train_ids(source), self._number(name)
        order = self._labeled_order(folder, ids)
        return Split(
            name=name,
            labeled=order[:number],
            holdout=(),
            unlabeled=tuple(sorted(order[number:])),
            val=self._val_ids(),
        )

    def sizes(self, source: Path, name: str) -> Sizes:  # noqa: ARG002 - nothing is read
        """Return the numbers of images of one split, which the settings tell.

        Raises:
            SettingsError: if the name is another or n exceeds the train images.
        """
        train, labeled = self.settings.num_train, self._number(name)
        return Sizes(
            train=train,
            labeled=labeled,
            unlabeled=train - labeled,
            val=self.settings.num_val,
            pixels=BENCHMARK.size**2,
        )

    def _number(self, name: str) -> int:
        """Return n of the split name `labeled_<n>`."""
        prefix, _, digits = name.rpartition("_")
        number = int(digits) if digits.isascii() and digits.isdecimal() else 0
        limit = self.settings.num_train
        if prefix != "labeled" or not 1 <= number <= limit or name != f"labeled_{number}":
            raise SettingsError(
                f"prepare.splits: toyworld has no split {name!r}; write labeled_<n> with n from 1 "
                f"to {limit}, such as labeled_20"
            )
        return number

    def _val_ids(self) -> tuple[str, ...]:
        return tuple(f"val_{n + 1:04d}" for n in range(self.settings.num_val))

    def _labeled_order(self, folder: Path, ids: tuple[str, ...]) -> tuple[str, ...]:
        """Return the first random order whose head shows each class twice."""
        shown = np.stack([_classes_shown(_paths(folder, image_id)[1]) for image_id in ids])
        head = min(SMALLEST_SPLIT, len(ids))
        wanted = min(2, int(shown.sum(axis=0).min())) if head == SMALLEST_SPLIT else 0
        for attempt in range(_ATTEMPTS):
            order = generator(self.settings.seed, "toyworld splits", attempt).permutation(len(ids))
            if (shown[order[:head]].sum(axis=0) >= wanted).all():
                return tuple(ids[int(k)] for k in order)
        raise DataError(
            f"{folder}: no {head} of the {len(ids)} train images show each class; "
            "raise prepare.dataset.num_train"
        )


def _paths(folder: Path, image_id: str) -> tuple[Path, Path]:
    name = f"{image_id}.png"
    return folder / "images" / "Images" / name, folder / "images" / "SegmentationClass" / name


def _render(folder: Path, image_id: str, seed: int) -> ImageRecord:
    image_path, label_path = _paths(folder, image_id)
    scene = render(seed, spec=BENCHMARK)
    picture = Image.fromarray(scene.image)
    atomic.write(image_path, lambda path: picture.save(path, format="PNG", compress_level=6))
    write_label(label_path, scene.label)
    return ImageRecord(
        image_id=image_id,
        image_path=image_path,
        label_path=label_path,
        digest=digest(image_path, label_path),
    )


def _classes_shown(path: Path) -> np.ndarray:
    classes = len(BENCHMARK.class_names) + 1
    counts = np.bincount(read_label(path).reshape(-1), minlength=classes)
    shown: np.ndarray = counts[:classes] >= MIN_PIXELS
    return shown


def build(settings: Settings) -> Toyworld:
    """Return the data set of these settings."""
    return Toyworld(settings)
