"""What `zspl splits` accepts."""

from pathlib import Path

from zspl.cli._parsers._layout import Commands, formatted

_EPILOG = """\
examples:
  zspl splits list                                        the official lists shipped with zspl
  zspl splits verify                                      their checksums
  zspl splits verify --params params.yaml                 the splits of a benchmark against its data
  zspl splits verify --lists DIR                          lists that `make` wrote
  zspl splits make --images DIR --masks DIR --sizes 20,80 --out DIR
  zspl splits make --params params.yaml --sizes 20,80 --out DIR

`make` draws so that each class gets its share, and a smaller list is a part of every larger one.
exit codes: 0 good, 1 verify found a problem (a line each), 2 it could not look"""


def add(commands: Commands) -> None:
    """Add `zspl splits`."""
    help_ = "list, check or draw lists of labeled images"
    command = formatted(
        commands.add_parser("splits", help=help_, description=help_, epilog=_EPILOG)
    )
    command.add_argument("action", choices=("list", "verify", "make"))
    command.add_argument("--params", type=Path, metavar="FILE", help="of a benchmark")
    command.add_argument("--lists", type=Path, metavar="DIR", help="verify: lists with a manifest")
    command.add_argument("--images", type=Path, metavar="DIR", help="make: photos")
    command.add_argument(
        "--masks",
        type=Path,
        metavar="DIR",
        help="make: <id>.png of class ids, 0 background, 255 void",
    )
    command.add_argument("--sizes", metavar="N,N", help="make: numbers of images, such as 20,80")
    command.add_argument("--seed", type=int, default=0, help="make: of the draw (default: 0)")
    command.add_argument(
        "--name", default="made", help="make: lists are NAME_<size>.txt (default: made)"
    )
    command.add_argument("--out", type=Path, metavar="DIR", help="make: where the lists go")
