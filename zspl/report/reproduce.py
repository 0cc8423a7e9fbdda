"""How the numbers came about: the command, and the settings without the places of one machine."""

from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from zspl.settings import Settings


def command(settings: Settings) -> str:
    """Return what makes all of it again, seen from the root of the repository."""
    folder = Path.cwd().resolve()
    root = (folder / settings.paths.code).resolve()
    if folder == root or not folder.is_relative_to(root):
        return "dvc repro"
    return f"dvc repro {folder.relative_to(root).as_posix()}/dvc.yaml"


def settings_text(settings: Settings) -> str:
    """Return params.yaml as it was read; of a path that only this machine has, the last part."""
    values = settings.model_dump(mode="json", exclude={"paths"})
    return yaml.safe_dump(_anywhere(values), sort_keys=False, allow_unicode=True, width=90)


def _anywhere(value: Any) -> Any:  # noqa: ANN401 - whatever YAML holds
    if isinstance(value, dict):
        return {key: _anywhere(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_anywhere(entry) for entry in value]
    if isinstance(value, str) and _is_of_one_machine(value):
        return f"(elsewhere)/{PureWindowsPath(value).name}"
    return value


def _is_of_one_machine(text: str) -> bool:
    absolute = PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()
    return absolute or text.startswith("~")
