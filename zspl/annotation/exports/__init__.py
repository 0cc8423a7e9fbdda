"""What other tools read: one file per format, `zspl annotate --export coco` writes it.

A plugin has `export(results, to)`, which writes the whole folder `to` or leaves it as it was.
The same results give the same bytes. A format that is not here is one new file.
"""

from collections.abc import Iterable
from pathlib import Path

from zspl import plugins
from zspl.annotation.results import Results

FOLDER = "exports"
"""The folder below the results that holds one folder per format."""


def formats() -> tuple[str, ...]:
    """Return the names of the formats, sorted."""
    return plugins.names(__name__)


def write(results: Results, chosen: Iterable[str], *, out: Path) -> list[Path]:
    """Write the chosen formats below OUT/exports and return their folders.

    Raises:
        UnknownPluginError: if there is no such format; nothing is written then.
        DataError: if a photo or label map that a format needs is gone.
        DiskError: if the folder cannot be written.
    """
    found = {name: plugins.load(__name__, name) for name in dict.fromkeys(chosen)}
    folders = []
    for name, module in found.items():
        folder = out / FOLDER / name
        module.export(results, folder)
        folders.append(folder)
    return folders
