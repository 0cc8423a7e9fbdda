"""Label maps that may stay silent, compared with masks.

A pseudo label claims a class for a pixel or claims nothing (255). A pixel about which nothing
is claimed cannot be wrong, but its class was not found: it lowers the recall and the IoU of
its true class and nobody's precision.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from zspl.metrics import ConfusionMatrix
from zspl.records import IGNORE_INDEX


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimMetrics:
    """Scores of label maps that may leave pixels out.

    `iou`, `precision`, `recall` per class in [0, 1], NaN where undefined; `miou` and
    `miou_absent_zero` average `iou` as `SegmentationMetrics` does; `miou_claimed` leaves the
    unclaimed pixels out of the question; `pixel_accuracy` is over all pixels with a truth.
    `coverage` and `foreground` are the shares of all pixels that claim a class, and a class
    other than background (0).
    """

    iou: Float[Tensor, " C"]
    precision: Float[Tensor, " C"]
    recall: Float[Tensor, " C"]
    miou: float
    miou_absent_zero: float
    miou_claimed: float
    pixel_accuracy: float
    coverage: float
    foreground: float


class Claims:
    """Collects label maps beside their masks, one image after the other."""

    def __init__(self, num_classes: int) -> None:
        self._claimed = ConfusionMatrix(num_classes)
        self._silent = torch.zeros(num_classes, dtype=torch.int64)
        self._pixels = self._covered = self._foreground = 0

    def update(self, claim: UInt8[Tensor, "H W"], truth: UInt8[Tensor, "H W"]) -> None:
        """Add one image; 255 is silence in `claim` and void in `truth`."""
        silent = claim == IGNORE_INDEX
        missed = truth[silent & (truth != IGNORE_INDEX)].long()
        self._silent += torch.bincount(missed, minlength=len(self._silent))
        self._claimed.update(
            claim.masked_fill(silent, 0).long(),
            truth.masked_fill(silent, IGNORE_INDEX).long(),
        )
        self._pixels += claim.numel()
        self._covered += int((~silent).sum())
        self._foreground += int((~silent & (claim != 0)).sum())

    def compute(self) -> ClaimMetrics:
        """Return the scores over all images added so far."""
        claimed = self._claimed.compute()
        hits, truth, found = _totals(claimed.confusion, self._silent)
        iou = hits / (truth + found - hits)
        pixels = max(self._pixels, 1)
        return ClaimMetrics(
            iou=iou,
            precision=hits / found,
            recall=hits / truth,
            miou=iou.nanmean().item(),
            miou_absent_zero=iou.nan_to_num(0).mean().item(),
            miou_claimed=claimed.miou,
            pixel_accuracy=(hits.sum() / truth.sum()).item(),
            coverage=self._covered / pixels,
            foreground=self._foreground / pixels,
        )


def _totals(
    confusion: Int64[Tensor, "C C"], silent: Int64[Tensor, " C"]
) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Return per class: pixels found rightly, pixels of the truth, pixels claimed."""
    exact = confusion.double()
    return exact.diagonal(), exact.sum(dim=1) + silent, exact.sum(dim=0)
