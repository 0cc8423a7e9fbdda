"""What `zspl predict` accepts."""

import argparse
from pathlib import Path

from zspl.cli._parsers._layout import Commands, formatted

_EPILOG = """\
examples:
  zspl predict --checkpoint artifacts/cells/recommended-sam_gem/r101/labeled/seed-0 \\
      --images photos/ --out predictions/
  zspl predict --checkpoint .../seed-0/best.safetensors --images photos/ --out sharper/ \\
      --scales 0.75,1,1.25 --flip
  zspl predict --checkpoint .../seed-0 --images aerial/ --out aerial_maps/ --window 801

The folder of a trained cell tells its network, classes and how pixels are normalised
(model.json). A folder means its last.safetensors; best.safetensors is named by its file. For a
cell that was trained before model.json was written, --params names its params.yaml.

written to --out (the folder of --images is only read):
  labels/NAME.png       palette PNG of the photo's size, one class id per pixel
  confidence/NAME.png   8-bit grey: the network's probability of that class, 255 = certain
  overlays/NAME.jpg     the photo with the classes painted on
  images.csv            one row per photo, least confident first: share of each class in [0, 1]
  index.html            report with pictures
  quarantine.csv        photos that could not be labeled, with reasons (only if any)
  predict.json          checkpoint and settings, so that results of two never mix

A run that was stopped or killed continues with the same command and ends with the same bytes; a
photo that changed is labeled again.

exit codes: 0 all photos are labeled, 1 some are in quarantine, 2 you can fix it, 130 stopped"""


def add(commands: Commands) -> None:
    """Add `zspl predict`."""
    help_ = "label a folder of photos with a trained network: label maps, overlays, report"
    command = formatted(
        commands.add_parser("predict", help=help_, description=help_, epilog=_EPILOG)
    )
    add_checkpoint(command)
    command.add_argument(
        "--images", type=Path, required=True, metavar="DIR", help="photos, in subfolders, too"
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    command.add_argument(
        "--window",
        type=_window,
        metavar="PIXELS",
        help="look through windows of this side, 0: at whole photos (as it was trained)",
    )
    command.add_argument(
        "--scales",
        type=_scales,
        default=(1.0,),
        metavar="LIST",
        help="sizes, over the photo's own, whose probabilities are averaged: 0.75,1,1.25 (1)",
    )
    command.add_argument("--flip", action="store_true", help="average with the mirror image, too")
    command.add_argument("--device", metavar="NAME", help="cpu, cuda or cuda:N (a GPU if any)")
    command.add_argument(
        "--batch", type=_count, metavar="N", help="photos per pass (1 on a CPU, 8 on a GPU)"
    )
    command.add_argument(
        "--redo-quarantined", action="store_true", help="try photos in quarantine again"
    )


def add_checkpoint(command: argparse.ArgumentParser) -> None:
    """Add --checkpoint and --params."""
    command.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="DIR|FILE",
        help="the folder of a trained cell, or a .safetensors file in it",
    )
    command.add_argument(
        "--params",
        type=Path,
        metavar="FILE",
        help="the params.yaml of a cell that has no model.json",
    )


_SMALLEST_WINDOW = 16
_LEAST_SCALE, _MOST_SCALE = 0.1, 4.0


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, got {text!r}")
    return int(text)


def _window(text: str) -> int:
    if not text.isdigit() or 0 < int(text) < _SMALLEST_WINDOW:
        raise argparse.ArgumentTypeError(
            f"expected 0 or a number from {_SMALLEST_WINDOW}, got {text!r}"
        )
    return int(text)


def _scales(text: str) -> tuple[float, ...]:
    try:
        scales = tuple(float(part) for part in text.split(","))
    except ValueError:
        scales = ()
    if not scales or not all(_LEAST_SCALE <= scale <= _MOST_SCALE for scale in scales):
        raise argparse.ArgumentTypeError(
            f"expected numbers from {_LEAST_SCALE} to {_MOST_SCALE:.0f} such as 0.75,1,1.25, got "
            f"{text!r}"
        )
    return scales
