"""Which rows a figure shows, and what the names mean."""

import ast
import re
from collections.abc import Sequence
from importlib import resources

from zspl.evaluation.results import Results, configured_cells
from zspl.settings import LabelVariant, Settings

BASELINE = "supervised"
OURS = "recommended"
_FIRST = (BASELINE, "unimatch", "paper", OURS)
ROOM = 6
"""Methods that stand side by side in a figure with one column for each."""


def methods_of(settings: Settings) -> dict[str, str]:
    """Return the plugin of every row of the tables, in their order."""
    return {cell.name: cell.method for cell in configured_cells(settings)}


def method_of(settings: Settings, series: str) -> str:
    """Return the plugin of a row, or of what `series_name` returned."""
    return methods_of(settings)[series.partition(", ")[0]]


def shown_rows(settings: Settings, rows: Sequence[str]) -> list[str]:
    """Return at most six of rows or series, in their order; the paper's comparison goes first."""
    order = list(rows)
    wanted = sorted(order, key=lambda r: (method_of(settings, r) not in _FIRST, order.index(r)))
    kept = set(wanted[:ROOM])
    return [row for row in rows if row in kept]


def smallest_split(settings: Settings, results: Results) -> str:
    """Return the split of the cells with the fewest labeled images."""
    return min(settings.cells.splits, key=lambda name: results.labeled_images[name])


def series_name(results: Results, row: str, model: str) -> str:
    """Return the name of a line or bar: the method, and the model if there are several."""
    return f"{row}, {model}" if results.cells["model"].nunique() > 1 else row


def row_of(settings: Settings, method: str) -> str | None:
    """Return the first row that the plugin `method` has, or None."""
    return next((row for row, plugin in methods_of(settings).items() if plugin == method), None)


def described_method(method: str) -> str:
    """Return the first line of a method's own description, without its references to pages.

    Example:
        >>> described_method("unimatch")
        'UniMatch (Yang et al. 2023), the official first version'
    """
    path = resources.files("zspl") / "methods" / f"{method}.py"
    if not path.is_file():
        return ""
    text = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
    text = re.sub(r"[,;]? ?methods\.md [\d.]+", "", text).replace(" ()", "")
    return text.rstrip(".")


def described_variant(variant: LabelVariant) -> str:
    """Return how a variant of pseudo labels is made."""
    if variant.labeler.name == "from_folder":
        return "label maps that somebody else made, read from a folder"
    segments = (
        "single pixels" if variant.proposals == "none" else f"segments of {variant.proposals}"
    )
    features = "no features" if variant.features == "none" else f"features of {variant.features}"
    return f"{segments}, {features}, rule {variant.labeler.name}"
