"""A folder that is either whole or not there, and file names that every tool can read."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from zspl.io import atomic

_LONGEST = 200
"""In bytes; file systems take 255 for one name, and an ending comes on top."""


@contextmanager
def whole(to: Path, *, readme: str) -> Iterator[Path]:
    """Yield a folder that takes the place of `to` once the block ends without an error.

    Args:
        to: The finished folder; what an earlier export left there is replaced.
        readme: Text of README.txt: what the files are and how to open them.

    Raises:
        DiskError: if the folder cannot be written.
    """
    unfinished = to.with_name(f".{to.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    atomic.write_text(unfinished / "README.txt", readme)
    try:
        yield unfinished
        atomic.publish(unfinished, to)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def plain(name: str) -> str:
    """Percent-encode in an image name what trips other tools; folders stay folders.

    Encoded are `%` itself, what cannot be printed (line ends, bytes that are no UTF-8), spaces
    and dots at either end of a folder or file, and a folder called `images`, which YOLO tools
    take for their own. Two names never become one; `urllib.parse.unquote` brings them back,
    unless a part is longer than 200 bytes: that one is cut and ends in a hash.

    Example:
        >>> plain("trip/a b.2"), plain("images/50%")
        ('trip/a b.2', '%69mages/50%25')
    """
    return "/".join(_part(part) for part in PurePosixPath(name).parts)


def flat(name: str) -> str:
    """Return `plain(name)` as one file name: `/` becomes `%2F`.

    Example:
        >>> flat("trip/day 1/cat")
        'trip%2Fday 1%2Fcat'
    """
    return _short(plain(name).replace("/", "%2F"))


def _part(part: str) -> str:
    if part == "images":
        return "%69mages"
    last = len(part) - 1
    encoded = "".join(
        _percent(c) if c == "%" or not c.isprintable() or (c in " ." and i in {0, last}) else c
        for i, c in enumerate(part)
    )
    return _short(encoded)


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogateescape"))


def _short(name: str) -> str:
    raw = name.encode()
    if len(raw) <= _LONGEST:
        return name
    kept = raw[: _LONGEST - 20].decode(errors="ignore")
    return f"{kept}~{hashlib.sha256(raw).hexdigest()[:16]}"
