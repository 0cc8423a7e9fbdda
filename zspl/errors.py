"""Every exception this package raises on purpose.

ZsplError
├── SettingsError             params.yaml or an override is wrong; nothing has run yet
│   └── UnknownPluginError    a name in params.yaml has no file in its plugin folder
├── DataError                 a file on disk is missing, unreadable or inconsistent
│   └── StaleArtifactError    an artifact was written under other settings
├── WeightsError              a checkpoint is missing or has the wrong checksum
└── DiskError                 a file could not be written

Each message is one line: where, what was expected, what came, what to do. The command
line prints it and exits with code 2. Wrong arguments from a *caller of the library* stay
`ValueError` and `TypeError`.
"""

import difflib
from collections.abc import Iterable


class ZsplError(Exception):
    """A problem the user can fix."""


class SettingsError(ZsplError):
    """params.yaml or an override is wrong; nothing has run yet."""


class UnknownPluginError(SettingsError):
    """A name in params.yaml has no file in its plugin folder."""

    def __init__(self, package: str, name: str, known: Iterable[str]) -> None:
        folder = package.replace(".", "/") + "/"
        super().__init__(f"{folder} has no plugin {name!r}. {suggestion(name, known)}")


class DataError(ZsplError):
    """A file on disk is missing, unreadable or inconsistent."""


class StaleArtifactError(DataError):
    """An artifact was written under other settings than the current ones."""


class WeightsError(ZsplError):
    """A checkpoint is missing, has the wrong checksum or does not fit the model."""


class DiskError(ZsplError):
    """A file could not be written; what was finished before it stays."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return "Did you mean ...?" when a known name is near, else the list of known names.

    Example:
        >>> suggestion("fixmach", ["fixmatch", "unimatch"])
        "Did you mean 'fixmatch'?"
        >>> suggestion("x", ["a", "b"])
        'Known: a, b.'
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(names)}."
