"""What `zspl refine` accepts."""

from pathlib import Path

from zspl.cli._parsers._layout import Commands, add_set, formatted

_EPILOG = """\
examples:
  zspl refine --labels cams/ --images JPEGImages/ --out refined/ --sam vit_h
  zspl refine --labels cams/ --images JPEGImages/ --out refined/ \\
      --sam vit_b --set proposals.points_per_side=16
  zspl refine --labels out/labels --images photos/ --out refined/ --proposals superpixels
  zspl refine --labels cams/ --segments sam_masks/ --out refined/ --num-classes 21

The method is SEPL: a segment that is mostly one class becomes that class as a whole, so that the
shapes come from the segments and the classes from the label maps. The rules:
  max_iou       segments of which more than half is the class
  max_iou_imp   and the class's pixels that no segment covers
  max_iou_imp2  and segments that hold at least 85 % of the class (the published default)
The rest becomes background (0); a pixel that is 255 stays 255 where no segment claims it.

Label maps are palette or grey PNGs in any depth of folders, 0 the background, 255 ignored. A photo
belongs to the label map of the same path and name. --segments holds one folder per label map,
<name>/*.png, each file one mask (0 and one other value). Without --classes or --num-classes the
classes are those of zspl annotate if it made the label maps; else every value is a class.

Writes <name>.png as palette PNGs, and refine.json with the choices. The same command again
continues: what is done stays done, unless its label map is newer. Other choices need another
--out. Files that could not be used are listed at the end (exit code 1)."""


def add(commands: Commands) -> None:
    """Add `zspl refine`."""
    help_ = "snap any label maps to the outlines of segments (SEPL)"
    command = formatted(
        commands.add_parser("refine", help=help_, description=help_, epilog=_EPILOG)
    )
    command.add_argument("--labels", type=Path, required=True, metavar="DIR", help="label maps")
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", type=Path, metavar="DIR", help="the photos, to cut segments")
    source.add_argument("--segments", type=Path, metavar="DIR", help="binary masks: <name>/*.png")
    command.add_argument(
        "--proposals", metavar="NAME", help="how photos are cut: sam (default) or superpixels"
    )
    command.add_argument(
        "--sam",
        metavar="MODEL",
        help="mobile_sam (the default without a GPU), vit_b, vit_l, vit_h (the default with one), "
        "tiny, or a checkpoint file below ZSPL_WEIGHTS",
    )
    command.add_argument(
        "--rule",
        default="max_iou_imp2",
        choices=("max_iou", "max_iou_imp", "max_iou_imp2"),
        help="which segments a class claims (max_iou_imp2)",
    )
    known = command.add_mutually_exclusive_group()
    known.add_argument("--classes", metavar="A,B,...", help="names of the classes 1, 2, ...")
    known.add_argument(
        "--num-classes", type=int, metavar="N", help="number of classes, background included"
    )
    add_set(command, "a setting of the proposals: proposals.KEY")
