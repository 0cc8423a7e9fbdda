"""What `zspl doctor` accepts."""

from pathlib import Path

from zspl.cli._parsers._layout import Commands, formatted

_EPILOG = """\
Each line is ok, a note, or a problem; below notes and problems stands what to type. Nothing is
downloaded, hashed or changed. Run it in the folder of params.yaml; elsewhere it checks the machine.

exit codes: 0 no problem, 1 a problem"""


def add(commands: Commands) -> None:
    """Add `zspl doctor`."""
    help_ = "check this machine and the params.yaml here: what is missing, and how to mend it"
    command = formatted(
        commands.add_parser("doctor", help=help_, description=help_, epilog=_EPILOG)
    )
    command.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE")
    command.add_argument("--json", action="store_true", help="print the findings as JSON")
