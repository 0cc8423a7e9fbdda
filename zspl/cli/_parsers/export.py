"""What `zspl export` accepts."""

import argparse
from pathlib import Path

from zspl.cli._parsers._layout import Commands, formatted
from zspl.cli._parsers.predict import add_checkpoint

_EPILOG = """\
examples:
  zspl export --checkpoint artifacts/cells/recommended-sam_gem/r101/labeled/seed-0 --out model.onnx
  zspl export --checkpoint .../seed-0 --out fixed.onnx --size 512x512

The ONNX file takes `image`, float32 [batch, 3, height, width]: red, green, blue in [0, 1], minus
zspl.mean, over zspl.std; and gives `logits`, float32 [batch, classes, height, width]. Its metadata
holds zspl.classes, zspl.mean, zspl.std and what it was trained by. Any size of 32 pixels or more,
or with --size this one alone, which networks need whose shapes are fixed by tracing (dinov2).

Before the file is kept, onnxruntime computes noise of several sizes with it, and the logits are
compared with torch's: the largest difference and the share of pixels of equal class are printed,
and a file that differs is refused.

exit codes: 0 done, 2 you can fix it"""


def add(commands: Commands) -> None:
    """Add `zspl export`."""
    help_ = "write a trained network as ONNX, compared with torch in onnxruntime"
    command = formatted(
        commands.add_parser("export", help=help_, description=help_, epilog=_EPILOG)
    )
    add_checkpoint(command)
    command.add_argument("--out", type=Path, required=True, metavar="FILE.onnx")
    command.add_argument(
        "--size", type=_size, metavar="HxW", help="one size of images in pixels (any size)"
    )


_SMALLEST = 32


def _size(text: str) -> tuple[int, int]:
    height, x, width = text.partition("x")
    sides = [int(side) for side in (height, width) if side.isdecimal()]
    if not x or len(sides) != len((height, width)) or min(sides) < _SMALLEST:
        raise argparse.ArgumentTypeError(
            f"expected height x width from {_SMALLEST} pixels such as 512x512, got {text!r}"
        )
    return sides[0], sides[1]
