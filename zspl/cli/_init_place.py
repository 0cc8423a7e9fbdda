"""Where a new project lives: git and DVC around it, the pipeline in it, zspl beside it."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import zspl
from zspl.errors import DataError, SettingsError, ZsplError
from zspl.io import atomic

PACKAGE = Path(zspl.__file__).parent
PIPELINE = PACKAGE / "pipeline.yaml"
CODE = "code"

_GITIGNORE = """\
/artifacts/
/code/
/data/photos/
/data/masks/
/predictions/
/mlflow.db*
/mlruns/
/mlartifacts/
"""
_DVCIGNORE = """\
# Compiled files: without this, watched code folders change by themselves.
__pycache__
*.pyc
mlartifacts
# Half-finished work of a killed stage.
.work
"""
_DVC_CONFIG = "[core]\n    analytics = false\n    check_update = false\n"


def check(folder: Path) -> None:
    """Check that a project can be made there, before anything is read or written.

    Raises:
        SettingsError: if this installation lacks a part, or there is a project already.
    """
    if not PIPELINE.is_file():
        raise SettingsError(
            f"{PIPELINE}: no such file, so this installation has no pipeline; install zspl from "
            "its checkout or its wheel"
        )
    try:
        version("dvc")
    except PackageNotFoundError as error:
        raise SettingsError(
            "zspl init: DVC is not installed, which runs the pipeline; pip install 'zspl[pipeline]'"
        ) from error
    if find_spec("tasks") is None:
        raise SettingsError(
            "zspl init: the package tasks, which dvc.yaml calls, is not installed; install zspl "
            "from its checkout or its wheel"
        )
    for name in ("params.yaml", "dvc.yaml"):
        if (folder / name).exists():
            raise SettingsError(
                f"{folder / name}: there is a project already; edit it, or pass another DIR"
            )
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder}: is a file; pass another DIR")


def furnish(folder: Path) -> None:
    """Set up git and DVC where they are not, write dvc.yaml, and link the code.

    Raises:
        ZsplError: if git or DVC fails, or a file cannot be written.
    """
    if _git(folder) and not _above(folder, ".git"):
        _run(folder, "git", "init", "-q")
    if not _above(folder, ".dvc"):
        options = ["--no-scm"] if not _above(folder, ".git") else []
        options += [] if (folder / ".git").exists() or options else ["--subdir"]
        _run(folder, sys.executable, "-m", "dvc", "init", "-q", *options)
        atomic.write_text(folder / ".dvc" / "config", _DVC_CONFIG + _scm(options))
    _add_lines(folder / ".gitignore", _GITIGNORE)
    _add_lines(folder / ".dvcignore", _DVCIGNORE)
    atomic.write_text(folder / "dvc.yaml", PIPELINE.read_text(encoding="utf-8"))
    # The package alone: a whole checkout is a DVC repository, which DVC does not look into.
    link = folder / CODE / "zspl"
    with atomic.disk_errors(link):
        link.parent.mkdir(exist_ok=True)
        if link.is_symlink():
            link.unlink()
        if link.exists():
            raise DataError(f"{link}: is in the way; move it elsewhere")
        link.symlink_to(PACKAGE.resolve())


def _scm(options: list[str]) -> str:
    return "    no_scm = true\n" if "--no-scm" in options else ""


def _above(folder: Path, name: str) -> bool:
    here = folder.resolve()
    return any((parent / name).exists() for parent in (here, *here.parents))


def _git(folder: Path) -> bool:
    try:
        _run(folder, "git", "--version")
    except ZsplError:
        return False
    return True


def _run(folder: Path, *command: str) -> None:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    shown = " ".join(command[-4:])
    try:
        subprocess.run(
            command, cwd=folder, env=environment, check=True, capture_output=True, text=True
        )
    except FileNotFoundError as error:
        raise SettingsError(f"{shown}: no such program; install {command[0]}") from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1]
        raise SettingsError(
            f"{folder}: `{shown}` failed ({said}); mend it and try again"
        ) from error


def _add_lines(path: Path, text: str) -> None:
    """Add the lines that a file lacks."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    known = before.splitlines()
    missing = [line for line in text.splitlines() if line not in known]
    joint = "\n" if before and not before.endswith("\n") else ""
    atomic.write_text(path, before + joint + "".join(f"{line}\n" for line in missing))
