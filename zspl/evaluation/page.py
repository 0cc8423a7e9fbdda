"""The page that shows tables and figures together, in one file that can be mailed."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from zspl.evaluation.tables import Table, html
from zspl.evaluation.webpage import document, picture


def page(
    title: str,
    tables: Sequence[Table],
    *,
    figures: Sequence[tuple[str, Path]],
    missing: Sequence[str],
) -> str:
    """Return the whole report as HTML, pictures inside.

    Args:
        title: Name of the benchmark.
        tables: Shown in this order.
        figures: Captions and PNG files; the first is shown above the tables.
        missing: What has no score, named at the top.
    """
    blocks = [_figure(caption, path) for caption, path in figures]
    parts = [
        f"<h1>{escape(title)}</h1>",
        *(f"<p class='missing'>{escape(line)}</p>" for line in missing),
        *blocks[:1],
        *(html(table) for table in tables),
        *blocks[1:],
    ]
    return document(title, "\n".join(parts))


def _figure(caption: str, path: Path) -> str:
    image = picture(path.read_bytes(), text=caption)
    return f"<figure>{image}<figcaption class='note'>{escape(caption)}</figcaption></figure>"
