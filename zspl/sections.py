"""Sections of params.yaml before they are `Settings`: the file, and what a plugin says of its own.

Nothing here knows which sections there are; `zspl.settings` does.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from zspl import plugins
from zspl.errors import SettingsError

MOST_BYTES = 1_000_000
MOST_VALUES = 100_000
MOST_LEVELS = 50
"""What parse_yaml takes; the largest benchmark here has 4 kB, 300 values and 6 levels."""

_SHOWN = 80

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=100)]
"""A name that becomes a folder's, and a part of a stage's command in dvc.yaml."""

PluginName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=100)]
"""The name of a file in a plugin folder, without its ending."""

Whole = Annotated[int, Field(strict=True, ge=0)]
"""A number that becomes a part of a stage's command; a text that looks like one is refused."""


def _printable(path: Path) -> Path:
    if not str(path).isprintable():
        raise ValueError(f"expected a path of printable characters, got {str(path)!r}")
    return path


PlainPath = Annotated[Path, AfterValidator(_printable)]
"""A path anywhere: data may lie where the user likes."""


def check_out(folder: Path, *, out: Path, source: Path) -> None:
    """Refuse a folder of artifacts in which writing could replace something else.

    Args:
        folder: That of params.yaml.
        out: `paths.out`.
        source: `paths.source`.

    Raises:
        SettingsError: if `out` is not below `folder`, or in a hidden one, lies in `source` or
            around it, or holds code or settings.
    """
    if out.is_absolute() or not out.parts or any(p.startswith(".") for p in out.parts):
        raise SettingsError(
            "paths.out: expected a folder below that of params.yaml, such as artifacts, got "
            f"{str(out)!r}"
        )
    place, read = (folder / out).resolve(), (folder / source).resolve()
    if place.is_relative_to(read) or read.is_relative_to(place):
        raise SettingsError(
            f"paths.out {out} and paths.source {source} lie in each other; name a folder for "
            "artifacts alone"
        )
    foreign = [path for form in _NO_ARTIFACTS for path in sorted(place.glob(form))]
    if foreign:
        raise SettingsError(
            f"paths.out: {out} holds {foreign[0].relative_to(place)}, which is no artifact; name "
            "a folder for artifacts alone"
        )


_NO_ARTIFACTS = ("*.py", "*/*.py", "*.yaml", "*/*.yaml")


def build_plugin(package: str, name: str, values: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Build the plugin `package`/`name.py` from its section of params.yaml.

    Raises:
        SettingsError: if the plugin is unknown or a value is wrong.
    """
    return plugins.load(package, name).build(plugin_settings(package, name, values))


def plugin_settings(package: str, name: str, values: Mapping[str, Any]) -> BaseModel:
    """Validate a plugin's section against its own `Settings`.

    Raises:
        SettingsError: if the plugin is unknown or a value is wrong.
    """
    declared: type[BaseModel] = plugins.load(package, name).Settings
    try:
        return declared.model_validate(dict(values))
    except ValidationError as error:
        where = f"settings of {package.replace('.', '/')}/{name}.py"
        raise SettingsError(describe(error, where=where)) from error


def read_yaml(path: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys and values of a YAML file, some of them replaced.

    Args:
        path: The file.
        changes: Dotted keys and the values that replace the file's.

    Raises:
        SettingsError: if the file is missing or is no YAML of keys and values, or a change names
            a section that is not there.
    """
    try:
        values = parse_yaml(path.read_bytes())
    except OSError as error:
        raise SettingsError(
            f"{path}: cannot be read ({error.strerror}); run where it lies or pass --params"
        ) from error
    except ValueError as error:
        raise SettingsError(f"{path}: is no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: expected keys and values, got {type(values).__name__}")
    for key, value in changes.items():
        _replace(values, key, value, path=path)
    return values


def parse_yaml(content: bytes | str) -> Any:  # noqa: ANN401 - any YAML value
    """Return the value of a YAML text from anybody: plain data only, and of a bounded size.

    Args:
        content: UTF-8 text of one document.

    Raises:
        ValueError: if it is no YAML, or is larger, deeper or names more than settings can need;
            an anchor counts as often as it is used.

    Example:
        >>> parse_yaml("cells: {seeds: [0, 1]}")
        {'cells': {'seeds': [0, 1]}}
    """
    if len(content) > MOST_BYTES:
        raise ValueError(f"{len(content)} bytes, expected at most {MOST_BYTES}")
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is not None and _size(root, {}, 0) > MOST_VALUES:
            raise ValueError(f"its anchors stand for more than {MOST_VALUES} values")
        return None if root is None else loader.construct_document(root)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("nested too deeply, expected a few levels") from error


def _size(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """Return how many values a node stands for, each use of an anchor counted."""
    if depth > MOST_LEVELS:  # an anchor that holds itself has no end
        raise ValueError(f"more than {MOST_LEVELS} levels, or an anchor that holds itself")
    if id(node) not in known:
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        known[id(node)] = 1 + sum(_size(part, known, depth + 1) for part in parts)
    return known[id(node)]


def _replace(values: dict[str, Any], key: str, value: Any, *, path: Path) -> None:  # noqa: ANN401
    *parents, last = key.split(".")
    for parent in parents:
        if not isinstance(values.get(parent), dict):
            raise SettingsError(f"{path} has no section {parent!r} (in --set {key}=...)")
        values = values[parent]
    values[last] = value


def describe(error: ValidationError, *, where: str) -> str:
    """Return what is wrong with a section in one line."""
    problems = []
    for detail in error.errors():
        key = ".".join(map(_plain, detail["loc"])) or "whole file"
        got = _got(detail["input"]) if detail["type"] not in _SPEAKS_FOR_ITSELF else ""
        told = _OWN_WORDS.get(detail["type"], detail["msg"].removeprefix("Value error, "))
        problems.append(f"{key}: {told}{got}")
    return f"{where} has {len(problems)} problem(s): " + "; ".join(problems)


def _got(value: object) -> str:
    return f", got {_cut(repr(value))}"


def _plain(key: str | int) -> str:
    text = str(key)
    return _cut(text if text.isprintable() else repr(text))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


_OWN_WORDS = {
    "extra_forbidden": "there is no such setting; mind the spelling",
}
_SPEAKS_FOR_ITSELF = {"missing", "extra_forbidden", "value_error"}
