"""What is known of one labeled photo, in one small JSON file beside its label map."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zspl.errors import DataError
from zspl.io import atomic
from zspl.io.segments import segment_row
from zspl.records import SegmentRow

_DIGITS = 6
"""Decimals of every number; more would be noise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Counts and quality of one photo's label map; written last, so it says the photo is done.

    Attributes:
        name: Where the results lie below their folders, without suffix, with `/` between folders.
        source: The photo's path below the images folder.
        width: Of the upright photo, in pixels.
        height: Of the upright photo, in pixels.
        pixels: Pixels by class id, 255 (nothing claimed) included; absent ids are left out.
        coverage: Share of pixels in at least one segment, in [0, 1]; None without proposals.
        conflict: Share of pixels in two or more segments whose best classes differ, in [0, 1];
            None where no segments were named.
        doubt: Mean over the pixels of 1 - confidence, in [0, 1].
        segments: What is known of each segment, in the proposals' order.
        stat: Size in bytes and modification time in ns of the photo that was read.
    """

    name: str
    source: str
    width: int
    height: int
    pixels: dict[int, int]
    coverage: float | None
    conflict: float | None
    doubt: float
    segments: tuple[SegmentRow, ...]
    stat: tuple[int, int]

    def write(self, path: Path) -> None:
        """Write the facts as JSON, atomically; equal facts give equal bytes.

        Raises:
            DiskError: if the file cannot be written.
        """
        values = asdict(self)
        values["pixels"] = {str(key): count for key, count in sorted(self.pixels.items())}
        atomic.write_text(path, json.dumps(_rounded(values), sort_keys=True) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Facts":
        """Read what `write` wrote.

        Raises:
            DataError: if the file is missing or holds something else.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            values["pixels"] = {int(key): count for key, count in values["pixels"].items()}
            values["segments"] = tuple(segment_row(row) for row in values["segments"])
            size, modified = values["stat"]
            return cls(**{**values, "stat": (size, modified)})
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such file; run zspl annotate first") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}: holds no facts of a photo ({error}); delete it and run zspl annotate"
            ) from error


def _rounded(value: Any) -> Any:  # noqa: ANN401 - JSON of any kind
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    return value
