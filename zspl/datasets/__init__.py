"""What a data set is: classes, images and named splits; one file per data set.

A plugin declares `Settings` and `build(settings)`, which returns a `Dataset`.
"""

from pathlib import Path
from typing import Protocol, runtime_checkable

from zspl.io.classes import ClassTable
from zspl.records import ImageRecord, Sizes, Split


@runtime_checkable
class Dataset(Protocol):
    """A data set, read from a folder or rendered into one."""

    @property
    def table(self) -> ClassTable:
        """The classes and the meaning of mask values."""

    def prepare(self, source: Path, folder: Path) -> list[ImageRecord]:
        """Return the records of all train and val images.

        Args:
            source: What the data set is read from (`paths.source`).
            folder: Where a data set that is made, not read, writes its files.

        Raises:
            DataError: if an image is missing or lies outside `source`.
        """

    def train_ids(self, source: Path) -> tuple[str, ...]:
        """Return the ids of the train images, labeled or not, in the order of their list."""

    def split(self, source: Path, folder: Path, name: str) -> Split:
        """Return one of the data set's splits, without hold-out.

        Raises:
            SettingsError: if the data set has no split of that name.
            DataError: if the split's list cannot be read.
        """

    def sizes(self, source: Path, name: str) -> Sizes:
        """Return the numbers of images of one split, from official lists where there is no data.

        Raises:
            SettingsError: if the data set has no split of that name.
            DataError: if it must look at the data and cannot.
        """
