"""One line of `zspl doctor`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What was looked at, how it is, and what to type if it is not well."""

    about: str
    level: Literal["ok", "note", "problem"]
    found: str
    fix: str | None = None


def ok(about: str, found: str) -> Finding:
    """Return that all is well."""
    return Finding(about=about, level="ok", found=found)


def note(about: str, found: str, fix: str | None = None) -> Finding:
    """Return what is worth knowing and stops nothing."""
    return Finding(about=about, level="note", found=found, fix=fix)


def problem(about: str, found: str, fix: str) -> Finding:
    """Return what will stop a run, with the way out."""
    return Finding(about=about, level="problem", found=found, fix=fix)
