"""model.json beside a checkpoint: all that is needed to use it without its params.yaml."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zspl.errors import DataError
from zspl.io import atomic
from zspl.io.classes import ClassTable

FILE = "model.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCard:
    """What a checkpoint is of.

    Attributes:
        backbone: Name and settings of the encoder's plugin.
        head: Name and settings of the decoder's plugin.
        method: Name and settings of the training method, which may have changed the network.
        crop_size: Side of the training crops, in pixels.
        window: Side in pixels of the windows it was selected and scored with, or None.
        classes: Class names by class id.
        background: Whether class 0 is the background.
        mean: Taken from red, green and blue in [0, 1].
        std: What the rest is divided by.
        trained: Method, labels, model, split and seed of the cell, for people.
    """

    backbone: Mapping[str, Any]
    head: Mapping[str, Any]
    method: Mapping[str, Any]
    crop_size: int
    window: int | None
    classes: tuple[str, ...]
    background: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    trained: Mapping[str, str | int | None]

    @property
    def table(self) -> ClassTable:
        """The classes, without what they looked like in the masks it was trained on."""
        return ClassTable.plain(self.classes, prompts=self.classes[int(self.background) :])

    @property
    def network(self) -> str:
        """The network in a few words: `resnet101s + deeplabv3plus`."""
        return f"{self.backbone['name']} + {self.head['name']}"

    def write(self, path: Path) -> None:
        """Write the card as JSON, atomically; equal cards give equal bytes.

        Raises:
            DiskError: if it cannot be written.
        """
        atomic.write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "ModelCard":
        """Read what `write` wrote.

        Raises:
            DataError: if the file is missing or holds something else.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            card = cls(**{**values, **{key: tuple(values[key]) for key in _TUPLES}})
            _check(card)
        except FileNotFoundError as error:
            raise DataError(
                f"{path}: no such file, so nothing tells which network the checkpoint is of; train "
                "the cell again, or pass --params with the params.yaml it was trained under"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}: is no model card ({' '.join(str(error).split())}); train the cell again, "
                "or pass --params with the params.yaml it was trained under"
            ) from error
        return card


def _check(card: ModelCard) -> None:
    """Raise KeyError, TypeError or ValueError if a part is not what it should be."""
    names = [part["name"] for part in (card.backbone, card.head, card.method)]
    if not all(isinstance(name, str) for name in names) or not isinstance(card.crop_size, int):
        raise TypeError("backbone, head and method need a name, crop_size a number")
    if not all(isinstance(name, str) for name in card.table.names):
        raise TypeError("classes must be names")


_TUPLES = ("classes", "mean", "std")
