"""Cityscapes with its 19 classes, and the labeled lists that papers share.

A data folder holds leftImg8bit/{train,val}/<city>/<id>_leftImg8bit.png (photos, 2048x1024) and
gtFine/{train,val}/<city>/<id>_gtFine_labelIds.png (masks, 34 label ids); an id is
<city>_<sequence>_<frame>. There is no background: what is none of the 19 classes is ignored.
Papers score with windows of 801 pixels at a stride of 534: `evaluate.window` in params.yaml.

The ids below cityscapes_fine/ are those of LiheYoung/UniMatch (MIT): 1/30 to 1/2 of the 2,975.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from zspl.datasets._files import (
    counted,
    if_there,
    listed,
    official_sizes,
    own_list,
    record,
    without,
)
from zspl.datasets._stratified import draw, drawn_number
from zspl.errors import DataError
from zspl.io.classes import ILLEGAL, MASK_VALUES, ClassTable
from zspl.io.splits import read_ids
from zspl.observer import progress
from zspl.records import IGNORE_INDEX, ImageRecord, Sizes, Split
from zspl.seeding import generator
from zspl.settings import Section

PROMPTS = {
    "road": "road",
    "sidewalk": "sidewalk",
    "building": "building",
    "wall": "wall",
    "fence": "fence",
    "pole": "pole",
    "traffic light": "traffic light",
    "traffic sign": "traffic sign",
    "vegetation": "vegetation|tree",
    "terrain": "terrain|grass",
    "sky": "sky",
    "person": "person|pedestrian",
    "rider": "rider|cyclist",
    "car": "car",
    "truck": "truck",
    "bus": "bus",
    "train": "train|tram",
    "motorcycle": "motorcycle",
    "bicycle": "bicycle",
}
"""Class name -> what the text encoder is asked for; class id k is the k-th class, from 0."""

LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The label id of each class in *_labelIds.png; the other ids up to 33 are ignored."""

NUM_LABEL_IDS = 34

OFFICIAL = {f"labeled_{number}": str(number) for number in (100, 186, 372, 744, 1488)}
"""Names of the official lists -> files below cityscapes_fine/."""

IMAGE_ENDING = "_leftImg8bit.png"

MASK_ENDINGS = {"label_ids": "_gtFine_labelIds.png", "train_ids": "_gtFine_labelTrainIds.png"}

TRAIN, VAL = 2_975, 500
"""Photos of the published train and val sets."""

PIXELS = 2048 * 1024
"""Of a usual photo."""

_LISTS = Path(__file__).parent / "cityscapes_fine"


class Settings(Section):
    """Which masks are read.

    A split is official (labeled_100, labeled_186, labeled_372, labeled_744, labeled_1488),
    `drawn_<n>` (n images drawn so that each city gets its share), or the stem of a file in splits/
    with one id per line.
    """

    masks: Literal["label_ids", "train_ids"] = Field(
        default="label_ids",
        description="label_ids: *_labelIds.png as published; train_ids: *_labelTrainIds.png, with "
        "the ids 0..18 and 255, as the field's own tools write them.",
    )
    seed: int = Field(default=0, ge=0, description="Of the splits drawn_<n>.")
    restrict_to_present: bool = Field(
        default=False, description="Leave out ids of lists that have no image, as in a subset."
    )


@dataclass(frozen=True)
class Cityscapes:
    """A folder in Cityscapes' layout."""

    settings: Settings

    @property
    def table(self) -> ClassTable:
        """The 19 classes; class 0 is road."""
        ids = [ILLEGAL] * MASK_VALUES
        ids[IGNORE_INDEX] = IGNORE_INDEX
        values = tuple(range(len(PROMPTS)))
        if self.settings.masks == "label_ids":
            ids[:NUM_LABEL_IDS] = [IGNORE_INDEX] * NUM_LABEL_IDS
            values = LABEL_IDS
        for class_id, value in enumerate(values):
            ids[value] = class_id
        return ClassTable(
            names=tuple(PROMPTS), prompts=tuple(PROMPTS.values()), source_ids=tuple(ids)
        )

    def train_ids(self, source: Path) -> tuple[str, ...]:
        """Return the ids of the photos of train, sorted."""
        return tuple(_images(source, "train"))

    def prepare(self, source: Path, folder: Path) -> list[ImageRecord]:  # noqa: ARG002
        """Return the records of the train and val images; a mask is optional here.

        Raises:
            DataError: if there are no photos, only masks of the other kind, or a link leads out.
        """
        images = {part: _images(source, part) for part in ("train", "val")}
        self._check_kind(source)
        found = [(part, i, path) for part in images for i, path in images[part].items()]
        return [
            record(source, i, path, label_path=if_there(self._mask(source, part, i)))
            for part, i, path in progress(found, what="read files", total=len(found))
        ]

    def split(self, source: Path, folder: Path, name: str) -> Split:  # noqa: ARG002
        """Return the split whose labeled ids are the list `name`, or drawn; the rest is unlabeled.

        Raises:
            SettingsError: if there is no such list.
            DataError: if a list is unreadable or names an image that is missing.
        """
        train = _images(source, "train")
        number = drawn_number(name, limit=len(train))
        if number is not None:
            rng = generator(self.settings.seed, "cityscapes", "labeled")
            labeled = draw(tuple(train), _cities(train), number=number, rng=rng)
        else:
            ids = (
                read_ids(_LISTS / f"{OFFICIAL[name]}.txt")
                if name in OFFICIAL
                else own_list(source / "splits", name, known=OFFICIAL)
            )
            labeled = listed(
                ids,
                train,
                name=name,
                folder=source / "leftImg8bit" / "train",
                restrict_to_present=self.settings.restrict_to_present,
            )
        return Split(
            name=name,
            labeled=labeled,
            holdout=(),
            unlabeled=without(train, labeled),
            val=tuple(_images(source, "val")),
        )

    def sizes(self, source: Path, name: str) -> Sizes:
        """Return the numbers of images of one split; without photos, the published ones.

        Raises:
            SettingsError: if there is no such list, or its size is not known without photos.
            DataError: if a list is unreadable or names an image that is missing.
        """
        if (source / "leftImg8bit" / "train").is_dir():
            train = len(self.train_ids(source))
            return counted(self.split(source, source, name), train=train, pixels=PIXELS)
        labeled = {split: int(number) for split, number in OFFICIAL.items()}
        return official_sizes(name, labeled, train=TRAIN, val=VAL, pixels=PIXELS)

    def _mask(self, source: Path, part: str, image_id: str, *, kind: str | None = None) -> Path:
        name = f"{image_id}{MASK_ENDINGS[kind or self.settings.masks]}"
        return source / "gtFine" / part / _city(image_id) / name

    def _check_kind(self, source: Path) -> None:
        """Check that val has masks of the chosen kind, and not only of the other one."""
        first = next(iter(_images(source, "val")))
        there = [
            kind for kind in MASK_ENDINGS if self._mask(source, "val", first, kind=kind).exists()
        ]
        if there and self.settings.masks not in there:
            raise DataError(
                f"{self._mask(source, 'val', first)}: no such mask, but there is one of the other "
                f"kind; set prepare.dataset.masks: {there[0]}"
            )


def _city(image_id: str) -> str:
    return image_id.partition("_")[0]


def _images(source: Path, part: str) -> dict[str, Path]:
    """Return image id -> file, sorted by id."""
    folder = source / "leftImg8bit" / part
    files = sorted(folder.glob(f"*/*{IMAGE_ENDING}"))
    if not files:
        raise DataError(
            f"{folder}: holds no <city>/*{IMAGE_ENDING}; point paths.source at a folder with "
            "leftImg8bit/ and gtFine/"
        )
    return {path.name.removesuffix(IMAGE_ENDING): path for path in files}


def _cities(ids: Mapping[str, Path]) -> npt.NDArray[np.bool_]:
    """Return Bool[N cities]: which city an image is of."""
    of_images = np.array([_city(image_id) for image_id in ids])
    same: npt.NDArray[np.bool_] = of_images[:, None] == np.unique(of_images)
    return same


def build(settings: Settings) -> Cityscapes:
    """Return the data set of these settings."""
    return Cityscapes(settings)
