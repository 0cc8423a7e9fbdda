"""Copy a finished benchmark's figures for README: `python docs/hooks/pictures.py TABLES IMAGES`."""

import io
import sys
from pathlib import Path

from PIL import Image

from zspl.io import atomic

_WIDTHS = {"qualitative.png": 1280, "miou_vs_labels.png": 760}
"""Figure -> its width in pixels at most."""

_BYTES = 200_000
_SHRINK = 0.9


def main(tables: Path, images: Path) -> int:
    """Write each figure of `tables` to `images`, below 200 kB."""
    for name, width in _WIDTHS.items():
        if not (tables / name).is_file():
            sys.stderr.write(f"zspl: {tables / name}: no such figure; run make demo first\n")
            return 2
        with Image.open(tables / name) as figure:
            atomic.write_bytes(images / name, _small(figure.convert("RGB"), width))
    return 0


def _small(figure: Image.Image, width: int) -> bytes:
    """Return the figure as a PNG of 256 colours, shrunk until it is small enough."""
    width = min(width, figure.width)
    while True:
        height = round(figure.height * width / figure.width)
        shrunk = figure.resize((width, height), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        _few_colours(shrunk).save(file, "PNG", optimize=True)
        if len(file.getvalue()) < _BYTES:
            return file.getvalue()
        width = round(width * _SHRINK)


def _few_colours(figure: Image.Image) -> Image.Image:
    # Of Pillow's methods the one that keeps a legend's small patches in their colours.
    method = Image.Quantize.MAXCOVERAGE
    return figure.quantize(256, method=method, dither=Image.Dither.NONE)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2])))
