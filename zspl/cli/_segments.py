"""Where the segments of a label map come from: its photo, or a folder of ready masks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zspl.errors import DataError
from zspl.io.images import Pixels, read_image, read_label
from zspl.proposals import Proposer

Masks = npt.NDArray[np.bool_]

Segments = Callable[[str, Pixels], Masks]
"""Gives the Bool[N H W] masks of a label map from its name and UInt8[H W] ids, or a DataError."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CutPhotos:
    """Cuts the photo of each label map into segments."""

    folder: Path
    photos: Mapping[str, Path]
    proposer: Proposer

    def __call__(self, name: str, label: Pixels) -> Masks:
        """Return the proposals of the photo `name`."""
        if name not in self.photos:
            raise DataError(f"{self.folder / name}.*: no such photo for the label map {name}.png")
        path = self.photos[name]
        image = read_image(path)
        if (image.height, image.width) != label.shape:
            raise DataError(
                f"{path}: photo is {image.width}x{image.height}, its label map "
                f"{label.shape[1]}x{label.shape[0]} pixels; they must be equal"
            )
        masks: Masks = self.proposer.propose(image).masks.numpy()
        return masks


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadMasks:
    """Reads the segments of each label map from a folder of binary PNGs."""

    folder: Path

    def __call__(self, name: str, label: Pixels) -> Masks:
        """Return the masks in `folder`/`name`."""
        paths = sorted((self.folder / name).glob("*.png"))
        if not paths:
            raise DataError(f"{self.folder / name}: no .png in it for the label map {name}.png")
        size = (label.shape[1], label.shape[0])
        return np.stack([_binary(read_label(path, size=size), path) for path in paths])


def _binary(mask: Pixels, path: Path) -> Masks:
    inside: Masks = mask > 0
    if not (mask[inside] == mask.max()).all():
        raise DataError(
            f"{path}: holds more than two values, expected a binary mask (0 and 255); write one "
            "segment per file"
        )
    return inside
