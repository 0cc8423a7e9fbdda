"""What the commands accept. Nothing heavy is imported here, so that help is instant."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001

_TOP = """\
commands by purpose:
  zspl run prepare                                  one stage of the benchmark in params.yaml
  zspl annotate --images DIR --classes cat,dog --out DIR    pseudo labels for any photos
  zspl score --predictions DIR --labels DIR         mIoU of label maps

The benchmark as a whole: `dvc repro`, or the Prefect flow full-benchmark. Settings live in
params.yaml; ZSPL_DEVICE, ZSPL_WORKERS and ZSPL_WEIGHTS say where and how fast.
exit codes: 0 done, 1 done but some inputs were skipped, 2 you can fix it, 130 stopped"""

_RUN = """\
examples:
  zspl run prepare
  zspl run propose proposer=sam shard=0
  zspl run label variant=sam_gem
  zspl run train method=enhanced labels=sam_gem model=small split=labeled_20 seed=0
  zspl run evaluate variant=sam_gem --set label.calibration_split=labeled_40
  zspl run tabulate --params benchmarks/animals/params.yaml

Runs one stage as it is, without DVC, Prefect or MLflow. Paths are seen from the folder of
params.yaml. The last line printed is the stage's headline numbers as JSON."""

_SCORE = """\
examples:
  zspl score --predictions out/ --labels VOC2012/SegmentationClass --ids val.txt
  zspl score --predictions out/ --labels masks/ --set 'classes=[cat, dog]' --csv per_class.csv

One confusion matrix over all images; 255 in a mask is left out, 255 in a prediction is a miss.
Both folders hold the data set's own mask values; files belong together by name."""

_ANNOTATE = """\
examples:
  zspl annotate --images photos/ --classes cat,dog,sofa --out labels/
  zspl annotate --images photos/ --classes cat,dog --out labels/ --features clip \\
      --set proposals.model=vit_b --set features.model=ViT-L-14-quickgelu
  zspl annotate --images photos/ --classes zebra,brick --out labels/ --threshold 0.13 \\
      --set proposals.model=tiny --set proposals.points_per_side=8 \\
      --set proposals.pred_iou_thresh=0.7 --set proposals.stability_score_thresh=0.7 \\
      --set features.model=tiny --set features.depth=5 --set features.ss_attn_temp=20 \\
      --set labeler.score=cosine        # the weights in the package: rendered textures only

Writes <name>.png (0 background, 1.. the classes in their order), <name>.confidence.png,
classes.json and contact_sheet.png. Images that are done are not done again; unreadable ones are
skipped and named at the end (exit code 1). The threshold is not calibrated: no mask is read."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = _formatted(
        argparse.ArgumentParser(
            prog="zspl",
            description="Zero-shot pseudo labels from SAM and CLIP for semi-supervised "
            "semantic segmentation.",
            epilog=_TOP,
        )
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _run(commands)
    _score(commands)
    _annotate(commands)
    _weights(commands)
    _splits(commands)
    return top


def _formatted(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    return made


def _run(commands: "Commands") -> None:
    help_ = "run one stage of the benchmark in params.yaml"
    command = _formatted(commands.add_parser("run", help=help_, description=help_, epilog=_RUN))
    command.add_argument(
        "stage", help="prepare, propose, embed, label, train, evaluate or tabulate"
    )
    command.add_argument(
        "instance", nargs="*", metavar="KEY=VALUE", help="which part of the stage, such as shard=0"
    )
    command.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE")
    _add_set(command, "a setting of params.yaml for this once, such as train.iterations=10")


def _score(commands: "Commands") -> None:
    help_ = "score a folder of label maps against a folder of masks"
    command = _formatted(commands.add_parser("score", help=help_, description=help_, epilog=_SCORE))
    command.add_argument("--predictions", type=Path, required=True, metavar="DIR")
    command.add_argument("--labels", type=Path, required=True, metavar="DIR", help="the masks")
    command.add_argument(
        "--dataset", default="pascal_voc", metavar="NAME", help="whose classes (pascal_voc)"
    )
    command.add_argument(
        "--ids", type=Path, metavar="FILE", help="score these names only, one per line"
    )
    command.add_argument("--csv", type=Path, metavar="FILE", help="write the table here, too")
    _add_set(command, "a setting of the data set, such as classes=[cat, dog]")


def _annotate(commands: "Commands") -> None:
    help_ = "make pseudo labels for a folder of photos from class names"
    command = _formatted(
        commands.add_parser("annotate", help=help_, description=help_, epilog=_ANNOTATE)
    )
    command.add_argument("--images", type=Path, required=True, metavar="DIR")
    command.add_argument(
        "--classes", required=True, metavar="A,B,...", help="names as one would say them"
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    command.add_argument("--proposals", default="sam", help="segments: sam, superpixels or none")
    command.add_argument("--features", default="gem", help="embeddings: gem or clip")
    command.add_argument(
        "--labeler",
        metavar="NAME",
        help="rule that joins them (region_pool; pixel_argmax with --proposals none)",
    )
    command.add_argument(
        "--threshold",
        type=float,
        default=0.85,
        help="a class must be more probable than this, else background (0.85)",
    )
    _add_set(command, "a setting of a part: proposals.KEY, features.KEY or labeler.KEY")


def _weights(commands: "Commands") -> None:
    help_ = "find and check checkpoints in the weights folder (ZSPL_WEIGHTS)"
    command = commands.add_parser("weights", help=help_, description=help_)
    command.add_argument(
        "action", choices=("path", "verify"), help="path: where it lies; verify: its sha256"
    )
    command.add_argument("name", help="file name below the weights folder")
    command.add_argument("--sha256", help="what the checksum must begin with")


def _splits(commands: "Commands") -> None:
    help_ = "list the splits shipped with zspl and those of a prepared benchmark"
    command = commands.add_parser("splits", help=help_, description=help_)
    command.add_argument("action", choices=("list",))
    command.add_argument("--params", type=Path, metavar="FILE", help="of a prepared benchmark")


def _add_set(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="changes", help=what
    )
