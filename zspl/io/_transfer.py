"""One HTTP download into one file: range requests, retries, and a check of the length."""

import errno
import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, NoReturn

from tqdm import tqdm

from zspl.errors import DiskError, WeightsError

_CHUNK = 1 << 20
_NOTHING_TO_SEND = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
_WORTH_A_RETRY = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How often to try, and how many seconds to wait: `pause` doubles from try to try."""

    attempts: int = 5
    pause: float = 1.0
    timeout: float = 30.0


class _InterruptedError(Exception):
    """The connection broke or ended early; what came is on disk."""


def transfer(url: str, part: Path, patience: Patience) -> None:
    """Fill `part` with the content of `url`, continuing after the bytes it already holds.

    Attempts that brought new bytes do not count against `patience.attempts`.

    Raises:
        WeightsError: if the server refuses, or nothing more comes after all attempts.
        DiskError: if the bytes cannot be written.
    """
    failures = 0
    while True:
        before = _size(part)
        try:
            _attempt(url, part, patience.timeout)
        except _InterruptedError as problem:
            failures = 1 if _size(part) > before else failures + 1
            if failures >= patience.attempts:
                raise WeightsError(
                    f"{url}: download failed ({problem}) after {patience.attempts} attempts; "
                    f"check the network and run again, {_size(part)} bytes are kept"
                ) from problem
            time.sleep(patience.pause * 2 ** (failures - 1))
        else:
            return


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a failure to write into one line that names `path`."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        advice = "free some space and run again" if full else "check the folder's rights"
        reason = "no disk space left" if full else f"not writable ({error.strerror})"
        raise DiskError(f"{path}: {reason}; {advice}, or set ZSPL_WEIGHTS elsewhere") from error


def _attempt(url: str, part: Path, timeout: float) -> None:
    offset = _size(part)
    request = urllib.request.Request(url, headers={"User-Agent": "zspl"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    try:
        with _opener().open(request, timeout=timeout) as response:
            _receive(response, part, offset)
    except urllib.error.HTTPError as error:
        with error:
            _refused(error, url, part, offset)
    except (OSError, http.client.HTTPException) as e:
        reason = e.reason if isinstance(e, urllib.error.URLError) else e
        raise _InterruptedError(str(reason) or type(e).__name__) from e


def _receive(response: http.client.HTTPResponse, part: Path, offset: int) -> None:
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        start, total = _content_range(response.headers.get("Content-Range", ""))
        if start != offset:
            raise _InterruptedError(f"server sent bytes from {start}, asked from {offset}")
    else:
        offset = 0
        length = response.headers.get("Content-Length")
        total = int(length) if length and length.isdigit() else None
    with disk_errors(part):
        handle = part.open("ab" if offset else "wb")
    with handle, _bar(part, offset, total) as bar:
        received = offset
        while block := response.read(_CHUNK):
            _write(handle, block, part)
            received += len(block)
            bar.update(len(block))
    if total is not None and received != total:
        raise _InterruptedError(f"connection ended after {received} of {total} bytes")


def _write(handle: BinaryIO, block: bytes, part: Path) -> None:
    with disk_errors(part):
        handle.write(block)
        handle.flush()


def _content_range(header: str) -> tuple[int, int | None]:
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", header.strip())
    if found is None:
        raise _InterruptedError(f"server sent an unreadable Content-Range {header!r}")
    return int(found[1]), None if found[2] == "*" else int(found[2])


def _refused(error: urllib.error.HTTPError, url: str, part: Path, offset: int) -> None:
    """Return if the file is already whole, else raise what the server's answer means."""
    if error.code == _NOTHING_TO_SEND and offset:
        whole = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", "").strip())
        if whole is not None and int(whole[1]) == offset:
            return
        part.unlink()
        raise _InterruptedError("server cannot continue the kept bytes") from error
    if error.code in _WORTH_A_RETRY:
        raise _InterruptedError(f"server answers {error.code} {error.reason}") from error
    raise WeightsError(
        f"{url}: server answers {error.code} {error.reason}; check the address"
    ) from error


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener that follows redirects to http and https only."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _bar(part: Path, offset: int, total: int | None) -> "tqdm[NoReturn]":
    name = part.name.removesuffix(".part")
    return tqdm(
        desc=f"download {name}", initial=offset, total=total, unit="B", unit_scale=True,
        unit_divisor=1024, dynamic_ncols=True, mininterval=0.5,
    )  # fmt: skip


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0
