"""Photos put aside with a reason, remembered across runs."""

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path

from zspl.annotation.photos import Photo, printable
from zspl.annotation.results import QUARANTINE
from zspl.io import atomic

_LONGEST = 300
"""Characters of a reason that are kept."""


class Quarantine:
    """The photos of one output folder that could not be labeled.

    Each has a small file of its own, so that a killed run does not try it again.

    Args:
        out: The output folder.
    """

    def __init__(self, out: Path) -> None:
        self._out = out

    def put(self, photo: Photo, reason: str, stat: tuple[int, int]) -> None:
        """Put a photo aside, as the file it was at `stat` (bytes, ns).

        Raises:
            DiskError: if that cannot be written down.
        """
        atomic.write_json(
            self._file(photo), {"source": photo.source, "reason": reason, "stat": list(stat)}
        )

    def release(self, photo: Photo) -> None:
        """Forget a photo; nothing happens if it is not held."""
        self._file(photo).unlink(missing_ok=True)

    def reason(self, photo: Photo, stat: tuple[int, int]) -> str | None:
        """Return why a photo is held, or None if it is not, or was another file then."""
        try:
            held = json.loads(self._file(photo).read_text(encoding="utf-8"))
            same = tuple(held["stat"]) == stat and held["source"] == photo.source
            return str(held["reason"]) if same else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write_table(self, rows: Iterable[tuple[str, str]]) -> None:
        """Write quarantine.csv with (source, reason) rows; without any, delete it.

        Raises:
            DiskError: if it cannot be written.
        """
        path = self._out / QUARANTINE
        listed = [(printable(source), printable(reason)) for source, reason in sorted(rows)]
        if not listed:
            path.unlink(missing_ok=True)
            return
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([("source", "reason"), *listed])
        atomic.write_text(path, text.getvalue())

    def _file(self, photo: Photo) -> Path:
        return self._out / "quarantined" / f"{photo.name}.json"


def reason_of(error: BaseException, photo: Photo) -> str:
    """Return an exception as one line that does not repeat where the photo lies."""
    line = " ".join(str(error).removeprefix(f"{photo.path}: ").split())
    known = line or type(error).__name__
    return known if len(known) <= _LONGEST else f"{known[:_LONGEST]}..."
