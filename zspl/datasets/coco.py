"""COCO 2017 with its 80 things and the background, and the labeled lists that papers share.

A data folder holds train2017/ and val2017/ (photos) and one of
  annotations/instances_{train,val}2017.json   instances, painted into label maps by `prepare`
  masks/<id>.png                               ready masks, ids 0..80 and 255 (those of UniMatch)
  stuffthingmaps/{train,val}2017/<id>.png      COCO-Stuff's maps; stuff becomes background
`zspl score` tells how far two kinds of masks agree.

The ids below coco2017/ are those of LiheYoung/UniMatch (MIT), 1/512 to 1/32 of train2017; they
are not nested, and their order is that of the original files.
"""

import hashlib
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from zspl.datasets._coco_instances import Annotations, Rules
from zspl.datasets._files import (
    counted,
    if_there,
    images_in,
    listed,
    official_sizes,
    own_list,
    record,
    without,
)
from zspl.datasets._stratified import draw, drawn_number
from zspl.errors import DataError
from zspl.io.classes import ILLEGAL, MASK_VALUES, ClassTable
from zspl.io.images import write_label
from zspl.io.splits import read_ids
from zspl.observer import progress
from zspl.records import IGNORE_INDEX, ImageRecord, Sizes, Split
from zspl.sections import Name
from zspl.seeding import generator

NAMES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
    "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant",
    "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""Class names; class id k + 1 is the k-th."""

REPAIRED = {
    "tie": "necktie",
    "orange": "orange fruit",
    "tv": "tv monitor",
    "mouse": "computer mouse",
    "remote": "remote control",
    "keyboard": "computer keyboard",
    "microwave": "microwave oven",
    "hair drier": "hair dryer",
}
"""Names that mean something else, or nothing, to a text encoder -> what it is asked for."""

PROMPTS = tuple(REPAIRED.get(name, name) for name in NAMES)
"""What the text encoder is asked for, by class."""

UNUSED = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
"""Category ids from 1 to 90 that COCO left out."""

CLASS_IDS: Mapping[int, int] = {
    category: class_id
    for class_id, category in enumerate((i for i in range(1, 91) if i not in UNUSED), start=1)
}
"""COCO's category id, with its gaps -> class id 1..80, in the same order."""

STUFF_VALUES = 182
"""COCO-Stuff's maps hold category ids minus one: things, then stuff, up to this value less one."""

OFFICIAL = {f"labeled_{number}": str(number) for number in (232, 463, 925, 1849, 3697)}
"""Names of the official lists -> files below coco2017/."""

LAYOUT = "train2017/ and val2017/ (photos), and annotations/ or masks/"

TRAIN, VAL = 118_287, 5_000
"""Photos of the published train and val sets."""

PIXELS = 640 * 480
"""Of a usual photo."""

_LISTS = Path(__file__).parent / "coco2017"


class Settings(Rules):
    """Which masks and parts; how instances are painted.

    A split is official (labeled_232, ... labeled_3697), `drawn_<n>` (n images drawn so that each
    class gets its share), or the stem of a file in splits/ with one id per line.
    """

    masks: Literal["auto", "instances", "ready", "stuff"] = Field(
        default="auto",
        description="instances: painted from the JSON; ready: masks/; stuff: stuffthingmaps/; "
        "auto: ready if there is a folder masks, else instances.",
    )
    train: Name = Field(default="train2017", description="Folder and JSON of the train images.")
    val: Name = Field(default="val2017", description="Folder and JSON of the images to score on.")
    seed: int = Field(default=0, ge=0, description="Of the splits drawn_<n>.")
    restrict_to_present: bool = Field(
        default=False, description="Leave out images of lists that are not there, as in a subset."
    )


@dataclass(frozen=True)
class Coco:
    """A folder in COCO's layout."""

    settings: Settings

    @property
    def table(self) -> ClassTable:
        """The background and COCO's 80 classes."""
        names = ("background", *NAMES)
        if self.settings.masks != "stuff":
            return ClassTable.plain(names, prompts=PROMPTS)
        ids = [CLASS_IDS.get(v + 1, 0) if v < STUFF_VALUES else ILLEGAL for v in range(MASK_VALUES)]
        ids[IGNORE_INDEX] = IGNORE_INDEX
        return ClassTable(names=names, prompts=PROMPTS, source_ids=tuple(ids))

    def train_ids(self, source: Path) -> tuple[str, ...]:
        """Return the ids of the photos of train2017, sorted."""
        return tuple(images_in(source / self.settings.train, layout=LAYOUT))

    def prepare(self, source: Path, folder: Path) -> list[ImageRecord]:
        """Return the records of the train and val images, painting masks below `folder`.

        A mask that was painted before from the same annotations under the same rules stays. Ready
        masks are optional.

        Raises:
            DataError: if the annotations are missing or wrong, or an image is missing.
        """
        return [
            found
            for part in (self.settings.train, self.settings.val)
            for found in self._records(source, folder, part)
        ]

    def split(self, source: Path, folder: Path, name: str) -> Split:  # noqa: ARG002
        """Return the split whose labeled ids are the list `name`, or drawn; the rest is unlabeled.

        Raises:
            SettingsError: if there is no such list.
            DataError: if a list is unreadable or names an image that is missing.
        """
        train = images_in(source / self.settings.train, layout=LAYOUT)
        number = drawn_number(name, limit=len(train))
        if number is not None:
            labeled = self._draw(source, tuple(train), number)
        else:
            ids = (
                read_ids(_LISTS / f"{OFFICIAL[name]}.txt")
                if name in OFFICIAL
                else own_list(source / "splits", name, known=OFFICIAL)
            )
            labeled = self._present(ids, train, name=name, folder=source / self.settings.train)
        return Split(
            name=name,
            labeled=labeled,
            holdout=(),
            unlabeled=without(train, labeled),
            val=tuple(images_in(source / self.settings.val, layout=LAYOUT)),
        )

    def sizes(self, source: Path, name: str) -> Sizes:
        """Return the numbers of images of one split; without photos, the published ones.

        Raises:
            SettingsError: if there is no such list, or its size is not known without photos.
            DataError: if a list is unreadable or names an image that is missing.
        """
        if (source / self.settings.train).is_dir():
            train = len(self.train_ids(source))
            return counted(self.split(source, source, name), train=train, pixels=PIXELS)
        labeled = {split: int(number) for split, number in OFFICIAL.items()}
        return official_sizes(name, labeled, train=TRAIN, val=VAL, pixels=PIXELS)

    def _records(self, source: Path, folder: Path, part: str) -> list[ImageRecord]:
        images = images_in(source / part, layout=LAYOUT)
        masks = self._masks(source, part)
        made = masks is None
        if masks is None:
            masks = self._paint(source, folder / "masks", part, images)
        return [
            record(source, i, path, label_path=if_there(masks / f"{i}.png"), made=made)
            for i, path in progress(images.items(), what=f"read {part}", total=len(images))
        ]

    def _masks(self, source: Path, part: str) -> Path | None:
        """Return the folder of ready masks, None if they have to be painted."""
        folders = {"ready": source / "masks", "stuff": source / "stuffthingmaps" / part}
        kind = self.settings.masks
        if kind == "instances" or (kind == "auto" and not folders["ready"].is_dir()):
            return None
        folder = folders["ready" if kind == "auto" else kind]
        if not folder.is_dir():
            raise DataError(
                f"{folder}: no such folder, but prepare.dataset.masks is {kind}; unpack the masks "
                "there or set it to instances"
            )
        return folder

    def _paint(self, source: Path, folder: Path, part: str, images: Mapping[str, Path]) -> Path:
        """Paint the masks that are missing and return their folder."""
        path = _json(source, part)
        annotations = Annotations(path, classes=CLASS_IDS)
        self._present(annotations.image_ids, images, name=path.name, folder=source / part)
        _check_all_in(images, annotations.image_ids, path)
        rules = Rules(**self.settings.model_dump(include=set(Rules.model_fields)))
        key = hashlib.sha256(path.read_bytes() + rules.model_dump_json().encode()).hexdigest()
        masks = folder / f"{part}-{key[:12]}"
        for other in folder.glob(f"{part}-*"):
            if other != masks:
                shutil.rmtree(other)
        missing = [i for i in images if not (masks / f"{i}.png").exists()]
        for image_id in progress(missing, what=f"paint masks of {part}", total=len(missing)):
            write_label(masks / f"{image_id}.png", annotations.label(image_id, rules))
        return masks

    def _draw(self, source: Path, ids: tuple[str, ...], number: int) -> tuple[str, ...]:
        path = _json(source, self.settings.train)
        annotations = Annotations(path, classes=CLASS_IDS)
        _check_all_in(ids, annotations.image_ids, path)
        shown = np.zeros((len(ids), len(NAMES) + 1), bool)
        for row, image_id in enumerate(ids):
            shown[row, list(annotations.classes_of(image_id))] = True
        rng = generator(self.settings.seed, "coco", "labeled")
        return draw(ids, shown, number=number, rng=rng)

    def _present(
        self, ids: Iterable[str], images: Mapping[str, Path], *, name: str, folder: Path
    ) -> tuple[str, ...]:
        return listed(
            ids,
            images,
            name=name,
            folder=folder,
            restrict_to_present=self.settings.restrict_to_present,
        )


def _json(source: Path, part: str) -> Path:
    return source / "annotations" / f"instances_{part}.json"


def _check_all_in(ids: Iterable[str], known: Iterable[str], path: Path) -> None:
    unknown = sorted(set(ids) - set(known))
    if unknown:
        raise DataError(
            f"{path}: lists no image {unknown[0]!r}, but there is a photo of it ({len(unknown)} "
            "such); remove the photos or take the JSON that belongs to them"
        )


def build(settings: Settings) -> Coco:
    """Return the data set of these settings."""
    return Coco(settings)
