"""The page of the command line: what each parser prints for --help, and the words of make."""

import argparse
import os
import re
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from zspl.cli._parsers import parser

_WIDTH = "90"

_INTRO = """\
# Command line

What `--help` prints, command by command. A problem is one line on stderr and exit code 2; see
[When something goes wrong](../troubleshooting.md).
"""

_STAGES = """\
## python -m tasks

    python -m tasks STAGE KEY=VALUE ...     one stage instance, tracked: what dvc.yaml calls
    python -m tasks check                   read params.yaml, say what is wrong, run nothing

## python -m flows.full_benchmark

    python -m flows.full_benchmark FOLDER   the benchmark in FOLDER (. is the default one)
"""

_MAKE = "## make\n\n| target | what it does |\n|---|---|"


def markdown(makefile: Path) -> str:
    """Return the page.

    Args:
        makefile: The Makefile whose targets are listed.
    """
    parts = [_INTRO]
    for name, command in _commands(parser()):
        parts.append(f"## {name}\n\n```text\n{_help(command)}\n```")
    parts.append(_STAGES)
    parts.append(
        "## make\n\n| target | what it does |\n|---|---|\n" + "\n".join(_targets(makefile))
    )
    return "\n\n".join(parts)


def _commands(
    made: argparse.ArgumentParser,
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield a parser and those of its sub-commands."""
    yield made.prog, made
    for action in made._actions:  # noqa: SLF001 - argparse tells its sub-commands nowhere else
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for inner in dict.fromkeys(action.choices.values()):
                yield from _commands(inner)


def _help(command: argparse.ArgumentParser) -> str:
    with mock.patch.dict(os.environ, COLUMNS=_WIDTH):
        return command.format_help().rstrip()


def _targets(makefile: Path) -> Iterator[str]:
    for name, told in re.findall(r"^([a-z-]+):.*## (.*)$", makefile.read_text(), re.MULTILINE):
        yield f"| `make {name}` | {told} |"
