"""The classes that a user names: on the command line, or in a text or YAML file."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zspl.errors import SettingsError
from zspl.io.classes import ClassTable
from zspl.sections import parse_yaml

_FILES = {".txt", ".yaml", ".yml"}


def read_classes(classes: str, background: str = "") -> ClassTable:
    """Make the class table from `--classes` and `--background`.

    Args:
        classes: `cat, dog=dog|puppy`, where `=` gives what the text encoder is asked for, with
            synonyms separated by `|`; or the path of a file with one such class per line (a `#`
            begins a comment), or of a YAML list or mapping of them.
        background: What else may be seen, separated by commas, or a file in the same way.

    Raises:
        SettingsError: if a file is unreadable, a name is empty, comes twice or cannot be
            printed, or there is none.

    Example:
        >>> table = read_classes("cat, dog=dog|puppy", "sky, grass")
        >>> table.names, table.prompts, table.background
        (('background', 'cat', 'dog'), ('cat', 'dog|puppy'), ('sky', 'grass'))
    """
    named = [_class(entry, classes) for entry in _entries(classes, "--classes")]
    others = tuple(_entries(background, "--background"))
    names = tuple(name for name, _ in named)
    if "background" in names:
        raise SettingsError(
            f"--classes {classes}: background is class 0 already; leave it out, and say what it "
            'looks like with --background "sky, grass, wall"'
        )
    if not names:
        raise SettingsError(f"--classes {classes!r}: names no class; write cat, dog")
    try:
        prompts = tuple(prompt for _, prompt in named)
        return ClassTable.plain(("background", *names), prompts=prompts, background=others)
    except ValueError as error:
        raise SettingsError(f"--classes {classes}: {error}") from error


def _class(entry: str, where: str) -> tuple[str, str]:
    """Split `name=synonym|synonym`; without `=` the name is asked for."""
    name, equals, prompt = (part.strip() for part in entry.partition("="))
    if not name or (equals and not prompt):
        raise SettingsError(f"--classes {where}: {entry!r} is no class; write name=text|synonym")
    if not entry.isprintable():
        raise SettingsError(
            f"--classes: {entry!r} holds a line end or another sign that cannot be printed; put a "
            "comma between classes"
        )
    return name, "|".join(part.strip() for part in (prompt or name).split("|"))


def _entries(text: str, option: str) -> list[str]:
    path = Path(text.strip())
    try:
        is_file = bool(text.strip()) and path.is_file()
    except OSError:  # a long list is no possible file name
        is_file = False
    if not is_file:
        if path.suffix in _FILES and "," not in text:
            raise SettingsError(f"{option} {text}: no such file")
        return _kept(text.split(","))
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{option} {path}: cannot be read ({error})") from error
    if path.suffix in {".yaml", ".yml"}:
        return _from_yaml(content, path, option)
    return _kept(line.split("#")[0] for line in content.splitlines())


def _from_yaml(content: str, path: Path, option: str) -> list[str]:
    try:
        values = parse_yaml(content)
    except ValueError as error:
        raise SettingsError(f"{option} {path}: is no YAML ({error})") from error
    if isinstance(values, dict):
        return [f"{name}={_prompt(prompt, name)}" for name, prompt in values.items()]
    if isinstance(values, list):
        return _kept(map(str, values))
    raise SettingsError(f"{option} {path}: expected a list of classes, or name: synonyms")


def _prompt(prompt: Any, name: Any) -> str:  # noqa: ANN401 - a YAML value
    if prompt is None:
        return str(name)
    return "|".join(map(str, prompt)) if isinstance(prompt, list) else str(prompt)


def _kept(entries: Iterable[str]) -> list[str]:
    return [entry.strip() for entry in entries if entry.strip()]
