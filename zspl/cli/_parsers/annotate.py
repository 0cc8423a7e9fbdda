"""What `zspl annotate` accepts."""

import argparse
from collections.abc import Callable
from pathlib import Path

from zspl.cli._parsers._layout import Commands, add_set

_HELP = "label a folder of photos from class names: label maps, confidence, report, exports"

_DESCRIPTION = """\
Label every pixel of every photo in a folder, from class names alone.

Segments (SAM) and text-image features (CLIP) make one label map per photo, with a confidence per
pixel, a report of what to doubt, and files that annotation tools import. No training, no masks
needed; with a few masks (--masks) the labels are calibrated and their expected mIoU is told.

look first, then label everything (what the preview did is not done again):
  zspl annotate --images photos/ --classes "cat, dog, sofa" --out labels/ --preview 12
  zspl annotate --images photos/ --classes "cat, dog, sofa" --out labels/

better labels: synonyms, and what else is in the photos
  zspl annotate --images photos/ --classes "dog=dog|puppy, sofa=sofa|couch" \\
      --background "sky, grass, wall, floor" --prompts imagenet80 --out labels/

calibrated on some masks, exported for a labeling tool
  zspl annotate --images photos/ --classes classes.txt --masks masks/ --out labels/ \\
      --export coco,labelstudio

other models, other places
  zspl annotate --images photos/ --classes cat,dog --out labels/ --sam vit_h \\
      --clip ViT-L-14-quickgelu:openai --features sclip --device cuda --batch 8

try it without any download (tiny models in the package; they know rendered textures only)
  zspl annotate --images textures/ --classes "zebra, brick" --sam tiny --clip tiny --out labels/
"""

_EPILOG = """\
written to --out (the folder of --images is only read):
  labels/NAME.png       palette PNG: 0 background, 1, 2, ... the classes in their order,
                        255 nothing claimed; NAME is the photo's path without suffix
  confidence/NAME.png   8-bit grey, 255 = certain
  index.html            report: photos beside labels, classes, the most doubtful photos
  contact_sheet.png     some of them on one picture
  images.csv            one row per photo, most doubtful first: label these by hand next
  quarantine.csv        photos that could not be labeled, with reasons (only if any)
  annotate.json         every setting, so that the labels can be made again
  facts/, quarantined/  numbers of each photo and its segments; what was put aside
  exports/              files of --export

A run that was stopped or killed continues with the same command; a photo that changed is labeled
again. Labels of other settings never mix: pass another --out.

exit codes: 0 all photos are labeled, 1 some are in quarantine, 2 you can fix it, 130 stopped"""


def add(commands: Commands) -> None:
    """Add `zspl annotate`."""
    command = commands.add_parser(
        "annotate", help=_HELP, description=_DESCRIPTION, epilog=_EPILOG, formatter_class=_layout
    )
    for title, fill in _GROUPS:
        fill(command.add_argument_group(title))


def _layout(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=26)


def _folders(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--images",
        type=Path,
        required=True,
        metavar="DIR",
        help="photos, in subfolders, too; hidden ones are left out",
    )
    group.add_argument(
        "--classes",
        required=True,
        metavar="LIST|FILE",
        help='"cat, dog=dog|puppy": names, after = what CLIP is asked for; or a text or YAML '
        "file with one of these per line",
    )
    group.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where everything is written"
    )


def _results(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--preview",
        type=_count,
        metavar="N",
        help="label N photos spread over the folder and draw the contact sheet, nothing else",
    )
    group.add_argument(
        "--export",
        default="",
        metavar="FORMATS",
        help="write these formats, too: coco, labelstudio, voc, yolo",
    )
    group.add_argument(
        "--masks",
        type=Path,
        metavar="DIR",
        help="masks of some photos, NAME.png with class ids as in labels/, 255 ignored: they "
        "choose the thresholds, calibrate the confidence, and tell how good the labels will be",
    )
    group.add_argument(
        "--redo-quarantined",
        action="store_true",
        help="try photos in quarantine again, as after freeing memory",
    )


def _labels(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--background",
        default="",
        metavar="LIST|FILE",
        help="what else may be seen, such as sky, grass: where it fits best, nothing is painted",
    )
    group.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="a class must score higher: its probability (0.85), or with --set "
        "labeler.score=cosine its cosine (0.25)",
    )
    group.add_argument(
        "--unassigned",
        choices=("background", "ignore"),
        default="background",
        help="the label below the threshold: 0 (background) or 255 (ignore)",
    )
    group.add_argument(
        "--prompts",
        choices=("single", "imagenet80"),
        default="single",
        help="one sentence per text (--prompt), or the mean of 80 (slower once, often better)",
    )
    group.add_argument("--prompt", metavar="TEXT", help="the one sentence (a photo of a {})")


def _models(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--proposals",
        default="sam",
        metavar="NAME",
        help="segments: sam, superpixels (no weights), or none (pixel by pixel)",
    )
    group.add_argument(
        "--sam",
        metavar="MODEL",
        help="mobile_sam (the default without a GPU), vit_b, vit_l, vit_h (the default with one), "
        "tiny, or a checkpoint file below ZSPL_WEIGHTS",
    )
    group.add_argument(
        "--features",
        default="gem",
        metavar="NAME",
        help="how CLIP looks at pixels: clip, maskclip, sclip, clearclip, naclip, gem, corrclip, "
        "or crops (segment by segment) (gem)",
    )
    group.add_argument(
        "--clip",
        metavar="MODEL",
        help="an open_clip name, with :TAG or :FILE of its weights (ViT-B-16-quickgelu:openai), "
        "or tiny",
    )
    group.add_argument(
        "--labeler",
        metavar="NAME",
        help="rule that joins them (region_pool; pixel_argmax with --proposals none)",
    )
    add_set(group, "any other setting: proposals.KEY, features.KEY or labeler.KEY")


def _machine(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--device", metavar="NAME", help="cpu, cuda or cuda:N (a GPU where there is one)"
    )
    group.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="precision of the networks; auto is float32 on a CPU, half of it on a GPU",
    )
    group.add_argument(
        "--batch",
        type=_count,
        metavar="N",
        help="photos per pass of the networks (1 on a CPU, 4 on a GPU)",
    )
    group.add_argument(
        "--max-side",
        type=_side,
        default=2048,
        metavar="PIXELS",
        help="larger photos are shrunk to this side for the models, which bounds memory; labels "
        "keep the photo's size; 0 never shrinks (2048)",
    )


_GROUPS: tuple[tuple[str, Callable[[argparse._ArgumentGroup], None]], ...] = (
    ("needed", _folders),
    ("what to make", _results),
    ("what counts as a class", _labels),
    ("models", _models),
    ("machine", _machine),
)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, got {text!r}")
    return int(text)


def _side(text: str) -> int | None:
    return None if text == "0" else _count(text)
