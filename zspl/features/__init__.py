"""Dense image features and text embeddings in one joint space, one plugin per method."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from PIL import Image

from zspl.records import DenseFeatures, TextEmbeddings


@runtime_checkable
class Encoder(Protocol):
    """What `build` of a feature plugin returns."""

    def dense(self, image: Image.Image) -> DenseFeatures:
        """Embed every cell of an RGB image."""

    def text(self, names: Sequence[str]) -> TextEmbeddings:
        """Embed class names, one L2-normalised vector each."""
