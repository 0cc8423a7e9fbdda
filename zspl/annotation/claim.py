"""The output folder belongs to one run and to one set of choices at a time."""

import errno
import fcntl
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from zspl.annotation.results import STAMP
from zspl.errors import DataError, DiskError
from zspl.io import atomic

_LOCK = ".zspl-annotate.lock"
_HALF = re.compile(r"\.[a-z0-9_]{8}\.[a-z0-9]+")
"""Names of temporary files of `zspl.io.atomic`; all results have a suffix, .htaccess has none."""

_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}
"""What file systems without locks answer."""

_FOUND = ("decision", "calibration")
"""Parts of annotate.json that were found out, not chosen."""


@contextmanager
def claimed(out: Path, *, file: str = STAMP) -> Iterator[None]:
    """Hold the output folder, made if missing; no second process can, and a kill lets go of it.

    Args:
        out: The folder.
        file: Which file in it tells that it is ours, and what its results were made with.

    Raises:
        DataError: if another process holds it, or it holds files of something else.
        DiskError: if it cannot be written.
    """
    _check_kind(out, file)
    fresh = not out.exists()
    with atomic.disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        handle = (out / _LOCK).open("w")
    try:
        _lock(handle.fileno(), out, file)
        _sweep(out)
        yield
    finally:
        if fresh and not (out / file).exists():
            _leave(out)
        handle.close()


def recall(out: Path, choices: Mapping[str, Any], *, file: str = STAMP) -> dict[str, Any] | None:
    """Return the stamp of an earlier run with the same choices, or None if there is none.

    Raises:
        DataError: if the folder's labels were made with other choices, so that labels of two
            kinds never mix.
    """
    path = out / file
    if not path.exists():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        before = {key: value for key, value in found.items() if key not in _FOUND}
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: is damaged ({error}); pass another --out") from error
    # Through JSON, so that tuples and lists are equal.
    if difference := _difference(before, json.loads(json.dumps(choices))):
        raise DataError(
            f"{out}: holds labels made with other choices ({difference}); pass another --out, "
            "or the same choices"
        )
    return found


def stamp(
    out: Path, choices: Mapping[str, Any], found: Mapping[str, Any], *, file: str = STAMP
) -> None:
    """Write the stamp (annotate.json): the choices, and what was found out with them.

    Raises:
        DiskError: if it cannot be written.
    """
    atomic.write_json(out / file, {**choices, **found})


def _check_kind(out: Path, file: str) -> None:
    if (out / file).exists() or not out.is_dir():
        return
    for path in sorted(out.iterdir()):
        if path.name != _LOCK and not _HALF.fullmatch(path.name):
            raise DataError(
                f"{out}: holds files of something else ({path.name}); pass an empty --out"
            )


def _lock(handle: int, out: Path, file: str) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise DataError(
            f"{out}: another zspl {Path(file).stem} is writing here; wait for it, or pass another "
            "--out"
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise DiskError(f"{out}: cannot be locked ({error.strerror})") from error


def _leave(out: Path) -> None:
    """Delete the folder again if nothing came of it."""
    (out / _LOCK).unlink(missing_ok=True)
    with suppress(OSError):
        out.rmdir()


def _sweep(out: Path) -> None:
    """Delete what a killed run left half written."""
    for path in out.rglob(".*"):
        if _HALF.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def _difference(before: Any, now: Any, where: str = "") -> str:  # noqa: ANN401 - JSON of any kind
    """Return "key was x, is y" for the first difference, or nothing."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            inner = f"{where}.{key}" if where else key
            if found := _difference(before.get(key), now.get(key), inner):
                return found
        return ""
    if before == now:
        return ""
    was, is_ = (json.dumps(value)[:80] for value in (before, now))
    return f"{where} was {was}, is {is_}"
