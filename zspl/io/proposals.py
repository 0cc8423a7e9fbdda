"""Segment proposals of many images in one Parquet file, masks as COCO run lengths.

One row per segment: image_id, counts (compressed RLE), height, width, predicted_iou,
stability_score. The file's metadata lists every image with its size, segments or not.
"""

import json
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zspl.errors import DataError
from zspl.io import atomic
from zspl.records import SegmentProposals

_IMAGES = b"zspl.images"
_COLUMNS = ("image_id", "counts", "height", "width", "predicted_iou", "stability_score")


def write_proposals(path: Path, proposals: Iterable[tuple[str, SegmentProposals]]) -> None:
    """Write (image id, proposals) pairs atomically, in the given order.

    Raises:
        DiskError: if the file cannot be written.
    """
    from pycocotools import mask as coco

    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    sizes: dict[str, tuple[int, int]] = {}
    for image_id, segments in proposals:
        number, height, width = segments.masks.shape
        sizes[image_id] = (height, width)
        fortran = np.asfortranarray(segments.masks.permute(1, 2, 0).numpy().astype(np.uint8))
        columns["counts"] += [run["counts"] for run in coco.encode(fortran)] if number else []
        columns["image_id"] += [image_id] * number
        columns["height"] += [height] * number
        columns["width"] += [width] * number
        columns["predicted_iou"] += segments.predicted_iou.tolist()
        columns["stability_score"] += segments.stability_score.tolist()
    _write(path, columns, sizes)


def _write(path: Path, columns: dict[str, list[Any]], sizes: dict[str, tuple[int, int]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    types = (pa.string(), pa.binary(), pa.int32(), pa.int32(), pa.float32(), pa.float32())
    schema = pa.schema(
        list(zip(_COLUMNS, types, strict=True)), metadata={_IMAGES: json.dumps(sizes).encode()}
    )
    table = pa.table(columns, schema=schema)
    buffer = pa.BufferOutputStream()
    parquet.write_table(table, buffer, compression="zstd")
    atomic.write_bytes(path, buffer.getvalue().to_pybytes())


class ProposalFile:
    """The proposals of one shard, decoded image by image.

    Raises:
        DataError: if the file is missing or is no file of `write_proposals`.
    """

    def __init__(self, path: Path) -> None:
        from pyarrow import ArrowException, parquet

        self._path = path
        try:
            table = parquet.read_table(path, columns=list(_COLUMNS))
            self.sizes: dict[str, tuple[int, int]] = {
                name: (height, width)
                for name, (height, width) in json.loads(table.schema.metadata[_IMAGES]).items()
            }
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such file; run the stage propose first") from error
        except (OSError, ArrowException, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}: holds no segment proposals ({_first_line(error)}); "
                "run the stage propose again"
            ) from error
        self._table = table
        self._rows = dict(_runs(table.column("image_id").to_pylist()))

    def read(self, image_id: str) -> SegmentProposals:
        """Decode the proposals of one image.

        Raises:
            DataError: if the file does not hold the image, or a mask is damaged.
        """
        if image_id not in self.sizes:
            raise DataError(f"{self._path}: has no image {image_id!r}; run the stage propose again")
        rows = self._table.slice(*self._rows.get(image_id, (0, 0)))
        return SegmentProposals(
            masks=self._decode(rows.column("counts").to_pylist(), self.sizes[image_id]),
            predicted_iou=torch.tensor(rows.column("predicted_iou").to_pylist()),
            stability_score=torch.tensor(rows.column("stability_score").to_pylist()),
        )

    def _decode(self, counts: list[bytes], size: tuple[int, int]) -> torch.Tensor:
        from pycocotools import mask as coco

        if not counts:
            return torch.zeros(0, *size, dtype=torch.bool)
        runs = [{"counts": run, "size": list(size)} for run in counts]
        try:
            with warnings.catch_warnings():
                # pycocotools 2.0 has no `copy` argument of numpy 2's array protocol.
                warnings.simplefilter("ignore", DeprecationWarning)
                pixels = coco.decode(runs)
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{self._path}: a mask is damaged ({error}); run the stage propose again"
            ) from error
        return torch.from_numpy(pixels).permute(2, 0, 1).bool().contiguous()


def _runs(image_ids: list[str]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield (image id, (first row, number of rows)); an image's rows lie together."""
    start = 0
    for row in range(1, len(image_ids) + 1):
        if row == len(image_ids) or image_ids[row] != image_ids[start]:
            yield image_ids[start], (start, row - start)
            start = row


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
