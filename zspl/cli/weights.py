"""zspl weights: what is known, what is here, and whether its bytes are right."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from zspl.errors import SettingsError, WeightsError, ZsplError
from zspl.io import catalog, weights
from zspl.io._transfer import Source

_WRONG = 1
_FAILED = 2
_UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def run(arguments: argparse.Namespace) -> int:
    """List, download, check or find weights."""
    actions = {"list": _list, "get": _get, "verify": _verify, "path": _path}
    return actions[arguments.action](arguments)


def _list(arguments: argparse.Namespace) -> int:
    if arguments.json:
        print(json.dumps([_facts(entry) for entry in catalog.entries()], indent=2))
        return 0
    print(f"weights folder: {weights.folder()}\n")
    _print_table(_rows())
    restrictions = {(e.licence, e.restriction) for e in catalog.entries() if e.restriction}
    print()
    for licence, restriction in sorted(restrictions):
        print(f"{licence}: {restriction}")
    return 0


def _rows() -> Iterator[tuple[str, ...]]:
    yield "name", "what for", "size", "licence", "state"
    for entry in catalog.entries():
        yield entry.name, entry.purpose, _size_of(entry), entry.licence, _state_of(entry)
    for path in _others():
        yield str(path.relative_to(weights.folder())), "(yours)", _size(path), "", "present"


def _get(arguments: argparse.Namespace) -> int:
    if arguments.url is not None:
        return _get_from(arguments)
    if arguments.sha256 is not None:
        raise SettingsError("--sha256 belongs to --url; weights with a name have their own")
    code = 0
    for name in arguments.names:
        try:
            entry = _named(name)
            _announce(entry)
            print(entry.obtain())
        except ZsplError as error:
            print(f"zspl: {' '.join(str(error).split())}", file=sys.stderr)
            code = _FAILED
    return code


def _get_from(arguments: argparse.Namespace) -> int:
    if len(arguments.names) != 1:
        raise SettingsError(f"--url is of one file, got {len(arguments.names)} names")
    if not arguments.url.startswith(("http://", "https://")):
        raise SettingsError(f"--url must begin with http:// or https://, got {arguments.url!r}")
    name, source = arguments.names[0], Source(url=arguments.url)
    if weights.below(name).suffix not in weights.ENDINGS:
        raise SettingsError(f"{name}: its name must end in {', '.join(sorted(weights.ENDINGS))}")
    path = weights.obtain(name, source, sha256=arguments.sha256)
    sha256 = weights.record(path)
    if arguments.sha256 is None:
        print(f"nobody vouches for this file; its sha256 is {sha256}", file=sys.stderr)
    print(path)
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    if arguments.sha256 is not None and len(arguments.names) != 1:
        raise SettingsError("--sha256 is of one file; name it")
    if arguments.names and not arguments.all:
        verdicts = [_verdict(name, arguments.sha256) for name in arguments.names]
    else:
        verdicts = [_verdict_of(path, expected) for path, expected in _everything()]
        if not verdicts:
            print(f"{weights.folder()}: holds no weights")
    _tell_unfinished()
    return _WRONG if not all(verdicts) else 0


def _path(arguments: argparse.Namespace) -> int:
    path = _place(arguments.name)
    if not path.is_file():
        raise WeightsError(f"{path}: not here; {_advice(arguments.name, path)}")
    print(path)
    return 0


def _verdict(name: str, sha256: str | None) -> bool:
    """Print whether a named checkpoint is right, and return it."""
    path = _place(name)
    if not path.is_file():
        print(f"MISSING  {path}  {_advice(name, path)}")
        return False
    known = (e.sha256 for e in catalog.entries() if e.name == name or e.path == path)
    return _verdict_of(path, sha256 or next(known, None))


def _advice(name: str, path: Path) -> str:
    """Say how a missing checkpoint is had; `name` may be the file's own."""
    known = [entry.name for entry in catalog.entries() if entry.path == path]
    if not known and path.suffix in weights.ENDINGS and path == weights.below(name):
        return "put it there, or get it with --url"
    return f"run `zspl weights get {known[0] if known else name}`"


def _verdict_of(path: Path, sha256: str | None) -> bool:
    expected = sha256 if sha256 is not None else weights.recorded(path)
    if expected is None:
        print(f"unknown  {weights.file_sha256(path)}  {path}  (nothing to compare it with)")
        return True
    try:
        weights.check(path, expected)
    except WeightsError as error:
        print(f"WRONG    {error}")
        return False
    print(f"ok       {weights.file_sha256(path)}  {path}")
    return True


def _everything() -> Iterator[tuple[Path, str | None]]:
    """Yield each finished file in the folder with the checksum that the catalog gives it."""
    known = {entry.path: entry.sha256 for entry in catalog.entries()}
    for path in weights.held():
        if path.suffix != weights.PART:
            yield path, known.get(path)


def _tell_unfinished() -> None:
    known = {entry.part: entry for entry in catalog.entries()}
    for part in weights.held():
        if part.suffix == weights.PART:
            entry = known.get(part)
            advice = f"run `zspl weights get {entry.name}`" if entry else "get it again to go on"
            print(f"unfinished  {part}  {_size(part)}; {advice}, or delete it")


def _others() -> list[Path]:
    known = {path for entry in catalog.entries() for path in (entry.path, entry.part)}
    return [p for p in weights.held() if p not in known and p.suffix != weights.PART]


def _named(name: str) -> catalog.Entry:
    return catalog.find(name, also=_of_open_clip)


def _of_open_clip(name: str) -> catalog.Entry | None:
    from zspl.features import _open_clip_files

    return _open_clip_files.named(name)


def _place(name: str) -> Path:
    """Return where a known checkpoint or a file below the folder lies."""
    path = weights.below(name)
    return path if path.is_file() or path.suffix in weights.ENDINGS else _path_of(_named(name))


def _path_of(entry: catalog.Entry) -> Path:
    """Return the file in the folder, or else in the hub's cache."""
    return entry.path if entry.path.is_file() else entry.find() or entry.path


def _announce(entry: catalog.Entry) -> None:
    parts = [entry.purpose, _size_of(entry), f"licence {entry.licence}"]
    if entry.restriction is not None:
        parts.append(entry.restriction.upper())
    print(f"{entry.name}: {', '.join(parts)}", file=sys.stderr)


def _facts(entry: catalog.Entry) -> dict[str, object]:
    return {
        "name": entry.name,
        "purpose": entry.purpose,
        "licence": entry.licence,
        "restriction": entry.restriction,
        "size": entry.size,
        "size_is_exact": entry.size_is_exact,
        "verified_by": entry.verified_by,
        "sha256": entry.sha256,
        "url": entry.url,
        "repository": entry.repository,
        "revision": entry.revision,
        "state": entry.state(),
        "path": str(entry.path),
    }


def _state_of(entry: catalog.Entry) -> str:
    state = entry.state()
    if state != "incomplete" or not entry.size:
        return state
    return f"incomplete ({100 * entry.part.stat().st_size // entry.size} %)"


def _size_of(entry: catalog.Entry) -> str:
    if entry.size is None:
        return "size unknown"
    return f"{'' if entry.size_is_exact else '~'}{_decimal(entry.size)}"


def _size(path: Path) -> str:
    return _decimal(path.stat().st_size)


def _decimal(count: int) -> str:
    for unit, name in _UNITS:
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count} B"


def _print_table(rows: Iterable[tuple[str, ...]]) -> None:
    table = list(rows)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        print(
            "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        )
