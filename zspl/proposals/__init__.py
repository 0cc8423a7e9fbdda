"""Class-agnostic segments of an image, one plugin per method."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from PIL import Image

from zspl.records import SegmentProposals


@runtime_checkable
class Proposer(Protocol):
    """What `build` of a proposal plugin returns."""

    def propose(self, image: Image.Image) -> SegmentProposals:
        """Cut an RGB image into segments at its own size, best first."""

    def propose_batch(self, images: Sequence[Image.Image]) -> list[SegmentProposals]:
        """Cut several images, sharing passes of the network where that helps."""
