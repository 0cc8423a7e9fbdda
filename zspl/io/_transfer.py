"""One HTTP download into one file: range requests, retries, and a check of the length."""

import errno
import http.client
import re
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, NoReturn

from tqdm import tqdm

from zspl.errors import DiskError, WeightsError
from zspl.io import _http

_CHUNK = 1 << 20
_NOTHING_TO_SEND = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
_WORTH_A_RETRY = {408, 425, 429, 500, 502, 503, 504}
_REFUSALS = {401, 403, 407}
_DISK_IS_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How often to try, and how many seconds to wait: `pause` doubles from try to try.

    A server that cannot be reached at all is given up sooner, after `connects` tries of
    `connect_timeout` seconds each: without network a user should not wait.
    """

    attempts: int = 5
    connects: int = 2
    pause: float = 1.0
    timeout: float = 30.0
    connect_timeout: float = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where a file comes from and what is known of it.

    Attributes:
        url: An http or https address.
        size: Its length in bytes, where it is known; what servers say of it is then not believed.
        authorization: The value of that header, or None; it is not sent on after a redirect.
    """

    url: str
    size: int | None = None
    authorization: str | None = None


class _InterruptedError(Exception):
    """The connection broke or ended early; what came is on disk."""


class _UnreachableError(_InterruptedError):
    """No server answered."""


def transfer(source: Source, part: Path, patience: Patience) -> None:
    """Fill `part` with the content of `source`, continuing after the bytes it already holds.

    Attempts that came further than all before do not count against `patience.attempts`.

    Raises:
        WeightsError: if the server refuses, sends too much, or nothing more comes after all
            attempts.
        DiskError: if the bytes cannot be written.
    """
    failures, furthest = 0, _size(part)
    while not _is_complete(source, part):
        try:
            _attempt(source, part, patience)
        except _InterruptedError as problem:
            failures = 1 if _size(part) > furthest else failures + 1
            furthest = max(furthest, _size(part))
            reached = not isinstance(problem, _UnreachableError)
            if failures >= (patience.attempts if reached else patience.connects):
                raise WeightsError(_given_up(source.url, part, problem, failures)) from problem
            time.sleep(patience.pause * 2 ** (failures - 1))
        else:
            return


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a failure to write into one line that names `path`."""
    try:
        yield
    except OSError as error:
        full = error.errno in _DISK_IS_FULL
        advice = "free some space and run again" if full else "check the folder's rights"
        reason = "no disk space left" if full else f"not writable ({error.strerror})"
        raise DiskError(f"{path}: {reason}; {advice}, or set ZSPL_WEIGHTS elsewhere") from error


def _is_complete(source: Source, part: Path) -> bool:
    have = _size(part)
    if source.size is not None and have > source.size:
        part.unlink()
        return False
    return source.size is not None and have == source.size


def _given_up(url: str, part: Path, problem: _InterruptedError, attempts: int) -> str:
    kept = _size(part)
    advice = f"run again, {kept} bytes are kept" if kept else "run again"
    if isinstance(problem, _UnreachableError):
        return (
            f"{url}: no server could be reached ({problem}); check the network and {advice}, or "
            f"copy the file to {part.with_suffix('')}"
        )
    return (
        f"{url}: download failed ({problem}) after {attempts} attempts; "
        f"check the network and {advice}"
    )


def _attempt(source: Source, part: Path, patience: Patience) -> None:
    offset = _size(part)
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    try:
        with _opened(source, headers, patience) as response:
            _receive(response, source, part, offset)
    except urllib.error.HTTPError as error:
        with error:
            _refused(error, source.url, part, offset)
    except urllib.error.URLError as e:
        raise _UnreachableError(str(e.reason) or type(e.reason).__name__) from e
    except (OSError, http.client.HTTPException) as e:
        raise _InterruptedError(str(e) or type(e).__name__) from e


def _opened(
    source: Source, headers: dict[str, str], patience: Patience
) -> http.client.HTTPResponse:
    return _http.open_url(
        source.url,
        headers,
        authorization=source.authorization,
        connect_timeout=patience.connect_timeout,
        timeout=patience.timeout,
    )


def _receive(response: http.client.HTTPResponse, source: Source, part: Path, offset: int) -> None:
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        start, total = _content_range(response.headers.get("Content-Range", ""))
        if start != offset:
            raise _InterruptedError(f"server sent bytes from {start}, asked from {offset}")
    else:
        offset = 0
        length = response.headers.get("Content-Length")
        total = int(length) if length and length.isdigit() else None
    total = source.size or total
    with disk_errors(part):
        handle = part.open("ab" if offset else "wb")
    received = offset
    with handle, _bar(part, offset, total) as bar:
        while block := response.read(_CHUNK):
            received += len(block)
            if source.size is not None and received > source.size:
                break
            _write(handle, block, part)
            bar.update(len(block))
    _check_length(source, part, received, total)


def _check_length(source: Source, part: Path, received: int, total: int | None) -> None:
    if source.size is not None and received > source.size:
        part.unlink()
        raise WeightsError(
            f"{source.url}: sends more than the {source.size} bytes of this checkpoint; nothing "
            "was kept, check the address and the network's proxy"
        )
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
    # The standard library puts a text of several lines here when redirects go in a circle.
    reason = error.reason.partition("\n")[0]
    if error.code in _WORTH_A_RETRY:
        raise _InterruptedError(f"server answers {error.code} {reason}") from error
    advice = "check the address"
    if error.code in _REFUSALS:
        advice = "it does not let you in; check the address, your rights there and the proxy"
    raise WeightsError(f"{url}: server answers {error.code} {reason}; {advice}") from error


def _bar(part: Path, offset: int, total: int | None) -> "tqdm[NoReturn]":
    name = part.name.removesuffix(".part")
    return tqdm(
        desc=f"download {name}", initial=offset, total=total, unit="B", unit_scale=True,
        dynamic_ncols=True, mininterval=0.5, disable=None,
    )  # fmt: skip


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0
