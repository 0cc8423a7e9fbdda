"""records.jsonl: the images of a data set, one per line, sorted by id."""

import hashlib
import itertools
import json
from collections.abc import Iterable
from pathlib import Path

from zspl.errors import DataError
from zspl.io import atomic
from zspl.io.splits import is_safe_id
from zspl.records import ImageRecord


def digest(image_path: Path, label_path: Path | None) -> str:
    """Return the sha256 of the image's bytes followed by its mask's, as 64 hex digits.

    Raises:
        DataError: if a file cannot be read.
    """
    whole = hashlib.sha256()
    for path in (image_path, label_path):
        if path is not None:
            try:
                whole.update(path.read_bytes())
            except OSError as error:
                raise DataError(
                    f"{path}: cannot be read ({error.strerror}); check the data folder"
                ) from error
    return whole.hexdigest()


def write_records(path: Path, records: Iterable[ImageRecord]) -> None:
    """Write records.jsonl atomically, sorted by id.

    Raises:
        DataError: if two records have the same id.
    """
    in_order = sorted(records, key=lambda record: record.image_id)
    for first, second in itertools.pairwise(in_order):
        if first.image_id == second.image_id:
            raise DataError(
                f"{first.image_path} and {second.image_path} have the same id "
                f"{first.image_id!r}; rename one of them"
            )
    atomic.write_text(path, "".join(_line(record) + "\n" for record in in_order))


def _line(record: ImageRecord) -> str:
    label = None if record.label_path is None else record.label_path.as_posix()
    values = {
        "image_id": record.image_id,
        "image": record.image_path.as_posix(),
        "label": label,
        "digest": record.digest,
    }
    return json.dumps(values, ensure_ascii=False)


def read_records(path: Path) -> dict[str, ImageRecord]:
    """Read records.jsonl as image id -> ImageRecord, in the order of the file.

    Raises:
        DataError: if the file is missing or a line is no record.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; run the stage prepare first") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); run the stage prepare again") from error
    records = [_record(line, where=f"{path}:{n}") for n, line in enumerate(lines, start=1)]
    return {record.image_id: record for record in records}


def check_files(records: Iterable[ImageRecord], *, masks: bool) -> None:
    """Check that every image, and with `masks` its mask, is a file.

    Raises:
        DataError: naming the first file that is not there.
    """
    for record in records:
        if not record.image_path.is_file():
            raise DataError(f"{record.image_path}: no such image; check the data folder")
        if masks and record.label_path is None:
            raise DataError(f"{record.image_path}: image has no mask; add it and prepare again")
        if masks and record.label_path is not None and not record.label_path.is_file():
            raise DataError(f"{record.label_path}: no such mask; check the data folder")


def _record(line: str, *, where: str) -> ImageRecord:
    try:
        values = json.loads(line)
        record = ImageRecord(
            image_id=values["image_id"],
            image_path=Path(values["image"]),
            label_path=None if values["label"] is None else Path(values["label"]),
            digest=values["digest"],
        )
        usable = is_safe_id(record.image_id) and "\0" not in f"{values['image']}{values['label']}"
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{where}: is no image record ({error!r}); run the stage prepare again"
        ) from error
    if not usable:
        raise DataError(
            f"{where}: the id {record.image_id!r} or a path of it is no plain name, it could leave "
            "the artifacts folder; run the stage prepare again"
        )
    return record
