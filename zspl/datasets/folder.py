"""A folder of photos with masks for some of them, as annotation tools and `zspl annotate` write.

By default the folder has the layout of PASCAL VOC: JPEGImages/ (photos), SegmentationClass/
(`<id>.png`, one class id per pixel, palette or grey, 255 where nothing is said) and, if one likes,
ImageSets/Segmentation/<list>.txt with one id per line. An id is a photo's name without ending.

    dataset:
      name: folder
      classes: [crop, "weed=weed|thistle|nettle"]
    splits: [drawn_20]
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator, model_validator

from zspl.datasets._files import counted, if_there, images_in, listed, own_list, record, without
from zspl.datasets._stratified import draw, drawn_number
from zspl.errors import DataError
from zspl.io.classes import ClassTable
from zspl.io.images import read_image, read_label
from zspl.observer import progress
from zspl.records import ImageRecord, Sizes, Split
from zspl.seeding import generator
from zspl.settings import Section

_LOOKED_AT = 20
"""Photos whose sides tell how large one is."""

LAYOUT = "the folder of photos that prepare.dataset.images names"


class Settings(Section):
    """Which classes there are, where files lie and which of them are train and val images."""

    classes: tuple[str, ...] = Field(
        min_length=1,
        description="Names of the mask values 1, 2, ...; 0 is the background. `name=text|synonym` "
        "is what the text encoder is asked for, else the name.",
    )
    background: tuple[str, ...] = Field(
        default=(), description="Texts of what the background shows, such as sky or soil."
    )
    images: Path = Field(default=Path("JPEGImages"), description="Photos, below paths.source.")
    masks: Path = Field(default=Path("SegmentationClass"), description="<id>.png each.")
    lists: Path = Field(default=Path("ImageSets/Segmentation"), description="Id lists.")
    train_list: str | None = Field(
        default=None, description="A list; null takes every photo that is not in val."
    )
    val_list: str | None = Field(
        default=None, description="A list; null draws val_share of the train photos with a mask."
    )
    val_share: float = Field(default=0.2, gt=0, lt=1, description="Of the photos with a mask.")
    seed: int = Field(default=0, ge=0, description="Of val_share and of the splits drawn_<n>.")
    restrict_to_present: bool = Field(
        default=False, description="Leave out ids of lists that have no photo."
    )
    linked_from: tuple[Path, ...] = Field(
        default=(), description="Other folders that links below paths.source may lead to."
    )

    @field_validator("images", "masks", "lists")
    @classmethod
    def _inside(cls, folder: Path) -> Path:
        if folder.is_absolute() or ".." in folder.parts:
            raise ValueError(f"expected a folder below paths.source, got {folder}")
        return folder

    @model_validator(mode="after")
    def _make_a_table(self) -> "Settings":
        _table(self)
        return self


@dataclass(frozen=True)
class Folder:
    """A folder of photos and masks; a split is a list, or `drawn_<n>`."""

    settings: Settings
    _shown: dict[str, npt.NDArray[np.bool_]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def table(self) -> ClassTable:
        """The background and the named classes; mask values are class ids."""
        return _table(self.settings)

    def train_ids(self, source: Path) -> tuple[str, ...]:
        """Return the ids of `train_list`, or of all photos, without those of a drawn val.

        Raises:
            DataError: if a list names a photo that is missing.
        """
        return self._parts(source)[0]

    def prepare(self, source: Path, folder: Path) -> list[ImageRecord]:  # noqa: ARG002
        """Return the records of the train and val photos; a mask is optional here.

        Raises:
            DataError: if a photo is missing or a link leads out of `source` and `linked_from`.
        """
        images = self._images(source)
        train, val = self._parts(source)
        ids = dict.fromkeys((*train, *val))
        return [
            record(
                source,
                image_id,
                images[image_id],
                label_path=self._mask(source, image_id),
                linked_from=self.settings.linked_from,
            )
            for image_id in progress(ids, what="read files", total=len(ids))
        ]

    def split(self, source: Path, folder: Path, name: str) -> Split:  # noqa: ARG002
        """Return the split whose labeled ids are a list, or n photos drawn by `drawn_<n>`.

        Drawn photos have a mask, and each class gets its share of them; a smaller draw is a part
        of every larger one. A list loses the photos of a drawn val.

        Raises:
            SettingsError: if there is no such list, or fewer photos to draw from.
            DataError: if a list is unreadable or names a photo that is missing.
        """
        train, val = self._parts(source)
        masked = self._masked(source, train)
        number = drawn_number(name, limit=len(masked))
        if number is None:
            labeled = self._list(source, name, self._images(source))
            labeled = labeled if self.settings.val_list else without(labeled, val)
        else:
            labeled = self._draw(source, masked, number=number, purpose="labeled")
        return Split(
            name=name, labeled=labeled, holdout=(), unlabeled=without(train, labeled), val=val
        )

    def sizes(self, source: Path, name: str) -> Sizes:
        """Count the images of one split in the folder.

        Raises:
            SettingsError: if there is no such list.
            DataError: if the folder is missing, or a list names a photo that is.
        """
        split, images = self.split(source, source, name), self._images(source)
        sides = [read_image(path).size for path in itertools.islice(images.values(), _LOOKED_AT)]
        pixels = sum(width * height for width, height in sides) // len(sides)
        return counted(split, train=len(self.train_ids(source)), pixels=pixels)

    def _parts(self, source: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the ids to train on and those to score on."""
        images = self._images(source)
        train = tuple(images)
        if self.settings.train_list is not None:
            train = self._list(source, self.settings.train_list, images)
        if self.settings.val_list is not None:
            val = self._list(source, self.settings.val_list, images)
            return (train if self.settings.train_list else without(train, val)), val
        val = self._drawn_val(source, train)
        return without(train, val), val

    def _images(self, source: Path) -> dict[str, Path]:
        return images_in(source / self.settings.images, layout=LAYOUT)

    def _list(self, source: Path, name: str, images: Mapping[str, Path]) -> tuple[str, ...]:
        ids = own_list(source / self.settings.lists, name, known=("drawn_20",))
        return listed(
            ids,
            images,
            name=name,
            folder=source / self.settings.images,
            restrict_to_present=self.settings.restrict_to_present,
        )

    def _mask(self, source: Path, image_id: str) -> Path | None:
        return if_there(source / self.settings.masks / f"{image_id}.png")

    def _masked(self, source: Path, ids: Iterable[str]) -> tuple[str, ...]:
        return tuple(i for i in ids if self._mask(source, i) is not None)

    def _drawn_val(self, source: Path, ids: tuple[str, ...]) -> tuple[str, ...]:
        masked = self._masked(source, ids)
        number = max(1, round(self.settings.val_share * len(masked)))
        if number >= len(masked):
            raise DataError(
                f"{source / self.settings.masks}: {len(masked)} of the {len(ids)} photos have a "
                "mask, too few to train and to score on; add masks, or list what to score on in "
                "prepare.dataset.val_list"
            )
        return tuple(sorted(self._draw(source, masked, number=number, purpose="val")))

    def _draw(
        self, source: Path, ids: tuple[str, ...], *, number: int, purpose: str
    ) -> tuple[str, ...]:
        new = [image_id for image_id in ids if image_id not in self._shown]
        for image_id in progress(new, what="read classes", total=len(new)) if new else ():
            self._shown[image_id] = self._classes_in(source, image_id)
        rng = generator(self.settings.seed, "folder", purpose)
        shown = np.stack([self._shown[image_id] for image_id in ids])
        if not shown.any():
            raise DataError(
                f"{source / self.settings.masks}: the {len(ids)} masks show no class, only 0 "
                f"(background) and 255 (ignored); expected class ids 1..{shown.shape[1]}, such as "
                "1 instead of 255 for the object of a black and white mask"
            )
        return draw(ids, shown, number=number, rng=rng)

    def _classes_in(self, source: Path, image_id: str) -> npt.NDArray[np.bool_]:
        """Return Bool[classes], background left out."""
        path = source / self.settings.masks / f"{image_id}.png"
        label = self.table.map(read_label(path), path=path)
        counts = np.bincount(label.reshape(-1), minlength=self.table.num_classes)
        shown: npt.NDArray[np.bool_] = counts[1 : self.table.num_classes] > 0
        return shown


def _table(settings: Settings) -> ClassTable:
    named = [_class(entry) for entry in settings.classes]
    return ClassTable.plain(
        ("background", *(name for name, _ in named)),
        prompts=tuple(prompt for _, prompt in named),
        background=settings.background,
    )


def _class(entry: str) -> tuple[str, str]:
    """Split `name=text|synonym`; without `=` the name is asked for."""
    name, equals, prompt = (part.strip() for part in entry.partition("="))
    if not name or (equals and not prompt):
        raise ValueError(f"{entry!r} is no class; write name or name=text|synonym")
    if name == "background":
        raise ValueError("background is class 0 already; leave it out of classes")
    return name, prompt or name


def build(settings: Settings) -> Folder:
    """Return the data set of these settings."""
    return Folder(settings)
