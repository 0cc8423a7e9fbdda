"""The segment table of a pseudo-label variant: one Parquet row per segment.

Columns: image_id and the fields of SegmentRow; bbox, classes, cosines and probabilities are lists.
"""

from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from zspl.errors import DataError
from zspl.io import atomic
from zspl.records import SegmentRow

_FIELDS = tuple(field.name for field in fields(SegmentRow))


def write_segments(path: Path, images: Iterable[tuple[str, Iterable[SegmentRow]]]) -> None:
    """Write (image id, segments) pairs atomically, in the given order.

    Raises:
        DiskError: if the file cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    integers, numbers = pa.list_(pa.int32()), pa.list_(pa.float64())
    types = (
        pa.int32(),
        integers,
        pa.float64(),
        pa.float64(),
        integers,
        numbers,
        numbers,
        pa.int32(),
    )
    schema = pa.schema([("image_id", pa.string()), *zip(_FIELDS, types, strict=True)])
    rows = [{"image_id": image_id, **asdict(row)} for image_id, rows in images for row in rows]
    table = pa.Table.from_pylist(rows, schema=schema)
    buffer = pa.BufferOutputStream()
    parquet.write_table(table, buffer, compression="zstd")
    atomic.write_bytes(path, buffer.getvalue().to_pybytes())


def read_segments(path: Path) -> dict[str, tuple[SegmentRow, ...]]:
    """Read the segments by image id; images without segments are not in it.

    Raises:
        DataError: if the file is missing or is no segment table.
    """
    from pyarrow import ArrowException, parquet

    try:
        rows = parquet.read_table(path).to_pylist()
        found: dict[str, list[SegmentRow]] = {}
        for row in rows:
            found.setdefault(row.pop("image_id"), []).append(segment_row(row))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; run the stage label first") from error
    except (OSError, ArrowException, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: is no segment table ({error}); run the stage label again"
        ) from error
    return {image_id: tuple(segments) for image_id, segments in found.items()}


def segment_row(values: dict[str, Any]) -> SegmentRow:
    """Make a SegmentRow from its fields as lists and numbers.

    Raises:
        TypeError: if a field is missing or unknown.
    """
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return SegmentRow(**plain)
