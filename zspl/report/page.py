"""The page: headline, figures, tables and how to reproduce them, in one file that can be mailed."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from string import Template

from PIL import Image

from zspl.evaluation.webpage import document, picture
from zspl.report.figures import Figure
from zspl.report.formats import Table, html
from zspl.report.headline import Headline
from zspl.report.looks import inches

_STYLE = """
nav { margin: 1rem 0; } nav a { margin-right: 1rem; white-space: nowrap; }
a { color: var(--accent); }
h2 { border-top: 1px solid var(--line); padding-top: 1.2rem; font-size: 1.3rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
.scroll { overflow-x: auto; max-width: 100%; }
.scroll:focus-visible { outline: 2px solid var(--accent); }
.scroll table { display: table; overflow: visible; font-size: .9em; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
th, td { vertical-align: baseline; } tbody th { font-weight: 600; border-bottom: 1px solid
  var(--line); } thead th { vertical-align: bottom; } .n { text-align: right; }
tbody tr:hover { background: var(--raised); }
figure { margin: 1rem 0 1.6rem; }
figure .scroll { background: #fff; border: 1px solid var(--line); border-radius: 4px;
  width: fit-content; }
figure img { display: block; max-width: 100%; width: var(--w); min-width: min(var(--w), 38rem);
  margin: 0; }
figcaption { max-width: 46rem; }
ul { padding-left: 1.2rem; } li { margin: .3rem 0; max-width: 52rem; }
li b { white-space: nowrap; }
pre { overflow-x: auto; background: var(--raised); padding: .7rem; overflow-wrap: normal;
  font-size: .85em; }
details { margin: .8rem 0; } summary { cursor: pointer; }
details:not(.missing) > summary { color: var(--accent); }
dt { font-weight: 600; margin-top: .5rem; } dd { margin: 0 0 0 1rem; max-width: 50rem; }
@media print { body { max-width: none; margin: 0; font-size: 10pt; } nav { display: none; }
  figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; } figure img { min-width: 0; } .scroll table { font-size: 7.5pt; }
  th, td { white-space: normal; padding-right: .4rem; } }
"""

_JPEG = 88
_LONG_WARNING = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One part of the page; `name` is its anchor, `folded` are tables behind a click."""

    name: str
    title: str
    text: str = ""
    figures: Sequence[Figure | None] = ()
    tables: Sequence[Table | None] = ()
    after: Sequence[Figure | None] = ()
    folded: Sequence[Table | None] = ()
    html: str = ""


def page(
    title: str,
    subtitle: str,
    *,
    words: Headline,
    missing: Sequence[str],
    sections: Sequence[Section],
) -> str:
    """Return the whole report as HTML, pictures inside.

    Args:
        title: Name of the benchmark.
        subtitle: What it compares, in a line.
        words: The result in plain words.
        missing: What has no score, and other warnings, named at the top.
        sections: Shown in this order; one without content is left out.
    """
    shown = [(section, body) for section in sections if (body := _body(section))]
    links = "".join(f"<a href='#{s.name}'>{escape(s.title)}</a>" for s, _ in shown)
    parts = [
        f"<header><h1>{escape(title)}</h1>\n<p>{escape(subtitle)}</p></header>",
        f"<nav aria-label='Parts of the report'>{links}</nav>\n<main>",
        "<section id='headline'><h2>In words</h2>",
        bullets(words.found, names=words.names),
        "<h3>What may not be concluded</h3>",
        bullets(words.caution, names=words.names),
        *(_warning(line) for line in missing),
        "</section>",
        *(
            f"<section id='{s.name}'><h2>{escape(s.title)}</h2>\n{body}</section>"
            for s, body in shown
        ),
        "</main>",
    ]
    return document(title, "\n".join(parts), style=_STYLE)


def _warning(line: str) -> str:
    """Return a warning; the names in a long one are behind a click."""
    if len(line) <= _LONG_WARNING:
        return f"<p class='missing'>{escape(line)}</p>"
    said, _, names = line.partition(": ")
    summary = f"<summary>{escape(said)} (names)</summary>"
    return f"<details class='missing'>{summary}{escape(names)}</details>"


def bullets(lines: Sequence[str], *, names: Collection[str]) -> str:
    """Return lines as an HTML list; the names in them stand out and are not broken."""
    longest_first = sorted(map(escape, names), key=len, reverse=True)
    known = re.compile(
        "|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in longest_first) or "(?!)"
    )
    items = (known.sub(r"<b>\g<0></b>", escape(line)) for line in lines)
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def _body(section: Section) -> str:
    parts = [
        *(_figure(figure) for figure in section.figures if figure),
        *(html(table) for table in section.tables if table),
        *(_figure(figure) for figure in section.after if figure),
        *(_folded(table) for table in section.folded if table),
        section.html,
    ]
    body = "\n".join(part for part in parts if part)
    if body and section.text:
        return f"<p>{escape(section.text)}</p>\n{body}"
    return body


def _folded(table: Table) -> str:
    return f"<details><summary>{escape(table.title)}</summary>{html(table)}</details>"


def _figure(figure: Figure) -> str:
    caption = escape(figure.caption)
    files = f"{figure.path.name}.png, .svg"
    name = escape(figure.path.name)
    box = (
        f"<div class='scroll' role='region' tabindex='0' aria-label='{name}' "
        f"style='--w: {inches(figure.path):.2f}in'>"
    )
    return (
        f"<figure id='figure-{figure.path.name}'>{box}{_image(figure)}</div>"
        f"<figcaption class='note'>{caption} ({files})</figcaption></figure>"
    )


def _image(figure: Figure) -> str:
    """Return a chart as SVG, sharp at every size, and photos as JPEG, a fifth of their PNG."""
    if not figure.photos:
        svg = figure.path.with_suffix(".svg").read_bytes()
        return picture(svg, text=figure.alt, kind="svg+xml")
    content = BytesIO()
    with Image.open(figure.path.with_suffix(".png")) as drawn:
        drawn.convert("RGB").save(content, "JPEG", quality=_JPEG)
    return picture(content.getvalue(), text=figure.alt, kind="jpeg")


_WORDS = Template("""<dl>
<dt>mIoU</dt><dd>Mean over classes of the intersection of prediction and truth over their union,
counted over all val pixels together, in percent; void pixels are left out.</dd>
<dt>± and n</dt><dd>Sample standard deviation over the seeds, and how many seeds there are. A seed
decides the first weights, the order of images and every augmentation.</dd>
<dt>val</dt><dd>Images that no training and no calibration has seen.</dd>
<dt>coverage, foreground</dt><dd>Share of pixels that a pseudo label gives a class, and a class
other than background.</dd>
<dt>ECE</dt><dd>Expected calibration error: how far confidence and the share of right pixels are
apart, on average over pixels, in points.</dd>
$more</dl>""")


def glossary(names: Sequence[tuple[str, str]]) -> str:
    """Return what the words of the page mean, the methods' and variants' names included."""
    more = "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}.</dd>" for name, text in names)
    return _WORDS.substitute(more=more)


def folded(summary: str, content: str) -> str:
    """Return HTML behind a click."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def code(text: str) -> str:
    """Return text as it is, in a box that scrolls."""
    return f"<pre tabindex='0'><code>{escape(text)}</code></pre>"
