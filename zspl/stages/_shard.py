"""What the sharded stages share: the images of a shard, and per-image results that survive."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zspl.errors import DataError, SettingsError
from zspl.io.layout import Layout
from zspl.io.records import read_records
from zspl.io.splits import read_ids
from zspl.records import ImageRecord
from zspl.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """The images of one shard, in the order of its list."""

    records: tuple[ImageRecord, ...]

    @property
    def identity(self) -> dict[str, str]:
        """Image ids and digests, for a fingerprint."""
        return {record.image_id: record.digest for record in self.records}


def read_shard(layout: Layout, index: int) -> Shard:
    """Read the images of one shard and check that their files are there.

    Raises:
        DataError: if the list, a record or an image file is missing, or an id occurs twice.
    """
    path = layout.shard(index)
    records = pick(read_records(layout.records), read_ids(path), where=path)
    if len({record.image_id for record in records}) != len(records):
        raise DataError(f"{path}: names an image twice; run the stage prepare again")
    for record in records:
        if not record.image_path.is_file():
            raise DataError(
                f"{record.image_path}: no such image ({path} names {record.image_id!r}); "
                "restore it or run the stage prepare again"
            )
    return Shard(records=records)


def pick(
    records: Mapping[str, ImageRecord], ids: Sequence[str], *, where: Path
) -> tuple[ImageRecord, ...]:
    """Return the records of `ids`.

    Raises:
        DataError: if an id has no record.
    """
    for image_id in ids:
        if image_id not in records:
            raise DataError(
                f"{where}: no image {image_id!r} in the data set; run the stage prepare again"
            )
    return tuple(records[image_id] for image_id in ids)


def section(values: Mapping[str, dict[str, Any]], name: str, *, of: str) -> dict[str, Any]:
    """Return the section of params.yaml that configures one plugin of a stage.

    Raises:
        SettingsError: if there is none.
    """
    if name not in values:
        known = ", ".join(sorted(values)) or "none"
        raise SettingsError(f"params.yaml has no {of}.{name}; there are: {known}")
    return values[name]


def check_shard_number(settings: Settings, index: int) -> None:
    """Check that a shard exists.

    Raises:
        SettingsError: if it does not.
    """
    if index not in settings.prepare.shards:
        last = settings.prepare.shards[-1]
        raise SettingsError(f"no shard {index}; prepare.shards goes from 0 to {last}")
