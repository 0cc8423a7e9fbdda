"""SEPL: the classes of an existing label map, the shapes of SAM's segments.

Chen et al., "Segment Anything Model (SAM) Enhanced Pseudo Labels for Weakly Supervised Semantic
Segmentation", 2023.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Bool, UInt8
from pydantic import Field
from torch import Tensor

from zspl.labeling import LabelInputs
from zspl.labeling._folder import FolderLabels, FolderSettings
from zspl.labeling._scoring import Scored, always
from zspl.records import IGNORE_INDEX

Rule = Literal["max_iou", "max_iou_imp", "max_iou_imp2"]

_SHARE_OF_CLASS = 0.85


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

        Unlike the paper, a pixel that the label map ignores stays ignored where no segment
        claims it.

        Raises:
            DataError: if the label map is missing, of another size, or holds an illegal id.
            ValueError: if `inputs` lack proposals.
        """
        if inputs.proposals is None:
            raise ValueError("sepl needs proposals")
        pseudo, confidence = self.read(inputs.image_id, table=inputs.table, size=inputs.size)
        merged = merge(
            pseudo,
            inputs.proposals.masks,
            rule=self._rule,
            num_classes=inputs.table.num_classes,
        )
        merged[(merged == 0) & (pseudo == IGNORE_INDEX)] = IGNORE_INDEX
        return always(merged, confidence)


def build(settings: Settings) -> Sepl:
    """Return the labeler."""
    return Sepl(settings)


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
    flat = segments.flatten(1)
    area = flat.count_nonzero(dim=1)
    free = torch.ones(len(flat), dtype=torch.bool)
    out = torch.zeros(pseudo.numel(), dtype=torch.uint8)
    for class_id in range(1, num_classes):
        own = (pseudo == class_id).flatten()
        if not bool(own.any()):
            continue
        shared = (flat & own).count_nonzero(dim=1)
        claimed = 2 * shared > area
        if rule == "max_iou_imp2":
            claimed |= shared.double() / own.sum().double() >= _SHARE_OF_CLASS
        claimed &= free
        if rule != "max_iou":
            out[own & ~flat[free].any(dim=0)] = class_id
        out[flat[claimed].any(dim=0)] = class_id
        free &= ~claimed
    return out.view(pseudo.shape)
