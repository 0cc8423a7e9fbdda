"""The output folder of `zspl annotate`: where everything lies, and reading it back."""

import csv
import json
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from zspl.annotation.facts import Facts
from zspl.errors import DataError
from zspl.io.classes import ClassTable
from zspl.io.images import Pixels, read_image, read_label

STAMP = "annotate.json"
PREDICTED = "predict.json"
"""The same of `zspl predict`."""
CLASSES = "classes.json"
QUARANTINE = "quarantine.csv"


def label_path(out: Path, name: str) -> Path:
    """Where the label map of a photo lies."""
    return out / "labels" / f"{name}.png"


def confidence_path(out: Path, name: str) -> Path:
    """Where the confidences of a photo's label map lie."""
    return out / "confidence" / f"{name}.png"


def facts_path(out: Path, name: str) -> Path:
    """Where the facts of a photo lie."""
    return out / "facts" / f"{name}.json"


class Results:
    """What `zspl annotate` left in its output folder.

    Args:
        out: The output folder.
        images: The folder of photos it was made from.
        only: The names to list; None lists every photo that has facts.
        stamp: The file in it that tells what the labels were made with.
    """

    def __init__(
        self, out: Path, images: Path, *, only: Collection[str] | None = None, stamp: str = STAMP
    ) -> None:
        self.out = out
        self._stamp = stamp
        self.images = images
        self._only = None if only is None else frozenset(only)

    @cached_property
    def table(self) -> ClassTable:
        """The classes of the label maps.

        Raises:
            DataError: if classes.json is missing or damaged.
        """
        return ClassTable.read(self.out / CLASSES)

    def names(self) -> list[str]:
        """Return the names of the labeled photos, sorted."""
        root = self.out / "facts"
        found = (
            path.relative_to(root).as_posix().removesuffix(".json")
            for path in root.rglob("*.json")
            if not path.name.startswith(".")
        )
        return sorted(name for name in found if self._only is None or name in self._only)

    def facts(self, name: str) -> Facts:
        """Return what is known of a photo.

        Raises:
            DataError: if it is not labeled or its facts are damaged.
        """
        return Facts.read(facts_path(self.out, name))

    def label(self, name: str) -> Pixels:
        """Return the label map as UInt8[H W] class ids, 255 where nothing is claimed.

        Raises:
            DataError: if it is missing or unreadable.
        """
        return read_label(label_path(self.out, name))

    def confidence(self, name: str) -> Pixels:
        """Return the confidences as UInt8[H W], 255 = certain.

        Raises:
            DataError: if they are missing or unreadable.
        """
        return read_label(confidence_path(self.out, name))

    def image(self, name: str) -> Image.Image:
        """Return the photo as 8-bit RGB, upright.

        Raises:
            DataError: if it is gone or unreadable.
        """
        return read_image(self.images / self.facts(name).source)

    def quarantined(self) -> list[tuple[str, str]]:
        """Return (source, reason) of each photo that was put aside.

        Raises:
            DataError: if the list is damaged.
        """
        path = self.out / QUARANTINE
        if not path.exists():
            return []
        try:
            with path.open(encoding="utf-8", newline="") as handle:
                return [(row["source"], row["reason"]) for row in csv.DictReader(handle)]
        except (OSError, ValueError, KeyError, csv.Error) as error:
            raise DataError(f"{path}: holds no quarantine list ({error}); delete it") from error

    def made_with(self) -> dict[str, Any]:
        """Return what the stamp says: choices, classes, decision, calibration.

        Raises:
            DataError: if it is missing or damaged.
        """
        path = self.out / self._stamp
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such file; run zspl annotate first") from error
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: is damaged ({error}); pass another --out") from error
        return found
