"""Checkpoints: found in one folder, checked by sha256, downloaded so that a broken line resumes.

The folder is the environment's `ZSPL_WEIGHTS`, or `~/.cache/zspl/weights`.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from zspl.errors import WeightsError
from zspl.io._transfer import Patience, disk_errors, transfer

_SHA256_DIGITS = range(6, 65)


def folder() -> Path:
    """Return the folder that holds checkpoints."""
    configured = os.environ.get("ZSPL_WEIGHTS")
    return Path(configured) if configured else Path.home() / ".cache" / "zspl" / "weights"


def resolve(name: str, *, sha256: str | None = None) -> Path:
    """Find a checkpoint by its file name and check its bytes.

    Args:
        name: A path relative to the weights folder.
        sha256: What the file's sha256 must begin with (64 hex digits, or a prefix of at least
            6), or None to accept any content.

    Raises:
        WeightsError: if `name` leaves the folder, the file is missing, its checksum differs, or
            `sha256` is no hexadecimal checksum.
    """
    path = _inside(name)
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such checkpoint; put the file there, or point ZSPL_WEIGHTS at the folder "
            "that holds it"
        )
    if sha256 is not None:
        _check(path, sha256)
    return path


def obtain(name: str, *, url: str, sha256: str) -> Path:
    """Find a checkpoint in the weights folder, or download it there first.

    Raises:
        WeightsError: if the file cannot be had or its checksum differs.
        DiskError: if it cannot be written.
    """
    path = _inside(name)
    return resolve(name, sha256=sha256) if path.is_file() else download(url, sha256=sha256, to=path)


def download(url: str, *, sha256: str | None, to: Path, patience: Patience | None = None) -> Path:
    """Download a file, resuming an earlier attempt, and move it into place once it is verified.

    Unfinished bytes stay in `<to>.part`, so that the next call continues with an HTTP range
    request. Two processes that want the same file wait for each other.

    Args:
        url: An http or https address.
        sha256: What the content's sha256 must begin with, or None when it is not known.
        to: The finished file; one with the right checksum is kept and nothing is requested.
        patience: How often and how long to try; the default tries five times.

    Returns:
        `to`.

    Raises:
        WeightsError: if there is no network, the server refuses, or sends other bytes, or `sha256`
            is no hexadecimal checksum.
        DiskError: if the disk is full or the folder is not writable.
        ValueError: if `url` is not http(s).
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"url must begin with http:// or https://, got {url!r}")
    with _alone(to):
        if to.is_file() and (sha256 is None or _matches(to, sha256)):
            return to
        part = to.with_name(f"{to.name}.part")
        resumed = part.is_file() and part.stat().st_size > 0
        transfer(url, part, patience or Patience())
        if sha256 is not None and resumed and not _matches(part, sha256):
            # The kept bytes may belong to an older file of that name: once from the start.
            part.unlink()
            transfer(url, part, patience or Patience())
        _accept(part, url, sha256)
        part.replace(to)
    return to


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file as 64 hexadecimal digits."""
    status = path.stat()
    return _digest(path.absolute(), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _digest(path: Path, size: int, modified: int) -> str:  # noqa: ARG001 - part of the cache key
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _matches(path: Path, sha256: str) -> bool:
    wanted = sha256.lower()
    if len(wanted) not in _SHA256_DIGITS or set(wanted) - set("0123456789abcdef"):
        raise WeightsError(
            f"{path}: its sha256 must be 6 to 64 hexadecimal digits, got {sha256!r}; "
            "correct it, or leave it out to take the file as it is"
        )
    return file_sha256(path).startswith(wanted)


def _check(path: Path, sha256: str) -> None:
    if not _matches(path, sha256):
        raise WeightsError(
            f"{path}: sha256 is {file_sha256(path)}, expected {sha256}; "
            "delete the file and fetch it again"
        )


def _accept(part: Path, url: str, sha256: str | None) -> None:
    if sha256 is None or _matches(part, sha256):
        return
    found = file_sha256(part)
    part.unlink()
    raise WeightsError(
        f"{url}: sent a file with sha256 {found}, expected {sha256}; nothing was kept, "
        "check the address and the network's proxy"
    )


def _inside(name: str) -> Path:
    path = folder() / name
    if Path(name).is_absolute() or not path.resolve().is_relative_to(folder().resolve()):
        raise WeightsError(
            f"checkpoint {name!r} leaves the weights folder {folder()}; "
            "give a file name below it, and set ZSPL_WEIGHTS to the folder"
        )
    return path


@contextmanager
def _alone(to: Path) -> Iterator[None]:
    """Hold the lock beside `to`, so that only one process writes its `.part`."""
    with disk_errors(to):
        to.parent.mkdir(parents=True, exist_ok=True)
        handle = to.with_name(f"{to.name}.lock").open("w")
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
