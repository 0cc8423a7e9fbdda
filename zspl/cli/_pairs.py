"""Reading KEY=VALUE arguments."""

from collections.abc import Iterable
from typing import Any

from zspl.errors import SettingsError
from zspl.sections import parse_yaml


def pairs(arguments: Iterable[str]) -> dict[str, str]:
    """Split `key=value` arguments.

    Raises:
        SettingsError: if one is not of that form.

    Example:
        >>> pairs(["method=unimatch", "seed=0"])
        {'method': 'unimatch', 'seed': '0'}
    """
    split = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not (key and equals):
            raise SettingsError(f"expected KEY=VALUE, got {argument!r}")
        split[key] = value
    return split


def values(arguments: Iterable[str]) -> dict[str, Any]:
    """Split `key=value` arguments whose values are YAML, as in params.yaml.

    Raises:
        SettingsError: if one is not of that form or its value is no YAML.

    Example:
        >>> values(["train.iterations=10", "classes=[cat, dog]"])
        {'train.iterations': 10, 'classes': ['cat', 'dog']}
    """
    parsed = {}
    for key, text in pairs(arguments).items():
        try:
            parsed[key] = parse_yaml(text)
        except ValueError as error:
            raise SettingsError(f"--set {key}={text}: the value is no YAML ({error})") from error
    return parsed
