"""Writing a file or a folder so that it is either whole or not there."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zspl.errors import DiskError


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the disk refuses at `path` into one line that says what to do.

    Raises:
        DiskError: if the disk is full, the place is not writable, or something is in the way.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            free = shutil.disk_usage(existing_parent(path)).free // 2**20
            raise DiskError(
                f"{path}: no disk space left ({free} MiB free); free some space and run again, "
                "finished work stays"
            ) from error
        if error.errno in {errno.EACCES, errno.EROFS, errno.EPERM}:
            raise DiskError(f"{path}: not writable ({error.strerror}); check its rights") from error
        if error.errno in {errno.EEXIST, errno.ENOTDIR, errno.EISDIR}:
            above = existing_parent(path)
            raise DiskError(
                f"{path}: cannot be written, {path if above.is_dir() else above} is in the way "
                f"({error.strerror}); move it elsewhere"
            ) from error
        raise


def existing_parent(path: Path) -> Path:
    """Return the nearest folder above `path` that exists."""
    for parent in path.absolute().parents:
        if parent.exists():
            return parent
    return Path(path.anchor or ".")


def write(path: Path, writer: Callable[[Path], None]) -> None:
    """Let `writer` fill a temporary file beside `path`, then rename it into place.

    `writer` must let OSError through; a library that reports a full disk in its own way
    serialises to memory, for `write_bytes`.

    Raises:
        DiskError: if the disk is full, the folder is not writable, or a file or folder is in the
            way; no part of the file stays.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            writer(temporary)
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` atomically."""
    write(path, lambda temporary: (temporary.write_bytes(content), None)[1])


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def publish(finished: Path, path: Path) -> None:
    """Move the finished folder or file to `path`, replacing what is there."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.rmtree(path)
        finished.replace(path)
