"""Journals: what one stage reported, as JSON lines that survive its kill -9.

A journal is `<time>-<process>.jsonl`; its writer holds a lock on it while it lives, so that a
reader can tell a stage that runs from one that was killed. Beside it lie copies of the files to
send (`.files`) and, once sending began, how far it came (`.sent`).
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.tracking.privacy import TEXT, impersonal
from zspl.io import atomic

Line = dict[str, Any]

_SUFFIX = ".jsonl"


class Journal:
    """The writer's side: lines are appended whole, in one system call each."""

    def __init__(self, folder: Path, header: Line) -> None:
        """Create the journal with its first line.

        Raises:
            OSError: if the folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{time.time_ns():020d}-{os.getpid()}{_SUFFIX}"
        hidden = self.path.with_suffix(".new")
        self._file = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._kept = 0
        self.append({"kind": "open", "journal": self.path.stem, **header})
        hidden.rename(self.path)

    def append(self, line: Line) -> None:
        """Add one line.

        Raises:
            OSError: if the disk is full; no part of the line stays.
        """
        content = (json.dumps({"time": int(time.time() * 1000), **line}) + "\n").encode()
        before = os.fstat(self._file).st_size
        if os.write(self._file, content) < len(content):
            os.ftruncate(self._file, before)
            raise OSError("the disk took only a part of a line")

    def keep(self, name: str) -> Path:
        """Return where a file of that name can be put so that it is sent later."""
        self._kept += 1
        place = _files(self.path) / str(self._kept)
        place.mkdir(parents=True)
        return place / name

    def copy(self, path: Path) -> Path:
        """Copy a file or a folder into the journal; texts lose the names of folders.

        Raises:
            OSError: if it cannot be read, or the disk is full.
        """
        kept = self.keep(path.name)
        if path.is_dir():
            shutil.copytree(path, kept)
        else:
            shutil.copyfile(path, kept)
        for file in [kept, *kept.rglob("*")]:
            if file.suffix in TEXT and file.is_file():
                text = file.read_text(encoding="utf-8", errors="surrogateescape")
                file.write_text(impersonal(text), encoding="utf-8", errors="surrogateescape")
        return kept

    def close(self) -> None:
        """Let go of the journal; what is in it will be sent."""
        os.close(self._file)


@dataclass
class Sent:
    """How far a journal was sent, and to which run."""

    bytes: int = 0
    run: str | None = None

    @classmethod
    def read(cls, journal: Path) -> "Sent":
        """Return what was sent of a journal."""
        try:
            return cls(**json.loads(_sent(journal).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return cls()

    def write(self, journal: Path) -> None:
        """Remember it beside the journal."""
        atomic.write_json(_sent(journal), asdict(self))


def waiting(folder: Path) -> list[Path]:
    """Return the journals that are not sent to their end, the oldest first."""
    return sorted(folder.glob(f"*{_SUFFIX}"))


def read(journal: Path, start: int) -> list[Line]:
    """Return the whole lines from byte `start` on; `end` of each is where the next one begins."""
    with journal.open("rb") as file:
        file.seek(start)
        content = file.read()
    return list(_parsed(content[: content.rfind(b"\n") + 1], start))


def _parsed(content: bytes, end: int) -> Iterator[Line]:
    for line in content.splitlines(keepends=True):
        end += len(line)
        try:
            yield {**json.loads(line), "end": end}
        except (ValueError, TypeError):  # a power cut can leave half a line
            continue


def header(journal: Path) -> Line:
    """Return the first line; empty if it is broken."""
    lines = read(journal, 0)
    return lines[0] if lines and lines[0].get("kind") == "open" else {}


def is_written(journal: Path) -> bool:
    """Return whether the stage that writes it lives."""
    return is_locked(journal)


def remove(journal: Path) -> None:
    """Delete a journal that was sent."""
    shutil.rmtree(_files(journal), ignore_errors=True)
    journal.unlink(missing_ok=True)
    _sent(journal).unlink(missing_ok=True)


def is_locked(path: Path) -> bool:
    """Return whether a living process holds the file's lock."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two that ask at once do not take each other for the holder.
        return not _locked(file, fcntl.LOCK_SH)
    finally:
        os.close(file)


@contextmanager
def only_one(path: Path) -> Iterator[bool]:
    """Hold the file's lock if nobody else does, and say whether it is held."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield _locked(file, fcntl.LOCK_EX)
    finally:
        os.close(file)


def _locked(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _files(journal: Path) -> Path:
    return journal.with_suffix(".files")


def _sent(journal: Path) -> Path:
    return journal.with_suffix(".sent")
