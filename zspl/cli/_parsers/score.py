"""What `zspl score` accepts."""

from pathlib import Path

from zspl.cli._parsers._layout import Commands, add_set, formatted

_EPILOG = """\
examples:
  zspl score --predictions out/ --labels VOC2012/SegmentationClass --ids val.txt
  zspl score --predictions out/ --labels masks/ --set 'classes=[cat, dog]' --csv per_class.csv

One confusion matrix over all images; 255 in a mask is left out, 255 in a prediction is a miss.
Both folders hold the data set's own mask values; files belong together by name."""


def add(commands: Commands) -> None:
    """Add `zspl score`."""
    help_ = "score a folder of label maps against a folder of masks"
    command = formatted(commands.add_parser("score", help=help_, description=help_, epilog=_EPILOG))
    command.add_argument("--predictions", type=Path, required=True, metavar="DIR")
    command.add_argument("--labels", type=Path, required=True, metavar="DIR", help="the masks")
    command.add_argument(
        "--dataset", default="pascal_voc", metavar="NAME", help="whose classes (pascal_voc)"
    )
    command.add_argument(
        "--ids", type=Path, metavar="FILE", help="score these names only, one per line"
    )
    command.add_argument("--csv", type=Path, metavar="FILE", help="write the table here, too")
    add_set(command, "a setting of the data set, such as classes=[cat, dog]")
