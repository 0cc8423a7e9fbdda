"""What must not reach a tracking server or a terminal: credentials and the names of folders."""

import os
import re
from pathlib import Path

TEXT = frozenset({".json", ".jsonl", ".csv", ".md", ".html", ".txt", ".svg", ".tex"})
"""Files that are searched for folder names before they are sent."""

_SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY")
_SHORT = 2
"""`/` and `/srv` tell nothing of a machine, `/srv/project` may."""


def without_credentials(uri: str) -> str:
    """Return the address without user and password.

    Example:
        >>> without_credentials("http://me:secret@tracker:5000/path")
        'http://tracker:5000/path'
    """
    return re.sub(r"(?<=://)[^/@\s]*@", "", uri)


def for_people(text: str) -> str:
    """Return a message as one line without credentials and folder names."""
    for secret in filter(None, map(os.environ.get, _SECRETS)):
        text = text.replace(secret, "***")
    parts = re.search(r"://([^/@\s]*)@", os.environ.get("MLFLOW_TRACKING_URI", ""))
    for secret in filter(None, parts[1].split(":") if parts else ()):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    return " ".join(impersonal(without_credentials(text)).split())[:300]


def impersonal(text: str) -> str:
    """Return the text with this folder and the home folder as `.` and `~`."""
    for folder, short in _folders():
        text = re.sub(rf"(?<![\w.]){re.escape(folder)}(?![\w.-])", short, text)
    return text


def _folders() -> list[tuple[str, str]]:
    """Return the absolute folders that tell whose machine this is, the longest first."""
    here, home = Path.cwd(), Path.home()
    named = {str(above): ".." for above in here.parents if len(above.parts) > _SHORT}
    named |= {str(home): "~", str(home.resolve()): "~", str(here): "."}
    named.pop(home.anchor, None)
    return sorted(named.items(), key=lambda entry: len(entry[0]), reverse=True)
