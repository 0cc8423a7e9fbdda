"""A place for half-finished work, so that a killed stage continues where it stopped.

DVC deletes a stage's outputs before it runs, so unfinished work lives beside them, under a
fingerprint of the settings and inputs that made it. Finished outputs are moved into place.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from zspl.errors import DataError
from zspl.io import atomic


def fingerprint(settings: Mapping[str, Any], inputs: Iterable[Path] = ()) -> str:
    """Return the sha256 of settings, input files and this package's own source code."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for path in (*sorted(inputs), *source_files()):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def source_files() -> list[Path]:
    """Return the Python files of this package, sorted."""
    return sorted(Path(__file__).parents[1].rglob("*.py"))


def open_workdir(folder: Path, *, made_under: str) -> Path:
    """Return `folder`, emptied unless it holds work made under the same fingerprint.

    Hidden files below it are halves that a killed `atomic.write` left; they are deleted.

    Raises:
        DataError: if a file lies where the folder belongs.
        DiskError: if the folder cannot be written.
    """
    if folder.is_file():
        raise DataError(f"{folder}: expected a folder for unfinished work, found a file; move it")
    stamp = folder / "fingerprint.txt"
    if folder.exists() and (not stamp.exists() or stamp.read_text() != made_under):
        shutil.rmtree(folder)
    for rest in [path for path in folder.rglob(".*") if path.is_file()]:
        rest.unlink()
    atomic.write_text(stamp, made_under)
    return folder
