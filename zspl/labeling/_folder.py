"""Reading label maps that somebody else made."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor

from zspl.errors import DataError
from zspl.io.classes import ClassTable
from zspl.io.images import read_label
from zspl.labeling._decision import Decision, assign
from zspl.labeling._scoring import Scored
from zspl.records import IGNORE_INDEX, PseudoLabel
from zspl.settings import Section


class FolderSettings(Section):
    """Where ready label maps lie."""

    folder: Path = Field(
        description="One PNG per image id with the data set's own mask values (palette or grey), "
        "seen from the folder of params.yaml."
    )
    confidence: Path | None = Field(
        None, description="One 8-bit grey PNG per image id, 255 = certain; null: certain."
    )


class FolderLabels:
    """The part of a labeler that reads ready label maps; no threshold applies to them."""

    threshold: float | Literal["calibrated", "calibrated_per_class"] | None = None
    confidence: Literal["raw", "calibrated"] = "raw"
    unassigned: int = IGNORE_INDEX

    def __init__(self, settings: FolderSettings) -> None:
        self._folder_settings = settings

    def files(self, image_ids: Sequence[str]) -> list[Path]:
        """Return the files of these images.

        Raises:
            DataError: if a folder or a file is missing; names the first and counts the rest.
        """
        chosen = self._folder_settings
        found: list[Path] = []
        for folder in (chosen.folder, chosen.confidence):
            if folder is None:
                continue
            if not folder.is_dir():
                raise DataError(f"{folder}: no such folder of label maps; correct label.variants")
            paths = [folder / f"{image_id}.png" for image_id in image_ids]
            missing = [path for path in paths if not path.is_file()]
            if missing:
                raise DataError(
                    f"{missing[0]}: no such label map ({len(missing)} of {len(paths)} are "
                    "missing); add them"
                )
            found += paths
        return found

    def assign(self, scored: Scored, decision: Decision) -> PseudoLabel:
        """Return the label map as it was scored."""
        return assign(scored, decision, unassigned=self.unassigned)

    def read(
        self, image_id: str, *, table: ClassTable, size: tuple[int, int]
    ) -> tuple[UInt8[Tensor, "H W"], Float[Tensor, "H W"]]:
        """Return the class ids and confidences of one image of `size` (height, width).

        Raises:
            DataError: if a file is missing, of another size, or holds an illegal id.
        """
        width_height = (size[1], size[0])
        path = self._folder_settings.folder / f"{image_id}.png"
        label = table.map(read_label(path, size=width_height), path=path)
        if self._folder_settings.confidence is None:
            confidence = torch.ones(size)
        else:
            values = read_label(
                self._folder_settings.confidence / f"{image_id}.png", size=width_height
            )
            confidence = torch.from_numpy(values).float() / 255
        return torch.from_numpy(label), confidence
