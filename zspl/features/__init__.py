"""Dense image features and text embeddings in one joint space, one plugin per method."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from PIL import Image

from zspl.records import DenseFeatures, SegmentProposals, TextEmbeddings


@runtime_checkable
class Encoder(Protocol):
    """What `build` of a feature plugin returns."""

    @property
    def sees_segments(self) -> bool:
        """Whether `dense` needs the image's proposals."""

    def dense(self, image: Image.Image, proposals: SegmentProposals | None = None) -> DenseFeatures:
        """Embed every cell of an RGB image.

        Raises:
            ValueError: if it sees segments and gets no proposals.
        """

    def dense_batch(
        self,
        images: Sequence[Image.Image],
        proposals: Sequence[SegmentProposals] | None = None,
    ) -> list[DenseFeatures]:
        """Embed several images in one pass of the network."""

    def text(self, names: Sequence[str]) -> TextEmbeddings:
        """Embed class names, one L2-normalised vector each."""
