"""Checkpoints: found in one folder, checked by sha256, downloaded so that a broken line resumes.

The folder is the environment's `ZSPL_WEIGHTS`, or `~/.cache/zspl/weights`. Beside a file whose
checksum nobody published lies `<file>.sha256`, what it was when it came, in the format of
`sha256sum`.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from zspl.errors import DiskError, WeightsError
from zspl.io import atomic
from zspl.io._transfer import Patience, Source, disk_errors, transfer

PART = ".part"
"""The ending of a download that is not finished."""

ENDINGS = frozenset({".pt", ".pth", ".bin", ".safetensors"})
"""How the names of checkpoints end."""

_LOCK = ".lock"
_CHECKSUM = ".sha256"
_SHA256_DIGITS = range(6, 65)
_MEGABYTE = 10**6


def folder() -> Path:
    """Return the folder that holds checkpoints."""
    configured = os.environ.get("ZSPL_WEIGHTS")
    return Path(configured) if configured else Path.home() / ".cache" / "zspl" / "weights"


def below(name: str) -> Path:
    """Return where a checkpoint of that name lies, whether or not it is there.

    Raises:
        WeightsError: if `name` leaves the folder.
    """
    path = folder() / name
    if Path(name).is_absolute() or not path.resolve().is_relative_to(folder().resolve()):
        raise WeightsError(
            f"checkpoint {name!r} leaves the weights folder {folder()}; "
            "give a file name below it, and set ZSPL_WEIGHTS to the folder"
        )
    return path


def held() -> Iterator[Path]:
    """Yield every file in the folder that is a checkpoint or the beginning of one, sorted."""
    for path in sorted(folder().rglob("*")):
        if path.suffix in ENDINGS | {PART} and path.is_file():
            yield path


def resolve(name: str, *, sha256: str | None = None) -> Path:
    """Find a checkpoint by its file name and check its bytes.

    Args:
        name: A path relative to the weights folder.
        sha256: What the file's sha256 must begin with (64 hex digits, or a prefix of at least
            6), or None to accept what was recorded when it came, or else any content.

    Raises:
        WeightsError: if `name` leaves the folder, the file is missing, its checksum differs, or
            `sha256` is no hexadecimal checksum.
    """
    path = below(name)
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such checkpoint; put the file there, or point ZSPL_WEIGHTS at the folder "
            "that holds it"
        )
    expected = sha256 if sha256 is not None else recorded(path)
    if expected is not None:
        check(path, expected)
    return path


def obtain(
    name: str, source: Source, *, sha256: str | None, patience: Patience | None = None
) -> Path:
    """Find a checkpoint in the weights folder, or download it there first.

    Raises:
        WeightsError: if the file cannot be had or its checksum differs.
        DiskError: if it cannot be written.
    """
    path = below(name)
    if path.is_file():
        return resolve(name, sha256=sha256)
    return download(source, sha256=sha256, to=path, patience=patience)


def download(
    source: Source, *, sha256: str | None, to: Path, patience: Patience | None = None
) -> Path:
    """Download a file, resuming an earlier attempt, and move it into place once it is verified.

    Unfinished bytes stay in `<to>.part`, so that the next call continues with an HTTP range
    request. Two processes that want the same file wait for each other.

    Args:
        source: Its address, and its length if that is known.
        sha256: What the content's sha256 must begin with, or None when it is not known.
        to: The finished file; one with the right checksum is kept and nothing is requested.
        patience: How often and how long to try; the default tries five times, twice without
            network.

    Returns:
        `to`.

    Raises:
        WeightsError: if there is no network, the server refuses, or sends other bytes, or `sha256`
            is no hexadecimal checksum.
        DiskError: if the disk is full or the folder is not writable.
        ValueError: if the address is not http(s).
    """
    if not source.url.startswith(("http://", "https://")):
        raise ValueError(f"url must begin with http:// or https://, got {source.url!r}")
    if sha256 is not None:
        _digits(sha256, to)
    with _alone(to):
        if to.is_file() and (sha256 is None or _matches(to, sha256)):
            return to
        part = to.with_name(f"{to.name}{PART}")
        resumed = part.is_file() and part.stat().st_size > 0
        _check_room(part, source)
        transfer(source, part, patience or Patience())
        if sha256 is not None and resumed and not _matches(part, sha256):
            # The kept bytes may belong to an older file of that name: once from the start.
            part.unlink()
            transfer(source, part, patience or Patience())
        _accept(part, source.url, sha256)
        _settle(part, to)
    return to


def record(path: Path) -> str:
    """Write the checksum of a file beside it, for later checks, and return it.

    Raises:
        DiskError: if it cannot be written.
    """
    sha256 = file_sha256(path)
    atomic.write_text(_record_of(path), f"{sha256}  {path.name}\n")
    return sha256


def recorded(path: Path) -> str | None:
    """Return the checksum that was written beside a file when it came, if any."""
    try:
        words = _record_of(path).read_text("utf-8").split()
    except (OSError, UnicodeDecodeError):
        return None
    return words[0] if words else None


def check(path: Path, sha256: str) -> None:
    """Compare a file with the checksum that it must have, or begin with.

    Raises:
        WeightsError: if it differs.
    """
    if not _matches(path, sha256):
        raise WeightsError(
            f"{path}: sha256 is {file_sha256(path)}, expected {sha256}; "
            "delete the file and fetch it again"
        )


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file as 64 hexadecimal digits."""
    status = path.stat()
    return _digest(path.absolute(), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _digest(path: Path, size: int, modified: int) -> str:  # noqa: ARG001 - part of the cache key
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _record_of(path: Path) -> Path:
    return path.with_name(f"{path.name}{_CHECKSUM}")


def _matches(path: Path, sha256: str) -> bool:
    return file_sha256(path).startswith(_digits(sha256, path))


def _digits(sha256: str, path: Path) -> str:
    wanted = sha256.lower()
    if len(wanted) not in _SHA256_DIGITS or set(wanted) - set("0123456789abcdef"):
        raise WeightsError(
            f"{path}: its sha256 must be 6 to 64 hexadecimal digits, got {sha256!r}; "
            "correct it, or leave it out to take the file as it is"
        )
    return wanted


def _check_room(part: Path, source: Source) -> None:
    """Say that the disk is too small before half of it is filled."""
    if source.size is None:
        return
    missing = source.size - (part.stat().st_size if part.is_file() else 0)
    free = shutil.disk_usage(part.parent).free
    if missing > free:
        raise DiskError(
            f"{part.parent}: no disk space left for {missing // _MEGABYTE + 1} MB, "
            f"{free // _MEGABYTE} MB are free; free some space, or set ZSPL_WEIGHTS elsewhere"
        )


def _accept(part: Path, url: str, sha256: str | None) -> None:
    if not part.is_file() or not part.stat().st_size:
        part.unlink(missing_ok=True)
        raise WeightsError(f"{url}: sent an empty file; check the address and the network's proxy")
    if sha256 is None or _matches(part, sha256):
        return
    found = file_sha256(part)
    part.unlink()
    raise WeightsError(
        f"{url}: sent a file with sha256 {found}, expected {sha256}; nothing was kept, "
        "check the address and the network's proxy"
    )


def _settle(part: Path, to: Path) -> None:
    """Rename once the bytes are on the disk, so that a power cut leaves no hollow file."""
    with disk_errors(to):
        with part.open("rb") as handle:
            os.fsync(handle.fileno())
        part.replace(to)


@contextmanager
def _alone(to: Path) -> Iterator[None]:
    """Hold the lock beside `to`, so that only one process writes its `.part`."""
    with disk_errors(to):
        to.parent.mkdir(parents=True, exist_ok=True)
        handle = to.with_name(f"{to.name}{_LOCK}").open("w")
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
