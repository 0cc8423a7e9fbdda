"""Label maps that may stay silent, compared with masks.

A pseudo label claims a class for a pixel or claims nothing (255). A pixel about which nothing
is claimed cannot be wrong, but its class was not found: it lowers the recall and the IoU of
its true class and nobody's precision.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from zspl.records import IGNORE_INDEX

_VALUES = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimMetrics:
    """Scores of label maps that may leave pixels out.

    `iou`, `precision`, `recall` per class in [0, 1], NaN where undefined; `miou` and
    `miou_absent_zero` average `iou` as `SegmentationMetrics` does; `miou_claimed` leaves the
    unclaimed pixels out of the question; `pixel_accuracy` is over all pixels with a truth.
    `coverage` and `foreground` are the shares of all pixels that claim a class, and a class
    other than background (0). `confusion[t, c]` counts pixels of true class t that claim c; its
    last column those that claim nothing.
    """

    confusion: Int64[Tensor, "C C+1"]
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
        self._classes = num_classes
        self._pairs = np.zeros((_VALUES, _VALUES), dtype=np.int64)

    def update(self, claim: UInt8[Tensor, "H W"], truth: UInt8[Tensor, "H W"]) -> None:
        """Add one image; 255 is silence in `claim` and void in `truth`.

        Raises:
            ValueError: if a value is neither a class id nor 255.
        """
        codes = truth.numpy().astype(np.uint16) << 8 | claim.numpy()
        pairs = np.bincount(codes.reshape(-1), minlength=_VALUES**2).reshape(_VALUES, _VALUES)
        for name, counts in (("truth", pairs), ("claim", pairs.T)):
            illegal = np.flatnonzero(counts[self._classes : IGNORE_INDEX].any(axis=1))
            if illegal.size:
                raise ValueError(
                    f"{name} holds {illegal[0] + self._classes}, expected class ids "
                    f"0..{self._classes - 1} or {IGNORE_INDEX}"
                )
        self._pairs += pairs

    def compute(self) -> ClaimMetrics:
        """Return the scores over all images added so far."""
        pairs = torch.from_numpy(self._pairs).double()
        judged = pairs[: self._classes]
        confusion, silent = judged[:, : self._classes], judged[:, IGNORE_INDEX]
        hits, found = confusion.diagonal(), confusion.sum(dim=0)
        truth = confusion.sum(dim=1)
        claimed = hits / (truth + found - hits)
        truth = truth + silent
        iou = hits / (truth + found - hits)
        shares = pairs.sum(dim=0) / pairs.sum().clamp_min(1)
        return ClaimMetrics(
            confusion=torch.cat((confusion, silent[:, None]), dim=1).long(),
            iou=iou,
            precision=hits / found,
            recall=hits / truth,
            miou=iou.nanmean().item(),
            miou_absent_zero=iou.nan_to_num(0).mean().item(),
            miou_claimed=claimed.nanmean().item(),
            pixel_accuracy=(hits.sum() / truth.sum()).item(),
            coverage=shares[: self._classes].sum().item(),
            foreground=shares[1 : self._classes].sum().item(),
        )
