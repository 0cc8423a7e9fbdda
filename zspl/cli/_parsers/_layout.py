"""What the parsers of all commands share."""

import argparse
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - argparse has no public name
"""What `add_subparsers` returns."""


def formatted(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Keep the line breaks of a parser's texts."""
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    return made


def add_set(command: argparse._ActionsContainer, what: str) -> None:
    """Add --set KEY=VALUE, which may be given several times."""
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="changes", help=what
    )
