"""Dense features of many images and the text embeddings in one safetensors file.

Tensors: `grid/<image id>` Float16[D h w], `text` Float32[C D]; the metadata hold the class names
and every image's (height, width) in pixels as one JSON text, so that equal content gives equal
bytes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from zspl.errors import DataError
from zspl.io import atomic
from zspl.records import DenseFeatures, TextEmbeddings

_FACTS = "zspl"
_TEXT = "text"
_LARGEST_HALF = 65504.0


def write_features(path: Path, features: Mapping[str, DenseFeatures], text: TextEmbeddings) -> None:
    """Write features by image id and the text embeddings atomically.

    Raises:
        DataError: if a feature is not finite in half precision.
        DiskError: if the file cannot be written.
    """
    tensors = {_TEXT: text.vectors.float().contiguous()}
    for image_id, dense in features.items():
        if not bool((dense.grid.abs() <= _LARGEST_HALF).all()):
            raise DataError(
                f"{path}: features of image {image_id!r} are not finite in half precision; "
                "check the image and the encoder's weights"
            )
        tensors[f"grid/{image_id}"] = dense.grid.half().contiguous()
    facts = {
        "class_names": text.class_names,
        "sizes": {image_id: dense.image_size for image_id, dense in features.items()},
    }
    metadata = {_FACTS: json.dumps(facts, sort_keys=True)}
    atomic.write_bytes(path, save(tensors, metadata=metadata))


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
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}: holds no features ({error}); run the stage embed again"
            ) from error

    def read(self, image_id: str) -> DenseFeatures:
        """Return the features of one image in float32.

        Raises:
            DataError: if the file does not hold the image.
        """
        if image_id not in self.sizes:
            raise DataError(f"{self._path}: has no image {image_id!r}; run the stage embed again")
        grid: torch.Tensor = self._file.get_tensor(f"grid/{image_id}")
        return DenseFeatures(grid=grid.float(), image_size=self.sizes[image_id])
