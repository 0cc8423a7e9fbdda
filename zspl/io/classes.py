"""The classes of a data set, and what each value in its masks means."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zspl.errors import DataError
from zspl.io import atomic
from zspl.io.images import Pixels, read_label
from zspl.records import IGNORE_INDEX, ImageRecord

ILLEGAL = -1
"""In `source_ids`: a mask value that must not occur."""

MASK_VALUES = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassTable:
    """Class names, prompt names and the class id of each mask value.

    Attributes:
        names: Class names by class id; 0 is the background, if the data set has one.
        prompts: What the text encoder is asked for, for classes 1, 2, ...; synonyms of a class
            are separated by `|`. As many prompts as names: there is no background.
        source_ids: For each mask value 0..255 its class id, 255 (ignore) or -1 (illegal).
        background: What else may be seen; a text of these speaks for class 0.
    """

    names: tuple[str, ...]
    prompts: tuple[str, ...]
    source_ids: tuple[int, ...]
    background: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 < len(self.names) <= IGNORE_INDEX:
            raise ValueError(f"expected 2..255 class names, got {len(self.names)}")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"class names must differ, got {', '.join(self.names)}")
        if len(self.prompts) not in (len(self.names) - 1, len(self.names)):
            raise ValueError(
                f"expected {len(self.names) - 1} prompts (all classes but the background), "
                f"got {len(self.prompts)}"
            )
        if self.background and not self.has_background:
            raise ValueError(f"class 0 is {self.names[0]}, it takes no texts of a background")
        if len(self.source_ids) != MASK_VALUES:
            raise ValueError(f"expected {MASK_VALUES} source ids, got {len(self.source_ids)}")
        if not all(self.texts):
            raise ValueError(f"a prompt is empty in {', '.join((*self.prompts, *self.background))}")
        legal = {ILLEGAL, *range(len(self.names)), IGNORE_INDEX}
        if not set(self.source_ids) <= legal:
            raise ValueError(f"source ids must be class ids, 255 or -1, got {self.source_ids}")

    @property
    def num_classes(self) -> int:
        """The number of classes, background included."""
        return len(self.names)

    @property
    def has_background(self) -> bool:
        """Whether class 0 is what no text is asked for.

        Example:
            >>> ids = (*range(2), *[ILLEGAL] * 254)
            >>> ClassTable(names=("road", "car"), prompts=("road", "car"), source_ids=ids).texts
            ('road', 'car')
        """
        return len(self.prompts) < len(self.names)

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything the text encoder is asked for: synonyms by class, then the background's.

        Example:
            >>> table = ClassTable.plain(("background", "cat", "dog"), prompts=("cat", "dog|puppy"))
            >>> table.texts, table.text_classes
            (('cat', 'dog', 'puppy'), (1, 2, 2))
        """
        return tuple(text for _, text in self._asked())

    @property
    def text_classes(self) -> tuple[int, ...]:
        """The class id of each of `texts`; 0 for the background's."""
        return tuple(class_id for class_id, _ in self._asked())

    def _asked(self) -> list[tuple[int, str]]:
        of_classes = [
            (class_id, text.strip())
            for class_id, prompt in enumerate(self.prompts, start=int(self.has_background))
            for text in prompt.split("|")
        ]
        return of_classes + [(0, text) for text in self.background]

    @classmethod
    def plain(
        cls,
        names: tuple[str, ...],
        *,
        prompts: tuple[str, ...],
        background: tuple[str, ...] = (),
    ) -> "ClassTable":
        """Return the table of a data set whose mask values are its class ids and 255."""
        ids = [value if value < len(names) else ILLEGAL for value in range(MASK_VALUES)]
        ids[IGNORE_INDEX] = IGNORE_INDEX
        return cls(names=names, prompts=prompts, source_ids=tuple(ids), background=background)

    @classmethod
    def read(cls, path: Path) -> "ClassTable":
        """Read classes.json.

        Raises:
            DataError: if the file is missing or does not describe classes.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                names=tuple(values["names"]),
                prompts=tuple(values["prompts"]),
                source_ids=tuple(values["source_ids"]),
                background=tuple(values.get("background", ())),
            )
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such file; run the stage prepare first") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: is no class table ({error}); run the stage prepare again"
            ) from error

    def write(self, path: Path) -> None:
        """Write classes.json atomically."""
        values = {"names": self.names, "prompts": self.prompts, "source_ids": self.source_ids}
        if self.background:
            values["background"] = self.background
        atomic.write_text(path, json.dumps(values, sort_keys=True) + "\n")

    def map(self, label: Pixels, *, path: Path) -> Pixels:
        """Return the class id of every mask value.

        Args:
            label: UInt8[H W] mask values.
            path: The file they come from, for the message.

        Raises:
            DataError: if a value is not legal in this data set.
        """
        ids = np.array(self.source_ids, np.int16)
        counts = np.bincount(label.reshape(-1), minlength=MASK_VALUES)
        illegal = np.flatnonzero((counts > 0) & (ids == ILLEGAL))
        if illegal.size:
            raise DataError(
                f"{path}: holds the id {illegal[0]} ({counts[illegal[0]]} pixels), expected "
                f"{self._legal()}; correct the mask or prepare.dataset.classes"
            )
        mapped: Pixels = ids.astype(np.uint8)[label]
        return mapped

    def _legal(self) -> str:
        values = [value for value, id_ in enumerate(self.source_ids) if id_ != ILLEGAL]
        runs: list[list[int]] = []
        for value in values:
            if runs and runs[-1][-1] == value - 1:
                runs[-1].append(value)
            else:
                runs.append([value])
        return ", ".join(f"{r[0]}..{r[-1]}" if len(r) > 1 else str(r[0]) for r in runs)


def load_label(record: ImageRecord, table: ClassTable, size: tuple[int, int]) -> Pixels:
    """Read an image's mask as UInt8[H W] class ids, 255 where ignored.

    Args:
        record: The image.
        table: The classes of its data set.
        size: The (width, height) of the image, in pixels.

    Raises:
        DataError: if there is no mask, or it is unreadable, of another size or has an illegal id.
    """
    if record.label_path is None:
        raise DataError(f"{record.image_path}: has no mask, but one is needed; add it to the masks")
    return table.map(read_label(record.label_path, size=size), path=record.label_path)
