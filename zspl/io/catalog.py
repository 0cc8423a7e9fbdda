"""The published weights that zspl knows: what for, how large, under which licence, where from.

The facts are rows of catalog.csv. A row without a sha256 is verified against the hash that the
hub itself gives for the file. A size that begins with ~ is only about right.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from zspl.errors import WeightsError, suggestion
from zspl.io import hub, weights
from zspl.io._transfer import Patience, Source

State = Literal["present", "absent", "incomplete", "damaged"]

_TABLE = Path(__file__).with_name("catalog.csv")
_ABOUT = "~"
_NON_COMMERCIAL = {
    "CC-BY-NC-4.0": "Creative Commons BY-NC 4.0",
    "NVIDIA-SegFormer": "NVIDIA Source Code License for SegFormer",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One known checkpoint.

    Attributes:
        name: What `zspl weights get` calls it.
        purpose: What it is and what it is for, in a few words.
        licence: An SPDX name where there is one, "unknown" for what no row describes.
        size: In bytes; only about right if `size_is_exact` is false; None if unknown.
        sha256: 64 hex digits, or a prefix, or None: then the hub's own hash counts.
        url: Where it is downloaded from, for a file that is on no hub.
        repository: Where it is on the hub.
        revision: A branch or commit of that repository.
        files: Names in the repository in the order of preference; for a `url`, the file's name
            below the weights folder.
    """

    name: str
    purpose: str
    licence: str
    size: int | None
    size_is_exact: bool = True
    sha256: str | None = None
    url: str | None = None
    repository: str | None = None
    revision: str = "main"
    files: tuple[str, ...]

    @property
    def restriction(self) -> str | None:
        """One clause on what the licence forbids, or None."""
        return restriction(self.licence)

    @property
    def verified_by(self) -> str:
        """How the bytes are checked."""
        return "sha256" if self.sha256 is not None else "the hub's own hash"

    @property
    def path(self) -> Path:
        """Where it lies, or would lie, below the weights folder."""
        places = [weights.below(place) for place in self._places()]
        return next((place for place in places if place.is_file()), places[0])

    def state(self) -> State:
        """Tell whether it is there, by its length alone: nothing is hashed."""
        path = self.path
        if path.is_file():
            whole = not self.size_is_exact or self.size in {None, path.stat().st_size}
            return "present" if whole else "damaged"
        return "incomplete" if self.part.is_file() else "absent"

    @property
    def part(self) -> Path:
        """Where an unfinished download of it lies."""
        path = self.path
        return path.with_name(f"{path.name}{weights.PART}")

    def obtain(self, *, patience: Patience | None = None) -> Path:
        """Find it on this machine or download it, and verify it.

        Raises:
            WeightsError: if it cannot be had or has another checksum.
            DiskError: if it cannot be written.
        """
        if self.repository is not None:
            return hub.obtain(self._hub_file(), patience=patience)
        if self.url is None:
            raise ValueError(f"{self.name} has neither a url nor a repository")
        source = Source(url=self.url, size=self._exact_size())
        return weights.obtain(self.files[0], source, sha256=self.sha256, patience=patience)

    def find(self) -> Path | None:
        """Return it if it is on this machine, verified, else None.

        Raises:
            WeightsError: if it has another checksum.
        """
        if self.repository is not None:
            return hub.find(self._hub_file())
        return weights.resolve(self.files[0], sha256=self.sha256) if self.path.is_file() else None

    def _places(self) -> list[str]:
        return list(self.files) if self.repository is None else self._hub_file().places()

    def _exact_size(self) -> int | None:
        return self.size if self.size_is_exact else None

    def _hub_file(self) -> hub.HubFile:
        return hub.HubFile(
            repository=self.repository or "",
            names=self.files,
            revision=self.revision,
            sha256=self.sha256,
            size=self._exact_size(),
        )


@cache
def entries() -> tuple[Entry, ...]:
    """Return every known checkpoint, in the order of the table."""
    with _TABLE.open(encoding="utf-8", newline="") as handle:
        return tuple(_entry(row) for row in csv.DictReader(handle))


def restriction(licence: str) -> str | None:
    """Return one clause on what a licence forbids, or None."""
    full = _NON_COMMERCIAL.get(licence)
    return None if full is None else f"not for commercial use ({full})"


def find(name: str, *, also: Callable[[str], Entry | None] | None = None) -> Entry:
    """Return the checkpoint of that name.

    Args:
        name: Such as `sam_vit_b` or `ViT-B-16-quickgelu:openai`.
        also: Asked for names that the table does not hold.

    Raises:
        WeightsError: if nobody knows the name.
    """
    known = {entry.name: entry for entry in entries()}
    entry = known.get(name) or (also(name) if also is not None else None)
    if entry is None:
        near = suggestion(name, known)
        hint = f"{near} " if near.startswith("Did") else ""
        raise WeightsError(
            f"no weights are called {name!r}. {hint}`zspl weights list` shows what there is."
        )
    return entry


def _entry(row: dict[str, str]) -> Entry:
    size = row["size"]
    return Entry(
        name=row["name"],
        purpose=row["purpose"],
        licence=row["licence"],
        size=int(size.removeprefix(_ABOUT)) if size else None,
        size_is_exact=not size.startswith(_ABOUT),
        sha256=row["sha256"] or None,
        url=row["url"] or None,
        repository=row["repository"] or None,
        revision=row["revision"] or "main",
        files=(row["file"],),
    )
