"""Decoded images and label maps, read once and kept while memory allows."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from zspl.errors import DataError
from zspl.io.classes import ClassTable, load_label
from zspl.io.images import read_image, read_label
from zspl.records import IGNORE_INDEX, ImageRecord

CACHE_BYTES = 2**30
"""Decoded pixels kept in memory, per process; what does not fit is decoded again."""


class Stock:
    """The images, masks and pseudo labels of a data set, by image id."""

    def __init__(
        self,
        records: Mapping[str, ImageRecord],
        table: ClassTable,
        *,
        pseudo_labels: Path | None,
        capacity: int = CACHE_BYTES,
    ) -> None:
        self._records = records
        self._table = table
        self._pseudo_labels = pseudo_labels
        self._room = capacity
        self._images: dict[str, Image.Image] = {}
        self._maps: dict[tuple[str, str], UInt8[np.ndarray, "H W"]] = {}

    def image(self, image_id: str) -> Image.Image:
        """Return a photo as 8-bit RGB; do not change it.

        Raises:
            DataError: if it is missing or unreadable.
        """
        if image_id in self._images:
            return self._images[image_id]
        image = read_image(self._records[image_id].image_path)
        if self._fits(3 * image.width * image.height):
            self._images[image_id] = image
        return image

    def label(self, image_id: str) -> UInt8[np.ndarray, "H W"]:
        """Return a mask as class ids, 255 where ignored; do not change it.

        Raises:
            DataError: if it is missing, unreadable or does not fit its image.
        """
        return self._map("mask", image_id)

    def pseudo_label(self, image_id: str) -> UInt8[np.ndarray, "H W"]:
        """Return a pseudo label as class ids, 255 where nothing is claimed; do not change it.

        Raises:
            DataError: if it is missing, unreadable or does not fit its image.
        """
        return self._map("pseudo label", image_id)

    def pseudo_label_path(self, image_id: str) -> Path:
        """Return the file of a pseudo label.

        Raises:
            ValueError: if there are no pseudo labels.
        """
        if self._pseudo_labels is None:
            raise ValueError("expected a folder of pseudo labels, got None")
        return self._pseudo_labels / f"{image_id}.png"

    def confidence(self, image_id: str) -> UInt8[np.ndarray, "H W"]:
        """Return how sure a pseudo label is, as 255 times its confidence; do not change it.

        Raises:
            DataError: if it is missing, unreadable or does not fit its image.
        """
        return self._map("confidence", image_id)

    def confidence_path(self, image_id: str) -> Path:
        """Return the file of a pseudo label's confidence.

        Raises:
            ValueError: if there are no pseudo labels.
        """
        return self.pseudo_label_path(image_id).with_name(f"{image_id}.confidence.png")

    def _map(self, kind: str, image_id: str) -> UInt8[np.ndarray, "H W"]:
        key = (kind, image_id)
        if key in self._maps:
            return self._maps[key]
        size = self.image(image_id).size
        if kind == "mask":
            pixels = load_label(self._records[image_id], self._table, size)
        elif kind == "confidence":
            pixels = read_label(self.confidence_path(image_id), size=size)
        else:
            pixels = self._read_pseudo_label(image_id, size)
        if self._fits(pixels.nbytes):
            self._maps[key] = pixels
        return pixels

    def _read_pseudo_label(self, image_id: str, size: tuple[int, int]) -> UInt8[np.ndarray, "H W"]:
        path = self.pseudo_label_path(image_id)
        pixels = read_label(path, size=size)
        highest = self._table.num_classes - 1
        wrong = pixels[(pixels > highest) & (pixels != IGNORE_INDEX)]
        if wrong.size:
            raise DataError(
                f"{path}: holds the class id {wrong[0]}, expected 0..{highest} or 255; "
                "make the pseudo labels again"
            )
        return pixels

    def _fits(self, num_bytes: int) -> bool:
        if num_bytes > self._room:
            return False
        self._room -= num_bytes
        return True
