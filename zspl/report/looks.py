"""How figures look: colours, markers and strokes that are told apart with and without colour."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from zspl.io import atomic

# Okabe and Ito's colours for the colour-blind, the yellow last: it is faint on white.
_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442",
)  # fmt: skip
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*")
_DPI = 130

_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#D8DCE1",
    "hatch.linewidth": 0.7,
    # The same bytes each time: ids from this salt, glyphs as paths, no font of the machine.
    "svg.hashsalt": "zspl",
    "svg.fonttype": "path",
    "text.parse_math": False,
    "figure.constrained_layout.w_pad": 0.06,
    "figure.constrained_layout.h_pad": 0.06,
}


@dataclass(frozen=True, slots=True)
class Look:
    """Colour, marker and stroke of one name, the same in every figure of a page."""

    colour: str
    marker: str
    stroke: str


def looks(names: Sequence[str]) -> dict[str, Look]:
    """Return a look for each name; colour and marker together differ for the first 88."""
    return {
        name: Look(
            _COLOURS[index % len(_COLOURS)],
            _MARKERS[index % len(_MARKERS)],
            "-" if index < len(_COLOURS) else "-.",
        )
        for index, name in enumerate(names)
    }


@contextmanager
def drawing(width: float, height: float, path: Path) -> Iterator[Figure]:
    """Yield a figure of that many inches and write it as PATH.png and PATH.svg."""
    # The object interface needs no display and leaves no global state, unlike pyplot.
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        _save(figure, path, "png", {"Software": None})
        _save(figure, path, "svg", {"Date": None, "Creator": "zspl"})


def _save(figure: Figure, path: Path, kind: str, metadata: dict[str, str | None]) -> None:
    content = BytesIO()
    figure.savefig(content, format=kind, dpi=_DPI, metadata=metadata)
    atomic.write_bytes(path.with_suffix(f".{kind}"), content.getvalue())


def inches(path: Path) -> float:
    """Return the width of a drawn figure, in inches; `path` is without suffix."""
    with Image.open(path.with_suffix(".png")) as drawn:
        return drawn.width / _DPI
