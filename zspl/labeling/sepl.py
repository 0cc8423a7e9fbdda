"""SEPL: the classes of an existing label map, the shapes of SAM's segments.

Chen et al., "Segment Anything Model (SAM) Enhanced Pseudo Labels for Weakly Supervised Semantic
Segmentation", 2023.
"""

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, UInt8
from pydantic import Field
from torch import Tensor

from zspl.io.classes import MASK_VALUES
from zspl.io.images import Pixels
from zspl.labeling import LabelInputs
from zspl.labeling._folder import FolderLabels, FolderSettings
from zspl.labeling._masks import windows
from zspl.labeling._scoring import Scored, always
from zspl.records import IGNORE_INDEX

Rule = Literal["max_iou", "max_iou_imp", "max_iou_imp2"]

_SHARE_OF_CLASS = 0.85

_Placed = tuple[npt.NDArray[np.bool_], tuple[slice, slice]]


class Settings(FolderSettings):
    """Settings of SEPL."""

    rule: Rule = Field("max_iou_imp2", description="The published variants, simplest first.")


class Sepl(FolderLabels):
    """Refines the label maps of a folder with segment proposals."""

    needs = frozenset({"proposals"})

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._rule = settings.rule

    def score(self, inputs: LabelInputs) -> Scored:
        """Read and refine the label map; no threshold applies to it.

        Raises:
            DataError: if the label map is missing, of another size, or holds an illegal id.
            ValueError: if `inputs` lack proposals.
        """
        if inputs.proposals is None:
            raise ValueError("sepl needs proposals")
        pseudo, confidence = self.read(inputs.image_id, table=inputs.table, size=inputs.size)
        refined = refine(
            pseudo,
            inputs.proposals.masks,
            rule=self._rule,
            num_classes=inputs.table.num_classes,
        )
        return always(refined, confidence)


def build(settings: Settings) -> Sepl:
    """Return the labeler."""
    return Sepl(settings)


def refine(
    pseudo: UInt8[Tensor, "H W"],
    segments: Bool[Tensor, "N H W"],
    *,
    rule: str,
    num_classes: int,
) -> UInt8[Tensor, "H W"]:
    """Merge as the paper does, but keep what the label map ignores.

    Unlike the paper, a pixel that the label map ignores (255) stays ignored where no segment
    claims it. Arguments and errors are those of `merge`.
    """
    merged = merge(pseudo, segments, rule=rule, num_classes=num_classes)
    merged[(merged == 0) & (pseudo == IGNORE_INDEX)] = IGNORE_INDEX
    return merged


def merge(
    pseudo: UInt8[Tensor, "H W"],
    segments: Bool[Tensor, "N H W"],
    *,
    rule: str,
    num_classes: int,
) -> UInt8[Tensor, "H W"]:
    """Give each class of a label map the segments that are mostly its own.

    Classes go in ascending order; a segment claimed by one is gone for the later ones. `max_iou`
    claims segments of which more than half is the class; `max_iou_imp` also keeps the class's
    pixels that no segment still free at its turn covers; `max_iou_imp2` also claims segments that
    hold at least 85 % of the class. The rest is background.

    Args:
        pseudo: Class ids; 0 is background, ids from `num_classes` up are not considered.
        segments: Masks of the same size, in any order.
        rule: The published variant.
        num_classes: Number of classes, background included.

    Raises:
        ValueError: if the rule is unknown or the sizes differ.
    """
    if rule not in get_args(Rule):
        raise ValueError(f"rule must be one of {', '.join(get_args(Rule))}, got {rule!r}")
    if segments.shape[1:] != pseudo.shape:
        raise ValueError(f"segments are {segments.shape[1:]} pixels, pseudo {pseudo.shape}")
    pixels = _Segments(segments.numpy())
    ids = pseudo.numpy()
    shared = pixels.counts(ids)
    area = shared.sum(axis=1)
    size_of = np.bincount(ids.reshape(-1), minlength=MASK_VALUES)
    free = np.ones(len(area), np.bool_)
    # How many segments still free cover each pixel.
    covering = pixels.covering()
    out = np.zeros_like(ids)
    for class_id in range(1, num_classes):
        if not size_of[class_id]:
            continue
        claimed = 2 * shared[:, class_id] > area
        if rule == "max_iou_imp2":
            claimed |= shared[:, class_id] / size_of[class_id] >= _SHARE_OF_CLASS
        claimed &= free
        if rule != "max_iou":
            out[(ids == class_id) & (covering == 0)] = class_id
        for inside, where in pixels.of(claimed):
            out[where][inside] = class_id
            covering[where] -= inside
        free &= ~claimed
    return torch.from_numpy(out)


class _Segments:
    """Masks, each looked at inside its own box only."""

    def __init__(self, masks: npt.NDArray[np.bool_]) -> None:
        boxes = windows(torch.from_numpy(masks))
        where = [(slice(box[0], box[1]), slice(box[2], box[3])) for box in boxes]
        self._size = masks.shape[1:]
        self._inside = [(masks[k][box], box) for k, box in enumerate(where)]

    def of(self, chosen: npt.NDArray[np.bool_]) -> list[_Placed]:
        """Return the chosen masks inside their boxes, and the boxes."""
        return [self._inside[k] for k in np.flatnonzero(chosen)]

    def counts(self, ids: Pixels) -> npt.NDArray[np.int64]:
        """Return Int64[N 256]: how many pixels of each value a mask holds."""
        counted = np.zeros((len(self._inside), MASK_VALUES), np.int64)
        for row, (inside, where) in zip(counted, self._inside, strict=True):
            row[:] = np.bincount(ids[where][inside], minlength=MASK_VALUES)
        return counted

    def covering(self) -> npt.NDArray[np.int32]:
        """Return Int32[H W]: how many masks cover each pixel."""
        number = np.zeros(self._size, np.int32)
        for inside, where in self._inside:
            number[where] += inside
        return number
