"""What `zspl plan` accepts."""

from pathlib import Path

from zspl.cli._parsers._layout import Commands, add_set, formatted

_EPILOG = """\
examples:
  zspl plan pascal                       what benchmarks/pascal takes, without its data
  zspl plan . --csv plan.csv             the default benchmark, every stage instance as CSV
  zspl plan animals --measure            times a dozen photos and a few steps here first

Nothing runs and nothing is written but what you ask for. A time with ~ is an estimate: the rate of
other settings on the same device, scaled by operations or pixels; the CSV names what from. Times
of a CPU are of one core. Rates come from --measure, else from this benchmark's finished stages,
else from the table shipped with zspl."""


def add(commands: Commands) -> None:
    """Add `zspl plan`."""
    help_ = "tell what a benchmark takes, in time and disk space, before anything runs"
    command = formatted(commands.add_parser("plan", help=help_, description=help_, epilog=_EPILOG))
    command.add_argument(
        "benchmark", nargs="?", default=".", help="a name in benchmarks/, or a folder (default: .)"
    )
    command.add_argument("--csv", type=Path, metavar="FILE", help="also write every row there")
    command.add_argument(
        "--measure", action="store_true", help="time a miniature here first; needs `prepare`"
    )
    add_set(command, "a setting of params.yaml for this once, such as cells.seeds=[0,1,2]")
