"""The page that shows tables and figures together, in one file that can be mailed."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from zspl.evaluation.tables import Table, html

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>$title</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222; margin: 2rem auto; max-width: 72rem;
  padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block;
  overflow-x: auto; }
th, td { padding: .3rem .9rem .3rem 0; text-align: left; border-bottom: 1px solid #ddd;
  white-space: nowrap; }
th { border-bottom: 2px solid #888; }
img { max-width: 100%; }
.note, .missing { color: #555; font-size: .9em; margin: .3rem 0; }
.missing { color: #a40000; }
</style>
</head>
<body>
<h1>$title</h1>
$missing
$figures_first
$tables
$figures_last
</body>
</html>
""")


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
    return _PAGE.substitute(
        title=escape(title),
        missing="".join(f"<p class='missing'>{escape(line)}</p>" for line in missing),
        figures_first="\n".join(blocks[:1]),
        tables="\n".join(html(table) for table in tables),
        figures_last="\n".join(blocks[1:]),
    )


def _figure(caption: str, path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    text = escape(caption)
    return (
        f"<figure><img alt='{text}' src='data:image/png;base64,{data}'>"
        f"<figcaption class='note'>{text}</figcaption></figure>"
    )
