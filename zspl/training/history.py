"""metrics.jsonl: one line per reported step, also after a kill in the middle of a line."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from zspl.io import atomic


class History:
    """Appends numbers to metrics.jsonl, with the number of finished iterations."""

    def __init__(self, path: Path, *, iteration: int) -> None:
        """Open the file and drop what was written after `iteration`, which will come again."""
        self._path = path
        kept = [line for line in _lines(path) if _iteration(line) <= iteration]
        atomic.write_text(path, "".join(f"{line}\n" for line in kept))

    def add(self, values: Mapping[str, float], *, iteration: int) -> None:
        """Append one line; a value that is not finite is written as null.

        Raises:
            DiskError: if the disk is full; half a line is dropped when the training continues.
        """
        finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
        with atomic.disk_errors(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"iteration": iteration, **finite}) + "\n")


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _iteration(line: str) -> float:
    try:
        return float(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError):
        return math.inf
