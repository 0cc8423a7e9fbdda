"""What `zspl splits` accepts."""

from pathlib import Path

from zspl.cli._parsers._layout import Commands


def add(commands: Commands) -> None:
    """Add `zspl splits`."""
    help_ = "list the splits shipped with zspl and those of a prepared benchmark"
    command = commands.add_parser("splits", help=help_, description=help_)
    command.add_argument("action", choices=("list",))
    command.add_argument("--params", type=Path, metavar="FILE", help="of a prepared benchmark")
