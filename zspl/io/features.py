"""Dense features of many images and the text embeddings in one safetensors file.

Tensors: `grid/<image id>` Float16[D h w], `text` Float32[P D], and `segments/<image id>`
Float16[N D] from an encoder that looks at segments. The metadata hold the texts and every image's
(height, width) in pixels as one JSON text, so that equal content gives equal bytes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from zspl.errors import DataError
from zspl.io import atomic
from zspl.records import DenseFeatures, TextEmbeddings

_FACTS = "zspl"
_TEXT = "text"
_GRID = "grid/"
_SEGMENTS = "segments/"
_LARGEST_HALF = 65504.0


def write_features(path: Path, features: Mapping[str, DenseFeatures], text: TextEmbeddings) -> None:
    """Write features by image id and the text embeddings atomically.

    Raises:
        DataError: if a feature is not finite in half precision.
        DiskError: if the file cannot be written.
    """
    tensors = {_TEXT: text.vectors.float().contiguous()}
    for image_id, dense in features.items():
        tensors[f"{_GRID}{image_id}"] = _half(dense.grid, path, image_id)
        if dense.segments is not None:
            tensors[f"{_SEGMENTS}{image_id}"] = _half(dense.segments, path, image_id)
    facts = {
        "class_names": text.class_names,
        "sizes": {image_id: dense.image_size for image_id, dense in features.items()},
    }
    metadata = {_FACTS: json.dumps(facts, sort_keys=True)}
    atomic.write_bytes(path, save(tensors, metadata=metadata))


def _half(values: Float[Tensor, "..."], path: Path, image_id: str) -> Float[Tensor, "..."]:
    if not bool((values.abs() <= _LARGEST_HALF).all()):
        raise DataError(
            f"{path}: features of image {image_id!r} are not finite in half precision; "
            "check the image and the encoder's weights"
        )
    return values.half().contiguous()


class FeatureFile:
    """The features of one shard, read image by image.

    Raises:
        DataError: if the file is missing or is no file of `write_features`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.is_file():
            raise DataError(f"{path}: no such file; run the stage embed first")
        try:
            opened: Any = safe_open
            self._file = opened(path, "pt")
            facts = json.loads(self._file.metadata()[_FACTS])
            self.text = TextEmbeddings(
                vectors=self._file.get_tensor(_TEXT), class_names=tuple(facts["class_names"])
            )
            self.sizes: dict[str, tuple[int, int]] = {
                name: (height, width) for name, (height, width) in facts["sizes"].items()
            }
            self._stored = frozenset(self._file.keys())
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}: holds no features ({error}); run the stage embed again"
            ) from error

    def read(self, image_id: str) -> DenseFeatures:
        """Return the features of one image in float32, of its segments too if there are any.

        Raises:
            DataError: if the file does not hold the image.
        """
        if image_id not in self.sizes:
            raise DataError(f"{self._path}: has no image {image_id!r}; run the stage embed again")
        grid: Tensor = self._file.get_tensor(f"{_GRID}{image_id}")
        segments: Tensor | None = None
        if f"{_SEGMENTS}{image_id}" in self._stored:
            segments = self._file.get_tensor(f"{_SEGMENTS}{image_id}").float()
        return DenseFeatures(grid=grid.float(), image_size=self.sizes[image_id], segments=segments)
