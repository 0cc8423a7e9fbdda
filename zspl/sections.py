"""Sections of params.yaml before they are `Settings`: the file, and what a plugin says of its own.

Nothing here knows which sections there are; `zspl.settings` does.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from zspl import plugins
from zspl.errors import SettingsError


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
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"{path}: cannot be read ({error.strerror}); run where it lies or pass --params"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: expected keys and values, got {type(values).__name__}")
    for key, value in changes.items():
        _replace(values, key, value, path=path)
    return values


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
        key = ".".join(map(str, detail["loc"])) or "whole file"
        got = f", got {detail['input']!r}" if detail["type"] not in _SPEAKS_FOR_ITSELF else ""
        told = _OWN_WORDS.get(detail["type"], detail["msg"].removeprefix("Value error, "))
        problems.append(f"{key}: {told}{got}")
    return f"{where} has {len(problems)} problem(s): " + "; ".join(problems)


_OWN_WORDS = {
    "extra_forbidden": "there is no such setting; mind the spelling",
}
_SPEAKS_FOR_ITSELF = {"missing", "extra_forbidden", "value_error"}
