"""What `zspl init` accepts."""

import argparse
from pathlib import Path

from zspl.cli._parsers._layout import Commands, formatted

MODELS = ("small", "mobilenet", "r101", "mit_b2")

_EPILOG = """\
examples:
  zspl init farm --images photos/ --masks masks/ --classes "crop, weed=weed|thistle" \\
      --background "soil, sky"
  zspl init farm                          asks for what is missing, on a terminal
  zspl init toy --images textures/ --masks masks/ --classes "zebra, brick" --sam tiny --clip tiny \\
      --model small --iterations 100      offline, in a minute; the tiny models know textures only

A mask is a palette or grey PNG of its photo's size and name (photos/a/b.jpg, masks/a/b.png): 0 the
background, 1, 2, ... the classes in their order, 255 nothing is said. Photos and masks are read and
linked, never copied or changed. A fifth of the masks is kept to score on, the rest teaches.

written to DIR:
  params.yaml         the benchmark, with comments: what runs, on what, how long
  dvc.yaml            the pipeline, a copy of the one in the package
  data/               links to the photos and usable masks, and the split (data/lists)
  code/               a link to the installed zspl, which DVC watches
  .gitignore, .dvcignore; git and DVC are set up where they are not

exit codes: 0 done, 1 done but some photos or masks were left out, 2 you can fix it"""


def add(commands: Commands) -> None:
    """Add `zspl init`."""
    help_ = "make a project of one's own photos, masks and classes"
    command = formatted(commands.add_parser("init", help=help_, description=help_, epilog=_EPILOG))
    command.add_argument("folder", type=Path, metavar="DIR", help="the new project")
    command.add_argument("--images", type=Path, metavar="DIR", help="photos, in subfolders, too")
    command.add_argument("--masks", type=Path, metavar="DIR", help="masks of some of the photos")
    command.add_argument(
        "--classes", metavar="LIST|FILE", help='"cat, dog=dog|puppy", as for zspl annotate'
    )
    command.add_argument(
        "--background", default="", metavar="LIST|FILE", help="what else may be seen: sky, grass"
    )
    command.add_argument(
        "--model",
        choices=MODELS,
        help="the network to train: r101 (the default on a GPU), mit_b2, mobilenet (on a CPU), or "
        "small, which starts from nothing",
    )
    command.add_argument(
        "--sam", metavar="MODEL", help="mobile_sam (on a CPU), vit_h (on a GPU), vit_b, vit_l, tiny"
    )
    command.add_argument("--clip", metavar="MODEL", help="an open_clip name with :TAG, or tiny")
    command.add_argument(
        "--iterations", type=_count, metavar="N", help="optimiser steps of each training"
    )


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, got {text!r}")
    return int(text)
