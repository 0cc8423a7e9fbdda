"""The masks of one image with their scores, packed, while duplicates are being dropped."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from zspl.proposals._sam_masks import Outline


@dataclass(frozen=True, kw_only=True, slots=True)
class Segments:
    """Masks of one image with their scores and boxes (XYXY, inclusive pixels)."""

    scores: Float[Tensor, " n"]
    stability: Float[Tensor, " n"]
    boxes: Int64[Tensor, "n 4"]
    outlines: list[Outline]

    @classmethod
    def joined(cls, parts: Sequence["Segments"]) -> "Segments":
        """Put the masks of several parts into one."""
        return cls(
            scores=torch.cat([torch.zeros(0), *(part.scores for part in parts)]),
            stability=torch.cat([torch.zeros(0), *(part.stability for part in parts)]),
            boxes=torch.cat(
                [torch.zeros(0, 4, dtype=torch.int64), *(part.boxes for part in parts)]
            ),
            outlines=[outline for part in parts for outline in part.outlines],
        )

    def taken(self, index: Int64[Tensor, " k"]) -> "Segments":
        """Return some of the masks, in the order of `index`."""
        return Segments(
            scores=self.scores[index],
            stability=self.stability[index],
            boxes=self.boxes[index],
            outlines=[self.outlines[k] for k in index.tolist()],
        )

    def suppressed(self, scores: Float[Tensor, " n"], overlap: float) -> "Segments":
        """Drop boxes that overlap a better one, best first."""
        from torchvision.ops import batched_nms

        kept = batched_nms(self.boxes.float(), scores, torch.zeros(len(scores)), overlap)
        return self.taken(kept)

    def moved(self, *, down: int, right: int) -> "Segments":
        """Return the same masks at another place."""
        return Segments(
            scores=self.scores,
            stability=self.stability,
            boxes=self.boxes + torch.tensor([right, down, right, down]),
            outlines=[outline.moved(down=down, right=right) for outline in self.outlines],
        )
