"""PASCAL VOC 2012, or any folder in its layout, with the split ids that papers share.

A data folder holds JPEGImages/ (photos), SegmentationClass/ (palette PNG masks, 0..20 and 255)
and, for lists of one's own, ImageSets/Segmentation/<list>.txt with one id per line.

The ids below pascal/ are those of LiheYoung/UniMatch (MIT); the same lists serve UniMatch V2,
AllSpark, SemiVL and ST++. They are not nested, and their order is that of the original files.
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, field_validator

from zspl.datasets._files import counted, if_there, images_in, listed, own_list, record, without
from zspl.errors import suggestion
from zspl.io.classes import ILLEGAL, MASK_VALUES, ClassTable
from zspl.io.splits import read_ids
from zspl.observer import progress
from zspl.records import IGNORE_INDEX, ImageRecord, Sizes, Split
from zspl.settings import Section

PROMPTS = {
    "aeroplane": "airplane",
    "bicycle": "bicycle",
    "bird": "bird",
    "boat": "boat",
    "bottle": "bottle",
    "bus": "bus",
    "car": "car",
    "cat": "cat",
    "chair": "chair",
    "cow": "cow",
    "diningtable": "dining table",
    "dog": "dog",
    "horse": "horse",
    "motorbike": "motorbike",
    "person": "person",
    "pottedplant": "potted plant",
    "sheep": "sheep",
    "sofa": "sofa",
    "train": "train",
    "tvmonitor": "tv monitor",
}
"""Class name -> what the text encoder is asked for; mask value k + 1 is the k-th class."""

OFFICIAL = {
    "labeled_92": "92",
    "labeled_183": "183",
    "labeled_366": "366",
    "labeled_732": "732",
    "labeled_1464": "1464",
    "train": "1464",
    "train_aug": "train_aug",
    "val": "val",
}
"""Names of the official lists -> files below pascal/."""

SUFFIXES = (".jpg", ".jpeg", ".png")
"""Endings of the photos that are read, as a data set in this layout has no others."""

PIXELS = 500 * 375
"""Of a usual photo."""

_LISTS = Path(__file__).parent / "pascal"


class Settings(Section):
    """Which classes and which lists of images.

    A list is an official name (train, train_aug, val, labeled_92, ...) or the stem of a file in
    ImageSets/Segmentation; with the ending .txt it is always that file.
    """

    classes: tuple[str, ...] | None = Field(
        default=None, description="Keep these classes, ignore (255) the others; null keeps all."
    )
    train_list: str = Field(
        default="train_aug", description="Train images; unlabeled are those that are not labeled."
    )
    val_list: str = Field(default="val", description="Images to score on.")
    restrict_to_present: bool = Field(
        default=False, description="Leave out ids of lists that have no image, as in a subset."
    )

    @field_validator("classes")
    @classmethod
    def _known_and_distinct(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in names or ():
            if name not in PROMPTS:
                raise ValueError(f"VOC has no class {name!r}. {suggestion(name, PROMPTS)}")
        if names is not None and not 0 < len(set(names)) == len(names):
            raise ValueError(f"expected different classes, at least one, got {list(names)}")
        return names


@dataclass(frozen=True)
class PascalVoc:
    """A folder in VOC layout."""

    settings: Settings

    @property
    def table(self) -> ClassTable:
        """The background and the kept classes in VOC's order; other classes are ignored."""
        kept = [name for name in PROMPTS if name in (self.settings.classes or PROMPTS)]
        ids = [ILLEGAL] * MASK_VALUES
        ids[0], ids[IGNORE_INDEX] = 0, IGNORE_INDEX
        for value, name in enumerate(PROMPTS, start=1):
            ids[value] = kept.index(name) + 1 if name in kept else IGNORE_INDEX
        return ClassTable(
            names=("background", *kept),
            prompts=tuple(PROMPTS[name] for name in kept),
            source_ids=tuple(ids),
        )

    def train_ids(self, source: Path) -> tuple[str, ...]:
        """Return the ids of `train_list`, in its order.

        Raises:
            DataError: if the list is missing or names an image that is.
        """
        return self._ids(source, self.settings.train_list, _images(source))

    def prepare(self, source: Path, folder: Path) -> list[ImageRecord]:  # noqa: ARG002
        """Return the records of the train and val images; a mask is optional here.

        Raises:
            DataError: if an image is missing or a file lies outside `source`.
        """
        images = _images(source)
        ids = [
            *self._ids(source, self.settings.train_list, images),
            *self._ids(source, self.settings.val_list, images),
        ]
        masks = source / "SegmentationClass"
        return [
            record(
                source,
                image_id,
                images[image_id],
                label_path=if_there(masks / f"{image_id}.png"),
            )
            for image_id in progress(dict.fromkeys(ids), what="read files", total=len(set(ids)))
        ]

    def split(self, source: Path, folder: Path, name: str) -> Split:  # noqa: ARG002
        """Return the split whose labeled ids are the list `name`.

        Raises:
            SettingsError: if there is no such list.
            DataError: if a list is unreadable or names an image that is missing.
        """
        images = _images(source)
        labeled = self._ids(source, name, images)
        train = self._ids(source, self.settings.train_list, images)
        return Split(
            name=name,
            labeled=labeled,
            holdout=(),
            unlabeled=without(train, labeled),
            val=self._ids(source, self.settings.val_list, images),
        )

    def sizes(self, source: Path, name: str) -> Sizes:
        """Return the numbers of images of one split; without photos, those of its lists.

        Raises:
            SettingsError: if there is no such list.
            DataError: if a list is unreadable or names an image that is missing.
        """
        if (source / "JPEGImages").is_dir():
            train = self.train_ids(source)
            return counted(self.split(source, source, name), train=len(train), pixels=PIXELS)
        train, val = (_list(source, n) for n in (self.settings.train_list, self.settings.val_list))
        labeled = _list(source, name)
        return Sizes(
            train=len(train),
            labeled=len(labeled),
            unlabeled=len(without(train, labeled)),
            val=len(val),
            pixels=PIXELS,
            exact=not self.settings.restrict_to_present,
        )

    def _ids(self, source: Path, name: str, images: dict[str, Path]) -> tuple[str, ...]:
        return listed(
            _list(source, name),
            images,
            name=name,
            folder=source / "JPEGImages",
            restrict_to_present=self.settings.restrict_to_present,
        )


def _list(source: Path, name: str) -> tuple[str, ...]:
    if name in OFFICIAL:
        return read_ids(_LISTS / f"{OFFICIAL[name]}.txt")
    return own_list(source / "ImageSets" / "Segmentation", name, known=OFFICIAL)


def _images(source: Path) -> dict[str, Path]:
    """Return image id -> file for what lies in JPEGImages."""
    return images_in(
        source / "JPEGImages", layout="JPEGImages/ and SegmentationClass/", suffixes=SUFFIXES
    )


def build(settings: Settings) -> PascalVoc:
    """Return the data set of these settings."""
    return PascalVoc(settings)
